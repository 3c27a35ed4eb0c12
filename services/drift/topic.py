"""Topic drift: a kernel two-sample test between what a segment's prompts are about now and what they were about before.

The statistic is the regularised kernel Fisher discriminant of Harchaoui, Bach and Moulines ("Testing for homogeneity
with kernel Fisher discriminant analysis", 2007): maximum mean discrepancy over random Fourier features, measured in
the whitened space of the reference, so that what varies within the known topics weighs little and what never occurred
weighs much. It is taken for the newest 8, 10, ... up to about 600 messages at once, each against everything before
them (a scan over change points). A plain distance to the centroid does not see a change of topic that keeps the
distance; this does.

Everything here is pure: :func:`observe` takes a state and a feature vector and returns the next state. A state is a
few byte strings, at most 45 KB however long the stream.
"""

from __future__ import annotations

import msgspec
import numpy as np

from services.drift.features import FEATURES, Array
from services.drift.reference import Candidate, TopicParameters, TopicState, append, geometry, rebased, singles
from services.drift.shift import Shift

__all__ = ["TopicParameters", "TopicState", "observe", "rebased_now"]

# Sizes of the test window among the single messages; beyond them, the borders of blocks.
_SCALES = (8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72)
# Blocks' worth of belief that messages are independent, before batch means say otherwise.
_INDEPENDENCE = 8.0


def observe(
    state: TopicState, feature: Array, offset: int, parameters: TopicParameters, allowance: float
) -> tuple[TopicState, Shift | None]:
    """Add one message.

    Args:
        state: what is known so far; not changed.
        feature: the message's features, shape (FEATURES,), from :func:`services.drift.features.fourier_features`.
        offset: where the message stands in its partition; for the evidence.
        parameters: how the test is set.
        allowance: expected false alarms that this message may cause; added to the state's wealth.

    Returns:
        The next state, and the change if this message confirmed one. After a change the state starts anew from the
        messages behind it.
    """
    state = append(state, feature, offset, parameters)
    state = msgspec.structs.replace(state, wealth=state.wealth + allowance)
    return _test(state, parameters) if state.mean else (state, None)


def _suffixes(state: TopicState, parameters: TopicParameters) -> tuple[Array, Array, list[int]]:
    """Return sizes, sums and first offsets of the newest messages at every scale that leaves a whole reference."""
    features = singles(state)
    reverse = np.cumsum(features[::-1], axis=0)
    sizes = [scale for scale in _SCALES if scale <= len(features)]
    sums = [reverse[size - 1] for size in sizes]
    firsts = [state.offsets[-size] for size in sizes]
    size, running = len(features), reverse[-1] if len(features) else np.zeros(FEATURES, np.float32)
    for block in reversed(state.blocks):
        size += block.count
        if state.weight - size < parameters.reference:
            break
        running = running + np.frombuffer(block.total, np.float32)
        sizes.append(size)
        sums.append(running)
        firsts.append(block.first_offset)
    return np.array(sizes, np.float32), np.array(sums, np.float32).reshape(-1, FEATURES), firsts


def _standardise(state: TopicState, sizes: Array, sums: Array) -> tuple[Array, Array, Array]:
    """Return two statistics, and the maximum mean discrepancy, of each suffix against what precedes it.

    With n messages against m, T = nm/(n+m) |difference of means|^2 has mean E|u|^2 and variance 2 E(u.u')^2 under no
    change; batch means correct both for messages that come in bursts. Whitened differences are large for topics that
    are new, and are standardised by these two. Plain ones are large for known topics in another mixture. A few
    directions carry them, so their tail is that of a chi-square variable: Wilson and Hilferty's cube root makes it
    normal.
    """
    before = (state.weight - sizes)[:, None]
    total = np.frombuffer(state.total)
    differences = (sums / sizes[:, None] - (total - sums) / before).astype(np.float32)
    reference = geometry(state.scatter, state.absorbed)
    discrepancies = np.sum(differences**2, axis=1)
    bursts = (state.batch_energy + _INDEPENDENCE) / (state.blocks_seen + _INDEPENDENCE)
    scale = sizes * before[:, 0] / (state.weight * max(1.0, bursts))
    whitened = np.sum((differences @ reference.whitener) ** 2, axis=1)
    novelty = (whitened * scale - state.energy) / np.sqrt(2 * max(state.overlap, 1e-12))
    # The variance of a cube root of chi-square over its degrees of freedom.
    variance = 2 / 9 * max(reference.overlap, 1e-12) / max(reference.energy, 1e-12) ** 2
    roots = np.cbrt(discrepancies * scale / max(reference.energy, 1e-12))
    mixture = (roots - (1 - variance)) / np.sqrt(variance)
    return novelty, mixture, discrepancies


def _test(state: TopicState, parameters: TopicParameters) -> tuple[TopicState, Shift | None]:
    sizes, sums, firsts = _suffixes(state, parameters)
    if not len(sizes):
        return state, None
    novelty, mixture, discrepancies = _standardise(state, sizes, sums)
    shared = 1 + parameters.small_reference / (state.weight - sizes)
    bound = (parameters.threshold + parameters.small_sample / np.sqrt(sizes)) * shared
    is_new = novelty - bound > mixture - parameters.mixture * shared
    statistics = np.where(is_new, novelty, mixture)
    bounds = np.where(is_new, bound, parameters.mixture * shared)
    best = int(np.argmax(statistics - bounds))
    crossed = bool(statistics[best] > bounds[best])
    candidate = state.candidate
    if candidate is None:
        if crossed:
            candidate = Candidate(state.seen, int(sizes[best]), float(statistics[best]))
            return msgspec.structs.replace(state, candidate=candidate), None
        return state, None
    fresh = state.seen - candidate.seen
    if fresh < parameters.confirm_least:
        return state, None
    if crossed and _fresh_statistic(state, fresh, sizes, sums) > parameters.confirm:
        spread = float(1 - np.sum(np.frombuffer(state.mean, np.float32) ** 2))
        discrepancy = float(discrepancies[best])
        shift = Shift(
            what="topic",
            pattern="abrupt",
            detector="kernel Fisher discriminant over random Fourier features",
            statistic=float(statistics[best]),
            threshold=float(bounds[best]),
            alpha=state.wealth,
            before={"spread": spread, "messages": float(round(state.weight - float(sizes[best])))},
            after={"discrepancy": discrepancy, "messages": float(sizes[best])},
            before_count=round(state.weight - float(sizes[best])),
            after_count=int(sizes[best]),
            reference_first_offset=state.first_offset,
            test_first_offset=firsts[best],
            size=float(np.sqrt(discrepancy / max(spread, 1e-12))),
        )
        return rebased(state, int(sizes[best]), parameters), shift
    if fresh >= max(2 * candidate.size, 16):
        return msgspec.structs.replace(state, candidate=None), None
    return state, None


def _fresh_statistic(state: TopicState, fresh: int, sizes: Array, sums: Array) -> float:
    """Return the statistic of the messages since the candidate alone (of the nearest scale below, once they left the
    singles)."""
    if fresh <= len(state.offsets):
        size, total = np.array([fresh], np.float32), singles(state)[-fresh:].sum(0)[None]
    else:
        index = int(np.flatnonzero(sizes <= fresh)[-1])
        size, total = sizes[index : index + 1], sums[index : index + 1]
    novelty, mixture, _ = _standardise(state, size, total)
    return float(max(novelty[0], mixture[0]))


def rebased_now(state: TopicState) -> TopicState:
    """Return the state whose baseline is the present: what came before, and past regimes, are forgotten."""
    return TopicState(wealth=state.wealth)

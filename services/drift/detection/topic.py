"""Topic drift: what a segment's prompts are about now against what they were about before, in two stages.

First a scan (:mod:`services.drift.detection.windows`): the means of the newest 8, 10, ... 1,200 messages, each against the
reference, in the metric of the reference's covariance: the regularised kernel Fisher discriminant of Harchaoui, Bach
and Moulines ("Testing for homogeneity with kernel Fisher discriminant analysis", 2007). What stands out even a little
is a candidate, one for each order of magnitude of the window. Then a trial (``trials``): the messages
that come after the candidate decide, by an anytime-valid test whose chance of a false alarm is paid from the wealth of
the state.

While a trial has evidence for a change no message enters the reference (``reference``), so that new
traffic does not become the measure of itself.

Everything here is pure: :func:`observe` takes a state and a feature vector and returns the next state. A state is
a few byte strings, at most 55 KB however long the stream.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from services.drift.detection.features import FEATURES, Array
from services.drift.detection.outliers import Burst, burst_over, watched
from services.drift.detection.reference import Geometry, Reference, absorb, geometry, quantised, values
from services.drift.detection.shift import Pattern, Shift
from services.drift.detection.topic_patterns import Regime, entered, is_ramp
from services.drift.detection.trials import Ranking, Trial, evidence, judged, purified
from services.drift.detection.windows import Block, Windows, merged, newest, offset_of

__all__ = ["TopicParameters", "TopicState", "observe", "rebased_now"]

_DETECTOR = "kernel Fisher discriminant, judged by ranks of later messages"
# Messages enter the reference in blocks of this size.
_BLOCK = 16
# Messages of a reference that need no more at once, and those that always need more.
_ENOUGH, _FEWEST = 100, 64
# Neighbours, up to this far apart, of which the likeness is measured.
_NEIGHBOURS = 16
# Weight of what was measured on past blocks when a block adds its own: a memory of 50 blocks.
_KEEP = 0.98
# A message that equals one of so many before it is the same again (a client that tries again, a loop), which is no news; of
# one that goes on every fourth counts, so that a traffic of nothing else is still seen to be one.
_SAME, _COPIES = 8, 3


class TopicParameters(msgspec.Struct, frozen=True):
    """How the test is set; the defaults are calibrated by tests/bench/bench_drift.py."""

    first: int = 32
    """Messages that make the first reference."""
    sample: int = 192
    """Messages of the reference that are kept one by one, to rank others among."""
    recent: int = 192
    """Newest messages that are kept out of the reference, once there are enough."""
    memory: int = 4096
    """Messages that the reference remembers; older ones fade."""
    candidate: float = 2.0
    """Standardised statistic of a window that makes it a candidate."""
    least: int = 18
    """Messages since the change before it can be confirmed: what is over sooner is a burst."""
    least_fresh: int = 4
    """Those of them after the candidate's window."""
    refuted: float = -2.0
    """Evidence, in nats, at which a trial of a weak candidate is given up; stronger ones are given more time."""
    undecided: float = 0.5
    """Evidence of a trial, in nats, from which on nothing enters the reference."""
    suspicious: float = 6.0
    """Standardised statistic of a candidate from which on nothing enters the reference while it is judged."""
    advance: int = 400
    """Messages whose allowance is there from the first message on."""


class TopicState(msgspec.Struct, frozen=True):
    """What is kept of a segment's prompts."""

    wealth: float = 0.0
    """Expected false alarms that have accrued and were not spent."""
    ever: int = 0
    """Messages ever seen."""
    seen: int = 0
    """Messages since the last change."""
    first_offset: int = -1
    recent: bytes = b""
    """Newest messages, shape (n, FEATURES), int8; none of them is in the reference."""
    offsets: bytes = b""
    """Theirs, int64."""
    blocks: tuple[Block, ...] = ()
    """Sums of the messages before them."""
    reference: Reference = Reference()
    trials: tuple[Trial, ...] = ()
    likeness: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of neighbouring messages: number of pairs, sum of their inner products, sum of the squares."""
    burst: Burst = Burst()
    regimes: tuple[Regime, ...] = ()
    """What was there before the last change and earlier; the first is the baseline."""
    regime: int = -1
    """Which of them is there again; -1: none."""
    copies: int = 0
    """Copies that were left out since the last message that counted."""


def observe(
    state: TopicState, feature: Array, offset: int, parameters: TopicParameters, allowance: float
) -> tuple[TopicState, Shift | None]:
    """Add one message.

    Args:
        state: what is known so far; not changed.
        feature: the message's features, shape (FEATURES,), from :func:`services.drift.detection.features.fourier_features`.
        offset: where the message stands in its partition; for the evidence.
        parameters: how the test is set.
        allowance: expected false alarms that this message may cause; added to the state's wealth.

    Returns:
        The next state, and the change if this message confirmed one. After a change the state starts anew from the
        messages behind it. An outlier burst is told when it is over, and leaves everything as it is.
    """
    place = state.seen
    message = quantised(feature)
    if state.copies < _COPIES and _is_copy(message, state.recent):
        return msgspec.structs.replace(state, copies=state.copies + 1), None
    paid = parameters.advance if state.ever == 0 else int(state.ever >= parameters.advance)
    state = msgspec.structs.replace(
        state,
        wealth=state.wealth + allowance * paid,
        ever=state.ever + 1,
        seen=place + 1,
        copies=0,
        first_offset=offset if place == 0 else state.first_offset,
        recent=state.recent + message,
        offsets=state.offsets + offset.to_bytes(8, "little", signed=True),
    )
    if not state.reference.absorbed:
        return _absorbed(state, parameters), None
    known = geometry(state.reference)
    ranking = Ranking(values(message)[0], place, known, state.reference.weight, state.recent)
    state = _tried(state, ranking, parameters)
    windows = newest(state.recent, state.blocks, known.mean, state.reference.weight)
    statistics = _standardised(state, windows, known)
    for trial in state.trials:
        best = _place(trial, windows, statistics)
        if _is_confirmed(state, trial, parameters) and windows.sizes[best] >= parameters.least:
            return _changed(state, trial, windows, best, known)
    burst = watched(state.burst, ranking, offset, allowance)
    state = msgspec.structs.replace(state, burst=burst)
    if burst_over(burst):
        return _absorbed(msgspec.structs.replace(state, burst=Burst()), parameters), _outlier(state, known, place)
    return _absorbed(_candidates(state, windows, statistics, known, parameters), parameters), None


def _is_copy(message: bytes, recent: bytes) -> bool:
    """Tell whether a message equals one of the newest."""
    newest = recent[-_SAME * len(message) :]
    return any(newest[place : place + len(message)] == message for place in range(0, len(newest), len(message)))


def rebased_now(state: TopicState) -> TopicState:
    """Return the state with the present as the baseline: past regimes are forgotten, the reference stays.

    To forget the reference too, start from ``TopicState()``.
    """
    return msgspec.structs.replace(state, regimes=(), regime=-1)


def _bursts(state: TopicState) -> float:
    """Return by how much the mean of a window varies more than if messages were independent; at least 1.

    If a share q of neighbours are of one burst, and the inner product of such a pair is c, the mean of all products is qc
    and their mean square is qc^2 more than that of independent pairs.
    """
    pairs, total, squares = state.likeness
    if pairs == 0 or not state.reference.absorbed:
        return 1.0
    usual = geometry(state.reference).overlap
    mean = max(total / pairs, 0.0)
    excess = max(squares / pairs - usual, 0.0) + 0.1 * usual
    # As far as it is more than three standard errors of independent pairs.
    share = max(mean**2 - 9 * usual / pairs, 0.0) / excess
    return 1 + 2 * _NEIGHBOURS * min(share, 1.0)


def _evidence(state: TopicState, trial: Trial) -> float:
    """Return a trial's evidence; messages that come in bursts count as fewer than they are."""
    return evidence(trial) / _bursts(state)


def _standardised(state: TopicState, windows: Windows, known: Geometry) -> Array:
    """Return the statistic of every window: 0 on average and of variance 1 under no change."""
    scale = windows.sizes * windows.before / (windows.sizes + windows.before) / np.float32(_bursts(state))
    distances = np.sum((windows.differences @ known.inverse) * windows.differences, axis=1)
    standardised: Array = (distances * scale - known.energy) / np.float32(math.sqrt(2 * known.overlap))
    return standardised


def _tried(state: TopicState, ranking: Ranking, parameters: TopicParameters) -> TopicState:
    """Judge the open trials by the message; give up those that are refuted or that nothing comes of."""
    if not state.trials:
        return state
    kept, wealth = [], state.wealth
    for trial, (ranked, others) in zip(state.trials, ranking.along(state.trials), strict=True):
        after = judged(trial, ranked, others)
        patience = parameters.refuted * (1 + min(trial.statistic, 16.0) / 8)
        # Many messages against few would tell no more than that the few are not quite like all others.
        if evidence(after) > patience and after.fresh < 40 + min(3 * trial.size, others):
            kept.append(after)
        else:
            wealth += _refund(state, after)
    return msgspec.structs.replace(state, trials=tuple(kept), wealth=wealth)


def _refund(state: TopicState, trial: Trial) -> float:
    """Return what a trial that is closed undecided has not spent of its alpha.

    The likelihood ratio E is a martingale that starts at 1, so P(E reached 1/alpha) / alpha and the mean of E where it did
    not are at most 1 together: alpha times E may be used again. Never more than was paid, though: a trial is no source.
    """
    return trial.alpha * math.exp(min(_evidence(state, trial), 0.0))


def _is_confirmed(state: TopicState, trial: Trial, parameters: TopicParameters) -> bool:
    return (
        trial.fresh >= parameters.least_fresh
        and _evidence(state, trial) >= -math.log(trial.alpha)
        # What is over again has had its peak.
        and evidence(trial) >= trial.peak - 0.5
    )


def _scale(size: float) -> int:
    return int(size).bit_length()


def _candidates(
    state: TopicState, windows: Windows, statistics: Array, known: Geometry, parameters: TopicParameters
) -> TopicState:
    """Open a trial for the window that stands out most, of those whose order of magnitude has none or a weaker one."""
    bars = {_scale(trial.size): trial.statistic + 2 + 2 * max(evidence(trial), 0.0) for trial in state.trials}
    bar = np.array([bars.get(_scale(size), -math.inf) for size in windows.sizes])
    statistics = np.where(statistics > bar, statistics, np.float32(-math.inf))
    best = int(np.argmax(statistics)) if len(statistics) else 0
    if not len(statistics) or statistics[best] < parameters.candidate:
        return state
    statistic, size = float(statistics[best]), int(windows.sizes[best])
    replaced = [trial for trial in state.trials if _scale(trial.size) == _scale(size)]
    kept = [trial for trial in state.trials if _scale(trial.size) != _scale(size)]
    wealth = state.wealth + sum(_refund(state, trial) for trial in replaced)
    alpha = wealth * min(0.5, 0.02 * math.exp(0.8 * (min(statistic, 16.0) - parameters.candidate)))
    if alpha <= 0:
        return state
    direction = windows.differences[best]
    if size * FEATURES <= len(state.recent):
        direction = purified(values(state.recent[-size * FEATURES :]), known)
    before = float(windows.before[best])
    trial = Trial(state.seen - size, state.seen, direction.astype(np.float32).tobytes(), alpha, statistic, before)
    return msgspec.structs.replace(state, trials=(*kept, trial), wealth=wealth - alpha)


def _absorbed(state: TopicState, parameters: TopicParameters) -> TopicState:
    """Move the oldest of the recent messages into the reference, unless a trial speaks against them."""
    reference, held = state.reference, len(state.offsets) // 8
    likeness = state.likeness
    if not reference.absorbed:
        if held < parameters.first + 8:
            return state
        many, undecided = parameters.first, False
    else:
        many = _BLOCK
        # Fewer are no measure of anything: they are wrong more often than what is new.
        undecided = reference.absorbed >= _FEWEST and any(
            evidence(trial) > parameters.undecided or trial.statistic > parameters.suspicious for trial in state.trials
        )
        # A third of all at first; half of them once that leaves a reference that can do without.
        lag = max(state.seen // 3, min(state.seen // 2, state.seen - _ENOUGH), 2 * _BLOCK)
        lag = parameters.recent if undecided else min(lag, parameters.recent)
        if held < lag + _BLOCK:
            return state
        if not undecided:
            likeness = _likeness(state, geometry(reference))
    messages = np.frombuffer(state.recent[: many * FEATURES], np.int8).reshape(-1, FEATURES)
    if not undecided:
        reference = absorb(reference, messages, state.seen - held, parameters.sample, parameters.memory)
        if not state.reference.absorbed:
            likeness = _likeness(state, geometry(reference), many)
    total = messages.sum(0, dtype=np.int16).tobytes()
    first_offset = int.from_bytes(state.offsets[:8], "little", signed=True)
    return msgspec.structs.replace(
        state,
        recent=state.recent[many * FEATURES :],
        offsets=state.offsets[many * 8 :],
        blocks=merged((*state.blocks, Block(many, first_offset, total, 0 if undecided else many))),
        reference=reference,
        likeness=likeness,
    )


def _likeness(state: TopicState, known: Geometry, first: int = 0) -> tuple[float, float, float]:
    """Return the likeness of neighbours with that of the oldest recent messages added.

    Args:
        state: what is known so far.
        known: geometry of the reference.
        first: how many of the oldest messages are the whole reference; 0: none of them is in it.
    """
    many = first or _BLOCK
    deviations = values(state.recent[: (first or _BLOCK + _NEIGHBOURS) * FEATURES]) - known.mean
    products = (deviations[:many] @ known.inverse) @ deviations.T
    # All deviations share the error of the reference's mean.
    shared = known.energy / max(state.reference.weight, 1.0)
    if first:
        # They made it: left out of it, and compared with those further apart.
        without = 1 - np.diag(products) / np.float32(first)
        products = products / np.outer(without, without)
        shared = float(np.mean(products[np.triu_indices(first, _NEIGHBOURS // 2)]))
    near = np.concatenate([np.diagonal(products, offset=lag) for lag in range(1, _NEIGHBOURS + 1)]) - shared
    pairs, total, squares = (_KEEP * before for before in state.likeness)
    return pairs + len(near), total + float(near.sum()), squares + float(np.sum(near**2))


def _place(trial: Trial, windows: Windows, statistics: Array) -> int:
    """Return the place of the change: the window that differs most, of those that begin with the trial's or later."""
    whole = trial.size + trial.fresh
    eligible = windows.sizes <= max(1.5 * whole, windows.sizes[0])
    return int(np.argmax(np.where(eligible, statistics, -math.inf)))


def _changed(state: TopicState, trial: Trial, windows: Windows, best: int, known: Geometry) -> tuple[TopicState, Shift]:
    """Tell the change, and start anew from the messages behind it."""
    size, held = int(windows.sizes[best]), len(state.offsets) // 8
    kept = min(size, held)
    difference = windows.differences[best]
    arrived = values(state.recent[-kept * FEATURES :])
    regimes, regime = entered(state.regimes, state.regime, known, state.reference.weight, arrived)
    pattern: Pattern = "abrupt"
    if regime >= 0:
        pattern = "recurring"
    elif is_ramp(values(state.recent) @ (known.inverse @ difference)):
        pattern = "gradual"
    spread, discrepancy = known.spread, float(np.sum(difference**2))
    before = state.seen - size
    shift = Shift(
        what="topic",
        pattern=pattern,
        detector=_DETECTOR,
        statistic=_evidence(state, trial),
        threshold=-math.log(trial.alpha),
        alpha=trial.alpha,
        before={"spread": spread, "discrepancy": 0.0, "messages": float(before)},
        after={"spread": float(np.sum(np.var(arrived, axis=0))), "discrepancy": discrepancy, "messages": float(size)},
        before_count=before,
        after_count=size,
        reference_first_offset=state.first_offset,
        test_first_offset=offset_of(size, state.offsets, state.blocks),
        size=math.sqrt(discrepancy / max(spread, 1e-12)),
        returned=regime == 0,
    )
    anew = TopicState(
        wealth=state.wealth,
        ever=state.ever,
        seen=kept,
        first_offset=offset_of(kept, state.offsets, state.blocks),
        recent=state.recent[-kept * FEATURES :],
        offsets=state.offsets[-kept * 8 :],
        # Whether messages come in bursts is the clients' way, whatever they are about.
        likeness=state.likeness,
        regimes=regimes,
        regime=regime,
    )
    return anew, shift


def _outlier(state: TopicState, known: Geometry, place: int) -> Shift:
    burst, held = state.burst, len(state.offsets) // 8
    messages = values(state.recent)[
        max(burst.first - state.seen, -held) : max(burst.last + 1 - state.seen, -held + 1) or None
    ]
    discrepancy = float(np.sum((messages.mean(0) - known.mean) ** 2))
    return Shift(
        what="topic",
        pattern="outlier",
        detector=_DETECTOR,
        statistic=burst.peak,
        threshold=burst.bound,
        alpha=math.exp(-burst.bound),
        before={"spread": known.spread, "discrepancy": 0.0, "messages": float(burst.first)},
        after={
            "spread": float(np.sum(np.var(messages, axis=0))),
            "discrepancy": discrepancy,
            "messages": float(burst.last + 1 - burst.first),
        },
        before_count=burst.first,
        after_count=burst.last + 1 - burst.first,
        reference_first_offset=state.first_offset,
        test_first_offset=burst.first_offset,
        size=math.sqrt(discrepancy / max(known.spread, 1e-12)),
    )

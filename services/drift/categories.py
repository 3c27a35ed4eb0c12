"""Drift of a category: G-tests of the newest events against all before them, then a sequential test on fresh ones.

Stage 1 compares windows of 4 to some thousand newest events with the reference: the G-test over all cells (Sokal and
Rohlf, Biometry, chapter 17; its mean and variance are those of Poisson counts, so that rare categories do not make it
too large) and the largest deviance of a single cell. Windows whose population stability index says that nothing of
importance moved are left out.

Stage 2 judges a candidate by the events that come after it alone: the likelihood ratio of their Dirichlet-multinomial
predictions "as the candidate's window" against "as the reference", averaged over three ways to read the window. Under
no change it exceeds 1/alpha with probability alpha at most, whenever one looks (Ville, 1939). Alpha is taken out of a
wealth that grows by the ``allowance`` of each event (alpha spending; Foster and Stine, 2008), so the expected number of
false alarms is at most what was allowed.

Events that come in bursts (a conversation stays in its language) scatter more than independent ones. How much is measured
on blocks of 32 (the overdispersion of McCullagh and Nelder, 1989, chapter 4), and all evidence is divided by it.

Everything here is pure. A state has 2 to 10 KB however long the stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.drift.category_windows import (
    Block,
    Counts,
    Suffixes,
    Windows,
    added,
    cell_of,
    counted,
    deviances,
    named,
    suffixes,
)
from services.drift.shift import Pattern, Shift

__all__ = ["CategoryParameters", "CategoryState", "inherited", "observe", "rebased", "shares_of", "stability_index"]

_PRIOR = 0.5
"""Of each cell, in counts: Jeffreys' for a multinomial."""
_ALTERNATIVES = 3
_WITNESS = 0.25
"""Weight of the candidate's window beside the reference under no change: calibrated on streams without one."""
_KEPT = 12
"""Categories of a past regime that are kept by name."""
_BURSTS = 8.0
"""Blocks' worth of belief that events are independent, before blocks say otherwise."""


class CategoryParameters(msgspec.Struct, frozen=True):
    """How the test is set; the defaults are calibrated by tests/unit/test_drift_categories_figures.py."""

    naming: int = 24
    """First events, which choose the cells."""
    reference: int = 64
    """Events behind them before windows are tested."""
    clock: int = 2
    """Events between two looks."""
    candidate: float = 3.3
    """Standardised statistic that makes a candidate."""
    least_stability_index: float = 0.03
    """Windows that moved less are no candidates."""
    spend: float = 0.5
    """Share of the wealth that a candidate takes as its alpha."""
    most_alpha: float = 0.05
    given_up: float = 3.0
    """Nats against it at which a candidate is given up."""
    undecided: int = 3
    """A candidate is given up after so many times its window, at least ``undecided_least`` events."""
    undecided_least: int = 64
    outlier: float = 16.0
    """Nats of a burst's own events at which it is told as an outlier. One in e^16 bursts is as strong by chance."""


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """A candidate under judgement."""

    size: int
    statistic: float
    alpha: float
    first_offset: int
    cell: int
    reference: bytes
    """Counts by cell before the window, float64."""
    window: bytes
    fresh: bytes
    """Counts by cell since the candidate."""
    fresh_size: int = 0
    logs: tuple[float, ...] = (0.0,) * _ALTERNATIVES
    """Log likelihood ratio of each alternative."""


class Regime(msgspec.Struct, frozen=True, array_like=True):
    """Shares of a state of things that is past."""

    shares: dict[str, float]
    weight: int


class CategoryState(msgspec.Struct, frozen=True):
    """What is kept of one signal of one segment."""

    wealth: float = 0.0
    seen: int = 0
    sample: tuple[str, ...] = ()
    """The events that choose the cells, until there are enough."""
    windows: Windows | None = None
    deviance: float = 0.0
    expected: float = 0.0
    """Sums over blocks of the G-test's statistic and of what it is for independent events."""
    pending: Pending | None = None
    regimes: tuple[Regime, ...] = ()
    """States that are past, the baseline first."""


def observe(
    state: CategoryState, category: str, offset: int, parameters: CategoryParameters, allowance: float
) -> tuple[CategoryState, Shift | None]:
    """Add one event.

    Args:
        state: what is known so far; not changed.
        category: the category; its first 64 characters tell it from others.
        offset: where the event stands in its partition.
        parameters: how the test is set.
        allowance: expected number of false alarms that this event may cause.

    Returns:
        The next state, and the change if this event confirmed one. After a change the new state of things is the
        reference.

    Raises:
        ValueError: the allowance is negative or not finite.
    """
    if not (math.isfinite(allowance) and allowance >= 0):
        raise ValueError(
            f"an allowance of {allowance} is no expected number of false alarms: give 0 or more, e.g. 2e-5"
        )
    state = msgspec.structs.replace(state, wealth=state.wealth + allowance, seen=state.seen + 1)
    if state.windows is None:
        sample = (*state.sample, category)
        if len(sample) < parameters.naming:
            return msgspec.structs.replace(state, sample=sample), None
        return msgspec.structs.replace(state, sample=(), windows=named(sample)), None

    windows, block = added(state.windows, category, offset)
    if block is not None and state.pending is None and windows.weight > parameters.reference:
        state = _bursts(state, windows, block)
    state = msgspec.structs.replace(state, windows=windows)
    if state.pending is not None:
        state, shift = _judged(state, state.pending, cell_of(windows, category), parameters)
        if shift is not None:
            return state, shift
    if state.seen % parameters.clock == 0 and windows.weight >= parameters.reference + 4:
        state = _looked(state, parameters)
    return state, None


def shares_of(state: CategoryState) -> dict[str, float]:
    """Return the shares of the reference by category, the largest first; ``other`` is what has no name."""
    if state.windows is None or not state.windows.weight:
        return {}
    return _shares(state.windows.names, state.windows.totals)


def rebased(state: CategoryState) -> CategoryState:
    """Return a state whose reference is the present: the newest events, with no past regimes but the new baseline."""
    if state.windows is None:
        return state
    windows = _restarted(state.windows, min(64, len(state.windows.recent)))
    return CategoryState(
        wealth=state.wealth, seen=state.seen, windows=windows, deviance=state.deviance, expected=state.expected
    )


def inherited(state: CategoryState) -> CategoryState:
    """Return a state that has seen nothing and has the reference of ``state``: of the release before, or a pinned one."""
    if state.windows is None:
        return CategoryState()
    old = state.windows
    windows = Windows(old.names, old.total, old.weight, old.first_offset)
    return CategoryState(
        seen=state.seen, windows=windows, deviance=state.deviance, expected=state.expected, regimes=state.regimes
    )


def stability_index(before: Counts, after: Counts) -> float:
    """Return the population stability index of two sets of counts over the same cells, smoothed by half a count."""
    p = (before + _PRIOR) / (before.sum() + _PRIOR * len(before))
    # A small window's empty cells must not count as moved: it is smoothed towards the reference.
    q = (after + p * _PRIOR * len(before)) / (after.sum() + _PRIOR * len(before))
    return float(np.sum((q - p) * np.log(q / p)))


# -- stage 1 -----------------------------------------------------------------------------------------------------------


def _looked(state: CategoryState, parameters: CategoryParameters) -> CategoryState:
    """Look at all windows; the most telling becomes the candidate, or replaces one that says much less."""
    windows = state.windows
    assert windows is not None
    newest = suffixes(windows, windows.weight - parameters.reference)
    if not len(newest.sizes):
        return state
    before = windows.totals - newest.counts
    statistics, cells = _statistics(newest, before, _dispersion(state))
    best = int(np.argmax(statistics))
    statistic = float(statistics[best])
    pending = state.pending
    if statistic < parameters.candidate or state.wealth <= 0:
        return state
    if pending is not None and statistic < pending.statistic + 2.0 + pending.fresh_size / max(pending.size, 16):
        return state
    if stability_index(before[best], newest.counts[best]) < parameters.least_stability_index:
        return state
    alpha = min(state.wealth * parameters.spend, parameters.most_alpha)
    return msgspec.structs.replace(
        state,
        wealth=state.wealth - alpha,
        pending=Pending(
            size=int(newest.sizes[best]),
            statistic=statistic,
            alpha=alpha,
            first_offset=newest.first_offsets[best],
            cell=int(cells[best]),
            reference=before[best].tobytes(),
            window=newest.counts[best].tobytes(),
            fresh=np.zeros(before.shape[1]).tobytes(),
        ),
    )


def _statistics(newest: Suffixes, before: Counts, dispersion: float) -> tuple[Counts, NDArray[np.intp]]:
    """Return a standard normal statistic of each window under no change, and the cell that moved most."""
    weights = before.sum(1, keepdims=True)
    cells = before.shape[1]
    expected = newest.sizes[:, None] * (before + _PRIOR) / (weights + _PRIOR * cells)
    found = deviances(newest.counts, expected) / ((1 + newest.sizes[:, None] / weights) * dispersion)
    mean, variance = _moments(expected)
    logs_of_cells = 2 * math.log(cells)
    overall = _normal(found.sum(1), mean, variance)
    strongest = found.argmax(1)
    single = np.sqrt(np.maximum(found.max(1) - logs_of_cells, 0.0))
    return np.maximum(overall, single), strongest


def _normal(total: Counts, mean: Counts, variance: Counts) -> Counts:
    """Return the normal score of a gamma variable: the cube root of Wilson and Hilferty (1931)."""
    spread = variance / (9 * mean**2)
    score: Counts = (np.cbrt(total / mean) - (1 - spread)) / np.sqrt(spread)
    return score


def _moments(expected: Counts) -> tuple[Counts, Counts]:
    """Return mean and variance of the deviance summed over cells; one degree of freedom goes for the known total."""
    grid, means, variances = _table()
    logs = np.log(np.maximum(expected, 1e-6))
    mean, variance = np.interp(logs, grid, means).sum(-1), np.interp(logs, grid, variances).sum(-1)
    left = np.maximum(mean - 1, 0.3 * mean)
    return left, variance * left / mean


@cache
def _table() -> tuple[Counts, Counts, Counts]:
    """Return mean and variance of a Poisson count's deviance over the logarithm of its expectation."""
    rates = np.exp(np.linspace(math.log(1e-6), math.log(200.0), 160))
    counts = np.arange(420.0)
    factorials = np.cumsum(np.log(np.maximum(counts, 1.0)))
    chances = np.exp(counts * np.log(rates)[:, None] - rates[:, None] - factorials)
    found = deviances(np.broadcast_to(counts, chances.shape), rates[:, None])
    means = (chances * found).sum(1)
    return np.log(rates), means, (chances * found**2).sum(1) - means**2


def _bursts(state: CategoryState, windows: Windows, block: Block) -> CategoryState:
    """Take what a block says about how much more than independent events scatter."""
    counts = np.frombuffer(block.counts, "<u2").astype(np.float64)
    before = windows.totals - counts
    weight = before.sum()
    expected = block.size * (before + _PRIOR) / (weight + _PRIOR * len(before))
    mean = float(_moments(expected)[0])
    found = float(deviances(counts, expected).sum()) / (1 + block.size / max(weight, 1.0))
    # A block of changed events says nothing about bursts.
    return msgspec.structs.replace(
        state, deviance=state.deviance + min(found, 4 * mean), expected=state.expected + mean
    )


def _dispersion(state: CategoryState) -> float:
    if state.expected <= 0 or state.windows is None:
        return 1.0
    belief = _BURSTS
    return max(1.0, (state.deviance + belief) / (state.expected + belief))


# -- stage 2 -----------------------------------------------------------------------------------------------------------


def _judged(
    state: CategoryState, pending: Pending, cell: int, parameters: CategoryParameters
) -> tuple[CategoryState, Shift | None]:
    """Add an event to the evidence; confirm the candidate, give it up, or wait."""
    reference, window, fresh = (np.frombuffer(each) for each in (pending.reference, pending.window, pending.fresh))
    cells = len(reference)
    weight = float(reference.sum())
    so_far, count = float(fresh[cell]), pending.fresh_size
    shares = (reference + _PRIOR) / (weight + _PRIOR * cells)
    size = float(pending.size)
    # Under no change the window is a witness like the rest; without it, the reference lacks by selection what the window
    # has. With all of it, a short reference would be half the new state of things.
    null = (float(reference[cell] + _WITNESS * window[cell]) + _PRIOR + so_far) / (
        weight + _WITNESS * size + _PRIOR * cells + count
    )
    moved = float(window[pending.cell] + shares[pending.cell]) / (size + 1)
    usual = float(shares[pending.cell])
    of_cell = moved if cell == pending.cell else float(shares[cell]) * (1 - moved) / max(1 - usual, 1e-9)
    chances = (
        # As the window; half way between it and the reference; as the reference but for the cell that moved most.
        (float(window[cell]) + 4 * float(shares[cell]) + so_far) / (size + 4 + count),
        (float(window[cell]) + size * float(shares[cell]) + so_far) / (2 * size + count),
        (size * of_cell + so_far) / (size + count),
    )
    dispersion = _dispersion(state)
    logs = tuple(
        log + math.log(max(chance, 1e-300) / null) / dispersion
        for log, chance in zip(pending.logs, chances, strict=True)
    )
    fresh = fresh.copy()
    fresh[cell] += 1
    pending = msgspec.structs.replace(pending, fresh=fresh.tobytes(), fresh_size=count + 1, logs=logs)
    highest = max(logs)
    evidence = highest + math.log(sum(math.exp(log - highest) for log in logs) / _ALTERNATIVES)
    threshold = -math.log(pending.alpha)
    if evidence >= threshold:
        return _confirmed(state, pending, evidence, threshold, parameters)
    most = max(parameters.undecided * pending.size, parameters.undecided_least)
    if evidence < -parameters.given_up or pending.fresh_size >= most:
        return _given_up(msgspec.structs.replace(state, pending=None), pending, parameters, dispersion)
    return msgspec.structs.replace(state, pending=pending), None


def _given_up(
    state: CategoryState, pending: Pending, parameters: CategoryParameters, dispersion: float
) -> tuple[CategoryState, Shift | None]:
    """Tell a burst that is over, if its own events are far beyond chance."""
    reference, window, fresh = (np.frombuffer(each) for each in (pending.reference, pending.window, pending.fresh))
    windows = state.windows
    assert windows is not None
    strength = _evidence_of_window(reference, window) / dispersion
    size = pending.size + pending.fresh_size
    if strength < parameters.outlier or size >= windows.weight - parameters.reference:
        return state, None
    shift = _shift(windows, reference, window, pending, strength, parameters.outlier, "outlier", parameters, False)
    # The burst is no part of the reference.
    kept = Windows(windows.names, (reference + fresh).tobytes(), windows.weight - pending.size, windows.first_offset)
    return msgspec.structs.replace(state, windows=kept), shift


def _evidence_of_window(reference: Counts, window: Counts) -> float:
    """Return the log likelihood ratio of a window's counts: their own Dirichlet-multinomial against the reference's."""
    cells = len(reference)
    shares = (reference + _PRIOR) / (reference.sum() + _PRIOR * cells)
    own, usual = cells * _PRIOR * shares, reference + _PRIOR
    return _log_marginal(window, own) - _log_marginal(window, usual)


def _log_marginal(counts: Counts, prior: Counts) -> float:
    total = float(prior.sum())
    found = math.lgamma(total) - math.lgamma(total + float(counts.sum()))
    for count, alpha in zip(counts, prior, strict=True):
        if count:
            found += math.lgamma(alpha + count) - math.lgamma(alpha)
    return found


def _confirmed(
    state: CategoryState, pending: Pending, evidence: float, threshold: float, parameters: CategoryParameters
) -> tuple[CategoryState, Shift]:
    windows = state.windows
    assert windows is not None
    reference = np.frombuffer(pending.reference)
    after = np.frombuffer(pending.window) + np.frombuffer(pending.fresh)
    regime = _regime(windows.names, reference)
    # The baseline is kept for as long as there is one, of the others the newest.
    regimes = (*state.regimes, regime)
    known = regimes[:1] + regimes[1:][-3:]
    back = _recurring(windows, after, reference, regimes[:-1])
    pattern: Pattern = "abrupt"
    if back is not None:
        pattern = "recurring"
    elif _ramps(windows, reference, after):
        pattern = "gradual"
    returned = back is not None and back == 0
    shift = _shift(windows, reference, after, pending, evidence, threshold, pattern, parameters, returned)
    size = pending.size + pending.fresh_size
    names = tuple(name for each in known for name in each.shares if name != "other")
    restarted = _restarted(windows, min(size, len(windows.recent)), names)
    return msgspec.structs.replace(state, windows=restarted, pending=None, regimes=known), shift


def _restarted(windows: Windows, size: int, known: tuple[str, ...] = ()) -> Windows:
    """Return windows that hold the newest ``size`` events alone, in cells that fit them."""
    recent = windows.recent[len(windows.recent) - size :]
    # A category that is there by chance would look like a frequent one, had it a cell of its own for that.
    fresh = named(recent, (*known, *windows.names), least=3)
    if not size:
        return fresh
    offsets = windows.offsets[len(windows.offsets) - 8 * size :]
    first = int(np.frombuffer(offsets, "<i8")[0])
    return Windows(fresh.names, counted(fresh.names, recent).tobytes(), size, first, recent, offsets)


# -- what a change looks like ------------------------------------------------------------------------------------------


def _shift(
    windows: Windows,
    before: Counts,
    after: Counts,
    pending: Pending,
    evidence: float,
    threshold: float,
    pattern: Pattern,
    parameters: CategoryParameters,
    returned: bool,
) -> Shift:
    p, q = before / before.sum(), after / after.sum()
    return Shift(
        what="mixture",
        pattern=pattern,
        detector=f"G-test over windows, Dirichlet-multinomial confirmation (reference={parameters.reference}, "
        f"candidate={parameters.candidate:g}, stability index {stability_index(before, after):.3g})",
        statistic=evidence,
        threshold=threshold,
        alpha=math.exp(-threshold) if pattern == "outlier" else pending.alpha,
        before=_shares(windows.names, before, after),
        after=_shares(windows.names, after, before),
        before_count=int(before.sum()),
        after_count=int(after.sum()),
        reference_first_offset=windows.first_offset,
        test_first_offset=pending.first_offset,
        size=float(np.abs(p - q).sum() / 2),
        returned=returned,
    )


def _shares(names: tuple[str, ...], counts: Counts, beside: Counts | None = None) -> dict[str, float]:
    """Return the shares of the names that have one, here or ``beside``, the largest first."""
    total = max(float(counts.sum()), 1.0)
    found = {
        name: float(counts[cell]) / total
        for cell, name in enumerate(names)
        if counts[cell] or (beside is not None and beside[cell])
    }
    found = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    other = float(counts[len(names) :].sum()) / total
    if other or (beside is not None and beside[len(names) :].any()):
        found["other"] = other
    return found


def _regime(names: tuple[str, ...], counts: Counts) -> Regime:
    shares = _shares(names, counts)
    kept = {name: shares[name] for name in [name for name in shares if name != "other"][:_KEPT]}
    return Regime(kept | {"other": max(0.0, 1 - sum(kept.values()))}, int(counts.sum()))


def _recurring(windows: Windows, after: Counts, before: Counts, regimes: tuple[Regime, ...]) -> int | None:
    """Return which past regime the new state of things is: near enough for chance, and far nearer than what was before."""
    total = float(after.sum())
    best, nearest = None, math.inf
    for index, regime in enumerate(regimes):
        known = _aligned(windows, regime.shares, after / total)
        distance = _distance(known)
        moved = _distance(_aligned(windows, regime.shares, before / before.sum()))
        chance = math.sqrt(len(known) * (1 / total + 1 / max(regime.weight, 1)))
        if distance < min(max(0.4 * moved, 0.0), 0.6 * chance + 0.03) and distance < nearest:
            best, nearest = index, distance
    return best


def _aligned(windows: Windows, shares: Mapping[str, float], now: Counts) -> list[tuple[float, float]]:
    """Return (share then, share now) of the names of a regime and of all others."""
    pairs = [(shares[name], float(now[cell])) for cell, name in enumerate(windows.names) if name in shares]
    then, since = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    return [*pairs, (max(0.0, 1 - then), max(0.0, 1 - since))]


def _distance(pairs: list[tuple[float, float]]) -> float:
    return sum(abs(a - b) for a, b in pairs) / 2


def _ramps(windows: Windows, before: Counts, after: Counts) -> bool:
    """Tell whether a ramp fits the way from before to after better than a step.

    Each event scores the log of its cell's share after over that before, so that one number follows the change.
    """
    cells = len(before)
    p = (before + _PRIOR) / (before.sum() + _PRIOR * cells)
    q = (after + _PRIOR) / (after.sum() + _PRIOR * cells)
    scores = np.clip(np.log(q / p), -3, 3)
    groups = [(block.size, float(np.frombuffer(block.counts, "<u2") @ scores)) for block in windows.blocks]
    recent = [float(scores[cell_of(windows, name)]) for name in windows.recent]
    groups += [(len(part), sum(part)) for part in (recent[start : start + 8] for start in range(0, len(recent), 8))]
    sizes = np.array([size for size, _ in groups], np.float64)
    # The change and as much again before it.
    reach = np.cumsum(sizes[::-1])[::-1] <= max(3.0 * float(after.sum()), 128.0)
    sizes = sizes[reach]
    if len(sizes) < 6:
        return False
    means = np.array([total for _, total in groups])[reach] / sizes
    middles = np.cumsum(sizes) - sizes / 2
    best_step = min(
        _squares(means, sizes, (np.arange(len(sizes)) >= cut).astype(float)) for cut in range(1, len(sizes))
    )
    best_ramp = min(
        _squares(means, sizes, np.maximum(middles - middles[start], 0.0)) for start in range(len(sizes) - 3)
    )
    noise = best_step / max(len(sizes) - 2, 1)
    return best_ramp < best_step - 2 * noise


def _squares(means: Counts, sizes: Counts, shape: Counts) -> float:
    """Return the weighted squares that are left of ``means`` after a straight line in ``shape``."""
    weight = sizes.sum()
    x, y = shape - (shape @ sizes) / weight, means - (means @ sizes) / weight
    slope = (x * sizes) @ y / max((x * sizes) @ x, 1e-12)
    return float(((y - slope * x) ** 2) @ sizes)

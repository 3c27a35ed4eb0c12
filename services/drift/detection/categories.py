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

Events that come in bursts (a conversation stays in its language) scatter more than independent ones. How often an event
merely repeats the one before is part of both predictions; what blocks of 32 scatter beyond that divides the evidence.

Everything here is pure. A state has 2 to 3 KB however long the stream, up to 16 where names are of 64 characters.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from services.drift.detection.category_patterns import Regime, distance, ramps, recurring, regime_of, shares_by_name
from services.drift.detection.category_scan import (
    PRIOR,
    Scatter,
    evidence_of_window,
    repeated,
    scattered,
    stability_index,
    statistics,
)
from services.drift.detection.category_windows import Counts, Windows, added, cell_of, named, restarted, suffixes
from services.drift.detection.shift import Pattern, Shift

__all__ = ["CategoryParameters", "CategoryState", "inherited", "observe", "rebased", "shares_of", "stability_index"]

_ALTERNATIVES = 3
_WITNESS = 0.25
"""Weight of the candidate's window beside the reference under no change: calibrated on streams without one."""
_STEEPEST, _STEEPEST_AGAIN = 4.0, 1.0
"""Nats that one event may add, and one that repeats the event before it: a category that was never there must come more
than a few times, and not all at once."""
_FOLLOWS = 800
"""Events within which a further change that goes on in the same direction is one gradual change."""


class CategoryParameters(msgspec.Struct, frozen=True):
    """How the test is set; the defaults are calibrated by tests/unit/test_drift_categories_figures.py."""

    naming: int = 24
    """First events, which choose the cells."""
    reference: int = 64
    """Events behind them before windows are tested."""
    clock: int = 2
    """Events between two looks."""
    candidate: float = 2.8
    """Standardised statistic that makes a candidate."""
    least_stability_index: float = 0.03
    """Windows that moved less are no candidates."""
    spend: float = 0.7
    """Share of the wealth that a candidate takes as its alpha."""
    most_alpha: float = 0.05
    confirm_least: int = 8
    """Events after a candidate before it can be confirmed: a shorter burst is none."""
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


class CategoryState(msgspec.Struct, frozen=True):
    """What is kept of one signal of one segment."""

    wealth: float = 0.0
    seen: int = 0
    sample: tuple[str, ...] = ()
    """The events that choose the cells, until there are enough."""
    windows: Windows | None = None
    scatter: Scatter = Scatter()
    pending: Pending | None = None
    regimes: tuple[Regime, ...] = ()
    """States that are past, the baseline first."""
    changed: int = 0
    """``seen`` at the last change; 0 where there was none."""


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

    scatter, again = repeated(state.scatter, category, state.windows), category == state.scatter.last
    windows, block = added(state.windows, category, offset)
    if block is not None and state.pending is None and windows.weight > parameters.reference:
        scatter = scattered(scatter, windows, block)
    state = msgspec.structs.replace(state, windows=windows, scatter=scatter)
    if state.pending is not None:
        state, shift = _judged(state, state.pending, cell_of(windows, category), again, parameters)
        if shift is not None:
            return state, shift
    if state.seen % parameters.clock == 0 and windows.weight >= parameters.reference + 4:
        state = _looked(state, parameters)
    return state, None


def shares_of(state: CategoryState) -> dict[str, float]:
    """Return the shares of the reference by category, the largest first; ``other`` is what has no name."""
    if state.windows is None or not state.windows.weight:
        return {}
    return shares_by_name(state.windows.names, state.windows.totals)


def rebased(state: CategoryState) -> CategoryState:
    """Return a state whose reference is the present: the newest events, with no past regimes but the new baseline."""
    if state.windows is None:
        return state
    windows = restarted(state.windows, 64)
    return CategoryState(wealth=state.wealth, seen=state.seen, windows=windows, scatter=state.scatter)


def inherited(state: CategoryState) -> CategoryState:
    """Return a state that has seen nothing and has the reference of ``state``: of the release before, or a pinned one."""
    if state.windows is None:
        return CategoryState()
    old = state.windows
    windows = Windows(old.names, old.total, old.weight, old.first_offset)
    return CategoryState(seen=state.seen, windows=windows, scatter=state.scatter, regimes=state.regimes)


# -- stage 1 -----------------------------------------------------------------------------------------------------------


def _looked(state: CategoryState, parameters: CategoryParameters) -> CategoryState:
    """Look at all windows; the most telling becomes the candidate, or replaces one that says much less."""
    windows = state.windows
    assert windows is not None
    newest = suffixes(windows, windows.weight - parameters.reference)
    if not len(newest.sizes):
        return state
    before = windows.totals - newest.counts
    found, cells = statistics(newest, before, state.scatter.dispersion)
    best = int(np.argmax(found))
    statistic = float(found[best])
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


# -- stage 2 -----------------------------------------------------------------------------------------------------------


def _judged(
    state: CategoryState, pending: Pending, cell: int, again: bool, parameters: CategoryParameters
) -> tuple[CategoryState, Shift | None]:
    """Add an event to the evidence; confirm the candidate, give it up, or wait."""
    reference, window, fresh = (np.frombuffer(each) for each in (pending.reference, pending.window, pending.fresh))
    cells = len(reference)
    weight = float(reference.sum())
    so_far, count = float(fresh[cell]), pending.fresh_size
    shares = (reference + PRIOR) / (weight + PRIOR * cells)
    size = float(pending.size)
    # Under no change the window is a witness like the rest; without it, the reference lacks by selection what the window
    # has. With all of it, a short reference would be half the new state of things.
    null = (float(reference[cell] + _WITNESS * window[cell]) + PRIOR + so_far) / (
        weight + _WITNESS * size + PRIOR * cells + count
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
    # An event may repeat the one before it whatever the mixture is: that is evidence of nothing.
    repetition = state.scatter.repetition
    floor, most = (repetition, _STEEPEST_AGAIN) if again else (0.0, _STEEPEST)
    dispersion = state.scatter.remaining
    logs = tuple(
        log + min(math.log((floor + (1 - repetition) * chance) / (floor + (1 - repetition) * null)), most) / dispersion
        for log, chance in zip(pending.logs, chances, strict=True)
    )
    fresh = fresh.copy()
    fresh[cell] += 1
    pending = msgspec.structs.replace(pending, fresh=fresh.tobytes(), fresh_size=count + 1, logs=logs)
    highest = max(logs)
    evidence = highest + math.log(sum(math.exp(log - highest) for log in logs) / _ALTERNATIVES)
    threshold = -math.log(pending.alpha)
    if evidence >= threshold and pending.fresh_size >= parameters.confirm_least:
        return _confirmed(state, pending, evidence, threshold, parameters)
    most = max(parameters.undecided * pending.size, parameters.undecided_least)
    if evidence < -parameters.given_up or pending.fresh_size >= most:
        return _given_up(msgspec.structs.replace(state, pending=None), pending, parameters)
    return msgspec.structs.replace(state, pending=pending), None


def _given_up(
    state: CategoryState, pending: Pending, parameters: CategoryParameters
) -> tuple[CategoryState, Shift | None]:
    """Tell a burst that is over, if its own events are far beyond chance."""
    reference, window, fresh = (np.frombuffer(each) for each in (pending.reference, pending.window, pending.fresh))
    windows = state.windows
    assert windows is not None
    repetition = state.scatter.repetition
    scatter = max(state.scatter.dispersion, (1 + repetition) / (1 - repetition))
    strength = evidence_of_window(reference, window) / scatter
    size = pending.size + pending.fresh_size
    if strength < parameters.outlier or size >= windows.weight - parameters.reference:
        return state, None
    shift = _shift(windows, reference, window, pending, strength, parameters.outlier, "outlier", parameters, False)
    # The burst is no part of the reference.
    kept = Windows(windows.names, (reference + fresh).tobytes(), windows.weight - pending.size, windows.first_offset)
    return msgspec.structs.replace(state, windows=kept), shift


def _confirmed(
    state: CategoryState, pending: Pending, evidence: float, threshold: float, parameters: CategoryParameters
) -> tuple[CategoryState, Shift]:
    windows = state.windows
    assert windows is not None
    reference = np.frombuffer(pending.reference)
    after = np.frombuffer(pending.window) + np.frombuffer(pending.fresh)
    regime = regime_of(windows.names, reference)
    # The baseline is kept for as long as there is one, of the others the newest.
    regimes = (*state.regimes, regime)
    known = regimes[:1] + regimes[1:][-3:]
    back = recurring(windows, after, reference, state.regimes)
    goes_on = (
        bool(state.regimes)
        and state.changed > 0
        and state.seen - state.changed < _FOLLOWS
        and distance(windows, after, state.regimes[-1]) > distance(windows, reference, state.regimes[-1])
    )
    pattern: Pattern = "abrupt"
    if back is not None:
        pattern = "recurring"
    elif goes_on or ramps(windows, reference, after):
        pattern = "gradual"
    returned = back is not None and back == 0
    shift = _shift(windows, reference, after, pending, evidence, threshold, pattern, parameters, returned)
    size = pending.size + pending.fresh_size
    names = tuple(name for each in known for name in each.shares if name != "other")
    again = restarted(windows, size, names)
    return msgspec.structs.replace(state, windows=again, pending=None, regimes=known, changed=state.seen), shift


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
        before=shares_by_name(windows.names, before, after),
        after=shares_by_name(windows.names, after, before),
        before_count=int(before.sum()),
        after_count=int(after.sum()),
        reference_first_offset=windows.first_offset,
        test_first_offset=pending.first_offset,
        size=float(np.abs(p - q).sum() / 2),
        returned=returned,
    )

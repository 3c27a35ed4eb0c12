"""Drift of one number: a scan of the newest values finds candidates, fresh values judge them.

Stage 1 (scan.py) raises a candidate at a known, rather generous rate: it compares the newest values, up to 2,300, with
all before them, for the level and the spread. Stage 2 (judgement.py, evidence.py) judges a candidate only by the values
that come after it, with an anytime-valid likelihood ratio that must reach ``1 / alpha``; ``alpha`` is taken out of a
wealth that grows by an allowance with each value, so the expected number of false alarms is at most what was allowed.

Everything here is pure, and a state is plain data of constant size: a restored detector goes on as if nothing had
happened.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import msgspec
import numpy as np

from services.drift.detection.coding import Array, Coding, Scale, code, coding_of
from services.drift.detection.evidence import refund, spend
from services.drift.detection.history import inflation_of, slid
from services.drift.detection.judgement import Pending, joined, opened, verdict_on
from services.drift.detection.river_stage import advanced, applicable
from services.drift.detection.scalar_state import STRIDE, WINDOW, ScalarParameters, ScalarState, described, window_of
from services.drift.detection.scalar_telling import told
from services.drift.detection.scan import Candidate, scan_means, scan_rate, sums_of
from services.drift.detection.shift import Shift

__all__ = ["ScalarParameters", "ScalarState", "level_of", "observe", "rebased"]

_MARKS = WINDOW // STRIDE + 1
_BYTES = 4
# The bar after a candidate was given up, until the next scan sets it.
_RAISED = -1.0
# Numbers of values at which the coding is chosen anew; all of them are in the window still.
_RECODED = (WINDOW // 2, WINDOW)
# Values between two estimates of the long-run variance, which leave the newest ones out.
_RENEWED = 32
# After a shift: the part of the first values that is dropped while the level still moves, and for how many values.
_DROPPED = 24
_SETTLED = 3.0


def observe(
    state: ScalarState,
    value: float,
    offset: int,
    parameters: ScalarParameters,
    allowance: float,
    *,
    scale: Scale,
    river: Sequence[str] = (),
) -> tuple[ScalarState, Shift | None]:
    """Add one value.

    Args:
        state: what is known so far; not changed.
        value: the value, finite, in a unit in which differences matter equally: of an amount its logarithm.
        offset: where the value stands in its partition; for the evidence.
        parameters: how the detector is set.
        allowance: expected false alarms that this value may cause, e.g. 2e-5 for 0.2 in 10,000 values.
        scale: what the number is. Of a ``rate``, 0 or 1, only the level is watched; of the others the spread too.
        river: detectors of River's that raise candidates of the level beside the scan: ``adwin``, ``hddm-w`` (where the
            values are zeros and ones), ``page-hinkley``.

    Returns:
        The next state, and the change if this value confirmed one. After a change what comes next is the reference.

    Raises:
        ValueError: the value is not finite, or is a rate's and neither 0 nor 1; River's detectors have no such name.
    """
    if not math.isfinite(value):
        raise ValueError(f"the value {value} is not finite; leave it out, and count it as a signal of its own")
    if scale == "rate" and value not in (0, 1):
        raise ValueError(f"the value {value} of a rate is neither 0 nor 1; declare the signal as a score")
    wealth = parameters.granted * allowance if state.wealth is None else state.wealth
    pending = (state.level is not None) + (state.spread is not None)
    wealth = min(wealth + allowance * (1 - pending / 2), parameters.wealth_most)
    if state.coding is None:
        return _warmed(state, value, offset, parameters, wealth, scale), None
    state = _entered(state, value, offset, parameters, wealth)
    undisturbed = state.level is None and state.spread is None and not state.moments.levels.count
    if state.seen in _RECODED and scale != "rate" and undisturbed:
        return _recoded(state, scale), None
    return _judged(state, parameters, allowance / 2, river)


def rebased(state: ScalarState) -> ScalarState:
    """Return a state for which what is now is the baseline: earlier regimes are forgotten, the detectors go on."""
    return msgspec.structs.replace(state, regimes=())


def level_of(state: ScalarState) -> tuple[float, float, int] | None:
    """Return mean, standard deviation and count of the present reference, in the signal's units; ``None`` before
    there is one."""
    if state.coding is None:
        return None
    standard, moments = window_of(state), state.moments
    regime = described(
        state.coding,
        state.seen,
        moments.total + float(standard.sum()),
        moments.squares + float(standard @ standard),
    )
    return regime.mean, regime.deviation, regime.count


def _warmed(
    state: ScalarState, value: float, offset: int, parameters: ScalarParameters, wealth: float, scale: Scale
) -> ScalarState:
    """Add a value to the first ones of a reference."""
    warm = (*state.warm, value)
    marks = (*state.marks, offset) if state.seen % STRIDE == 0 else state.marks
    first = state.first_offset if state.seen else offset
    if len(warm) == parameters.warm_up and state.regimes and _moves(warm):
        # It still moves after the last change: what it comes to is the reference.
        warm, marks = warm[_DROPPED:], marks[_DROPPED // STRIDE :]
        first = marks[0]
    state = msgspec.structs.replace(state, seen=len(warm), wealth=wealth, warm=warm, first_offset=first, marks=marks)
    if len(warm) < parameters.warm_up:
        return state
    coding = coding_of(warm, scale)
    standard = np.array([coding.standard(each) for each in warm], np.float32)
    codes = code(standard.astype(float), coding)
    return msgspec.structs.replace(
        state,
        coding=coding,
        warm=(),
        window=standard.tobytes(),
        inflation=_inflation(state, codes),
    )


def _inflation(state: ScalarState, codes: Array) -> tuple[float, float]:
    """Return the long-run variance over the variance of what lies before the window and of ``codes``, the oldest in it."""
    level = inflation_of(state.moments.levels, codes)
    # Values that depend on each other wander, and so do their distances to a location that stays.
    return level, max(inflation_of(state.moments.spreads, np.abs(codes)), (1 + level) / 2)


def _moves(warm: tuple[float, ...]) -> bool:
    largest = max(map(abs, warm)) or 1.0
    values = np.array(warm) / largest
    old, new = values[:_DROPPED], values[_DROPPED:]
    error = math.sqrt(old.var() / len(old) + new.var() / len(new))
    return bool(abs(old.mean() - new.mean()) > _SETTLED * error)


def _entered(state: ScalarState, value: float, offset: int, parameters: ScalarParameters, wealth: float) -> ScalarState:
    """Take a value into the window; the oldest one leaves it for the reference's sums."""
    coding = state.coding
    assert coding is not None
    packed = struct.pack("<f", coding.standard(value))
    window, moments = state.window + packed, state.moments
    if len(window) > WINDOW * _BYTES:
        oldest = struct.unpack_from("<f", window)[0]
        window = window[_BYTES:]
        moments = slid(moments, oldest, coding.coded(oldest), state.marks[0])
    seen = state.seen + 1
    marks = state.marks
    if state.seen % STRIDE == 0:
        marks = (*marks, offset)[-_MARKS:]
    return ScalarState(
        seen,
        wealth,
        coding,
        (),
        window,
        moments,
        state.inflation,
        state.level,
        state.spread,
        state.bars,
        state.first_offset,
        marks,
        state.heading,
        state.regimes,
        state.river,
    )


def _recoded(state: ScalarState, scale: Scale) -> ScalarState:
    """Choose the coding anew, by more than the first 40 values."""
    old = state.coding
    assert old is not None
    standard = window_of(state)
    found = coding_of(standard.tolist(), scale)
    coding = Coding(old.location + old.scale * found.location, old.scale * found.scale, found.rate, found.g)
    standard = ((standard - found.location) / found.scale).astype(np.float32)
    return msgspec.structs.replace(
        state,
        coding=coding,
        window=standard.tobytes(),
        river={},
    )


def _judged(
    state: ScalarState, parameters: ScalarParameters, allowance: float, names: Sequence[str]
) -> tuple[ScalarState, Shift | None]:
    """Look for a change of the value that has just entered."""
    coding = state.coding
    assert coding is not None
    newest = coding.coded(struct.unpack_from("<f", state.window, len(state.window) - _BYTES)[0])
    level, spread, bars, wealth = state.level, state.spread, state.bars, state.wealth or 0.0
    level_evidence = spread_evidence = 0.0
    if level is not None:
        level, level_evidence = joined(level, newest, allowance)
        verdict = verdict_on(level, level_evidence, parameters.judgement)
        if verdict in ("confirmed", "outlier"):
            return told(state, "level", level, verdict == "outlier", parameters)
        if verdict == "abandoned":
            wealth += refund(level.alpha, level_evidence)
            bars, level = (_RAISED, bars[1]), None
    if spread is not None:
        spread, spread_evidence = joined(spread, abs(newest), allowance)
        verdict = verdict_on(spread, spread_evidence, parameters.judgement)
        # A level that moves is farther from the location as well: the spread waits for what becomes of the level.
        if verdict in ("confirmed", "outlier") and (level is None or level_evidence <= 0.3 * spread_evidence):
            return told(state, "spread", spread, verdict == "outlier", parameters)
        if verdict == "abandoned":
            wealth += refund(spread.alpha, spread_evidence)
            bars, spread = (bars[0], _RAISED), None
    inflation = state.inflation
    if state.seen % parameters.clock == 0:
        codes = code(window_of(state), coding)
        if state.seen % _RENEWED == 0:
            inflation = _inflation(state, codes[: max(len(codes) - 2 * _RENEWED, 48)])
        candidate = _candidate(state, codes, False, parameters)
        least = parameters.rate_gain if coding.rate else parameters.gain
        bar, raised = _raised(bars[0], candidate, level, level_evidence, inflation[0], least, parameters)
        bars = bar, bars[1]
        if candidate is not None and raised:
            wealth += refund(level.alpha, level_evidence) if level is not None else 0.0
            alpha, wealth = spend(wealth, parameters.share)
            level = opened(candidate, state.seen, coding.rate, inflation[0], alpha)
        if not coding.rate:
            candidate = _candidate(state, codes, True, parameters)
            bar, raised = _raised(bars[1], candidate, spread, spread_evidence, inflation[1], least, parameters)
            bars = bars[0], bar
            if candidate is not None and raised:
                wealth += refund(spread.alpha, spread_evidence) if spread is not None else 0.0
                alpha, wealth = spend(wealth, parameters.share)
                spread = opened(candidate, state.seen, False, inflation[1], alpha)
    river: dict[str, bytes] = {}
    if names:
        fits = applicable(names, rate=coding.rate)
        begins = any(name not in river for name in fits)
        shown = code(window_of(state), coding).tolist() if begins else (newest,)
        river, flagged = advanced(river, shown, fits)
        if flagged and level is None and bars[0] != _RAISED:
            least = parameters.rate_gain if coding.rate else parameters.gain
            candidate = _candidate(state, code(window_of(state), coding), False, parameters)
            bar = parameters.flagged * max(bars[0], least)
            if candidate is not None and candidate.gain / inflation[0] >= bar:
                alpha, wealth = spend(wealth, parameters.share)
                level = opened(candidate, state.seen, coding.rate, inflation[0], alpha, flagged)
    return ScalarState(
        state.seen,
        wealth,
        coding,
        (),
        state.window,
        state.moments,
        inflation,
        level,
        spread,
        bars,
        state.first_offset,
        state.marks,
        state.heading,
        state.regimes,
        river,
    ), None


def _raised(
    bar: float,
    candidate: Candidate | None,
    pending: Pending | None,
    evidence: float,
    inflation: float,
    least: float,
    parameters: ScalarParameters,
) -> tuple[float, bool]:
    """Return the bar, and whether a candidate clears it and is judged from now on.

    One that was given up is not raised again for what it was given up with: the first scan after it sets the bar to the
    gain that it finds and some more. A candidate takes the place of a pending one with little evidence when it says the
    opposite, or when it rests on nothing but what came after that one.
    """
    gain = candidate.gain / inflation if candidate is not None else 0.0
    if bar == _RAISED:
        return max(gain, least) + parameters.repeated, False
    bar = max(bar - parameters.clock / parameters.forgotten, least)
    if candidate is None or gain < bar:
        return bar, False
    if pending is None:
        return bar, True
    evidence += pending.handicap
    opposite = (candidate.after_mean > candidate.before_mean) != (pending.after_mean > pending.before_mean)
    return bar, evidence < gain / 2 if opposite else evidence < 0 and candidate.after_count <= pending.fresh_count


def _candidate(state: ScalarState, codes: Array, spread: bool, parameters: ScalarParameters) -> Candidate | None:
    """Scan the newest values."""
    assert state.coding is not None
    multiplicity = parameters.rate_multiplicity if state.coding.rate else parameters.multiplicity
    sums = sums_of(state.moments, codes, spread, parameters.least_before, multiplicity)
    if not len(sums.sizes):
        return None
    found = scan_rate(sums) if state.coding.rate else scan_means(sums)
    return found if found.after_count >= parameters.least else None

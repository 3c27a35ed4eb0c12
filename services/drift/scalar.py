"""Drift of one number: a scan of the newest values and River's ADWIN find candidates, fresh values judge them.

Stage 1 raises a candidate at a known, rather generous rate: the scan (scan.py) of the newest 256 values for the level
and the spread, and ADWIN (candidates.py) on the level for small changes that need more values than that. Stage 2
(evidence.py) judges a candidate by the values that come after it only, with an anytime-valid likelihood ratio that
must reach ``1 / alpha``; ``alpha`` is taken out of a wealth that grows by an allowance with each value, so the
expected number of false alarms is at most what was allowed.

Everything here is pure, and a state is plain data of constant size: a restored detector goes on as if nothing had
happened.
"""

from __future__ import annotations

import math
import struct

import msgspec
import numpy as np

from services.drift.coding import Array, Coding, Scale, code, coding_of
from services.drift.evidence import spend
from services.drift.history import Moments, inflation_of, slid
from services.drift.judgement import JudgementParameters, Pending, joined, opened, verdict_on
from services.drift.regimes import Regime, matching, ramp_gain, remembered
from services.drift.scan import Candidate, scan_means, scan_rate, sums_of
from services.drift.shift import Pattern, Shift, What

__all__ = ["ScalarParameters", "ScalarState", "level_of", "observe", "rebased"]

WINDOW = 256
"""Newest values that are kept and scanned."""
_STRIDE = 8
_MARKS = WINDOW // _STRIDE + 1
_BYTES = 4
# Numbers of values at which the coding is chosen anew; all of them are in the window still.
_RECODED = (WINDOW // 2, WINDOW)
# Values between two estimates of the long-run variance, which leave the newest ones out.
_RENEWED = 32
# After a shift: the part of the first values that is dropped while the level still moves, and for how many values.
_DROPPED = 24
_SETTLED = 3.0


class ScalarParameters(msgspec.Struct, frozen=True):
    """How the detector is set; the defaults are calibrated by tests/bench/bench_drift.py."""

    warm_up: int = 40
    """Values that set location and scale; no change is looked for before."""
    gain: float = 5.0
    """Log-likelihood ratio, nats, from which the scan raises a candidate."""
    multiplicity: float = 1.0
    """Nats that are asked for more, for each e-fold by which fewer values came after the change."""
    clock: int = 4
    """Values between two scans."""
    least: int = 3
    """Values after a change before it can be a candidate."""
    least_before: int = 24
    """Values before a change that it takes to tell one."""
    share: float = 0.8
    """Share of the wealth that a candidate takes."""
    granted: int = 200
    """Values whose allowance a new state is given at once."""
    repeated: float = 2.0
    """Nats by which a candidate must exceed the one that was given up before, less one for each ``forgotten`` values."""
    forgotten: int = 80
    wealth_most: float = 0.3
    """The wealth does not grow beyond."""
    judgement: JudgementParameters = JudgementParameters()
    """How a candidate is judged."""
    gradual: float = -0.6
    """Nats by which a ramp must fit better than a step: a change is found when it looks most like a step."""
    ramp: int = 60
    """Values that a ramp takes at least; what is over sooner is a step."""
    follows: int = 200
    """Values after a change within which another in its direction goes on with it: both are a ramp."""


class ScalarState(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one signal of one segment."""

    seen: int = 0
    """Values since the reference began."""
    wealth: float | None = None
    coding: Coding | None = None
    warm: tuple[float, ...] = ()
    window: bytes = b""
    """The newest standardised values, float32, oldest first."""
    moments: Moments = Moments()
    """Of the reference's values before the window."""
    inflation: tuple[float, float] = (1.0, 1.0)
    """Long-run variance over variance, of the level and of the spread."""
    level: Pending | None = None
    spread: Pending | None = None
    bars: tuple[float, float] = (0.0, 0.0)
    """Gain that the next candidate of the level and of the spread must reach after one was given up, nats."""
    first_offset: int = 0
    marks: tuple[int, ...] = ()
    """Offsets of every eighth value of the window."""
    heading: float = 0.0
    """Direction of the last change of the level; 0 when there was none."""
    regimes: tuple[Regime, ...] = ()
    """Past references, the baseline first."""


def observe(
    state: ScalarState, value: float, offset: int, parameters: ScalarParameters, allowance: float, *, scale: Scale
) -> tuple[ScalarState, Shift | None]:
    """Add one value.

    Args:
        state: what is known so far; not changed.
        value: the value, finite, in a unit in which differences matter equally: of an amount its logarithm.
        offset: where the value stands in its partition; for the evidence.
        parameters: how the detector is set.
        allowance: expected false alarms that this value may cause, e.g. 2e-5 for 0.2 in 10,000 values.
        scale: what the number is. Of a ``rate``, 0 or 1, only the level is watched; of the others the spread too.

    Returns:
        The next state, and the change if this value confirmed one. After a change what comes next is the reference.

    Raises:
        ValueError: the value is not finite, or is a rate's and neither 0 nor 1.
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
    if state.seen in _RECODED and scale != "rate" and state.level is None and state.spread is None:
        return _recoded(state, scale), None
    return _judged(state, parameters, allowance / 2)


def rebased(state: ScalarState) -> ScalarState:
    """Return a state for which what is now is the baseline: earlier regimes are forgotten, the detectors go on."""
    return msgspec.structs.replace(state, regimes=())


def level_of(state: ScalarState) -> tuple[float, float, int] | None:
    """Return mean, standard deviation and count of the present reference, in the signal's units; ``None`` before
    there is one."""
    if state.coding is None:
        return None
    standard, moments = _window(state), state.moments
    regime = _described(
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
    marks = (*state.marks, offset) if state.seen % _STRIDE == 0 else state.marks
    first = state.first_offset if state.seen else offset
    if len(warm) == parameters.warm_up and state.regimes and _moves(warm):
        # It still moves after the last change: what it comes to is the reference.
        warm, marks = warm[_DROPPED:], marks[_DROPPED // _STRIDE :]
        first = marks[0]
    state = msgspec.structs.replace(state, seen=len(warm), wealth=wealth, warm=warm, first_offset=first, marks=marks)
    if len(warm) < parameters.warm_up:
        return state
    coding = coding_of(warm, scale)
    standard = np.array([coding.standard(each) for each in warm], np.float32)
    return msgspec.structs.replace(
        state,
        coding=coding,
        warm=(),
        window=standard.tobytes(),
    )


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
    if state.seen % _STRIDE == 0:
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
    )


def _recoded(state: ScalarState, scale: Scale) -> ScalarState:
    """Choose the coding anew, by more than the first 40 values."""
    old = state.coding
    assert old is not None
    standard = _window(state)
    found = coding_of(standard.tolist(), scale)
    coding = Coding(old.location + old.scale * found.location, old.scale * found.scale, found.rate, found.g)
    standard = ((standard - found.location) / found.scale).astype(np.float32)
    return msgspec.structs.replace(
        state,
        coding=coding,
        window=standard.tobytes(),
    )


def _judged(state: ScalarState, parameters: ScalarParameters, allowance: float) -> tuple[ScalarState, Shift | None]:
    """Look for a change of the value that has just entered."""
    coding = state.coding
    assert coding is not None
    newest = coding.coded(struct.unpack_from("<f", state.window, len(state.window) - _BYTES)[0])
    level, spread, bars = state.level, state.spread, state.bars
    evidence = 0.0, 0.0
    if level is not None:
        level, found = joined(level, newest, allowance)
        verdict = verdict_on(level, found, parameters.judgement)
        if verdict in ("confirmed", "outlier"):
            return _told(state, "level", level, verdict == "outlier", parameters)
        evidence = found + level.handicap, 0.0
        if verdict == "abandoned":
            bars, level = (level.gain + parameters.repeated, bars[1]), None
    if spread is not None:
        spread, found = joined(spread, abs(newest), allowance)
        verdict = verdict_on(spread, found, parameters.judgement)
        # A level that moves is farther from the location as well: the spread waits for what becomes of the level.
        if verdict in ("confirmed", "outlier") and evidence[0] <= 0:
            return _told(state, "spread", spread, verdict == "outlier", parameters)
        evidence = evidence[0], found + spread.handicap
        if verdict == "abandoned":
            bars, spread = (bars[0], spread.gain + parameters.repeated), None
    wealth, inflation = state.wealth or 0.0, state.inflation
    if state.seen % parameters.clock == 0:
        codes = code(_window(state), coding)
        if state.seen % _RENEWED == 0:
            old = codes[: max(len(codes) - 2 * _RENEWED, _RENEWED)]
            inflation = (
                inflation_of(state.moments.levels, old),
                inflation_of(state.moments.spreads, np.abs(old)),
            )
        forgotten = parameters.clock / parameters.forgotten
        bars = max(bars[0] - forgotten, parameters.gain), max(bars[1] - forgotten, parameters.gain)
        if level is None or evidence[0] < 0:
            bar = bars[0] * inflation[0]
            candidate = _candidate(state, codes, False, parameters)
            if candidate is not None and candidate.gain >= bar and _rivals(level, candidate):
                alpha, wealth = spend(wealth, parameters.share)
                level = opened(candidate, state.seen, coding.rate, inflation[0], alpha)
        if not coding.rate and (spread is None or evidence[1] < 0):
            candidate = _candidate(state, codes, True, parameters)
            if candidate is not None and candidate.gain >= bars[1] * inflation[1] and _rivals(spread, candidate):
                alpha, wealth = spend(wealth, parameters.share)
                spread = opened(candidate, state.seen, False, inflation[1], alpha)
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
    ), None


def _rivals(pending: Pending | None, candidate: Candidate) -> bool:
    """Tell whether a candidate may take the place of one that has no evidence: it says something else."""
    if pending is None:
        return True
    rising = candidate.after_mean > candidate.before_mean
    return rising != (pending.after_mean > pending.before_mean) or candidate.after_count <= pending.fresh_count


def _candidate(state: ScalarState, codes: Array, spread: bool, parameters: ScalarParameters) -> Candidate | None:
    """Scan the newest values."""
    assert state.coding is not None
    sums = sums_of(state.moments, codes, spread, parameters.least_before, parameters.multiplicity)
    if not len(sums.sizes):
        return None
    found = scan_rate(sums) if state.coding.rate else scan_means(sums)
    return found if found.after_count >= parameters.least else None


def _told(
    state: ScalarState, what: What, pending: Pending, outlier: bool, parameters: ScalarParameters
) -> tuple[ScalarState, Shift]:
    """Describe a confirmed change, and start the next reference."""
    coding = state.coding
    assert coding is not None
    standard = _window(state)
    last = len(standard) - (pending.ended_count if outlier else 0)
    count = pending.lasted if outlier else pending.count
    within = min(count, last)
    changed = standard[last - within : last]
    older, total, squares, offset = state.moments.newest(count - within)
    if older == 0:
        offset = _offset_at(state, last - within)
    count = within + older
    after = _described(coding, count, total + float(changed.sum()), squares + float(changed @ changed))
    before = _described(
        coding,
        state.seen - (len(standard) - last) - count,
        state.moments.total - total + float(standard[: last - within].sum()),
        state.moments.squares - squares + float(standard[: last - within] @ standard[: last - within]),
    )
    pattern: Pattern = "abrupt"
    returned = False
    if outlier:
        pattern = "outlier"
    else:
        codes = code(standard, coding)
        back = matching(state.regimes, before, after, what == "spread")
        values = codes if what == "level" else np.abs(codes)
        if back is not None:
            pattern, returned = "recurring", back == 0
        elif _gradual(state, what, values, pending, parameters):
            pattern = "gradual"
    shift = Shift(
        what=what,
        pattern=pattern,
        detector="generalised likelihood ratio scan and ADWIN, confirmed by fresh values",
        statistic=pending.highest,
        threshold=pending.threshold,
        alpha=pending.alpha,
        before={"mean": before.mean, "deviation": before.deviation},
        after={"mean": after.mean, "deviation": after.deviation},
        before_count=before.count,
        after_count=count,
        reference_first_offset=state.first_offset,
        test_first_offset=offset,
        size=pending.size,
        returned=returned,
    )
    if outlier:
        return _excised(state, last - within, last, parameters), shift
    heading = math.copysign(1.0, pending.size) if what == "level" else 0.0
    return ScalarState(wealth=state.wealth, heading=heading, regimes=remembered(state.regimes, before)), shift


def _gradual(state: ScalarState, what: What, values: Array, pending: Pending, parameters: ScalarParameters) -> bool:
    """Tell whether a ramp explains the change, or it goes on with one that was told a short while ago."""
    series = state.moments.levels if what == "level" else state.moments.spreads
    gain, length = ramp_gain(series.total, series.count, values, pending.deviation**2)
    return (gain > parameters.gradual * pending.inflation and length >= parameters.ramp) or (
        what == "level" and state.heading * pending.size > 0 and pending.start < parameters.follows
    )


def _excised(state: ScalarState, first: int, last: int, parameters: ScalarParameters) -> ScalarState:
    """Take a burst out of the window, so that the reference is what it was."""
    coding = state.coding
    assert coding is not None
    window = state.window[: first * _BYTES] + state.window[last * _BYTES :]
    dropped = (last - first) // _STRIDE
    begin = len(state.marks) - (len(state.window) // _BYTES - first) // _STRIDE
    marks = (*state.marks[:begin], *state.marks[begin + dropped :])
    seen = state.seen - (last - first)
    return msgspec.structs.replace(
        state,
        seen=seen,
        window=window,
        marks=marks,
        level=None,
        spread=None,
    )


def _window(state: ScalarState) -> Array:
    return np.frombuffer(state.window, np.float32).astype(float)


def _described(coding: Coding, count: int, total: float, squares: float) -> Regime:
    mean = total / max(count, 1)
    deviation = math.sqrt(max(squares / max(count, 1) - mean * mean, 0.0))
    return Regime(coding.location + coding.scale * mean, coding.scale * deviation, count)


def _offset_at(state: ScalarState, position: int) -> int:
    """Return the offset of the eighth value at or before a position in the window."""
    # Index since the reference began; marks stand at multiples of the stride.
    index = state.seen - len(state.window) // _BYTES + position
    newest = (state.seen - 1) // _STRIDE
    back = newest - index // _STRIDE
    return state.marks[max(len(state.marks) - 1 - back, 0)]

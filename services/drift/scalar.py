"""Drift of one number: River's ADWIN on the level and on the spread, with a confirmation by values that came after.

ADWIN (Bifet & Gavalda, 2007) keeps a window as long as its halves agree and finds the moment of a change by itself.
Two things are added. The values are standardised by the segment's first ones, since ADWIN's bound has a term for
values within [0, 1]: raw costs of 1e-5 would never reach it. And a second ADWIN watches the distance to the mean,
since a doubled variance leaves the mean alone.

Everything here is pure. River's detector is compiled; what it can be pickled to is the exact state, 0.5 to 2 KB, and
is kept as bytes, so a restored detector goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from river import drift

__all__ = ["Pending", "ScalarParameters", "ScalarShift", "ScalarState", "observe"]

# Beyond this many deviations a value says no more than that it is far off: one outlier must not be a change.
_CLIP = 5.0
_MARKS = 64
# Values among which the moment of a change is looked for: more than any change takes to be found that matters.
_RECENT = 256


class ScalarParameters(msgspec.Struct, frozen=True):
    """How the test is set; the defaults are calibrated by tests/bench/bench_drift.py."""

    warm_up: int = 40
    """Values that set location and scale; no change is looked for before."""
    delta: float = 0.0075
    """ADWIN's confidence. With the confirmation: about 0.1 false alarms in 10,000 values."""
    clock: int = 4
    """Values between two looks of ADWIN."""
    confirm: float = 1.64
    """Standard errors by which the mean of the values after the candidate must differ, in the candidate's direction."""
    confirm_least: int = 6
    """Values after the candidate before it can be confirmed."""
    confirm_most: int = 40
    """Values after which a candidate that was not confirmed is given up."""


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """A change that waits for its confirmation; all in standardised units."""

    spread: bool
    centre: float
    """The level at the candidate, from which deviations are measured."""
    before_mean: float
    before_count: int
    deviation: float
    """Standard deviation over the whole window at the candidate."""
    rising: bool
    after_count: int
    after_sum: float
    """Of the values from the change to the candidate."""
    fresh_count: int = 0
    fresh_sum: float = 0.0
    """Of the values that came after the candidate."""


class _Window(NamedTuple):
    """What a detector's window held before the present value."""

    total: float
    squares: float
    size: int


class ScalarState(msgspec.Struct, frozen=True):
    """What is kept of one signal of one segment since the last change."""

    seen: int = 0
    warm: tuple[float, ...] = ()
    location: float = 0.0
    scale: float = 1.0
    level: bytes = b""
    spread: bytes = b""
    marks: tuple[int, ...] = ()
    """Offsets of every ``stride``-th value, so that a position can be found in the log again."""
    stride: int = 1
    recent: bytes = b""
    """The newest standardised values, float32: where in them the change lies is found at its confirmation."""
    pending: Pending | None = None


class ScalarShift(msgspec.Struct, frozen=True):
    """A confirmed change, in the signal's own units."""

    what: str
    """mean or spread."""
    statistic: float
    """Standard errors between the values after the candidate and the mean before."""
    threshold: float
    before: float
    after: float
    before_count: int
    after_count: int
    reference_first_offset: int
    test_first_offset: int


def observe(
    state: ScalarState, value: float, offset: int, parameters: ScalarParameters, *, watch_spread: bool = True
) -> tuple[ScalarState, ScalarShift | None]:
    """Add one value.

    Args:
        state: what is known so far; not changed.
        value: the value, finite, in a unit in which differences matter equally (the logarithm of an amount, say).
        offset: where the value stands in its partition; for the evidence.
        parameters: how the test is set.
        watch_spread: whether a change of the spread counts; that of a rate (values of 0 and 1) follows from its level.

    Returns:
        The next state, and the change if this value confirmed one. After a change the state starts anew.

    Raises:
        ValueError: the value is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"the value {value} is not finite")
    marks, stride = _marked(state, offset)
    if not state.level:
        state = msgspec.structs.replace(state, seen=state.seen + 1, marks=marks, stride=stride)
        return _warm_up(state, value, parameters, watch_spread), None
    standard = max(-_CLIP, min(_CLIP, (value - state.location) / state.scale))

    level, level_changed, before = _advanced(state.level, standard, parameters)
    centre = before.total / max(before.size, 1)
    deviation = abs(standard - centre)
    spread, spread_changed, spread_before = state.spread, False, before
    if spread:
        spread, spread_changed, spread_before = _advanced(spread, deviation, parameters)
    recent = (state.recent + struct.pack("<f", standard))[-4 * _RECENT :]

    pending, statistic = state.pending, 0.0
    if pending is not None:
        pending = _joined(pending, standard)
        statistic = _fresh_statistic(pending)
        if pending.fresh_count >= parameters.confirm_most and statistic <= parameters.confirm:
            pending = None
    elif level_changed:
        pending = _candidate(False, centre, before, standard, recent)
        # The old mean is gone from the distances to it as well.
        spread = _new_detector(parameters) if spread else b""
    elif spread_changed:
        pending = _candidate(True, centre, spread_before, deviation, recent)
    state = ScalarState(state.seen + 1, (), state.location, state.scale, level, spread, marks, stride, recent, pending)
    if pending is not None and pending.fresh_count >= parameters.confirm_least and statistic > parameters.confirm:
        return ScalarState(), _shift(state, pending, statistic, parameters)
    return state, None


@cache
def _bench(delta: float, clock: int) -> Any:
    """Return a detector to put states on: making one costs more than an update.

    Each use begins by overwriting all of it, so nothing passes from one use to the next.
    """
    detector: Any = drift.ADWIN(  # type: ignore[no-untyped-call]
        delta=delta, clock=clock, min_window_length=5, grace_period=20
    )
    # River offers no other way to a detector's state than pickling. Unpickling what stands in a changelog would let
    # its writer run code; the inner object's own state is plain data.
    return detector._helper


@cache
def _blank(delta: float, clock: int) -> bytes:
    return bytes(_bench(delta, clock).__getstate__())


def _new_detector(parameters: ScalarParameters) -> bytes:
    """Return the state of a detector that has seen nothing."""
    return _blank(parameters.delta, parameters.clock)


def _advanced(frozen: bytes, value: float, parameters: ScalarParameters) -> tuple[bytes, bool, _Window]:
    """Return a detector's state after a value, whether it found a change there, and its window before."""
    # The blank state is taken before the first use.
    _new_detector(parameters)
    detector = _bench(parameters.delta, parameters.clock)
    detector.__setstate__(frozen)
    # River's variance is the sum of squared deviations, not their mean.
    window = _Window(detector.get_total(), detector.get_variance(), int(detector.get_width()))
    changed = bool(detector.update(value))
    return bytes(detector.__getstate__()), changed, window


def _marked(state: ScalarState, offset: int) -> tuple[tuple[int, ...], int]:
    """Return the marks with this value's, and how many values lie between two."""
    marks, stride = state.marks, state.stride
    if state.seen % stride == 0:
        marks = (*marks, offset)
        if len(marks) > _MARKS:
            marks, stride = marks[::2], stride * 2
    return marks, stride


def _warm_up(state: ScalarState, value: float, parameters: ScalarParameters, watch_spread: bool) -> ScalarState:
    warm = (*state.warm, value)
    if len(warm) < parameters.warm_up:
        return msgspec.structs.replace(state, warm=warm)
    location = math.fsum(warm) / len(warm)
    if watch_spread:
        scale = math.sqrt(math.fsum((each - location) ** 2 for each in warm) / (len(warm) - 1))
        # A number that has not varied yet: a twentieth of its size, or 1, is then a change of one deviation.
        if scale <= 1e-9 * abs(location) or scale == 0:
            scale = abs(location) / 20 or 1.0
    else:
        # A rate, smoothed (Jeffreys' prior): one that has been 0 so far may well be 1 %.
        rate = (min(max(location, 0.0), 1.0) * len(warm) + 0.5) / (len(warm) + 1)
        scale = math.sqrt(rate * (1 - rate))
    level, spread = _new_detector(parameters), _new_detector(parameters)
    for each in warm:
        standard = max(-_CLIP, min(_CLIP, (each - location) / scale))
        spread = _advanced(spread, abs(standard), parameters)[0]
        level = _advanced(level, standard, parameters)[0]
    return msgspec.structs.replace(
        state,
        warm=(),
        location=location,
        scale=scale,
        level=level,
        spread=spread if watch_spread else b"",
    )


def _joined(pending: Pending, standard: float) -> Pending:
    fresh = abs(standard - pending.centre) if pending.spread else standard
    return msgspec.structs.replace(pending, fresh_count=pending.fresh_count + 1, fresh_sum=pending.fresh_sum + fresh)


def _candidate(spread: bool, centre: float, window: _Window, value: float, recent: bytes) -> Pending:
    """Find where in the window the change lies.

    ADWIN drops its oldest part bucket by bucket, so what it keeps is at first a mixture of both sides. The split that
    maximises the standardised difference of the means (the likeliest change point) tells them apart.
    """
    values = np.frombuffer(recent, np.float32).astype(float)
    if spread:
        values = np.abs(values - centre)
    count, total = window.size + 1, window.total + value
    sizes = np.arange(1, min(len(values), count - 1) + 1)
    sums = np.cumsum(values[::-1])[: len(sizes)]
    differences = sums / sizes - (total - sums) / (count - sizes)
    best = int(np.argmax(np.abs(differences) * np.sqrt(sizes * (count - sizes))))
    return Pending(
        spread=spread,
        centre=centre,
        before_mean=float((total - sums[best]) / (count - sizes[best])),
        before_count=int(count - sizes[best]),
        deviation=math.sqrt(max(window.squares / max(window.size, 1), 1e-6)),
        rising=bool(differences[best] > 0),
        after_count=int(sizes[best]),
        after_sum=float(sums[best]),
    )


def _fresh_statistic(pending: Pending) -> float:
    difference = pending.fresh_sum / pending.fresh_count - pending.before_mean
    error = pending.deviation * math.sqrt(1 / pending.fresh_count + 1 / pending.before_count)
    return (difference if pending.rising else -difference) / error


def _shift(state: ScalarState, pending: Pending, statistic: float, parameters: ScalarParameters) -> ScalarShift:
    after_count = pending.after_count + pending.fresh_count
    base = 0.0 if pending.spread else state.location
    mark = -(-max(state.seen - after_count, 0) // state.stride)
    return ScalarShift(
        what="spread" if pending.spread else "mean",
        statistic=statistic,
        threshold=parameters.confirm,
        before=base + state.scale * pending.before_mean,
        after=base + state.scale * (pending.after_sum + pending.fresh_sum) / after_count,
        before_count=pending.before_count,
        after_count=after_count,
        reference_first_offset=state.marks[0],
        test_first_offset=state.marks[min(mark, len(state.marks) - 1)],
    )

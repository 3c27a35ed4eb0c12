"""A confirmed change of a number: how it is told, and what comes after it."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from services.drift.detection.coding import Array, code
from services.drift.detection.judgement import Pending
from services.drift.detection.regimes import matching, ramp_gain, remembered
from services.drift.detection.river_stage import TITLES
from services.drift.detection.scalar_state import STRIDE, ScalarParameters, ScalarState, described, window_of
from services.drift.detection.shift import Pattern, Shift, What

__all__ = ["told"]

_BYTES = 4


def told(
    state: ScalarState, what: What, pending: Pending, outlier: bool, parameters: ScalarParameters
) -> tuple[ScalarState, Shift]:
    """Describe a confirmed change, and start the next reference."""
    coding = state.coding
    assert coding is not None
    standard = window_of(state)
    last = len(standard) - (pending.ended_count if outlier else 0)
    count = pending.lasted if outlier else pending.count
    within = min(count, last)
    changed = standard[last - within : last]
    older, total, squares, offset = state.moments.newest(count - within)
    if older == 0:
        offset = _offset_at(state, last - within)
    count = within + older
    after = described(coding, count, total + float(changed.sum()), squares + float(changed @ changed))
    before = described(
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
    gain = parameters.rate_gain if coding.rate else parameters.gain
    settings = f"gain={gain:g}, warm_up={parameters.warm_up}, inflation={pending.inflation:.2f}"
    raised = TITLES[pending.river] if pending.river else "likelihood ratio scan"
    detector = f"{raised} of the {what}, confirmed by fresh values ({settings})"
    shift = Shift(
        what=what,
        pattern=pattern,
        detector=detector,
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
        return _excised(state, last - within, last), shift
    heading = math.copysign(1.0, pending.size) if what == "level" else 0.0
    return ScalarState(wealth=state.wealth, heading=heading, regimes=remembered(state.regimes, before)), shift


def _gradual(state: ScalarState, what: What, values: Array, pending: Pending, parameters: ScalarParameters) -> bool:
    """Tell whether a ramp explains the change, or it goes on with one that was told a short while ago."""
    series = state.moments.levels if what == "level" else state.moments.spreads
    gain, length = ramp_gain(series.total, series.count, values, pending.deviation**2)
    return (gain > parameters.gradual * pending.inflation and length >= parameters.ramp) or (
        what == "level" and state.heading * pending.size > 0 and pending.start < parameters.follows
    )


def _excised(state: ScalarState, first: int, last: int) -> ScalarState:
    """Take a burst out of the window, so that the reference is what it was."""
    window = state.window[: first * _BYTES] + state.window[last * _BYTES :]
    dropped = (last - first) // STRIDE
    begin = len(state.marks) - (len(state.window) // _BYTES - first) // STRIDE
    marks = (*state.marks[:begin], *state.marks[begin + dropped :])
    seen = state.seen - (last - first)
    return msgspec.structs.replace(state, seen=seen, window=window, marks=marks, level=None, spread=None, river={})


def _offset_at(state: ScalarState, position: int) -> int:
    """Return the offset of the eighth value at or before a position in the window."""
    # Index since the reference began; marks stand at multiples of the stride.
    index = state.seen - len(state.window) // _BYTES + position
    newest = (state.seen - 1) // STRIDE
    back = newest - index // STRIDE
    return state.marks[max(len(state.marks) - 1 - back, 0)]

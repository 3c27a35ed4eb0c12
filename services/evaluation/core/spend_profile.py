"""What a key usually spends at each half hour of the week, and how far up it goes by itself. Pure.

The profile is exponential smoothing with a season, in logarithms: a level common to all slots and one value a slot
(Holt-Winters without a trend, but learning slot by slot from the first hour, with every surprise upwards cut to a factor
of two). What remains is scored as River's GaussianScorer does it, on residuals of windows of 5 to 60 minutes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from river import proba

__all__ = ["LATENESS", "SLOT", "WINDOWS", "Moments", "Profile", "learned", "residual", "usual_rate"]

WINDOWS = (5, 15, 30, 60)
"""Minutes of the windows: a steep rise shows in a short one, a small rise or a slow key's in a long one."""
SLOT = 30
"""Minutes of one slot of the week."""
LATENESS = 30
"""Minutes for which a past slot stays open for late calls before it is learned from."""

_WEEK = 7 * 24 * 60 // SLOT
_DAY = 24 * 60 // SLOT
_FIVES = SLOT // 5
_REACH = 2
"""Neighbouring slots that count as well: daylight saving moves a rhythm by an hour, and no morning begins on the minute."""
_TOLERANCE = 0.2
"""By how much, logarithmic, a neighbour must exceed a slot to count: by less it does for chance alone."""
_CHANCE = 0.8
"""By how much, logarithmic, half hours of the same kind differ."""
_MEMORY = 28 * 24 * 60
"""Minutes that the residuals remember: four weeks."""
_LEVEL_GAIN, _SLOT_GAIN = 0.06, 0.3
_MOST_SURPRISE = math.log(2)
_RELATIVE = 0.3
"""Relative deviation of the usual rate, where calls are so many that chance is none."""
_PRIOR = 10.0
"""Residuals of deviation 1 that a new key is taken to have had."""
_LEAST_DEVIATION = 0.5
_SMALLEST = 1e-12
# float16: 672 bytes for the week, exact to 0.1 %.
_PACKED = struct.Struct(f"<{_WEEK}e")
_UNSEEN = _PACKED.pack(*[math.nan] * _WEEK)


class Moments(msgspec.Struct, frozen=True, array_like=True):
    """Count, mean and variance of values; the count is bounded, so that old ones are forgotten."""

    count: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def updated(self, values: Iterable[float], memory: int) -> Moments:
        """Return the moments with ``values`` added, by River's Gaussian."""
        gaussian: Any = proba.Gaussian._from_state(self.count, self.mean, self.variance, 1)  # type: ignore[no-untyped-call]
        for value in values:
            gaussian.update(value)
        return Moments(min(gaussian.n_samples, float(memory)), gaussian.mu, gaussian.sigma**2)

    def one_more(self, value: float, memory: int) -> Moments:
        """Return the moments with one value added: the same by hand, for what happens at every call."""
        count = self.count + 1
        difference = value - self.mean
        mean = self.mean + difference / count
        squares = self.variance * max(self.count - 1, 0.0) + difference * (value - mean)
        return Moments(min(count, float(memory)), mean, squares / (count - 1) if count > 1 else 0.0)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(max(self.variance, 0.0))

    @property
    def upward(self) -> float:
        """The root mean square, drawn towards 1 where few values were seen: deviation of the upper half around 0."""
        squares = self.mean**2 + max(self.variance, 0.0)
        return max(math.sqrt((_PRIOR + self.count * squares) / (_PRIOR + self.count)), _LEAST_DEVIATION)


class Profile(msgspec.Struct, frozen=True, array_like=True):
    """The usual spending of a key.

    Attributes:
        unit: USD of a usual call; set once, so that all below keeps its meaning.
        packed: by slot of the week, log(1 + spending in units); NaN where unseen.
        level: how much more than that the key spends lately, logarithmic.
        slots: learned so far.
        residuals: by window, those above 0.
        last: spending and usual spending of the slot learned last, USD.
    """

    unit: float
    packed: bytes = _UNSEEN
    level: float = 0.0
    slots: int = 0
    residuals: tuple[Moments, ...] = (Moments(),) * len(WINDOWS)
    last: tuple[float, float] | None = None


def usual_rate(profile: Profile, slot: int) -> tuple[float, bool]:
    """Return USD a minute that are usual in a slot (half hours since the epoch), and whether that slot has been seen.

    For one that has not, it is the busiest slot so far.
    """
    return _usual(profile.unit, _PACKED.unpack(profile.packed), profile.level, slot)


def residual(spent: float, usual: float, unit: float) -> float:
    """Return how far spending lies from the usual: a variance near 1 where spending is a negative binomial count of units.

    Anscombe's transformation (Biometrika 35, 1948) of a count with variance m + (r m)^2: near the square root for few
    calls, which come at random, near the logarithm for many, where the error is relative.
    """
    return (_stable(spent / unit) - _stable(usual / unit)) * 2 / _RELATIVE


def learned(profile: Profile, fives: Mapping[int, float], first: int, due: int) -> Profile:
    """Learn from the slots from ``first`` on and before ``due``; empty ones as well, a week of them at most.

    Args:
        profile: so far; not changed.
        fives: USD by five minutes since the epoch.
        first: the first slot.
        due: the slot after the last.
    """
    values = list(_PACKED.unpack(profile.packed))
    found: tuple[list[float], ...] = tuple([] for _ in WINDOWS)
    level, unit, last = profile.level, profile.unit, profile.last
    for slot in range(max(first, due - _WEEK), due):
        parts = [fives.get(slot * _FIVES + index, 0.0) for index in range(_FIVES)]
        spent = math.fsum(parts)
        logarithm, place = min(math.log1p(spent / unit), 60.0), slot % _WEEK
        rate, known = _usual(unit, values, level, slot)
        if not known:
            values[place] = logarithm - level
            last = None
            continue
        for minutes, above in zip(WINDOWS, found, strict=True):
            above.extend(_above(parts, rate, minutes, unit, last))
        last = spent, rate * SLOT
        surprise = max(-_MOST_SURPRISE, min(_MOST_SURPRISE, logarithm - values[place] - level))
        # What few calls tell of the level is mostly chance: it weighs by the inverse of its variance.
        level += _LEVEL_GAIN * surprise / (1 + unit / (rate * SLOT * _RELATIVE**2 + _SMALLEST * unit))
        values[place] += _SLOT_GAIN * surprise
    return Profile(
        unit,
        _PACKED.pack(*values),
        level,
        profile.slots + due - max(first, due - _WEEK),
        tuple(
            moments.updated(above, _MEMORY // minutes)
            for minutes, moments, above in zip(WINDOWS, profile.residuals, found, strict=True)
        ),
        last,
    )


def _above(
    parts: Sequence[float], rate: float, minutes: int, unit: float, last: tuple[float, float] | None
) -> Iterable[float]:
    """Return the residuals above 0 of the windows of one length that end in a slot."""
    if minutes > SLOT:
        sums = [(math.fsum(parts) + last[0], rate * SLOT + last[1])] if last else []
    else:
        step = minutes // 5
        sums = [(math.fsum(parts[index : index + step]), rate * minutes) for index in range(0, _FIVES, step)]
    return [value for spent, usual in sums if (value := residual(spent, usual, unit)) > 0]


def _usual(unit: float, values: Sequence[float], level: float, slot: int) -> tuple[float, bool]:
    own = _evened(values, slot)
    if math.isnan(own):
        seen = [value for value in values if not math.isnan(value)]
        return (_spending(unit, max(seen) + level), False) if seen else (0.0, False)
    highest = own
    for step in range(-_REACH, _REACH + 1):
        # Comparisons with NaN, which is unseen, are false.
        if (value := _evened(values, slot + step) - _TOLERANCE) > highest:
            highest = value
    return _spending(unit, highest + level), True


def _evened(values: Sequence[float], slot: int) -> float:
    """Return a slot's value, evened out: one week tells little of a half hour.

    Its neighbours and the same half hour of other days count with it, but not one that differs by more than chance: that
    is another time of day, or another kind of day.
    """
    own = values[slot % _WEEK]
    total, weight = own, 1.0
    for value in values[slot % _DAY :: _DAY]:
        if abs(value - own) <= _CHANCE:
            total += value
            weight += 1
    for value in (values[(slot - 1) % _WEEK], values[(slot + 1) % _WEEK]):
        if abs(value - own) <= _CHANCE:
            total += value / 2
            weight += 0.5
    return total / weight


def _spending(unit: float, logarithm: float) -> float:
    return unit * math.expm1(min(max(logarithm, 0.0), 60.0)) / SLOT


def _stable(count: float) -> float:
    return math.asinh(_RELATIVE * math.sqrt(max(count, 0.0) + 0.375))

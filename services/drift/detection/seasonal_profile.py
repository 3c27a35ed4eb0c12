"""How the usual of an hour is learned: one number's deviations by hour of the day and of the week.

Level and deviations are smoothed exponentially (Holt and Winters, additive season without a trend). What is foretold is
the hour of the day's deviation and what the hour of the week adds to it, each

- drawn to nothing as far as it may be chance (James and Stein): by the values behind it, the variance within an hour and
  the variance of true deviations; where an hour of the week has few, towards what its neighbours add;
- times its season's slope, from 0 to 1: that of what the hours did on what had been foretold for them. A number without a
  season has a slope near 0; a change of level in the first week looks like a season, is not repeated, and loses its slope.

Every surprise is cut to a few deviations, so that outliers teach little.
"""

from __future__ import annotations

import math
import struct

import msgspec
import numpy as np

__all__ = ["Profile", "Season", "Visit", "foretold", "learned"]

_DAY, _WEEK = 24, 168
_THURSDAY = 72
"""Hour of the week, from Monday 00:00, of the epoch."""
_LEVEL_GAIN = 1 / 36
_BIN_GAIN = 0.2
_SLOPE_MEMORY = 1 / 120
_SPREAD_GAIN = 1 / 50
_SLOPE_PRIOR, _TRUST = 2.0, 0.75
"""Visits' worth of belief in a new season, and the slope that it is believed to have."""
_ROUND = 60.0
"""The same, in the variance that its first round has."""
_NEAR = 2
"""Neighbouring hours towards which an hour with few values is drawn."""
_FEW = 3.0
"""Values of a visit at which it counts half."""
_CUT_VISIT = 3.75
"""Mean absolute surprises (three standard deviations) to which a visit's is cut, once there were a few."""
_BEFORE_CUT = 6
_OUTSIDE = 6.0
"""Median deviations, and standard deviations within an hour, beyond which an hour of the first round is cut."""
_MOST = 6e4
"""Largest weight, within float16."""


class Visit(msgspec.Struct, frozen=True, array_like=True):
    """The values of the hour that is under way, from the profile's origin."""

    hour: int
    """Hours since the epoch."""
    foretold: float = 0.0
    """Deviation that is taken off its values."""
    count: int = 0
    total: float = 0.0
    squares: float = 0.0


class Season(msgspec.Struct, frozen=True, array_like=True):
    """Deviations by hour of the day, or of the week."""

    deviations: bytes
    """float32; before the first round is over, values instead of deviations."""
    weights: bytes
    """float16, values behind each deviation, the newest visits counting more; 0 where the hour was not seen."""
    known: bool = False
    """Whether the first round is over."""
    covariance: float = 0.0
    covered: float = 0.0
    """Sums of deviation times what was there, and of weights: their ratio is the variance of true deviations."""
    slope_top: float = 0.0
    slope_base: float = 0.0
    """Sums of what was foretold times what was there, and of foretold squared."""

    @property
    def slope(self) -> float:
        """How far the season is trusted, from 0 to 1."""
        return min(1.0, max(0.0, self.slope_top / self.slope_base)) if self.slope_base > 0 else 0.0

    def deviation(self, index: int) -> float:
        """Return the deviation of an hour."""
        return float(struct.unpack_from("<f", self.deviations, 4 * index)[0])

    def weight(self, index: int) -> float:
        """Return the values behind it."""
        return float(struct.unpack_from("<e", self.weights, 2 * index)[0])

    def mean(self) -> float:
        """Return the deviation of the average value: there are more in busy hours."""
        weights = np.frombuffer(self.weights, "<f2").astype(np.float64)
        return float(np.frombuffer(self.deviations, "<f4").astype(np.float64) @ weights / weights.sum())

    def belief(self, weight: float, noise: float) -> float:
        """Return the share of a deviation that is no chance, with values of this weight behind it."""
        variance = self.covariance / self.covered if self.covered > 0 else 0.0
        return weight / (weight + noise / variance) if weight > 0 and variance > 0 else 0.0


class Profile(msgspec.Struct, frozen=True):
    """What is known of one number's hours; all but ``origin`` is measured from there."""

    first_hour: int
    origin: float
    """The first value; 0 of a rate."""
    rate: bool = False
    seen: int = 0
    visits: int = 0
    """Hours that are over and had values."""
    level: float = 0.0
    """Of the average hour."""
    centre: float = 0.0
    """Deviation that is foretold for the average value."""
    noise: float = 0.0
    """Variance within an hour."""
    surprise: float = 0.0
    """Mean absolute difference between an hour's mean and what was foretold."""
    last: float | None = None
    """Mean of the hour before, where it had one value."""
    visit: Visit | None = None
    day: Season | None = None
    week: Season | None = None


def foretold(profile: Profile, hour: int) -> float:
    """Return the deviation from the level that is foretold for an hour since the epoch."""
    day, week, noise = profile.day, profile.week, profile.noise
    if day is None or not day.known:
        return 0.0
    by_day = _by_day(day, hour, noise)
    return by_day if week is None or not week.known else by_day + week.slope * _beside_day(week, day, hour, noise)


def learned(profile: Profile, visit: Visit) -> Profile:
    """Return the profile with an hour that is over taken in."""
    hour, count, mean = visit.hour, visit.count, visit.total / visit.count
    weight = count / (count + _FEW)
    profile = _scattered(profile, visit, mean)
    age, level, noise = hour - profile.first_hour, profile.level, profile.noise
    day = profile.day or _nothing(_DAY)
    if not day.known and age < _DAY:
        return msgspec.structs.replace(profile, visit=None, day=_visited(day, hour % _DAY, mean, count))
    week = profile.week
    if week is None:
        # The first day's hours are the first of the week as well; they stand there as values, like all of the first week.
        week = _first_day(day, profile.first_hour)
        day, level = _closed(day, noise)
    if not week.known and age >= _WEEK:
        week, level = _closed(week, noise, day)

    by_day = _by_day(day, hour, noise)
    added = _beside_day(week, day, hour, noise) if week.known else 0.0
    usual = by_day + week.slope * added
    missed = mean - level - usual
    surprise = profile.surprise
    reach = _CUT_VISIT * surprise if profile.visits >= _BEFORE_CUT + _DAY else math.inf
    cut = min(max(missed, -reach), reach)
    gain = max(_SPREAD_GAIN, 1 / (1 + max(profile.visits - _DAY, 0)))
    surprise += gain * (min(abs(missed), max(2 * reach, surprise)) - surprise)
    actual = level + usual + cut
    if week.known:
        week = _calibrated(week, _of_week(hour), by_day, added, actual - level, weight)
    unscaled = day.deviation(hour % _DAY) * day.belief(day.weight(hour % _DAY), noise)
    day = _calibrated(day, hour % _DAY, 0.0, unscaled, actual - level, weight)
    level += _LEVEL_GAIN * weight * cut
    return msgspec.structs.replace(
        profile,
        level=level,
        centre=_centre(day, week),
        surprise=surprise,
        visit=None,
        day=_visited(day, hour % _DAY, actual - level, count),
        week=_visited(week, _of_week(hour), actual - (level if week.known else 0.0), count),
    )


def _scattered(profile: Profile, visit: Visit, mean: float) -> Profile:
    """Take in the variance within an hour; of hours with one value, half the squared difference to the one before (von
    Neumann, 1941)."""
    count, last, noise = visit.count, profile.last, profile.noise
    within: float | None = None
    if count > 1:
        within = max(visit.squares - count * mean * mean, 0.0) / (count - 1)
    elif last is not None:
        within = (mean - last) ** 2 / 2
    if within is not None and (noise == 0 or profile.rate):
        gain = max(_SPREAD_GAIN, 1 / (1 + profile.visits)) * (count / (count + 1))
        noise = within if noise == 0 else noise + gain * (within - noise)
    elif within is not None:
        # Step by step towards the median: one hour with a value far out says nothing of the others.
        step = 0.5 if profile.visits < _DAY else 0.1 if profile.visits < _WEEK else 0.03
        noise *= math.exp(step if within > noise else -step)
    return msgspec.structs.replace(profile, visits=profile.visits + 1, noise=noise, last=mean if count == 1 else None)


def _by_day(day: Season, hour: int, noise: float) -> float:
    index = hour % _DAY
    return day.slope * day.deviation(index) * day.belief(day.weight(index), noise)


def _beside_day(week: Season, day: Season, hour: int, noise: float) -> float:
    """Return what an hour of the week adds to its hour of the day."""
    weights = sums = 0.0
    for near in range(hour - _NEAR, hour + _NEAR + 1):
        weight = week.weight(_of_week(near))
        if weight > 0:
            weights += weight
            sums += weight * (week.deviation(_of_week(near)) - _by_day(day, near, noise))
    if weights <= 0:
        return 0.0
    around = sums / weights * week.belief(weights, noise)
    own = week.deviation(_of_week(hour)) - _by_day(day, hour, noise)
    return around + (own - around) * week.belief(week.weight(_of_week(hour)), noise)


def _centre(day: Season, week: Season) -> float:
    by_day = day.slope * day.mean()
    return (1 - week.slope) * by_day + week.slope * week.mean() if week.known else by_day


def _of_week(hour: int) -> int:
    return (hour + _THURSDAY) % _WEEK


def _nothing(bins: int) -> Season:
    return Season(bytes(4 * bins), bytes(2 * bins))


def _first_day(day: Season, first_hour: int) -> Season:
    week = _nothing(_WEEK)
    for hour in range(first_hour, first_hour + _DAY):
        if day.weight(hour % _DAY) > 0:
            week = _visited(week, _of_week(hour), day.deviation(hour % _DAY), day.weight(hour % _DAY))
    return week


def _closed(season: Season, noise: float, day: Season | None = None) -> tuple[Season, float]:
    """Turn the first round's values into deviations from their mean, and say how far they can be trusted as yet.

    Args:
        season: the values of the first round.
        noise: variance within an hour.
        day: of a week, what is foretold without it.
    """
    values = np.frombuffer(season.deviations, "<f4").astype(np.float64)
    weights = np.frombuffer(season.weights, "<f2").astype(np.float64)
    seen = weights > 0
    middle = float(np.median(values[seen]))
    reach = _OUTSIDE * float(np.median(np.abs(values[seen] - middle))) + _OUTSIDE * math.sqrt(noise)
    values = np.clip(values, middle - reach, middle + reach)
    level = float(values[seen].mean())
    deviations = np.where(seen, values - level, 0.0)
    beside = np.zeros(len(values)) if day is None else np.array([_by_day(day, hour, noise) for hour in range(_WEEK)])
    by_chance = float((noise / weights[seen]).mean())
    variance = max(0.0, float(((deviations - beside)[seen] ** 2).mean()) - 2 * by_chance)
    base = _SLOPE_PRIOR * (variance + by_chance)
    return Season(
        deviations.astype("<f4").tobytes(),
        season.weights,
        known=True,
        covariance=_ROUND * variance,
        covered=_ROUND,
        slope_top=_TRUST * base,
        slope_base=base,
    ), level


def _calibrated(season: Season, index: int, beside: float, usual: float, actual: float, weight: float) -> Season:
    """Take a visit into the variance and the slope; what is far from what was foretold counts as far as that reaches.

    Args:
        season: the season.
        index: the visit's hour in it.
        beside: what is foretold without this season.
        usual: what this season adds, before its slope.
        actual: the visit's deviation from the level.
        weight: of the visit, up to 1.
    """
    if season.weight(index) <= 0:
        return season
    raw, there = season.deviation(index) - beside, actual - beside
    reach = 3 * max(abs(raw), abs(usual))
    there = min(max(there, -reach), reach)
    keep = 1 - _SLOPE_MEMORY * weight
    return msgspec.structs.replace(
        season,
        covariance=keep * season.covariance + weight * raw * there,
        covered=keep * season.covered + weight,
        slope_top=keep * season.slope_top + weight * usual * there,
        slope_base=keep * season.slope_base + weight * usual * usual,
    )


def _visited(season: Season, index: int, value: float, count: float) -> Season:
    """Move an hour's deviation towards what it was now: their mean by values, in which the newest visits weigh more."""
    deviations, weights = bytearray(season.deviations), bytearray(season.weights)
    kept = (1 - _BIN_GAIN) * season.weight(index) if season.known else season.weight(index)
    old = season.deviation(index)
    struct.pack_into("<f", deviations, 4 * index, old + (value - old) * count / (kept + count))
    struct.pack_into("<e", weights, 2 * index, min(kept + count, _MOST))
    return msgspec.structs.replace(season, deviations=bytes(deviations), weights=bytes(weights))

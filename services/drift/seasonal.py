"""What a number usually does at this hour of the week, so that Monday morning is no drift.

:func:`adjusted` takes from each value what the number usually deviates from its level at that hour (UTC); what is left
goes to the detector, in the signal's own units and at the level of an average value, so that a figure of an alert is too.

The values of one hour are one visit, and what a visit taught is used from the next one on: a lasting change is not
learned away while it is looked for. For the first day nothing is taken off; from the second on what the same hour of the
day deviated; from the second week on what the same hour of the week did. How far a profile is trusted is measured, not
assumed: by the slope of what the visits did on what the profile had foretold (a calibration slope, from 0 to 1). Of a
number without a season the slope is near 0 and the values stay as they are; a change of level within the first week, which
looks like a season in it, is not repeated by the second and loses its slope.

Level and deviations are smoothed exponentially (Holt and Winters, additive season without a trend), every surprise cut
to a few deviations so that outliers teach little. Daylight saving moves a rhythm by an hour: for some days the slopes are
smaller, then the profile has followed.

Categories and topics have no profile: a week of 168 mixtures of 40 cells or of 96 features would be larger than all else
that is kept. Their detectors keep up to four past regimes instead, and a mixture that was there before is told as
``recurring``, not as something new.

A profile is plain data of at most 0.8 kB, and nothing for a signal that is younger than an hour.
"""

from __future__ import annotations

import math
import struct
import zlib
from datetime import UTC, datetime
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["Phase", "Profile", "adjusted", "expected", "phase"]

Phase = Literal["none", "hour of day", "hour of week"]

_DAY, _WEEK = 24, 168
_MONDAY = 72
"""Hours from the first Monday, 00:00 UTC, back to the epoch, a Thursday."""
_LEVEL_GAIN = 1 / 36
_BIN_GAIN = 0.2
_SLOPE_MEMORY = 1 / 120
_SLOPE_PRIOR, _TRUST = 2.0, 0.75
"""Visits' worth of belief in a new profile, and the slope that it is believed to have."""
_ROUND = 60.0
"""The same, in the variance that its first round has."""
_NEAR = 2
"""Neighbouring hours towards which an hour with few values is drawn."""
_FEW = 3.0
"""Values of a visit at which it counts half."""
_CUT_VALUE, _CUT_VISIT = 6.0, 3.0
"""Deviations to which a value and a visit's surprise are cut."""
_SPREAD_GAIN = 1 / 50

Bins = NDArray[np.float64]


class Visit(msgspec.Struct, frozen=True, array_like=True):
    """The values of the hour that is under way, standardised."""

    hour: int
    """Hours since the epoch."""
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    foretold: float = 0.0
    """Deviation that is taken off its values."""


class Season(msgspec.Struct, frozen=True, array_like=True):
    """Deviations by hour of the day, or of the week."""

    deviations: bytes
    """float16, standardised; before the first round is over, values instead of deviations."""
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
        """How far the profile is trusted, from 0 to 1."""
        return min(1.0, max(0.0, self.slope_top / self.slope_base)) if self.slope_base > 0 else 0.0


class Profile(msgspec.Struct, frozen=True):
    """What is known of one number's hours."""

    seen: int = 0
    origin: float = 0.0
    scale: float = 0.0
    """Values are standardised by these; set by the first hour. A scale of 0: not yet."""
    first_hour: int = 0
    level: float = 0.0
    """Of the average hour, standardised."""
    centre: float = 0.0
    """Deviation of the average value: there are more in busy hours."""
    noise: float = 1.0
    """Variance within an hour."""
    surprise: float = 1.0
    """Mean absolute difference between a visit and what was foretold."""
    visit: Visit | None = None
    day: Season | None = None
    week: Season | None = None


def adjusted(
    profile: Profile | None, value: float, at: datetime, *, scale: Literal["rate", "score", "amount"] = "score"
) -> tuple[Profile, float]:
    """Return the profile after a value, and the value with its hour's usual deviation taken off.

    Args:
        profile: what is known so far, ``None`` of a new signal; not changed.
        value: the value, finite, on the detector's scale: of an amount its logarithm, of a rate 0 or 1.
        at: when its event occurred, with a time zone.
        scale: what the number is. A rate stays 0 or 1: where its hour usually has more ones than the average hour, some
            of them are left out, where it has fewer some are added, so that the average hour's rate is left. Which ones is
            decided by how many values were seen alone.

    Raises:
        ValueError: the value is not finite, or the instant has no time zone.
    """
    if not math.isfinite(value):
        raise ValueError(f"the value {value} is not finite; leave it out, and count it as a signal of its own")
    if at.tzinfo is None:
        raise ValueError(f"the instant {at} has no time zone; give UTC")
    hour = int(at.astimezone(UTC).timestamp() // 3600)
    profile = profile or Profile(first_hour=hour)
    if profile.visit is not None and hour > profile.visit.hour:
        profile = _learned(profile, profile.visit, scale)
    visit = profile.visit or Visit(hour, foretold=_foretold(profile, hour))
    # An event that comes late has an hour of its own; it is learned with the present one.
    deviation = visit.foretold if hour == visit.hour else _foretold(profile, hour)
    known = profile.scale > 0
    standard = (value - profile.origin) / profile.scale if known else value
    if known and scale != "rate":
        middle, reach = profile.level + deviation, _CUT_VALUE * math.sqrt(profile.noise)
        # The level of the first day is not known yet.
        if profile.day is not None and profile.day.known:
            standard = min(max(standard, middle - reach), middle + reach)
    visit = Visit(
        visit.hour, visit.count + 1, visit.total + standard, visit.squares + standard * standard, visit.foretold
    )
    left = value - (deviation - profile.centre) * profile.scale if known and deviation else value
    if scale == "rate" and deviation:
        left = _thinned(value, profile, deviation)
    return msgspec.structs.replace(profile, seen=profile.seen + 1, visit=visit), left


def expected(profile: Profile | None, at: datetime) -> float:
    """Return what :func:`adjusted` takes off a number at ``at``, on the detector's scale."""
    if profile is None or profile.scale == 0:
        return 0.0
    deviation = _foretold(profile, int(at.astimezone(UTC).timestamp() // 3600))
    return (deviation - profile.centre) * profile.scale if deviation else 0.0


def phase(profile: Profile | None) -> Phase:
    """Return which profile is used."""
    if profile is not None and profile.week is not None and profile.week.known:
        return "hour of week"
    return "hour of day" if profile is not None and profile.day is not None and profile.day.known else "none"


def _foretold(profile: Profile, hour: int) -> float:
    """Return the standardised deviation that the profiles foretell for an hour, as far as they are trusted."""
    day, week, noise = profile.day, profile.week, profile.noise
    if day is None or not day.known:
        return 0.0
    by_day = _by_day(day, hour, noise)
    return by_day if week is None or not week.known else by_day + week.slope * _beside_day(week, day, hour, noise)


def _by_day(day: Season, hour: int, noise: float) -> float:
    index = hour % _DAY
    weight = _at(day.weights, index)
    return day.slope * _at(day.deviations, index) * _belief(day, weight, noise)


def _centre(day: Season, week: Season) -> float:
    """Return what the profiles foretell for the average value."""
    by_day = day.slope * _mean(day)
    return (1 - week.slope) * by_day + week.slope * _mean(week) if week.known else by_day


def _mean(season: Season) -> float:
    weights = np.frombuffer(season.weights, "<f2").astype(np.float64)
    return float(np.frombuffer(season.deviations, "<f2").astype(np.float64) @ weights / weights.sum())


def _beside_day(week: Season, day: Season, hour: int, noise: float) -> float:
    """Return what an hour of the week adds to its hour of the day.

    Where few values are behind it, it is drawn towards what its neighbours add, and they towards nothing.
    """
    weights = sums = 0.0
    for near in range(hour - _NEAR, hour + _NEAR + 1):
        weight = _at(week.weights, _of_week(near))
        if weight > 0:
            weights += weight
            sums += weight * (_at(week.deviations, _of_week(near)) - _by_day(day, near, noise))
    if weights <= 0:
        return 0.0
    around = sums / weights * _belief(week, weights, noise)
    weight = _at(week.weights, _of_week(hour))
    if weight <= 0:
        return around
    own = _at(week.deviations, _of_week(hour)) - _by_day(day, hour, noise)
    return around + (own - around) * _belief(week, weight, noise)


def _belief(season: Season, weight: float, noise: float) -> float:
    """Return the share of a deviation that is no chance, with values of this weight behind it (James and Stein)."""
    variance = season.covariance / season.covered if season.covered > 0 else 0.0
    return weight / (weight + noise / variance) if weight > 0 and variance > 0 else 0.0


def _of_week(hour: int) -> int:
    return (hour + _MONDAY) % _WEEK


def _at(packed: bytes, index: int) -> float:
    return float(struct.unpack_from("<e", packed, 2 * index)[0])


def _thinned(value: float, profile: Profile, deviation: float) -> float:
    """Return a 0 or 1 that is 1 as often as on average.

    Of ones that are too many the share that is usual stays; of zeros as many become ones as are missing.
    """
    usual = min(max(profile.level + profile.centre, 0.0), 1.0)
    here = min(max(profile.level + deviation, 1e-4), 1 - 1e-4)
    chance = zlib.crc32(struct.pack("<q", profile.seen)) / 2**32
    if value:
        return 1.0 if chance < usual / here else 0.0
    return 1.0 if chance < (usual - here) / (1 - here) else 0.0


# -- learning, once an hour --------------------------------------------------------------------------------------------


def _learned(profile: Profile, visit: Visit, scale: str) -> Profile:
    """Return the profile with an hour that is over taken in."""
    if profile.scale == 0:
        profile, visit = _standardised(profile, visit, scale)
    hour, mean, count = visit.hour, visit.total / visit.count, visit.count
    weight = count / (count + _FEW)
    noise, level = profile.noise, profile.level
    if count > 1:
        within = max(visit.squares - count * mean * mean, 0.0) / (count - 1)
        noise += _SPREAD_GAIN * weight * (min(within, 16 * noise) - noise)
    age = hour - profile.first_hour
    day = profile.day or _nothing(_DAY)
    if not day.known and age < _DAY:
        return msgspec.structs.replace(profile, noise=noise, visit=None, day=_visited(day, hour % _DAY, mean, count))
    week = profile.week
    if week is None:
        # The first day's hours are the first of the week as well; they stand there as values, like all of the first week.
        week = _first_day(day, profile.first_hour)
        day, level = _closed(day, noise)
    if not week.known and age >= _WEEK:
        week, level = _closed(week, noise, day)

    by_day = _by_day(day, hour, noise)
    added = _beside_day(week, day, hour, noise) if week.known else 0.0
    foretold = by_day + week.slope * added
    missed = mean - level - foretold
    reach = _CUT_VISIT * 1.25 * profile.surprise + math.sqrt(noise / count)
    cut = min(max(missed, -reach), reach)
    surprise = profile.surprise + _SPREAD_GAIN * (min(abs(missed), 4 * profile.surprise) - profile.surprise)
    actual = level + foretold + cut
    if week.known:
        week = _calibrated(week, _of_week(hour), by_day, added, actual - level, weight)
    unscaled = by_day / day.slope if day.slope > 0 else _at(day.deviations, hour % _DAY)
    day = _calibrated(day, hour % _DAY, 0.0, unscaled, actual - level, weight)
    level += _LEVEL_GAIN * weight * cut
    return msgspec.structs.replace(
        profile,
        level=level,
        centre=_centre(day, week),
        noise=noise,
        surprise=surprise,
        visit=None,
        day=_visited(day, hour % _DAY, actual - level, count),
        week=_visited(week, _of_week(hour), actual - (level if week.known else 0.0), count),
    )


def _standardised(profile: Profile, visit: Visit, scale: str) -> tuple[Profile, Visit]:
    """Set the unit by the first hour."""
    mean = visit.total / visit.count
    deviation = math.sqrt(max(visit.squares / visit.count - mean * mean, 0.0))
    if scale == "rate":
        origin, unit = 0.0, 1.0
    else:
        origin, unit = mean, max(deviation, 0.02 * abs(mean)) or 1.0
    total = visit.total - visit.count * origin
    squares = visit.squares - 2 * origin * visit.total + visit.count * origin * origin
    visit = Visit(visit.hour, visit.count, total / unit, max(squares, 0.0) / unit**2)
    return msgspec.structs.replace(
        profile, origin=origin, scale=unit, noise=0.25 if scale == "rate" else 1.0,
        surprise=0.25 if scale == "rate" else 1.0,
    ), visit  # fmt: skip


def _nothing(bins: int) -> Season:
    return Season(bytes(2 * bins), bytes(2 * bins))


def _first_day(day: Season, first_hour: int) -> Season:
    week = _nothing(_WEEK)
    for hour in range(first_hour, first_hour + _DAY):
        count = _at(day.weights, hour % _DAY)
        if count > 0:
            week = _visited(week, _of_week(hour), _at(day.deviations, hour % _DAY), count)
    return week


def _closed(season: Season, noise: float, day: Season | None = None) -> tuple[Season, float]:
    """Turn the first round's values into deviations from their mean, and say how far they can be trusted as yet.

    Args:
        season: the values of the first round.
        noise: variance within an hour.
        day: of a week, what is foretold without it.
    """
    values = np.frombuffer(season.deviations, "<f2").astype(np.float64)
    weights = np.frombuffer(season.weights, "<f2").astype(np.float64)
    seen = weights > 0
    level = float(values[seen].mean())
    deviations = np.where(seen, values - level, 0.0)
    beside = np.zeros(len(values)) if day is None else np.array([_by_day(day, hour, noise) for hour in range(_WEEK)])
    by_chance = float((noise / weights[seen]).mean())
    variance = max(0.0, float(((deviations - beside)[seen] ** 2).mean()) - 2 * by_chance)
    base = _SLOPE_PRIOR * (variance + by_chance)
    packed = np.clip(deviations, -6e4, 6e4).astype("<f2").tobytes()
    return Season(
        packed, season.weights, True,
        covariance=_ROUND * variance, covered=_ROUND, slope_top=_TRUST * base, slope_base=base,
    ), level  # fmt: skip


def _calibrated(season: Season, index: int, beside: float, foretold: float, actual: float, weight: float) -> Season:
    """Take a visit into the variance and the slope; what is far from what was foretold counts as far as that reaches.

    Args:
        season: the season.
        index: the visit's hour in it.
        beside: what is foretold without this season.
        foretold: what this season adds, before its slope.
        actual: the visit's deviation from the level.
        weight: of the visit, up to 1.
    """
    if _at(season.weights, index) <= 0:
        return season
    raw, there = _at(season.deviations, index) - beside, actual - beside
    reach = 3 * max(abs(raw), abs(foretold))
    there = min(max(there, -reach), reach)
    keep = 1 - _SLOPE_MEMORY * weight
    return msgspec.structs.replace(
        season,
        covariance=keep * season.covariance + weight * raw * there,
        covered=keep * season.covered + weight,
        slope_top=keep * season.slope_top + weight * foretold * there,
        slope_base=keep * season.slope_base + weight * foretold * foretold,
    )


def _visited(season: Season, index: int, value: float, count: float) -> Season:
    """Move an hour's deviation towards what it was now: their mean by values, in which the newest visits weigh more."""
    deviations, weights = bytearray(season.deviations), bytearray(season.weights)
    kept = (1 - _BIN_GAIN) * _at(season.weights, index) if season.known else _at(season.weights, index)
    old = _at(season.deviations, index)
    struct.pack_into("<e", deviations, 2 * index, min(max(old + (value - old) * count / (kept + count), -6e4), 6e4))
    struct.pack_into("<e", weights, 2 * index, min(kept + count, 6e4))
    return msgspec.structs.replace(season, deviations=bytes(deviations), weights=bytes(weights))

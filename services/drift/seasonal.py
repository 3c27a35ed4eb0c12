"""What a number usually does at this hour of the week, so that Monday morning is no drift.

:func:`adjusted` takes from each value what the number usually deviates from its level at that hour (UTC); what is left
goes to the detector. A figure of an alert is then in the signal's own units, at the level of an average hour.

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
_SLOPE_PRIOR = 3.0
"""Visits' worth of belief in the slope that a new profile's signal and noise give it, halved."""
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


class Season(msgspec.Struct, frozen=True, array_like=True):
    """Deviations by hour of the day, or of the week."""

    deviations: bytes
    """float16, standardised; before the first round is over, values instead of deviations."""
    visits: bytes
    """uint8, how often each hour was seen."""
    known: bool = False
    """Whether the first round is over."""
    slope_top: float = 0.0
    slope_base: float = 0.0
    """Sums of foretold times actual and of foretold squared."""

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
            of them are left out, where it has fewer some are added, so that the average hour's rate is left. Which ones
            depends on how many values were seen alone.

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
    deviation = _foretold(profile, hour)
    known = profile.scale > 0
    standard = (value - profile.origin) / profile.scale if known else value
    if known and scale != "rate":
        middle, reach = profile.level + deviation, _CUT_VALUE * math.sqrt(profile.noise)
        # The level of the first day is not known yet.
        if profile.day is not None and profile.day.known:
            standard = min(max(standard, middle - reach), middle + reach)
    visit = profile.visit or Visit(hour)
    visit = Visit(visit.hour, visit.count + 1, visit.total + standard, visit.squares + standard * standard)
    left = value - deviation * profile.scale if known and deviation else value
    if scale == "rate" and deviation:
        left = _thinned(value, profile, deviation)
    return msgspec.structs.replace(profile, seen=profile.seen + 1, visit=visit), left


def expected(profile: Profile | None, at: datetime) -> float:
    """Return what :func:`adjusted` takes off a number at ``at``, on the detector's scale."""
    if profile is None or profile.scale == 0:
        return 0.0
    return _foretold(profile, int(at.astimezone(UTC).timestamp() // 3600)) * profile.scale


def phase(profile: Profile | None) -> Phase:
    """Return which profile is used."""
    if profile is not None and profile.week is not None and profile.week.known:
        return "hour of week"
    return "hour of day" if profile is not None and profile.day is not None and profile.day.known else "none"


def _foretold(profile: Profile, hour: int) -> float:
    """Return the standardised deviation that the profiles foretell for an hour, as far as they are trusted."""
    by_day = _day_part(profile, hour)
    week = profile.week
    if week is None or not week.known or not week.visits[_of_week(hour)]:
        return by_day
    slope = week.slope
    return (1 - slope) * by_day + slope * _deviation(week, _of_week(hour))


def _day_part(profile: Profile, hour: int) -> float:
    day = profile.day
    return day.slope * _deviation(day, hour % _DAY) if day is not None and day.known else 0.0


def _of_week(hour: int) -> int:
    return (hour + _MONDAY) % _WEEK


def _deviation(season: Season, index: int) -> float:
    return float(struct.unpack_from("<e", season.deviations, 2 * index)[0]) if season.visits[index] else 0.0


def _thinned(value: float, profile: Profile, deviation: float) -> float:
    """Return a 0 or 1 that is 1 as often as in the average hour.

    Of ones that are too many the share that is usual stays; of zeros as many become ones as are missing.
    """
    usual = min(max(profile.level, 0.0), 1.0)
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
    hour, mean = visit.hour, visit.total / visit.count
    weight = visit.count / (visit.count + _FEW)
    noise = profile.noise
    if visit.count > 1:
        within = max(visit.squares - visit.count * mean * mean, 0.0) / (visit.count - 1)
        noise += _SPREAD_GAIN * weight * (min(within, 16 * noise) - noise)
    day = _first_rounds(profile.day, _DAY, profile.first_hour, hour)
    week = profile.week
    if day.known:
        week = _first_rounds(week, _WEEK, profile.first_hour, hour)
    level = profile.level
    if day.known and not (profile.day is not None and profile.day.known):
        day, level = _closed(day, noise, profile.seen)
        # The first day's hours are the first of the week as well.
        assert week is not None
        week = _with_first_day(week, profile.day, profile.first_hour)
    if week is not None and week.known and not (profile.week is not None and profile.week.known):
        week, level = _closed(week, noise, profile.seen)
    surprise = profile.surprise
    if day.known:
        by_day = day.slope * _deviation(day, hour % _DAY)
        foretold = by_day
        if week is not None and week.known and week.visits[_of_week(hour)]:
            of_week = _deviation(week, _of_week(hour))
            foretold = (1 - week.slope) * by_day + week.slope * of_week
            week = _calibrated(week, of_week - by_day, mean - level - by_day, weight)
        day = _calibrated(day, _deviation(day, hour % _DAY), mean - level, weight)
        missed = mean - level - foretold
        reach = _CUT_VISIT * 1.25 * surprise + math.sqrt(noise / visit.count)
        cut = min(max(missed, -reach), reach)
        surprise += _SPREAD_GAIN * (min(abs(missed), 4 * surprise) - surprise)
        before, level = level, level + _LEVEL_GAIN * weight * cut
        actual = before + foretold + cut
        day = _visited(day, hour % _DAY, actual - (level if day.known else 0.0), weight)
        if week is not None:
            week = _visited(week, _of_week(hour), actual - (level if week.known else 0.0), weight)
    else:
        day = _visited(day, hour % _DAY, mean, weight)
    return msgspec.structs.replace(profile, level=level, noise=noise, surprise=surprise, visit=None, day=day, week=week)


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


def _first_rounds(season: Season | None, bins: int, first_hour: int, hour: int) -> Season:
    """Return the season, known when the hour stands a whole round behind the first."""
    season = season or Season(bytes(2 * bins), bytes(bins))
    if not season.known and hour - first_hour >= bins:
        return msgspec.structs.replace(season, known=True)
    return season


def _with_first_day(week: Season, day: Season | None, first_hour: int) -> Season:
    if day is None:
        return week
    for hour in range(first_hour, first_hour + _DAY):
        if day.visits[hour % _DAY]:
            week = _put(week, _of_week(hour), _deviation(day, hour % _DAY))
    return week


def _closed(season: Season, noise: float, seen: int) -> tuple[Season, float]:
    """Turn the first round's values into deviations from their mean, and say how far they can be trusted as yet."""
    values = np.frombuffer(season.deviations, "<f2").astype(np.float64)
    visited = np.frombuffer(season.visits, np.uint8) > 0
    level = float(values[visited].mean()) if visited.any() else 0.0
    deviations = np.where(visited, values - level, 0.0)
    variance = float((deviations[visited] ** 2).mean()) if visited.any() else 0.0
    by_chance = noise * max(int(visited.sum()), 1) / max(seen, 1)
    signal = max(0.0, 1 - 2 * by_chance / variance) if variance > 0 else 0.0
    base = _SLOPE_PRIOR * max(variance, by_chance)
    packed = np.clip(deviations, -6e4, 6e4).astype("<f2").tobytes()
    return Season(packed, season.visits, True, base * signal / 2, base), level


def _calibrated(season: Season, foretold: float, actual: float, weight: float) -> Season:
    """Take a visit into the slope; what is far from what was foretold counts as far as that reaches."""
    reach = 3 * abs(foretold)
    cut = min(max(actual, -reach), reach)
    keep = 1 - _SLOPE_MEMORY * weight
    return msgspec.structs.replace(
        season,
        slope_top=keep * season.slope_top + weight * foretold * cut,
        slope_base=keep * season.slope_base + weight * foretold * foretold,
    )


def _visited(season: Season, index: int, value: float, weight: float) -> Season:
    """Move an hour's bin towards what it was now: the mean of the first visits, later the newest weigh more."""
    visits = season.visits[index]
    if not visits:
        return _put(season, index, value)
    gain = max(1 / (visits + 1), _BIN_GAIN) * weight
    old = _deviation(season, index)
    return _put(season, index, old + gain * (value - old))


def _put(season: Season, index: int, value: float) -> Season:
    deviations, visits = bytearray(season.deviations), bytearray(season.visits)
    struct.pack_into("<e", deviations, 2 * index, min(max(value, -6e4), 6e4))
    visits[index] = min(visits[index] + 1, 255)
    return msgspec.structs.replace(season, deviations=bytes(deviations), visits=bytes(visits))

"""What a number usually does at this hour of the week, so that Monday morning is no drift.

:func:`adjusted` takes from each value what the number usually deviates from its level at that hour (UTC); what is left
goes to the detector, in the signal's own units and at the level of an average value, so that a figure of an alert is too.

The values of one hour are one visit, and what a visit taught is used from the next one on: a lasting change is not
learned away while it is looked for. For the first day nothing is taken off; from the second on what the same hour of the
day deviated; from the second week on what the same hour of the week did. How far that is trusted is measured, not
assumed: seasonal_profile.py. Of a number without a season the values stay as they are.

Daylight saving moves a rhythm by an hour: for some days less is taken off, then the profile has followed.

Categories and topics have no profile: a week of 168 mixtures of 40 cells, or of 96 features, would be larger than all
else that is kept. Their detectors keep up to four past regimes instead, and a mixture that was there before is told as
``recurring``, not as something new.

A profile is plain data of at most 1.5 kB; a signal that is younger than an hour has next to none.
"""

from __future__ import annotations

import hashlib
import math
import struct
from datetime import UTC, datetime
from typing import Literal

import msgspec

from services.drift.detection.seasonal_profile import Profile, Visit, foretold, learned

__all__ = ["Phase", "Profile", "adjusted", "expected", "phase"]

Phase = Literal["none", "hour of day", "hour of week"]

_LEAST_A_VISIT = 4
"""Values of a rate in an hour, on average, from which its season is taken off."""
_CUT_VALUE = 6.0
"""Deviations to which a value is cut before it teaches."""


def adjusted(
    profile: Profile | None, value: float, at: datetime, *, scale: Literal["rate", "score", "amount"] = "score"
) -> tuple[Profile, float]:
    """Return the profile after a value, and the value with its hour's usual deviation taken off.

    Args:
        profile: what is known so far, ``None`` of a new signal; not changed.
        value: the value, finite, on the detector's scale: of an amount its logarithm, of a rate 0 or 1.
        at: when its event occurred, with a time zone.
        scale: what the number is. A rate stays 0 or 1: where its hour usually has more ones than the average value, some
            of them are left out, where it has fewer some are added, so that the average rate is left. Which ones is
            decided by how many values were seen alone.

    Raises:
        ValueError: the value is not finite, or the instant has no time zone.
    """
    if not math.isfinite(value):
        raise ValueError(f"the value {value} is not finite; leave it out, and count it as a signal of its own")
    hour = _hour(at)
    if profile is None:
        profile = Profile(hour, 0.0 if scale == "rate" else value, scale == "rate")
    if profile.visit is not None and hour > profile.visit.hour:
        profile = learned(profile, profile.visit)
    visit = profile.visit or Visit(hour, foretold(profile, hour))
    # An event that comes late has an hour of its own; it is learned with the present one.
    deviation = visit.foretold if hour == visit.hour else foretold(profile, hour)
    taken = value - profile.origin
    if scale != "rate" and profile.day is not None and profile.day.known and profile.noise > 0:
        middle, reach = profile.level + deviation, _CUT_VALUE * math.sqrt(profile.noise)
        taken = min(max(taken, middle - reach), middle + reach)
    visit = Visit(visit.hour, visit.foretold, visit.count + 1, visit.total + taken, visit.squares + taken * taken)
    left = value
    if deviation and scale == "rate":
        # Of fewer values an hour's share is mostly chance, and thinning would copy the chance into what is watched.
        if profile.seen >= _LEAST_A_VISIT * profile.visits:
            left = _thinned(value, profile, deviation)
    elif deviation:
        left = value - (deviation - profile.centre)
    return msgspec.structs.replace(profile, seen=profile.seen + 1, visit=visit), left


def expected(profile: Profile | None, at: datetime) -> float:
    """Return what :func:`adjusted` takes off a number at ``at``, on the detector's scale.

    Raises:
        ValueError: the instant has no time zone.
    """
    hour = _hour(at)
    deviation = 0.0 if profile is None else foretold(profile, hour)
    return deviation - profile.centre if profile is not None and deviation else 0.0


def phase(profile: Profile | None) -> Phase:
    """Return which season is known."""
    if profile is not None and profile.week is not None and profile.week.known:
        return "hour of week"
    return "hour of day" if profile is not None and profile.day is not None and profile.day.known else "none"


def _hour(at: datetime) -> int:
    if at.tzinfo is None:
        raise ValueError(f"the instant {at} has no time zone; give UTC")
    return int(at.astimezone(UTC).timestamp() // 3600)


def _thinned(value: float, profile: Profile, deviation: float) -> float:
    """Return a 0 or 1 that is 1 as often as on average.

    Of ones that are too many the share that is usual stays; of zeros as many become ones as are missing.
    """
    usual = min(max(profile.level + profile.centre, 0.0), 1.0)
    here = min(max(profile.level + deviation, 1e-4), 1 - 1e-4)
    # Not a checksum: those of consecutive numbers are not independent.
    chance = int.from_bytes(hashlib.blake2b(struct.pack("<q", profile.seen), digest_size=8).digest(), "big") / 2**64
    if value:
        return 1.0 if chance < usual / here else 0.0
    return 1.0 if chance < (usual - here) / (1 - here) else 0.0

"""The false-alarm budget: how much chance of a false alarm each event of a partition may hand to its detectors, pure.

Every detector pays for each candidate that it lets be judged with an ``alpha`` out of a wealth that only what is handed
out here fills (evidence.py). The judgement is anytime-valid, so a candidate under no change is confirmed with a chance of
at most its alpha (Ville 1939), and the expected number of false alarms is at most the sum of all alphas, however many
detectors there are and however they depend on each other (linearity of the expectation: alpha spending, Lan & DeMets
1983; online testing, Foster & Stine 2008). So multiple testing is controlled if the sum of what is handed out is.

That sum is bounded for any traffic, not for the expected one: an hour of a partition has a 24th of the day's share, and its
events, numbered from 0 by their offsets, get the terms of a series whose sum is 1 however many come. The first ``n`` get
equal parts of four fifths, ``n`` being the hour's forecast; the rest is a telescoping tail,
``sum(n / (i (i + 1)) for i >= n) = 1``. A day has 24 hours of its clock, so it hands out its share at most.

Hours are those of a partition's clock: of the log's own timestamps, never running back. What an event gets depends on its
place in the log alone, so a replay gives it the same.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["CLOCK", "Budget", "Clock", "Hour", "advanced", "allowance", "in_force"]

CLOCK = "clock"
"""Key of a partition's clock among the states of the partition."""

_HEAD = 0.8
# Hours that are remembered: what a replay that catches up with days of a quiet topic must find again.
_KEPT = 240
_DAY = 24


class Budget(msgspec.Struct, frozen=True):
    """What one partition may hand out."""

    per_day: float = 0.25
    """Expected false alarms a day: the installation's budget over its partitions."""
    most: float = 2e-5
    """Most that one value gets, however quiet the partition: 0.2 false alarms in 10,000 values."""
    least_forecast: int = 256
    """Events of an hour that are reckoned with at least."""


class Hour(msgspec.Struct, frozen=True, array_like=True):
    """An hour in which events came."""

    number: int
    """Hours since the epoch."""
    first_offset: int
    forecast: int
    """Events that were reckoned with when it began."""


class Clock(msgspec.Struct, frozen=True, tag="clock"):
    """The hours of a partition, the newest last."""

    hours: tuple[Hour, ...] = ()


def in_force(clock: Clock | None, offset: int, at: datetime, budget: Budget) -> Hour:
    """Return the hour that an event belongs to: a known one, or the one that the event begins.

    Args:
        clock: the partition's clock, which may know of later events already, as it does in a replay.
        offset: where the event stands in its partition.
        at: the log's timestamp of the event.
        budget: what may be handed out.
    """
    number = int(at.timestamp()) // 3600
    hours = clock.hours if clock is not None else ()
    known = next((hour for hour in reversed(hours) if hour.first_offset <= offset), None)
    if known is None:
        # Older than all that is remembered, which no replay is: so late in an hour that it gets next to nothing.
        return Hour(number, offset, budget.least_forecast) if not hours else Hour(number, 0, budget.least_forecast)
    if known is not hours[-1] or number <= known.number:
        return known
    return Hour(number, offset, _forecast(hours, offset, number, budget))


def advanced(clock: Clock | None, offset: int, at: datetime, budget: Budget) -> Clock:
    """Return the clock after an event: the same object unless the event begins an hour."""
    hour = in_force(clock, offset, at, budget)
    if clock is None:
        return Clock((hour,))
    if hour.number <= clock.hours[-1].number:
        return clock
    return Clock((*clock.hours, hour)[-_KEPT:])


def allowance(clock: Clock | None, offset: int, at: datetime, budget: Budget, values: int) -> float:
    """Return the expected number of false alarms that each value of an event may cause.

    Args:
        clock: the partition's clock, before or after the event.
        offset: where the event stands in its partition.
        at: the log's timestamp of the event.
        budget: what may be handed out.
        values: how many signals the event has, among which its part is divided.
    """
    hour = in_force(clock, offset, at, budget)
    index, forecast = offset - hour.first_offset, hour.forecast
    weight = _HEAD / forecast if index < forecast else (1 - _HEAD) * forecast / (index * (index + 1))
    return min(budget.per_day / _DAY * weight / max(values, 1), budget.most)


def _forecast(hours: tuple[Hour, ...], offset: int, number: int, budget: Budget) -> int:
    """Return how many events are reckoned with: as many as in the last hour that had any, or on the average of the last
    day, whichever is more."""
    day = next((hour for hour in hours if hour.number >= number - _DAY), hours[-1])
    average = (offset - day.first_offset) / max(number - day.number, 1)
    return max(offset - hours[-1].first_offset, int(average), budget.least_forecast)

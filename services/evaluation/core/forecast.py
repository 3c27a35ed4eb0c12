"""When a budget will be used up, should spending go on as it did lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from penstock.config.budgets import Budget
from penstock.money import BUCKETS, Window, bucket_of, bucket_seconds

__all__ = ["Forecast", "forecast", "hour_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_HOURS = 24
_US_AN_HOUR = 3_600_000_000
# A window that has just begun tells little: its first minute counts as a whole one.
_SHORTEST = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the present rate leads to.

    Attributes:
        rate: USD an hour.
        since: from when to ``at`` it was measured.
        at: the newest cost.
        exhausted_at: when the limit is reached; None where that is not within the window.
    """

    rate: Decimal
    since: datetime
    at: datetime
    exhausted_at: datetime | None


def hour_of(at: datetime) -> int:
    """Return the hour of an instant, counted from the epoch."""
    return (at - _EPOCH) // _HOUR


def forecast(
    budget: Budget, window: Window, at: datetime, by_bucket: Mapping[int, Decimal], by_hour: Mapping[int, Decimal]
) -> Forecast:
    """Return when ``budget`` will be used up.

    The rate is that of the last 24 hours, the one in progress included, or since the window began where that is less.
    In a rolling window what was spent goes out of it again, and so does what will be.

    Args:
        budget: the budget.
        window: its window at ``at``.
        at: the newest cost of the subject, taken for the present.
        by_bucket: USD spent in the window, by bucket.
        by_hour: USD spent in the last 24 hours, by hour since the epoch.
    """
    spent = sum(by_bucket.values(), Decimal(0))
    first_hour = hour_of(at) - _HOURS + 1
    since = _EPOCH + first_hour * _HOUR
    if window.start >= since:
        since, lately = window.start, spent
    else:
        lately = sum((amount for hour, amount in by_hour.items() if hour >= first_hour), Decimal(0))
    rate = lately * _US_AN_HOUR / _us(max(at - since, _SHORTEST))
    if spent >= budget.limit:
        return Forecast(rate, since, at, at)
    if budget.window == "rolling":
        return Forecast(rate, since, at, _rolling(budget, at, by_bucket, rate))
    return Forecast(rate, since, at, _reached(budget.limit - spent, rate, at, window.end))


def _rolling(budget: Budget, at: datetime, by_bucket: Mapping[int, Decimal], rate: Decimal) -> datetime | None:
    length = timedelta(seconds=bucket_seconds(budget))
    spent = sum(by_bucket.values(), Decimal(0))
    bucket = bucket_of(budget, at)
    # After a bucket for each there are, nothing of what was spent is left: from then on it stays as it is.
    for _ in range(BUCKETS + 1):
        end = _EPOCH + (bucket + 1) * length
        if reached := _reached(budget.limit - spent, rate, at, end):
            return reached
        spent += rate * _hours(end - at) - by_bucket.get(bucket - BUCKETS, Decimal(0))
        at, bucket = end, bucket + 1
    return None


def _reached(left: Decimal, rate: Decimal, at: datetime, end: datetime) -> datetime | None:
    """Return when ``left`` is spent, or None where that is not before ``end``."""
    if left >= rate * _hours(end - at):
        return None
    return at + timedelta(seconds=float(left / rate * 3600))


def _hours(duration: timedelta) -> Decimal:
    return _us(duration) / _US_AN_HOUR


def _us(duration: timedelta) -> Decimal:
    return Decimal(duration // timedelta(microseconds=1))

"""Which budgets a call counts in, and in which window of each.

Every window is decided by one instant: the admission of the request. So the reservation, the settled cost and the ledger
count a call in the same window, whenever the call was made and whenever its cost arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from penstock.config.budgets import Budget

__all__ = ["BUCKETS", "Subject", "Window", "bucket_of", "bucket_seconds", "counter_key", "subjects", "window_of"]

BUCKETS = 24
"""Buckets of a rolling window. It counts the present bucket and so many before it: at least its length, never less."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Subject:
    """What has a budget: ``value`` is a user, key, model or tag's value, empty for the team and where a call has none."""

    budget: Budget
    value: str


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, UTC, the end excluded. ``id`` tells the windows of a budget apart; all rolling ones of one
    length have one.
    """

    id: str
    start: datetime
    end: datetime


def subjects(
    budgets: Iterable[Budget], *, user: str | None, key: str | None, model: str, tags: Mapping[str, str]
) -> list[Subject]:
    """Return the subjects that a call counts in, in the order of ``budgets``.

    Calls without a user, key or tag count together, as the value "": leaving it out evades no budget. Where ``match``
    names values, other calls do not count.
    """
    found = []
    for budget in budgets:
        match budget.per:
            case "team":
                value = ""
            case "user":
                value = user or ""
            case "key":
                value = key or ""
            case "model":
                value = model
            case "tag":
                value = tags.get(budget.tag or "", "")
        if not budget.match or value in budget.match:
            found.append(Subject(budget, value))
    return found


def window_of(budget: Budget, at: datetime) -> Window:
    """Return the window of ``budget`` at an instant of any time zone.

    A rolling one reaches to the end of the bucket in progress, and so one bucket further than its hours at the most.

    Raises:
        ValueError: the instant has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone, so it lies in no window")
    at = at.astimezone(UTC)
    if budget.window == "day":
        start = at.replace(hour=0, minute=0, second=0, microsecond=0)
        return Window(f"{start:%Y-%m-%d}", start, start + timedelta(days=1))
    if budget.window == "month":
        start = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return Window(f"{start:%Y-%m}", start, (start + timedelta(days=32)).replace(day=1))
    length = bucket_seconds(budget)
    bucket = bucket_of(budget, at)
    return Window(
        # With its length: the buckets of another length must not be added to these.
        budget.window_name,
        _EPOCH + timedelta(seconds=(bucket - BUCKETS) * length),
        _EPOCH + timedelta(seconds=(bucket + 1) * length),
    )


def bucket_seconds(budget: Budget) -> int:
    """Return the length of one bucket of a rolling budget, seconds: a 24th of the window."""
    assert budget.hours is not None
    return budget.hours * 3600 // BUCKETS


def bucket_of(budget: Budget, at: datetime) -> int:
    """Return the bucket of a rolling budget at an instant, counted from the epoch; 0 for a calendar window."""
    if budget.window != "rolling":
        return 0
    return (at - _EPOCH) // timedelta(seconds=bucket_seconds(budget))


def counter_key(team: str, subject: Subject, at: datetime) -> str:
    """Return the key of the counter in Redis. All keys of a team share a hash slot (Redis Cluster)."""
    return f"penstock:{{{team}}}:budget:{subject.budget.name}:{window_of(subject.budget, at).id}:{subject.value}"

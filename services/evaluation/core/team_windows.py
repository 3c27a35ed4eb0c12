"""What each team has spent by day, by month and in the last hours, by the admission of its requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
from penstock.contracts.records import Cost

from services.evaluation.core.totals import SpendEmit, Total, WindowKind, accounted_at, place, put, window_until

__all__ = [
    "DAY", "FORGOTTEN_AFTER", "KEPT", "MONTH", "ROLLING", "Calendar", "CalendarEvent", "Recent", "RecentEvent", "TooLate",
    "calendar_step", "recent_step",
]  # fmt: skip

KEPT = timedelta(days=92)
"""How late a cost may come: windows that ended before are closed."""
# What can still be added to is never forgotten: the lateness, and the longest window before it.
FORGOTTEN_AFTER = KEPT + timedelta(days=32)
# The record of how far a team has come outlives all that could come late.
_TEAM_FORGOTTEN_AFTER = timedelta(days=400)
# A clock that runs ahead must not close windows for everybody else.
_AHEAD = timedelta(days=1)

DAY, MONTH = WindowKind("day"), WindowKind("month")
ROLLING = tuple(WindowKind("rolling", hours) for hours in (24, 168, 720))


class TooLate(ValueError):
    """A cost belongs to a window that is no longer kept."""


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """A cost for the rolling windows of its team. ``limits``: USD, by the name of the window."""

    cost: Cost
    total: Total
    limits: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class CalendarEvent:
    """A cost for its team's month and day. ``limits``: USD, by the name of the window."""

    cost: Cost
    total: Total
    limits: Mapping[str, Decimal]


class Recent(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A team's rolling windows, and how far it has come.

    Attributes:
        reference: the newest instant of its costs, moved on with the log's time since.
        seen_at: log time of the last cost.
        buckets: of each rolling window, by its hours: totals by bucket, those of the present window only.
    """

    reference: datetime
    seen_at: datetime
    buckets: dict[int, dict[int, Total]]

    @property
    def expires_at(self) -> datetime:
        """When it may be forgotten."""
        return max(self.seen_at, self.reference) + _TEAM_FORGOTTEN_AFTER


class Calendar(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """One month of a team.

    Attributes:
        newest: the newest instant of its costs.
        seen_at: log time of the last cost.
        days: by their date.
    """

    newest: datetime
    seen_at: datetime
    month: Total
    days: dict[str, Total]

    @property
    def expires_at(self) -> datetime:
        """When it may be forgotten."""
        return max(self.seen_at, self.newest) + FORGOTTEN_AFTER


def recent_step(state: Recent | None, event: RecentEvent, now: datetime) -> tuple[Recent, list[SpendEmit]]:
    """Add a cost to the rolling windows that it lies in. "Now" is the newest bucket seen, never a clock.

    Raises:
        TooLate: it came later than windows are kept.
    """
    cost = event.cost
    at = accounted_at(cost)
    if state is None:
        reference, seen_at, before = at, now, {}
    else:
        seen_at, before = max(state.seen_at, now), state.buckets
        reference = max(at, state.reference + (seen_at - state.seen_at))
    reference = min(reference, seen_at + _AHEAD)
    if at < reference - KEPT:
        raise TooLate(
            f"a cost of {at:%Y-%m-%d} came when days before {reference - KEPT:%Y-%m-%d} are closed; rebuild the totals from "
            "the costs topic"
        )
    emits = []
    windows = {}
    for kind in ROLLING:
        assert kind.hours is not None
        _, bucket = place(kind, at)
        totals = put(before.get(kind.hours, {}), bucket, event.total)
        windows[kind.hours] = totals
        if bucket in totals:
            window = window_until(kind, max(totals))
            emits.append(SpendEmit(cost, kind, window, totals, event.limits.get(kind.name)))
    return Recent(reference, seen_at, windows), emits


def calendar_step(state: Calendar | None, event: CalendarEvent, now: datetime) -> tuple[Calendar, list[SpendEmit]]:
    """Add a cost to its month and day."""
    cost = event.cost
    at = accounted_at(cost)
    day, month = place(DAY, at)[0], place(MONTH, at)[0]
    if state is None:
        state = Calendar(at, now, Total(), {})
    of_month = state.month + event.total
    of_day = state.days.get(day.id, Total()) + event.total
    emits = [
        SpendEmit(cost, DAY, day, {0: of_day}, event.limits.get(DAY.name)),
        SpendEmit(cost, MONTH, month, {0: of_month}, event.limits.get(MONTH.name)),
    ]
    after = Calendar(max(state.newest, at), max(state.seen_at, now), of_month, {**state.days, day.id: of_day})
    return after, emits

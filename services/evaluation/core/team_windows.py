"""What each team has spent by day, by month and in the last hours, by the admission of its requests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
from penstock.contracts.records import Cost

from services.evaluation.core.totals import SpendEmit, Total, WindowKind, place, put

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
_ROLLING_HOURS = tuple((kind, kind.hours) for kind in ROLLING if kind.hours is not None)


class TooLate(ValueError):
    """A cost belongs to a window that is no longer kept."""


class RecentEvent(msgspec.Struct, frozen=True):
    """A cost for the rolling windows of its team.

    Attributes:
        total: the cost as a total.
        at: when it counts.
        slot: the same, by :func:`services.evaluation.core.totals.slot_of`.
        limits: USD, by the name of the window.
    """

    cost: Cost
    total: Total
    at: datetime
    slot: int
    limits: Mapping[str, Decimal]


class CalendarEvent(RecentEvent, frozen=True):
    """A cost for its team's month and day."""


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
    at = event.at
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
    cost, total, slot = event.cost, event.total, event.slot
    emits = []
    windows = {}
    for kind, hours in _ROLLING_HOURS:
        here = place(kind, slot)
        totals = windows[hours] = put(before.get(hours, {}), here.bucket, total)
        if here.bucket in totals:
            key = f"{cost.tenant_id}/{here.label}"
            emits.append(SpendEmit(key, cost, kind, None, totals, event.limits.get(here.label)))
    return Recent(reference, seen_at, windows), emits


def calendar_step(state: Calendar | None, event: CalendarEvent, now: datetime) -> tuple[Calendar, list[SpendEmit]]:
    """Add a cost to its month and day."""
    cost, at, team = event.cost, event.at, event.cost.tenant_id
    day, month = place(DAY, event.slot), place(MONTH, event.slot)
    if state is None:
        state = Calendar(at, now, Total(), {})
    date = day.window.id
    of_month = state.month + event.total
    of_day = state.days.get(date, Total()) + event.total
    emits = [
        SpendEmit(f"{team}/{day.label}", cost, DAY, day.window, {0: of_day}, event.limits.get("day")),
        SpendEmit(f"{team}/{month.label}", cost, MONTH, month.window, {0: of_month}, event.limits.get("month")),
    ]
    after = Calendar(max(state.newest, at), max(state.seen_at, now), of_month, {**state.days, date: of_day})
    return after, emits

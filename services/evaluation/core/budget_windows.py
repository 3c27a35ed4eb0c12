"""What the subjects of a team's budgets have spent in the windows of these budgets, and when that is an alert."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache

import msgspec
from penstock.bus import Emit
from penstock.config.budgets import Budget
from penstock.contracts.records import Cost, LogRange
from penstock.money import Subject

from services.evaluation.core.alerts import alert_emit
from services.evaluation.core.budget_alerts import Crossing, budget_alert
from services.evaluation.core.forecast import hour_of
from services.evaluation.core.team_windows import FORGOTTEN_AFTER
from services.evaluation.core.totals import SpendEmit, Total, WindowKind, accounted_at, place, plus, put, window_until

__all__ = ["BudgetEvent", "BudgetWindow", "budget_key", "budget_step"]

_HOURS = 24


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """A cost for one subject of one budget, and where it stands in the log."""

    cost: Cost
    total: Total
    subject: Subject
    origin: LogRange


class BudgetWindow(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """One window of one subject; all rolling ones of a subject are one.

    Attributes:
        newest: the newest instant of its costs.
        seen_at: log time of the last cost.
        totals: by bucket; 0 in a calendar window.
        offsets: first offset of each bucket's costs in this partition.
        hours: amounts by hour since the epoch, of the newest hour and the 23 before it.
        alerted: the bucket at which the alert of a threshold (USD) was given. It is gone with its bucket.
    """

    newest: datetime
    seen_at: datetime
    totals: dict[int, Total]
    offsets: dict[int, int]
    hours: dict[int, Decimal]
    alerted: dict[str, int] = {}

    @property
    def expires_at(self) -> datetime:
        """When it may be forgotten."""
        return max(self.seen_at, self.newest) + FORGOTTEN_AFTER


def budget_key(team: str, subject: Subject, at: datetime) -> str:
    """Return the key of the window that a call at an instant counts in. A budget that is defined anew starts anew."""
    budget = subject.budget
    window, _ = place(kind_of(budget), at)
    per = budget.per if budget.tag is None else f"tag:{budget.tag}"
    return f"budget/{team}/{budget.name}/{per}/{budget.window_name}/{window.id}/{subject.value}"


def budget_step(
    state: BudgetWindow | None, event: BudgetEvent, now: datetime
) -> tuple[BudgetWindow | None, list[SpendEmit | Emit]]:
    """Add a cost to a subject's window; a cost that lies before a rolling window adds nothing."""
    cost, budget = event.cost, event.subject.budget
    at = accounted_at(cost)
    kind = kind_of(budget)
    window, bucket = place(kind, at)
    if state is None:
        state = BudgetWindow(at, now, {}, {}, {})
    totals = put(state.totals, bucket, event.total)
    if bucket not in totals:
        return state, []
    newest_bucket = max(totals)
    if budget.window == "rolling":
        window = window_until(kind, newest_bucket)
    newest = max(state.newest, at)
    offsets, alerted = state.offsets, state.alerted
    if len(totals) != len(state.totals) or bucket not in state.totals:
        offsets = {
            kept: offset for kept, offset in {bucket: event.origin.first_offset, **offsets}.items() if kept in totals
        }
        alerted = {threshold: kept for threshold, kept in alerted.items() if kept in totals}
    hours = _by_hour(state.hours, hour_of(at), event.total.amount)
    team_wide = budget.per == "team"
    emits: list[SpendEmit | Emit] = [
        SpendEmit(cost, kind, window, totals, budget.limit, budget.name, None if team_wide else event.subject.value)
    ]
    if event.total.amount and budget.alerts:
        spent = _spent(totals)
        fresh = [
            (share, usd) for share, threshold, usd in _thresholds(budget.limit, budget.alerts)
            if threshold <= spent and usd not in alerted
        ]  # fmt: skip
        if fresh:
            share, _ = fresh[-1]
            crossing = Crossing(
                cost=cost, subject=event.subject, window=window, share=share, spent=spent, newest=newest, totals=totals,
                hours=hours, first_offset=min(offsets.values()), origin=event.origin,
            )  # fmt: skip
            emits.append(alert_emit(budget_alert(crossing, now)))
            alerted = {**alerted, **{usd: newest_bucket for _, usd in fresh}}
    return BudgetWindow(newest, max(state.seen_at, now), totals, offsets, hours, alerted), emits


@lru_cache(maxsize=1024)
def _kind(window: str, hours: int | None) -> WindowKind:
    return WindowKind(window, hours)  # type: ignore[arg-type]


def kind_of(budget: Budget) -> WindowKind:
    """Return what kind of windows a budget has."""
    return _kind(budget.window, budget.hours)


def _spent(totals: dict[int, Total]) -> Decimal:
    if len(totals) == 1:
        (total,) = totals.values()
        return total.amount
    spent = Decimal(0)
    for total in totals.values():
        spent = plus(spent, total.amount)
    return spent


def _by_hour(hours: dict[int, Decimal], hour: int, amount: Decimal) -> dict[int, Decimal]:
    known = hours.get(hour)
    if known is not None:
        return {**hours, hour: plus(known, amount)}
    oldest = max(hour, *hours) - _HOURS if hours else hour
    if hour <= oldest and hours:
        return hours
    return {**{kept: each for kept, each in hours.items() if kept > oldest}, hour: amount}


@lru_cache(maxsize=4096)
def _thresholds(limit: Decimal, shares: tuple[float, ...]) -> tuple[tuple[float, Decimal, str], ...]:
    """Return share, USD and its text of every threshold, ascending."""
    # str gives 0.8 as it was written; Decimal(0.8) would be a hair more.
    amounts = [(share, limit * Decimal(str(share))) for share in shares]
    return tuple((share, amount, f"{amount.normalize():f}") for share, amount in amounts)

"""What the subjects of a team's budgets have spent in the windows of these budgets, and when that is an alert."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec
from penstock.alerts import alert_emit
from penstock.bus import Emit
from penstock.config.budgets import Budget
from penstock.contracts.records import Cost, LogRange
from penstock.money import Subject, Window

from services.evaluation.core.budget_alerts import Crossing, budget_alert
from services.evaluation.core.forecast import hour_of
from services.evaluation.core.team_windows import FORGOTTEN_AFTER
from services.evaluation.core.totals import ZERO, Place, SpendEmit, Total, WindowKind, place, plus, put, window_until

__all__ = ["BudgetEvent", "BudgetPlan", "BudgetWindow", "budget_event", "budget_plan", "budget_step"]

_HOURS = 24


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """A budget and what follows from it, worked out once.

    Attributes:
        kind: of its windows.
        prefix: of the keys of its windows in the table.
        thresholds: share of the limit, USD and its text, ascending.
    """

    budget: Budget
    kind: WindowKind
    prefix: str
    thresholds: tuple[tuple[float, Decimal, str], ...]


class BudgetEvent(msgspec.Struct, frozen=True):
    """A cost for one subject of one budget.

    Attributes:
        total: the cost as a total.
        at: when it counts.
        place: the same, in the budget's windows.
        origin: where it stands in the log.
    """

    cost: Cost
    total: Total
    plan: BudgetPlan
    subject: Subject
    at: datetime
    place: Place
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


def budget_plan(team: str, budget: Budget) -> BudgetPlan:
    """Return what follows from a budget of a team. A budget that is defined anew starts anew: its keys are others."""
    per = budget.per if budget.tag is None else f"tag:{budget.tag}"
    # str gives 0.8 as it was written; Decimal(0.8) would be a hair more.
    amounts = [(share, budget.limit * Decimal(str(share))) for share in budget.alerts]
    return BudgetPlan(
        budget,
        WindowKind(budget.window, budget.hours),
        f"budget/{team}/{budget.name}/{per}/{budget.window_name}",
        tuple((share, amount, f"{amount.normalize():f}") for share, amount in amounts),
    )


def budget_event(
    plan: BudgetPlan, subject: Subject, cost: Cost, total: Total, at: datetime, slot: int, origin: LogRange
) -> tuple[str, BudgetEvent]:
    """Return the key of the window that a cost counts in, and what its step gets."""
    here = place(plan.kind, slot)
    return f"{plan.prefix}/{here.window.id}/{subject.value}", BudgetEvent(cost, total, plan, subject, at, here, origin)


def budget_step(
    state: BudgetWindow | None, event: BudgetEvent, now: datetime
) -> tuple[BudgetWindow | None, list[SpendEmit | Emit]]:
    """Add a cost to a subject's window; a cost that lies before a rolling window adds nothing."""
    at, here, plan = event.at, event.place, event.plan
    bucket, amount = here.bucket, event.total.amount
    if state is None:
        state = BudgetWindow(at, now, {}, {}, {})
    totals = put(state.totals, bucket, event.total)
    if bucket not in totals:
        return state, []
    offsets, alerted, hours = state.offsets, state.alerted, state.hours
    if bucket not in state.totals:
        known = {bucket: event.origin.first_offset, **offsets}
        offsets = {kept: offset for kept, offset in known.items() if kept in totals}
        alerted = {threshold: kept for threshold, kept in alerted.items() if kept in totals}
    newest, seen_at = max(state.newest, at), max(state.seen_at, now)
    emits: list[SpendEmit | Emit] = [_emit(event, totals)]
    if amount:
        hours = _by_hour(hours, hour_of(at), amount)
        spent = _spent(totals)
        fresh = [
            (share, usd) for share, threshold, usd in plan.thresholds if threshold <= spent and usd not in alerted
        ]  # fmt: skip
        if fresh:
            crossing = Crossing(
                cost=event.cost, subject=event.subject, window=_window(event, totals), share=fresh[-1][0], spent=spent,
                newest=newest, totals=totals, hours=hours, first_offset=min(offsets.values()), origin=event.origin,
            )  # fmt: skip
            emits.append(alert_emit(budget_alert(crossing, now)))
            alerted = {**alerted, **dict.fromkeys((usd for _, usd in fresh), max(totals))}
    return BudgetWindow(newest, seen_at, totals, offsets, hours, alerted), emits


def _emit(event: BudgetEvent, totals: dict[int, Total]) -> SpendEmit:
    budget, value = event.plan.budget, event.subject.value
    return SpendEmit(
        f"{event.cost.tenant_id}/{event.place.label}/{budget.name}/{value}",
        event.cost,
        event.plan.kind,
        None if budget.window == "rolling" else event.place.window,
        totals,
        budget.limit,
        budget.name,
        None if budget.per == "team" else value,
    )


def _window(event: BudgetEvent, totals: dict[int, Total]) -> Window:
    kind = event.plan.kind
    return window_until(kind, max(totals)) if kind.window == "rolling" else event.place.window


def _spent(totals: dict[int, Total]) -> Decimal:
    if len(totals) == 1:
        (total,) = totals.values()
        return total.amount
    spent = ZERO
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

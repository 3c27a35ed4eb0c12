"""Costs to what each team, and each subject of its budgets, has spent; and the watches over how it is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

import msgspec
from penstock.alerts import log_range
from penstock.bus import Message
from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.contracts.records import Cost, LogRange
from penstock.money import subjects
from penstock.stateful import EmitLike, Logic, Lookup

from services.evaluation.core.budget_windows import (
    BudgetEvent,
    BudgetPlan,
    BudgetWindow,
    budget_event,
    budget_plan,
    budget_step,
)  # fmt: skip
from services.evaluation.core.cost_watch import CostWatch, CostWatchRules, watch_expires, watch_keys, watch_step
from services.evaluation.core.team_windows import (
    MONTH,
    Calendar,
    CalendarEvent,
    Recent,
    RecentEvent,
    TooLate,
    calendar_step,
    recent_step,
)  # fmt: skip
from services.evaluation.core.totals import place, slot_of, total_of

__all__ = ["SpendEvent", "SpendState", "TooLate", "WatchEvent", "spending"]


class WatchEvent(msgspec.Struct, frozen=True):
    """A cost for one key of the watch, and where it stands in the log."""

    key: str
    cost: Cost
    origin: LogRange


SpendEvent = RecentEvent | CalendarEvent | BudgetEvent | WatchEvent
SpendState = Recent | Calendar | BudgetWindow | CostWatch


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a team's configuration says of its money. ``limits``: the lowest of the team as a whole, by window."""

    team: Team | None
    budgets: Sequence[Budget]
    plans: Mapping[str, BudgetPlan]
    limits: Mapping[str, Decimal]


def spending(team_of: Callable[[str], Team | None], rules: CostWatchRules) -> Logic[SpendState, SpendEvent]:
    """Return the processor of ``costs``: totals by team and by budget; thresholds, rates and prices watched.

    Args:
        team_of: a team's configuration by its name.
        rules: when what is watched is an alert.
    """
    plans: dict[str, _Plan] = {}

    def plan_of(name: str) -> _Plan:
        # Worked out once for each version of a team.
        team = team_of(name)
        if team is None:
            return _NO_PLAN
        plan = plans.get(name)
        if plan is None or plan.team is not team:
            plan = plans[name] = _plan(team)
        return plan

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, SpendEvent]]:
        cost: Cost = record
        team = cost.tenant_id
        plan = plan_of(team)
        at, slot, total = cost.accounted_at or cost.occurred_at, slot_of(cost), total_of(cost)
        yield f"recent/{team}", RecentEvent(cost, total, at, slot, plan.limits)
        yield f"calendar/{place(MONTH, slot).window.id}/{team}", CalendarEvent(cost, total, at, slot, plan.limits)
        origin = log_range(message)
        for key in watch_keys(cost):
            yield key, WatchEvent(key, cost, origin)
        if plan.budgets:
            context = cost.context
            for subject in subjects(
                plan.budgets, user=context.user_id, key=context.key_id, model=cost.model, tags=context.tags
            ):
                of_budget = plan.plans[subject.budget.name]
                yield budget_event(of_budget, subject, cost, total, at, slot, origin)

    def step(
        state: SpendState | None, event: SpendEvent, now: datetime
    ) -> tuple[SpendState | None, Sequence[EmitLike]]:
        match event:
            case CalendarEvent():
                return calendar_step(cast("Calendar | None", state), event, now)
            case RecentEvent():
                return recent_step(cast("Recent | None", state), event, now)
            case BudgetEvent():
                return budget_step(cast("BudgetWindow | None", state), event, now)
            case WatchEvent():
                return watch_step(event.key, cast("CostWatch | None", state), event.cost, event.origin, rules, now)

    return Logic(
        step=step, route=route, state_type=SpendState, expires_at=_expires_at, latest=frozenset({"team-spend"})
    )


_NO_PLAN = _Plan(None, (), {}, {})


def _plan(team: Team) -> _Plan:
    limits: dict[str, Decimal] = {}
    for budget in team.budgets:
        if budget.per == "team":
            limits[budget.window_name] = min(budget.limit, limits.get(budget.window_name, budget.limit))
    return _Plan(team, team.budgets, {each.name: budget_plan(team.name, each) for each in team.budgets}, limits)


def _expires_at(key: str, state: SpendState) -> datetime | None:
    return watch_expires(state) if isinstance(state, CostWatch) else state.expires_at

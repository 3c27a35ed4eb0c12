"""Costs to what each team, and each subject of its budgets, has spent; and the watches over how it is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, assert_never

from penstock.bus import Message
from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.contracts.records import Cost
from penstock.money import subjects
from penstock.stateful import EmitLike, Logic, Lookup

from services.evaluation.core.alerts import log_range
from services.evaluation.core.budget_windows import BudgetEvent, BudgetWindow, budget_key, budget_step
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
from services.evaluation.core.totals import accounted_at, place, total_of

__all__ = ["SpendEvent", "SpendState", "TooLate", "spending", "step"]

SpendEvent = RecentEvent | CalendarEvent | BudgetEvent
SpendState = Recent | Calendar | BudgetWindow


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a team's configuration says of its money. ``limits``: the lowest of the team as a whole, by window."""

    team: Team | None
    budgets: Sequence[Budget]
    limits: Mapping[str, Decimal]


def spending(team_of: Callable[[str], Team | None]) -> Logic[SpendState, SpendEvent]:
    """Return the processor of ``costs``: totals by team and by budget, thresholds watched."""
    plans: dict[str, _Plan] = {}

    def plan_of(name: str) -> _Plan:
        # Worked out once for each version of a team.
        team = team_of(name)
        plan = plans.get(name)
        if plan is None or plan.team is not team:
            plan = plans[name] = _plan(team)
        return plan

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, SpendEvent]]:
        cost: Cost = record
        team, at = cost.tenant_id, accounted_at(cost)
        plan = plan_of(team)
        total = total_of(cost)
        yield f"recent/{team}", RecentEvent(cost, total, plan.limits)
        yield f"calendar/{place(MONTH, at)[0].id}/{team}", CalendarEvent(cost, total, plan.limits)
        if plan.budgets:
            origin = log_range(message)
            context = cost.context
            for subject in subjects(
                plan.budgets, user=context.user_id, key=context.key_id, model=cost.model, tags=context.tags
            ):
                yield budget_key(team, subject, at), BudgetEvent(cost, total, subject, origin)

    return Logic(
        step=step, route=route, state_type=SpendState, expires_at=_expires_at, latest=frozenset({"team-spend"})
    )


def step(state: SpendState | None, event: SpendEvent, now: datetime) -> tuple[SpendState | None, Sequence[EmitLike]]:
    """Add a cost to the windows of one key.

    Raises:
        TooLate: the cost belongs to windows that are no longer kept.
    """
    match event:
        case RecentEvent():
            return recent_step(state if isinstance(state, Recent) else None, event, now)
        case CalendarEvent():
            return calendar_step(state if isinstance(state, Calendar) else None, event, now)
        case BudgetEvent():
            return budget_step(state if isinstance(state, BudgetWindow) else None, event, now)
        case _:
            assert_never(event)


def _plan(team: Team | None) -> _Plan:
    if team is None:
        return _Plan(None, (), {})
    limits: dict[str, Decimal] = {}
    for budget in team.budgets:
        if budget.per == "team":
            limits[budget.window_name] = min(budget.limit, limits.get(budget.window_name, budget.limit))
    return _Plan(team, team.budgets, limits)


def _expires_at(key: str, state: SpendState) -> datetime:
    return state.expires_at

"""Costs to what each team has spent by day and month, in the time of the calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from penstock.bus import Emit, Message
from penstock.config.kinds import Team
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, Cost, LogRange, TeamSpend
from penstock.stateful import Logic, Lookup

from services.evaluation.core.alerts import alert_emit, fingerprint, log_range

__all__ = ["Spend", "SpendEvent", "TooLate", "Total", "spending"]

# Closed windows stay open for late events as long as the costs topic keeps its events to replay.
_KEEP_DAYS = 92
_DAY, _MONTH = "day", "month"


class TooLate(ValueError):
    """A cost belongs to a window that is no longer kept."""


@dataclass(frozen=True, slots=True)
class SpendEvent:
    """A cost with its team's budgets, USD, and where it stands."""

    cost: Cost
    daily_budget: Decimal | None
    monthly_budget: Decimal | None
    alert_at: Sequence[float]
    origin: LogRange


class Total(msgspec.Struct, frozen=True, array_like=True):
    """Sums of one window."""

    amount: Decimal = Decimal(0)
    calls: int = 0
    unpriced_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Spend(msgspec.Struct, frozen=True):
    """A team's windows by their first day, UTC, as ISO dates."""

    days: dict[str, Total] = {}
    months: dict[str, Total] = {}


def spending(team_of: Callable[[str], Team | None]) -> Logic[Spend, SpendEvent]:
    """Return the processor of ``costs``: totals by team, budgets watched."""

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, SpendEvent]]:
        cost: Cost = record
        team = team_of(cost.tenant_id)
        return [
            (
                cost.tenant_id,
                SpendEvent(
                    cost,
                    team.daily_budget if team else None,
                    team.monthly_budget if team else None,
                    team.budget_alerts if team else (),
                    log_range(message),
                ),
            )
        ]

    return Logic(step=step, route=route, state_type=Spend, latest=frozenset({"team-spend"}))


def step(state: Spend | None, event: SpendEvent, now: datetime) -> tuple[Spend, list[Emit]]:
    """Add a cost to its day and its month.

    Raises:
        TooLate: the day lies further back than the newest one by more than what is kept.
    """
    state = state or Spend()
    cost = event.cost
    day = cost.occurred_at.astimezone(UTC).date()
    month = day.replace(day=1)
    oldest_kept = _newest(state, day) - timedelta(days=_KEEP_DAYS)
    if day < oldest_kept:
        raise TooLate(
            f"a cost of {day} came when days before {oldest_kept} are closed; rebuild the totals from the costs topic"
        )
    daily = _add(state.days.get(day.isoformat(), Total()), cost)
    monthly = _add(state.months.get(month.isoformat(), Total()), cost)
    emits = [
        _spend(cost, _DAY, day, daily, event.daily_budget),
        _spend(cost, _MONTH, month, monthly, event.monthly_budget),
        *_budget_alerts(event, _DAY, day, daily, event.daily_budget, now),
        *_budget_alerts(event, _MONTH, month, monthly, event.monthly_budget, now),
    ]
    days = _put(state.days, day, daily, oldest_kept)
    months = _put(state.months, month, monthly, oldest_kept.replace(day=1))
    return Spend(days, months), emits


def _put(totals: dict[str, Total], start: date, total: Total, oldest_kept: date) -> dict[str, Total]:
    """Return ``totals`` with one window set; a new window is the moment to close the ones that are too old."""
    key = start.isoformat()
    if key in totals:
        return {**totals, key: total}
    return {**{old: kept for old, kept in totals.items() if old >= oldest_kept.isoformat()}, key: total}


def _newest(state: Spend, day: date) -> date:
    return max(day, date.fromisoformat(max(state.days))) if state.days else day


def _add(total: Total, cost: Cost) -> Total:
    return Total(
        amount=total.amount + (cost.amount or 0),
        calls=total.calls + 1,
        unpriced_calls=total.unpriced_calls + (not cost.priced),
        input_tokens=total.input_tokens + cost.usage.input_tokens,
        output_tokens=total.output_tokens + cost.usage.output_tokens,
    )


def _spend(cost: Cost, window: str, start: date, total: Total, budget: Decimal | None) -> Emit:
    record = TeamSpend(
        **derive(cost, f"evaluation.spend.{window}", 0, cost.occurred_at),
        window=window,
        window_start=datetime(start.year, start.month, start.day, tzinfo=UTC),
        amount=total.amount,
        calls=total.calls,
        unpriced_calls=total.unpriced_calls,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        budget=budget,
    )
    return Emit("team-spend", f"{cost.tenant_id}/{window}/{start.isoformat()}", record)


def _budget_alerts(
    event: SpendEvent, window: str, start: date, total: Total, budget: Decimal | None, now: datetime
) -> list[Emit]:
    """Return the alert of the highest threshold that this cost crossed, if it crossed one."""
    cost = event.cost
    if not budget or not cost.amount:
        return []
    before = total.amount - cost.amount
    crossed = [share for share in event.alert_at if before < _share(budget, share) <= total.amount]
    if not crossed:
        return []
    share = max(crossed)
    used = total.amount / budget
    alert = Alert(
        **derive(cost, f"evaluation.budget.{window}", 0, now),
        kind="cost",
        name="budget_threshold",
        severity="critical" if share >= 1 else "warning",
        title=f"{cost.tenant_id} has spent {used:.0%} of its budget of the {window}",
        description=(
            f"Team {cost.tenant_id} has spent {total.amount.normalize():f} of {budget.normalize():f} USD "
            f"in the {window} from {start.isoformat()} (UTC): over the threshold of {share:.0%}, after {total.calls} calls "
            f"({total.unpriced_calls} of them unpriced and not in the sum)."
        ),
        suggested_action=(
            "Look at the costs topic for what spends it (context.tags, model); raise the budget in infra/config/teams or "
            "stop the traffic."
        ),
        fingerprint=fingerprint("cost", "budget_threshold", cost.tenant_id, window, start.isoformat(), str(share)),
        labels={"team": cost.tenant_id, "window": window, "threshold": str(share), "model": cost.model},
        figures={
            "spent": float(total.amount),
            "budget": float(budget),
            "share": float(used),
            "calls": float(total.calls),
        },
        evidence=[event.origin],
        sample_requests=[cost.request_id],
        runbook="services/alerting/runbooks/cost.md",
    )
    return [alert_emit(alert)]


def _share(budget: Decimal, share: float) -> Decimal:
    # str gives 0.8 as it was written; Decimal(0.8) would be a hair more.
    return budget * Decimal(str(share))

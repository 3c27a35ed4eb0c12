"""The alert of a budget whose threshold is reached: who, how much, and when the budget will be used up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from penstock.alerts import fingerprint
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, Cost, LogRange
from penstock.money import Subject, Window

from services.evaluation.core.forecast import Forecast, forecast
from services.evaluation.core.totals import Total, add_up

__all__ = ["Crossing", "budget_alert"]

_NOT_WITHIN = "not within this window"


@dataclass(frozen=True, slots=True)
class Crossing:
    """A cost with which a subject's spending reached a threshold of its budget.

    Attributes:
        window: the window that the cost counts in.
        share: the highest threshold that was reached, as a share of the limit.
        spent: USD in the window.
        newest: the newest instant of the subject's costs.
        totals: what was spent in the window, by bucket.
        hours: USD by hour since the epoch.
        first_offset: of the window's costs in this partition.
        origin: where the cost stands.
    """

    cost: Cost
    subject: Subject
    window: Window
    share: float
    spent: Decimal
    newest: datetime
    totals: Mapping[int, Total]
    hours: Mapping[int, Decimal]
    first_offset: int
    origin: LogRange


def budget_alert(crossing: Crossing, now: datetime) -> Alert:
    """Return the alert of a crossing."""
    cost, budget, window = crossing.cost, crossing.subject.budget, crossing.window
    team, value = cost.tenant_id, crossing.subject.value
    total = add_up(crossing.totals.values())
    used = crossing.spent / budget.limit
    who = _who(crossing.subject, team)
    over = now >= window.end and budget.window != "rolling"
    ahead = None if over else forecast(
        budget, window, crossing.newest, {bucket: each.amount for bucket, each in crossing.totals.items()}, crossing.hours
    )  # fmt: skip
    labels = {
        "team": team,
        "budget": budget.name,
        "mode": budget.mode,
        "per": budget.per,
        "subject": value,
        "window": budget.window_name,
        "threshold": str(crossing.share),
        "model": cost.model,
        "forecast_exhaustion": _exhaustion(ahead),
    }
    figures = {
        "spent": float(crossing.spent),
        "budget": float(budget.limit),
        "share": float(used),
        "calls": float(total.calls),
        "unpriced_calls": float(total.unpriced_calls),
    }
    if ahead is not None:
        figures["usd_per_hour"] = float(ahead.rate)
        if ahead.exhausted_at is not None:
            figures["hours_left"] = (ahead.exhausted_at - ahead.at) / timedelta(hours=1)
    return Alert(
        **derive(cost, f"evaluation.budget.{budget.name}", 0, now),
        kind="cost",
        name="budget_threshold",
        severity="critical" if crossing.share >= 1 else "warning",
        title=f"{who} has spent {used:.0%} of {budget.mode} budget {budget.name}",
        description=(
            f"{who} has spent {crossing.spent.normalize():f} of {budget.limit.normalize():f} USD {_span(crossing)}: over "
            f"the threshold of {crossing.share:.0%}, after {total.calls} calls ({total.unpriced_calls} of them unpriced "
            f"and not in the sum). {_outlook(ahead)}"
        ),
        suggested_action=(
            f"See what is left with `penstock budgets show {team}`, and what spends it with `penstock ledger report --team "
            f"{team} --by model,user,key --since 24h`; raise the budget in infra/config/teams or stop the traffic."
        ),
        fingerprint=fingerprint(
            "cost", "budget_threshold", team, budget.name, value, budget.window_name, window.id, str(crossing.share)
        ),
        labels=labels,
        figures=figures,
        evidence=[
            LogRange(
                topic=crossing.origin.topic,
                partition=crossing.origin.partition,
                first_offset=min(crossing.first_offset, crossing.origin.last_offset),
                last_offset=crossing.origin.last_offset,
            )
        ],
        sample_requests=[cost.request_id],
        runbook="services/alerting/runbooks/cost.md",
    )


def _who(subject: Subject, team: str) -> str:
    budget = subject.budget
    if budget.per == "team":
        return f"Team {team}"
    what = f"tag {budget.tag}" if budget.tag is not None else budget.per
    return f"{what.capitalize()} {subject.value!r} of team {team}"


def _span(crossing: Crossing) -> str:
    budget, window = crossing.subject.budget, crossing.window
    if budget.window == "rolling":
        return f"in the last {budget.hours} hours"
    return f"in the {budget.window} from {window.start:%Y-%m-%d} (UTC)"


def _exhaustion(ahead: Forecast | None) -> str:
    if ahead is None or ahead.exhausted_at is None:
        return _NOT_WITHIN
    return ahead.exhausted_at.isoformat(timespec="seconds")


def _outlook(ahead: Forecast | None) -> str:
    if ahead is None:
        return "The window is over: these are costs that came late."
    hours = (ahead.at - ahead.since) / timedelta(hours=1)
    rate = f"At the rate of the last {hours:.1f} hours, {ahead.rate:.6f} USD an hour,"
    if ahead.exhausted_at is None:
        return f"{rate} it will be used up {_NOT_WITHIN}."
    if ahead.exhausted_at == ahead.at:
        return "The budget is used up."
    left = (ahead.exhausted_at - ahead.at) / timedelta(hours=1)
    return f"{rate} it will be used up at {ahead.exhausted_at:%Y-%m-%d %H:%M} UTC, in {left:.1f} hours."

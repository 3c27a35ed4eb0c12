"""The alerts of the cost watches, in words and figures. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from penstock.alerts import fingerprint
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, Cost, LogRange, Severity

from services.evaluation.core.cache_rate import CacheFinding
from services.evaluation.core.cost_rules import PriceChangeRules
from services.evaluation.core.price_change import PriceFinding, Version
from services.evaluation.core.spend_rate import RateFinding

__all__ = ["cache_alert", "price_alert", "rate_alert"]

_RUNBOOK = "services/alerting/runbooks/cost.md"


def rate_alert(cost: Cost, model: str | None, found: RateFinding, origin: LogRange, now: datetime) -> Alert:
    """Return the alert of a rate of spending; ``model`` is ``None`` for the team as a whole."""
    team = cost.tenant_id
    whose = f"{team} on {model}" if model else team
    since = datetime.fromtimestamp(found.since * 60, UTC)
    firing = found.status == "firing"
    per_hour = float(found.spent) * 60 / found.minutes
    usual_per_hour = found.usual * 60 / found.minutes
    if firing:
        title = f"{whose} spends {found.ratio:.1f} times the usual: {_rounded(per_hour)} USD an hour"
        usual = "usual at this hour of the week" if found.known else "of the busiest hour so far (this one is new)"
        description = (
            f"{whose} spent {_money(found.spent)} USD in {found.minutes} minutes with {found.calls} calls, since "
            f"{since:%Y-%m-%d %H:%M} UTC; {_rounded(found.usual)} USD is {usual}. Without its dearest call that is "
            f"{found.ratio:.1f} times as much, {found.deviations:.1f} standard deviations of this key's own ups and downs. "
            f"At this rate it costs {_rounded((per_hour - usual_per_hour) * 24)} USD a day more than usual."
        )
        if found.suppressed:
            description += f" It held for {found.suppressed} more calls since the last alert."
    elif found.status == "resolved":
        title = f"The spending of {whose} is back: {_rounded(per_hour)} USD an hour"
        description = (
            f"{whose} spent {_money(found.spent)} USD in the last {found.minutes} minutes; {_rounded(found.usual)} USD "
            f"is usual. The rise began at {since:%Y-%m-%d %H:%M} UTC."
        )
    else:
        title = f"The spending of {whose} has a new level: {_rounded(per_hour)} USD an hour"
        description = (
            f"{whose} has spent more since {since:%Y-%m-%d %H:%M} UTC, for so long that this is the usual rate from now "
            f"on: {_money(found.spent)} USD in the last {found.minutes} minutes, {_rounded(found.usual)} USD was usual."
        )
    return Alert(
        **derive(cost, f"evaluation.spend_rate.{'model' if model else 'team'}.{found.status}", 0, now),
        kind="cost",
        name="spend_rate_anomaly",
        severity=Severity.CRITICAL if found.critical else Severity.WARNING if firing else Severity.INFO,
        status="firing" if firing else "resolved",
        title=title,
        description=description,
        suggested_action=(
            f"Run `penstock ledger report --team {team} --by model,tag:feature,user --since 1h` and see what rose; "
            f"`penstock budgets show {team}` tells what is left. Stop a loop or a leaked key at its source, or set a hard "
            "budget."
        )
        if firing
        else "",
        fingerprint=fingerprint("cost", "spend_rate_anomaly", team, model or ""),
        labels=_labels(team, model),
        figures={
            "spent": float(found.spent),
            "usual": round(found.usual, 9),
            "ratio": round(min(found.ratio, 1e9), 3),
            "deviations": round(found.deviations, 2),
            "calls": float(found.calls),
            "minutes": float(found.minutes),
        },
        evidence=[
            _range(origin, found.first_offset, found.last_offset),
            _range(origin, found.baseline_first, found.baseline_last),
        ],
        sample_requests=[each.request_id for each in found.dearest],
        runbook=_RUNBOOK,
    )


def price_alert(cost: Cost, found: PriceFinding, origin: LogRange, rules: PriceChangeRules, now: datetime) -> Alert:
    """Return the alert of a changed price."""
    team, model = cost.tenant_id, cost.model
    before, after = found.before, found.after
    share = found.share
    at = datetime.fromtimestamp(after.first_at, UTC)
    if found.day_at_new is None:
        day = "Too little has been seen at the new price to say what the last day's usage would have cost."
    else:
        difference = found.day_at_new - found.day_amount
        day = (
            f"The last day's usage cost {_money(found.day_amount)} USD; at the new effective rates it would "
            f"have cost about {_rounded(abs(float(difference)))} USD {'more' if difference >= 0 else 'less'} ({share:+.1%})."
        )
    figures: dict[str, float] = {
        "share": round(min(share, 1e9), 6),
        "calls": float(after.calls),
        "day": float(found.day_amount),
    }
    if found.day_at_new is not None:
        figures["day_at_new"] = round(float(found.day_at_new), 9)
    for name, version in (("per_thousand_before", before), ("per_thousand_after", after)):
        if version.per_thousand is not None:
            figures[name] = float(version.per_thousand)
    return Alert(
        **derive(cost, "evaluation.price_changed", 0, now),
        kind="cost",
        name="price_changed",
        severity=Severity.WARNING if share > rules.warn_above else Severity.INFO,
        title=f"{model} costs {team} {_percent(share)}",
        description=(
            f"Since {at:%Y-%m-%d %H:%M} UTC the calls of {team} to {model} have price {after.version}; before it was "
            f"{before.version}. 1,000 tokens cost {_rate(before)} USD before ({before.calls} calls) and {_rate(after)} USD "
            f"now ({after.calls} calls). {day}"
        ),
        suggested_action=(
            f"Compare the versions with `penstock prices show {model}`. Not wanted: take back the entry in "
            "infra/config/prices and run `penstock config apply`, or lead the route to another model. "
            f"`penstock ledger report --team {team} --by model,tag:feature --since 24h` shows who pays."
        ),
        fingerprint=fingerprint("cost", "price_changed", team, model, before.version, after.version),
        labels=_labels(team, model),
        figures=figures,
        evidence=[
            _range(origin, after.first_offset, after.last_offset),
            _range(origin, before.first_offset, before.last_offset),
        ],
        sample_requests=[request for _, request in after.samples],
        runbook=_RUNBOOK,
    )


def cache_alert(cost: Cost, found: CacheFinding, origin: LogRange, now: datetime) -> Alert:
    """Return the alert of a cache's hit rate."""
    team, model = cost.tenant_id, cost.model
    of = "prompt tokens from the provider's cache" if found.what == "tokens" else "calls that a cache answered"
    firing = found.status == "firing"
    if firing:
        title = (
            f"{team} on {model}: {of} fell from {found.before:.0%} to {found.after:.0%}, "
            f"{_rounded(found.cost_per_day)} USD a day"
        )
        description = (
            f"The share of {of} was {found.before:.1%} and is {found.after:.1%} over the last {found.batches} batches of "
            f"calls. One hit saves {_rounded(found.saved_per_hit)} USD; at the last day's volume the fall costs "
            f"{_rounded(found.cost_per_day)} USD a day."
        )
    else:
        title = f"{team} on {model}: {of} back at {found.after:.0%}"
        description = f"The share of {of} is {found.after:.1%}; before the fall it was {found.before:.1%}."
        if found.status == "accepted":
            title = f"{team} on {model}: {of} stay at {found.after:.0%}"
            description += " It has been low for so long that this is the usual share from now on."
    cause = (
        "what stands at the beginning of the prompt (a date, a name, tools in another order)"
        if found.what == "tokens"
        else "the cache's settings and store, and whether the questions have changed"
    )
    figures: dict[str, Any] = {
        "before": round(found.before, 4),
        "after": round(found.after, 4),
        "saved_per_hit": found.saved_per_hit,
        "cost_per_day": round(found.cost_per_day, 6),
    }
    return Alert(
        **derive(cost, f"evaluation.cache_rate.{found.what}.{found.status}", 0, now),
        kind="cost",
        name="cache_hit_rate_fell",
        severity=Severity.WARNING if firing else Severity.INFO,
        status="firing" if firing else "resolved",
        title=title,
        description=description,
        suggested_action=(
            f"Look at {cause}: compare the sample requests with `penstock ledger report --team {team} "
            "--by model,prompt_version,tag:feature --since 24h`."
        )
        if firing
        else "",
        fingerprint=fingerprint("cost", "cache_hit_rate_fell", team, model, found.what),
        labels={**_labels(team, model), "cache": "prefix" if found.what == "tokens" else "answer"},
        figures=figures,
        evidence=[
            _range(origin, found.first_offset, found.last_offset),
            _range(origin, found.baseline_first, max(found.baseline_first, found.first_offset - 1)),
        ],
        sample_requests=list(found.samples),
        runbook=_RUNBOOK,
    )


def _labels(team: str, model: str | None) -> dict[str, str]:
    return {"team": team, "model": model or ""}


def _range(origin: LogRange, first: int, last: int) -> LogRange:
    return LogRange(topic=origin.topic, partition=origin.partition, first_offset=first, last_offset=max(first, last))


def _money(amount: Decimal) -> str:
    """Return an amount exactly, without trailing zeros."""
    return f"{amount.normalize():f}"


def _rounded(amount: float) -> str:
    """Return an estimate with three significant digits and no exponent."""
    if amount == 0:
        return "0"
    return f"{Decimal(f'{amount:.3g}'):f}"


def _rate(version: Version) -> str:
    return "an unknown amount of" if version.per_thousand is None else _rounded(float(version.per_thousand))


def _percent(share: float) -> str:
    return (
        f"{share:.1%} more" if share > 0 else f"{-share:.1%} less" if share < 0 else "as much as before at a new price"
    )

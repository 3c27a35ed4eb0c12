"""How ``penstock routes`` shows routes: their targets with shares, what is on trial, and their versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from penstock.cli.cluster import table_console
from penstock.cli.printable import printable
from penstock.config.kinds import Canary, Price, Route, Target
from penstock.config.publish import Change
from penstock.config.route_history import RouteVersion
from penstock.contracts.records import ExperimentEvent

__all__ = ["change_of", "route_data", "show_change", "show_list", "show_route", "version_data"]

_MILLION = Decimal(1_000_000)
_MARKS = {"new": "+", "changed": "~"}


def show_list(current: Sequence[RouteVersion], rollbacks: Mapping[str, ExperimentEvent | None]) -> None:
    """Show routes in force, one a line.

    Args:
        rollbacks: the decisions that took their canaries back, by route.
    """
    table = Table("route", "choice", "targets", "canary", "shadows", "version", "since", "by", box=None)
    for version in current:
        if (route := version.route) is None:
            continue
        taken = rollbacks.get(route.name) is not None
        targets = ", ".join(f"{target.label} {_percent(share)}" for target, share in _shares(route, taken))
        canary = f"{route.canary.target.label} {_tried(route.canary, taken)}" if route.canary else "-"
        shadows = ", ".join(f"{each.target.label} {_percent(each.share)}" for each in route.shadows) or "-"
        table.add_row(
            *(_cell(text) for text in (route.name, route.choice, targets, canary, shadows)),
            route.version, _minute(version.published_at), _cell(version.author or "-"),
        )  # fmt: skip
    table_console().print(table)


def show_route(
    versions: Sequence[RouteVersion], prices: Mapping[str, Price | None], rollback: ExperimentEvent | None
) -> None:
    """Show one route: what is in force, and every version of it.

    Args:
        versions: oldest first; the last is in force.
        prices: of the models of its targets, in force now.
        rollback: the decision that took its canary back.
    """
    current = versions[-1]
    route = current.route
    if route is None:
        click.echo(f"{current.name}  withdrawn {_minute(current.published_at)}{_by(current)}")
    else:
        click.echo(
            f"{route.name}  version {route.version}, in force since {_minute(current.published_at)}{_by(current)}"
        )
        click.echo(f"choice {route.choice}" + "".join(f", {rule}" for rule in _rules(route)))
        _show_targets(route, prices, rollback is not None)
        if route.canary is not None:
            canary = route.canary
            click.echo(
                f"canary {canary.target.label}: "
                + (
                    f"on trial with {_percent(canary.share)} of the traffic, sticky by {canary.sticky}"
                    if rollback is None
                    else f"taken back at {_minute(rollback.occurred_at)}, {printable(rollback.metric)} is worse: "
                    f"{_figures(rollback)}; the stable targets have all the traffic"
                )
            )
    click.echo("history, the newest first:")
    table = Table("version", "published", "by", "reason", "what changed", box=None)
    for position in range(len(versions) - 1, -1, -1):
        version = versions[position]
        before = versions[position - 1].route if position else None
        table.add_row(
            version.version or "withdrawn", _minute(version.published_at),
            _cell(version.author or "-"), _cell(version.reason or "-"), _cell(_changed(before, version.route)),
        )  # fmt: skip
    table_console().print(table)


def show_change(change: Change, *, err: bool) -> None:
    """Show what publishing would change, field by field."""
    assert change.after is not None
    click.echo(f"{_MARKS[change.action]} {change.kind}/{change.key}  {change.after.version}", err=err)
    if change.action == "changed":
        for path, old, new in change.differences():
            click.echo(printable(f"    {path}: {old or 'default'} -> {new or 'default'}"), err=err)


def change_of(before: Route | None, after: Route) -> Change | None:
    """Return the change from ``before`` to ``after``; None where they are the same."""
    if before is not None and before.version == after.version:
        return None
    return Change("routes", after.name, "new" if before is None else "changed", before, after)


def version_data(version: RouteVersion) -> dict[str, Any]:
    """Return one version as JSON data."""
    return {
        "version": version.version or None,
        "published_at": version.published_at.isoformat(),
        "closed_at": version.closed_at.isoformat() if version.closed_at else None,
        "author": version.author,
        "reason": version.reason,
        "route": json.loads(version.route.canonical) if version.route else None,
    }


def route_data(versions: Sequence[RouteVersion], rollback: ExperimentEvent | None) -> dict[str, Any]:
    """Return a route with its history as JSON data, the oldest version first."""
    current = versions[-1]
    route = current.route
    taken = {
        "at": rollback.occurred_at.isoformat(),
        "metric": rollback.metric,
        "difference": rollback.difference,
        "interval": rollback.interval,
    } if rollback else None  # fmt: skip
    return {
        "name": current.name,
        "version": current.version or None,
        "in_force_since": current.published_at.isoformat() if route else None,
        "choice": route.choice if route else None,
        "targets": [
            {"name": target.label, "backend": target.backend, "model": target.model, "weight": target.weight, "share": share}
            for target, share in (_shares(route, taken is not None) if route else [])
        ],
        "canary": {"name": route.canary.target.label, "share": route.canary.share, "taken_back": taken}
        if route and route.canary
        else None,
        "shadows": [{"name": each.target.label, "share": each.share} for each in (route.shadows if route else ())],
        "history": [version_data(version) for version in versions],
    }  # fmt: skip


def _show_targets(route: Route, prices: Mapping[str, Price | None], taken_back: bool) -> None:
    table = Table(
        "target", "as", "backend", "model", "share", "USD a million in / out", "quality", "endpoint", box=None
    )

    def row(target: Target, role: str, share: str) -> None:
        quality = "-" if target.quality is None else f"{target.quality:g}"
        texts = (target.label, role, target.backend, target.model, share, _price(prices.get(target.model)), quality)
        table.add_row(*(_cell(text) for text in texts), _cell(target.base_url or "-"))

    for target, share in _shares(route, taken_back):
        row(target, "stands in" if target.weight == 0 else "target", _percent(share))
    if route.canary is not None:
        row(route.canary.target, "canary", _tried(route.canary, taken_back))
    for shadow in route.shadows:
        row(shadow.target, "shadow", _percent(shadow.share))
    table_console().print(table)


def _tried(canary: Canary, taken_back: bool) -> str:
    return "taken back" if taken_back else _percent(canary.share)


def _shares(route: Route, taken_back: bool) -> list[tuple[Target, float]]:
    """Return the targets with the share of the traffic that weights give each, what a canary has left out."""
    total = sum(target.weight for target in route.targets)
    left = 1 - route.canary.share if route.canary and not taken_back else 1.0
    return [(target, left * target.weight / total) for target in route.targets]


def _rules(route: Route) -> list[str]:
    rules = []
    if route.deadline_s is not None:
        rules.append(f"deadline {route.deadline_s:g} s")
    if route.quality_floor is not None:
        rules.append(f"{route.quality_floor.score} at least {route.quality_floor.at_least:g}")
    breaker = route.breaker
    rules.append(
        f"left alone for {breaker.open_s:g} s after {_percent(breaker.failure_ratio)} of {breaker.min_calls} calls or more "
        f"failed within {breaker.window_s:g} s"
        if breaker.enabled
        else "targets that fail are asked all the same"
    )
    return rules


def _changed(before: Route | None, after: Route | None) -> str:
    if before is None or after is None:
        return "" if after is None else "all of it"
    change = change_of(before, after)
    fields = [path for path, _, _ in change.differences()] if change else []
    return ", ".join(fields[:4]) + (f" and {len(fields) - 4} more" if len(fields) > 4 else "")


def _price(price: Price | None) -> str:
    if price is None:
        return "no price"
    if price.input_cost_per_token is None:
        return "by time or request"
    costs = (price.input_cost_per_token, price.output_cost_per_token or Decimal(0))
    return " / ".join(f"{(cost * _MILLION).normalize():f}" for cost in costs)


def _figures(event: ExperimentEvent) -> str:
    if event.difference is None:
        return "no figures"
    interval = f", from {event.interval[0]:.4g} to {event.interval[1]:.4g}" if len(event.interval) == 2 else ""
    return f"by {event.difference:+.4g}{interval}"


def _by(version: RouteVersion) -> str:
    author = f", by {printable(version.author)}" if version.author else ""
    return author + (f": {printable(version.reason)}" if version.reason else "")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def _cell(text: str) -> str:
    return escape(printable(text))

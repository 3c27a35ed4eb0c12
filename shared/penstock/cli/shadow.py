"""``penstock routes shadow``: targets in shadow against what was served, on the same requests."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from penstock.bus import history
from penstock.cli import change_options
from penstock.cli.cluster import table_console
from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable
from penstock.cli.shadow_comparison import CONFIDENCE, LEAST_CLUSTERS, Difference, Shadowed, ShadowPairs
from penstock.config.kinds import Route
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Completion, Cost, Evaluation

__all__ = ["shadow"]

_TOPICS = ("completions", "evaluations", "costs")
_UNITS = {"failed": "share", "model_ms": "ms", "cost": "USD", "output_tokens": "tokens"}


@click.command("shadow")
@click.argument("name")
@click.option("--since", type=INSTANT, help="Begin: an instant, or how long ago.  [default: 24h]")
@change_options.as_json
def shadow(name: str, since: datetime | None, as_json: bool) -> None:
    """Compare targets in shadow with what was served.

    On the route NAME, on the same requests: failures, time, cost and scores, with intervals of their differences.
    """
    run_command(_shadow(name, since or datetime.now(UTC) - timedelta(days=1), as_json))


async def _shadow(name: str, since: datetime, as_json: bool) -> None:
    pairs = ShadowPairs(name)
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        route = plane.route(name)
        since_ms = int(since.timestamp() * 1000)
        async with history(connection.bus, _TOPICS, since_ms=since_ms) as messages:
            async for message in messages:
                record = connection.codec.readable(message.topic, message.value)
                if isinstance(record, Completion | Evaluation | Cost):
                    pairs.take(record)
    found = pairs.results()
    if as_json:
        click.echo(json.dumps({"route": name, "since": since.isoformat(), "shadows": [_data(each) for each in found]}))
        return
    if not found:
        click.echo(_nothing(name, route))
        return
    for each in found:
        _print(each)
    click.echo(
        f"difference: the shadow's less what was served, on the same requests; intervals are at {CONFIDENCE:.0%} for one "
        f"look, with the variance of users, and need {LEAST_CLUSTERS} of them and some that differ"
    )


def _nothing(name: str, route: Route | None) -> str:
    if route is None:
        return f"no route {name!r} is published, and nothing was answered in shadow there; `penstock routes list`"
    if not route.shadows:
        return f"route {name} has no shadows; services/inference/ROUTES.md says how to give it one"
    return f"nothing was answered in shadow on route {name} since then; penstock_shadow_calls counts what was left out"


def _data(each: Shadowed) -> dict[str, Any]:
    return asdict(each) | {"differences": [asdict(one) | {"difference": one.mean} for one in each.differences]}


def _print(each: Shadowed) -> None:
    click.echo(printable(f"{each.target}: {each.calls:,} calls, {each.requests:,} beside an answer that was served"))
    if not each.differences:
        return
    table = Table("figure", "unit", box=None, pad_edge=False)
    for column in ("requests", "served", "shadow", "difference", "between"):
        table.add_column(column, justify="right")
    for one in each.differences:
        table.add_row(*(escape(printable(cell)) for cell in _cells(one)))
    table_console().print(table)


def _cells(one: Difference) -> tuple[str, ...]:
    between = "-" if one.low is None or one.high is None else f"{one.low:+.4g} .. {one.high:+.4g}"
    unit = _UNITS.get(one.metric, "0 to 1")
    return (one.metric, unit, f"{one.pairs:,}", f"{one.served:.4g}", f"{one.shadow:.4g}", f"{one.mean:+.4g}", between)

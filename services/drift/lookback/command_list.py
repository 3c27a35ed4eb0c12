"""``penstock drift list``: what changed last in every segment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import click
from penstock.bus import history
from penstock.cli.cluster import table_console
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable
from penstock.contracts.records import DriftEvent
from rich.markup import escape
from rich.table import Table

from services.drift.lookback.command_log import milliseconds

__all__ = ["Standing", "changes_since", "list_segments", "standings"]

_TOPIC = "drift-events"


class Standing(NamedTuple):
    """How a signal of a segment stands: its newest change, and how many there were."""

    newest: DriftEvent
    changes: int

    @property
    def state(self) -> str:
        """Return ``usual`` where the baseline is back, or only a burst was told; else ``changed``."""
        return "usual" if self.newest.returned or self.newest.pattern == "outlier" else "changed"


def standings(events: Sequence[DriftEvent]) -> list[Standing]:
    """Return how every signal that ever changed stands, the newest change first.

    Args:
        events: the drift events, in any order; one that stands twice on the topic counts once.
    """
    by_signal: dict[tuple[str, str], list[DriftEvent]] = {}
    for event in {event.event_id: event for event in events}.values():
        by_signal.setdefault((event.segment, event.signal), []).append(event)
    found = [Standing(max(those, key=lambda event: event.occurred_at), len(those)) for those in by_signal.values()]
    return sorted(found, key=lambda each: (each.newest.occurred_at, each.newest.signal), reverse=True)


async def changes_since(
    connection: Connection, since: datetime | None, until: datetime | None = None
) -> list[DriftEvent]:
    """Return the drift events of a period, in the order of their partitions; those that cannot be read are left out."""
    found = []
    last = milliseconds(until)
    async with history(connection.bus, [_TOPIC], since_ms=milliseconds(since)) as messages:
        async for message in messages:
            if last is not None and message.timestamp_ms >= last:
                continue
            record = connection.codec.readable(message.topic, message.value)
            if isinstance(record, DriftEvent):
                found.append(record)
    return found


@click.command("list")
@click.option("--team", help="Only segments of this team.")
@click.option("--segment", help="Only this segment: team|model|prompt version|route.")
@click.option("--since", type=INSTANT, default="7d", show_default=True, help="How far back changes are looked for.")
@click.option("--all", "everything", is_flag=True, help="Also signals whose baseline is back.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
def list_segments(team: str | None, segment: str | None, since: datetime, everything: bool, as_json: bool) -> None:
    """Show the signals that are not what they were: the newest change of each, by segment."""
    run_command(_list(team, segment, since, everything, as_json))


async def _list(team: str | None, segment: str | None, since: datetime, everything: bool, as_json: bool) -> None:
    async with connect() as connection:
        events = await changes_since(connection, since)
    chosen = [
        each
        for each in standings(events)
        if segment in (None, each.newest.segment)
        and team in (None, each.newest.segment.partition("|")[0])
        and (everything or each.state == "changed")
    ]
    if as_json:
        for each in chosen:
            click.echo(json.dumps(_data(each)))
        return
    if not chosen:
        click.echo(f"nothing has changed since {since:%Y-%m-%d %H:%M} UTC")
        return
    table = Table(
        "segment", "signal", "state", "kind", "how", "confirmed", box=None, pad_edge=False, header_style="dim"
    )
    table.add_column("size", justify="right")
    table.add_column("changes", justify="right")
    table.add_column("from -> to")
    table.add_column("likely cause")
    for each in chosen:
        event = each.newest
        cause = ", ".join(f"{one.name} {one.before} -> {one.after}" for one in event.releases) or "-"
        table.add_row(
            *(escape(printable(cell)) for cell in (event.segment, event.signal, each.state, event.kind, event.pattern)),
            f"{event.occurred_at:%Y-%m-%d %H:%M}", f"{event.size:.2f}", str(each.changes), _figures(event),
            escape(printable(cause)),
        )  # fmt: skip
    table_console().print(table)
    click.echo("accept a change with `penstock drift rebase SEGMENT --signal SIGNAL`; size is in standard deviations")


def _figures(event: DriftEvent) -> str:
    """Return the figure that both sides have, before and after."""
    shared = [name for name in event.before if name in event.after and name not in ("events", "messages")]
    if not shared:
        return "-"
    name = "mean" if event.what == "level" and "mean" in shared else shared[0]
    return f"{escape(printable(name))} {event.before[name]:.4g} -> {event.after[name]:.4g}"


def _data(each: Standing) -> dict[str, Any]:
    event = each.newest
    return {
        "segment": event.segment,
        "signal": event.signal,
        "state": each.state,
        "drift": event.kind,
        "kind": event.pattern,
        "what": event.what,
        "confirmed_at": event.occurred_at.isoformat().replace("+00:00", "Z"),
        "size": event.size,
        "changes": each.changes,
        "before": event.before,
        "after": event.after,
        "reference_mode": event.reference_mode,
        "releases": [{"name": one.name, "before": one.before, "after": one.after} for one in event.releases],
        "contributions": event.contributions,
        "event_id": event.event_id,
    }

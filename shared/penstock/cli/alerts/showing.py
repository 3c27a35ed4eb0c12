"""``penstock alerts list``, ``show`` and ``silences``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click
import msgspec
from rich.console import RenderableType

from penstock.cli.alerts.board import Incident, rank
from penstock.cli.alerts.drawing import as_data, as_page, as_table, silences_table
from penstock.cli.alerts.reading import chosen, read_board
from penstock.cli.cluster import table_console
from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.config.plane import ConfigPlane

__all__ = ["counted", "list_", "show", "silences"]

_SINCE = click.option(
    "--since",
    type=INSTANT,
    default="7d",
    show_default=True,
    help="Alerts that were raised since then: an instant, or 24h.",
)


@click.command("list", short_help="List what fires now, the worst first.")
@click.option("--all", "every", is_flag=True, help="Also what has ended.")
@click.option("--team", help="Only those of one team; the platform's own are of the team platform.")
@click.option("--kind", help="Only those of one kind: cost, drift, dlq, ...")
@click.option(
    "--severity", type=click.Choice(["info", "warning", "critical"]), help="Only those that are at least so severe."
)
@_SINCE
@click.option(
    "--limit", type=click.IntRange(1), default=200, show_default=True, help="Most that are listed; JSON lists all."
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON each.")
def list_(
    every: bool, team: str | None, kind: str | None, severity: str | None, since: datetime, limit: int, as_json: bool
) -> None:
    """List what fires now, the worst first: since when, how often, who has it in hand, and who was told."""
    run_command(_list(every, team, kind, severity, since, limit, as_json))


@click.command(short_help="Show all that is known of an alert, and its runbook's first steps.")
@click.argument("alert")
@_SINCE
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def show(alert: str, since: datetime, as_json: bool) -> None:
    """Show all that is known of ALERT (the beginning of a fingerprint or event_id) and the first steps of its runbook."""
    run_command(_show(alert, since, as_json))


@click.command(short_help="List the silences that hold or are to come.")
@click.option("--all", "every", is_flag=True, help="Also those that have ended.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON each.")
def silences(every: bool, as_json: bool) -> None:
    """List the silences that hold or are to come, and how many alerts each covers now."""
    run_command(_silences(every, as_json))


async def _list(
    every: bool, team: str | None, kind: str | None, severity: str | None, since: datetime, limit: int, as_json: bool
) -> None:
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        board = await read_board(connection, since, plane)
    now = datetime.now(UTC)
    found = [
        each
        for each in board.incidents
        if (every or each.firing)
        and team in (None, each.alert.tenant_id)
        and kind in (None, each.alert.kind)
        and (severity is None or rank(each.severity) >= rank(severity))
    ]
    if as_json:
        for each in found:
            click.echo(msgspec.json.encode(as_data(each)).decode())
        return
    if not found:
        click.echo(f"nothing {'was raised' if every else 'fires'} (read since {since:%Y-%m-%d %H:%M} UTC)")
        return
    _print(as_table(found[:limit], now))
    click.echo(counted(found, every, limit), err=True)


def counted(found: Sequence[Incident], every: bool, limit: int) -> str:
    """Return the line beneath the list: how many there are, listed or not, and how many did not reach everyone."""
    firing = [each for each in found if each.firing]
    failing = sum(any(told.fails for told in each.told()) for each in firing)
    line = f"{len(firing)} firing"
    if every:
        line += f", {len(found) - len(firing)} over"
    if failing:
        line += f"; {failing} did not reach everyone"
    if len(found) > limit:
        line += f". Listed are the first {limit}: --limit, --team, --kind and --severity show others"
    return f"{line}. `penstock alerts show ID` has the rest"


async def _show(prefix: str, since: datetime, as_json: bool) -> None:
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        board = await read_board(connection, since, plane)
    incident = chosen(board, prefix, since)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(as_data(incident, whole=True)), indent=2).decode())
        return
    _print(as_page(incident, datetime.now(UTC)))


async def _silences(every: bool, as_json: bool) -> None:
    async with connect() as connection:
        board = await read_board(connection, datetime.now(UTC) - timedelta(days=7))
    found = [*board.silences, *(board.ended_silences if every else ())]
    if as_json:
        for each in found:
            click.echo(msgspec.json.encode(each).decode())
        return
    if not found:
        click.echo("no silences")
        return
    _print(silences_table(found, board.firing(), datetime.now(UTC)))


def _print(drawn: RenderableType) -> None:
    """Print without the blanks that fill the lines of a terminal: they are in the way in a file or a pipe."""
    console = table_console()
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())

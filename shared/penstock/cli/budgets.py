"""``penstock budgets``: what every budget has left."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import click
from redis.exceptions import RedisError
from rich.markup import escape
from rich.table import Table

from penstock.bus import history
from penstock.cli.cluster import one_line_errors, table_console
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.printable import printable
from penstock.cli.teams import require_team
from penstock.clock import SystemClock
from penstock.config.kinds import Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import TeamSpend
from penstock.money.balances import BudgetBalance, balances
from penstock.money.counters import Counter, read_counters
from penstock.redis_client import redis_client
from penstock.settings import RedisSettings, load_settings

__all__ = ["budgets"]

_TOPIC = "team-spend"


@click.group()
def budgets() -> None:
    """What every budget has left."""


@budgets.command()
@click.argument("team", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON; amounts are decimal strings, USD.")
def show(team: str | None, as_json: bool) -> None:
    """Show the budgets of TEAM, or of all teams: limit, spent, reserved and left in the present window.

    The figures of hard budgets are those that admission decides by (Redis). Nothing is reserved in soft ones: they show
    what evaluation has counted (the topic team-spend).
    """
    with one_line_errors(_Unreachable):
        run_command(_show(team, as_json))


class _Unreachable(Exception):
    """Redis gives no figures; the message says why and what to do."""


async def _show(team: str | None, as_json: bool) -> None:
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        teams = [entry for entry in plane.entries("teams").values() if isinstance(entry, Team)]
        if team is not None:
            require_team(plane, team)
        chosen = [one for one in teams if team in (None, one.name)]
        spends = await _spends(connection)
    found = balances(chosen, await _counters(team), spends, SystemClock().now())
    if as_json:
        click.echo(json.dumps([_data(one) for one in found], indent=2))
        return
    if not found:
        click.echo("no budgets: give a team some in infra/config/teams and run `penstock config apply`")
        return
    _print(found)


async def _counters(team: str | None) -> list[Counter]:
    redis = redis_client(load_settings(RedisSettings))
    try:
        return await read_counters(redis, team)
    except (RedisError, OSError) as error:
        raise _Unreachable(
            f"Redis does not answer: {error}; start it with `penstock stack up` or set REDIS_URL"
        ) from error
    finally:
        await redis.aclose()


async def _spends(connection: Connection) -> list[TeamSpend]:
    """Everything on team-spend, in order within its partitions; one key stays in one."""
    found = []
    async with history(connection.bus, [_TOPIC]) as messages:
        async for message in messages:
            record = connection.codec.readable(message.topic, message.value)
            if isinstance(record, TeamSpend):
                found.append(record)
    return found


def _print(found: list[BudgetBalance]) -> None:
    table = Table("team", "budget", "of", "mode", "window", "ends", box=None)
    for amount in ("limit", "spent", "reserved", "left"):
        table.add_column(amount, justify="right")
    for one in found:
        reserved = "-" if one.reserved is None else _plain(one.reserved)
        cells = (one.team, one.budget.name, _subject(one), one.budget.mode, one.budget.window_name)
        table.add_row(
            *(escape(printable(cell)) for cell in cells), f"{one.ends_at:%Y-%m-%d %H:%M}", _plain(one.budget.limit),
            _plain(one.spent), reserved, _plain(one.left), style="red" if one.left <= 0 else None,
        )  # fmt: skip
    table_console().print(table)
    click.echo("USD; windows end in UTC, of rolling ones the oldest part does")


def _subject(one: BudgetBalance) -> str:
    budget = one.budget
    if budget.per == "team":
        return "the team"
    what = f"tag {budget.tag}" if budget.per == "tag" else budget.per
    if one.subject is None:
        return f"any {what}"
    return f"{what} {one.subject}" if one.subject else f"no {what}"


def _data(one: BudgetBalance) -> dict[str, Any]:
    budget = one.budget
    return {
        "team": one.team,
        "budget": budget.name,
        "mode": budget.mode,
        "per": budget.per,
        "tag": budget.tag,
        "subject": one.subject,
        "window": budget.window_name,
        "starts_at": one.starts_at.isoformat(),
        "ends_at": one.ends_at.isoformat(),
        "limit": f"{budget.limit:f}",
        "spent": f"{one.spent:f}",
        "reserved": None if one.reserved is None else f"{one.reserved:f}",
        "left": f"{one.left:f}",
        "as_of": one.as_of.isoformat() if one.as_of else None,
    }


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"

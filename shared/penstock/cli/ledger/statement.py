"""penstock ledger statement: the chargeback of a month, team by team."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import click

from penstock.cli.connection import connect, run_command
from penstock.cli.ledger.output import emit, emit_text, formatted, output, print_table
from penstock.cli.ledger.sources import checked_names, costs, outcomes, say_empty, warn_unpriced
from penstock.cli.printable import printable
from penstock.config.kinds import Team
from penstock.config.plane import ConfigPlane
from penstock.config.price_history import price_history
from penstock.ledger.dimensions import Selection, dimensions
from penstock.ledger.reading import read_topic
from penstock.ledger.rebuild import Ledger
from penstock.ledger.statement import SUMS, BudgetUse, Month, Statement, TeamStatement
from penstock.ledger.tables import FORMATS, Format, as_markdown, as_table, escaped, json_cell, trimmed
from penstock.money import exact, from_pico

__all__ = ["statement"]

_FORMATS = (*FORMATS, "markdown")


def _month(context: click.Context, parameter: click.Parameter, value: str) -> Month:
    try:
        return Month.parse(value)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@click.command()
@click.option("--month", required=True, metavar="YYYY-MM", callback=_month, help="Calendar month, UTC.")
@click.option("--team", help="Only one team's statement.")
@click.option(
    "--by", "extra", metavar="DIM[,DIM...]", default="",
    help="Tell the lines apart by more than model and kind, e.g. tag:feature.",
)  # fmt: skip
@output(_FORMATS)
def statement(month: Month, team: str | None, extra: str, form: str | None, out: str) -> None:
    """Say what each team owes for a month: by model and kind, at which prices, of which budget.

    CSV and Parquet hold the lines of all teams; they sum up to the ledger's amount of the month. The hash is over all
    costs of the month: made again from the same log, the statement has the same.
    """
    names = checked_names(
        ["model", "kind", *(name for name in extra.split(",") if name.strip() not in ("model", "kind"))]
    )
    run_command(_statement(month, team, names, formatted(form, out, _FORMATS), out))


@dataclass(frozen=True, slots=True)
class _Made:
    """A statement with what is said of it as a whole."""

    statement: Statement
    teams: Sequence[TeamStatement]
    hash: str
    costs: int
    closed: bool
    made_at: datetime

    @property
    def state(self) -> str:
        return "closed" if self.closed else f"open: it closes at {self.statement.month.closes_at.isoformat()}"


async def _statement(month: Month, team: str | None, names: Sequence[str], form: Format, out: str) -> None:
    wanted = Selection(since=month.start, until=month.end, team=team)
    now = datetime.now(UTC)
    whole = Ledger()
    unpriced: dict[str, int] = {}
    async with connect() as connection:
        kept = timedelta(milliseconds=connection.codec.catalogue.topics["costs"].retention_ms or 0)
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        published = [event.record async for event in read_topic(connection, "config-prices")]
        prices = {one.price.version: one.price for one in price_history(published, now)}
        ended = await outcomes(connection, month.start)
        teams = {name: one for name, one in plane.entries("teams").items() if isinstance(one, Team)}
        filled = Statement(month, dimensions(names, ended.of), price_of=prices.get, teams=teams, outcome_of=ended.of)
        # Every team's, whichever is asked for: the hash is of the whole month.
        async for cost in costs(connection, Selection(since=month.start, until=month.end)):
            whole.add(cost)
            if wanted.takes(cost):
                filled.add(cost)
                if cost.amount is None:
                    unpriced[cost.model] = unpriced.get(cost.model, 0) + 1
    gone = bool(kept) and now - month.start > kept
    made = _Made(filled, filled.teams(), whole.digest(), len(whole), month.closed(now), now)
    if not made.teams:
        say_empty(wanted)
    if gone:
        click.echo(f"warning: the log keeps costs for {kept.days} days: some of {month.name} may be gone", err=True)
    _write(made, form, out)
    warn_unpriced(sum(unpriced.values()), dict(sorted(unpriced.items(), key=lambda item: -item[1])))


def _write(made: _Made, form: Format, out: str) -> None:
    if form == "json":
        emit_text(json.dumps(_document(made), ensure_ascii=False) + "\n", out)
    elif form == "markdown":
        emit_text("\n".join(_markdown(made)), out)
    elif form == "table" and out == "-":
        for one in made.teams:
            click.echo(click.style(_heading(made, one), bold=True))
            print_table(as_table(made.statement.team_sheet(one)))
            click.echo("".join(f"{line}\n" for line in _notes(one)))
        click.echo(_foot(made))
    else:
        emit(made.statement.sheet(made.teams), form, out)
        click.echo(_foot(made), err=True)


def _heading(made: _Made, one: TeamStatement) -> str:
    state = "" if made.closed else " (open)"
    return f"Statement of {printable(one.team)} for {made.statement.month.name}{state}, USD"


def _foot(made: _Made) -> str:
    total = from_pico(sum(one.total.amount for one in made.teams))
    return (
        f"{made.statement.month.name}: {trimmed(total)} USD in {len(made.teams)} statement(s); the month is {made.state}; "
        f"hash of its {made.costs:,} costs: {made.hash}"
    )


def _notes(one: TeamStatement) -> Iterator[str]:
    """What a team's statement says beneath its lines."""
    if one.saved:
        causes = ", ".join(f"{cause} {trimmed(usd)}" for cause, usd in one.saved.items())
        yield f"saved {trimmed(sum(one.saved.values(), Decimal(0)))}: {causes}"
    if one.total.unpriced_calls:
        yield f"{one.total.unpriced_calls:,} calls have no price: they are in no amount"
    if one.wasted:
        wasted = ", ".join(f"{name} {trimmed(one.by_outcome[name])}" for name in one.wasted_outcomes)
        yield f"wasted {trimmed(one.wasted)} on requests that gave no answer: {wasted}"
    if one.outcome_unknown:
        yield f"outcome unknown for {trimmed(one.outcome_unknown)}: the results are not, or no longer, on the log"
    yield from map(_budget, one.budgets)
    if not one.budgets:
        yield "no budget for the month"


def _budget(use: BudgetUse) -> str:
    budget = use.budget
    about = f"{budget.mode} budget {budget.name} of {trimmed(budget.limit)} a month"
    if budget.per == "team":
        return f"{about}: {trimmed(use.used)} used ({use.share:.1%})"
    per = f"tag {budget.tag}" if budget.per == "tag" else budget.per
    if not use.subjects:
        return f"{about} per {per}: nothing used"
    highest = printable(use.highest) or "calls without one"
    return f"{about} per {per}: most by {highest}, {trimmed(use.used)} ({use.share:.1%}); {use.over} of {use.subjects} over"


def _markdown(made: _Made) -> Iterator[str]:
    for one in made.teams:
        yield f"## {escaped(_heading(made, one))}\n"
        yield as_markdown(made.statement.team_sheet(one))
        yield from (f"- {escaped(line)}" for line in _notes(one))
        yield ""
    yield f"{_foot(made)}\n"


def _document(made: _Made) -> dict[str, object]:
    month = made.statement.month
    return {
        "month": month.name,
        "closed": made.closed,
        "closes_at": month.closes_at.isoformat(),
        "made_at": made.made_at.isoformat(),
        "hash": made.hash,
        "costs": made.costs,
        "total": f"{from_pico(sum(one.total.amount for one in made.teams)):f}",
        "teams": [_team_document(made.statement, one) for one in made.teams],
    }


def _team_document(statement: Statement, one: TeamStatement) -> dict[str, object]:
    sheet = statement.team_sheet(one)
    names = [column.name for column in sheet.columns]
    of_sums = len(statement.line_columns) - len(SUMS)
    return {
        "team": one.team,
        "lines": [dict(zip(names, map(json_cell, row), strict=True)) for row in sheet.rows],
        "subtotal": dict(zip(names[of_sums:], map(json_cell, (sheet.total or ())[of_sums:]), strict=True)),
        "saved": _exact(one.saved),
        "by_outcome": _exact(one.by_outcome),
        "wasted": f"{one.wasted:f}",
        "outcome_unknown": f"{one.outcome_unknown:f}",
        "budgets": [
            {
                "name": use.budget.name, "per": use.budget.per, "tag": use.budget.tag, "mode": use.budget.mode,
                "limit": f"{exact(use.budget.limit):f}", "used": f"{use.used:f}", "share": float(use.share),
                "highest": use.highest, "subjects": use.subjects, "over": use.over,
            }
            for use in one.budgets
        ],
    }  # fmt: skip


def _exact(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: f"{amount:f}" for name, amount in amounts.items()}

"""penstock ledger savings: what was not spent, and what cheaper models would have cost at which score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import click

from penstock.cli.connection import connect, run_command
from penstock.cli.ledger.output import print_table
from penstock.cli.ledger.sources import costs, period, records, say_empty, selection
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Evaluation, Feedback
from penstock.ledger.dimensions import Selection, dimensions
from penstock.ledger.savings import CAVEATS, GENERATING, Alternative, Routing, Savings, share_of
from penstock.ledger.scores import CONFIDENCE, Comparison, Moments, ScoreBook, interval
from penstock.ledger.tables import Cell, Column, Sheet, as_table, json_cell
from penstock.money import from_pico

__all__ = ["savings"]


@click.command()
@period()
@click.option("--team", help="Only the costs of one team; scores are looked for in every team's traffic.")
@click.option(
    "--candidates", metavar="MODEL[,MODEL...]", default="",
    help="Models with a price to compare with, cheaper or not; default: those used in the period, where cheaper.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object, every amount exact.")
def savings(since: datetime | None, until: datetime | None, team: str | None, candidates: str, as_json: bool) -> None:
    """Show what caches and shorter prompts saved, and what cheaper models would have cost at which evaluation score.

    The first is exact (prompt_reduction is an estimate of tokens, priced exactly). The second charges the same tokens at
    the candidate's price at the time of each call, and puts beside it how both models score on their own traffic.
    """
    named = tuple(dict.fromkeys(name.strip() for name in candidates.split(",") if name.strip()))
    run_command(_savings(selection(since, until, team), named, as_json))


@dataclass(frozen=True, slots=True)
class _Row:
    """One comparison with its scores by name."""

    team: str
    route: str
    model: str
    candidate: str
    calls: int
    money: Alternative
    scores: dict[str, Comparison]

    @property
    def warnings(self) -> list[str]:
        return [w for comparison in self.scores.values() if (w := comparison.warning)]


async def _savings(wanted: Selection, named: tuple[str, ...], as_json: bool) -> None:
    everyone = Selection(since=wanted.since, until=wanted.until)
    saved = Savings(dimensions(["team", "model"]))
    book = ScoreBook()
    used: set[str] = set()
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        _check_candidates(named, plane)
        async for cost in costs(connection, everyone):
            book.call(cost)
            if cost.kind in GENERATING:
                used.add(cost.model)
            if wanted.takes(cost):
                saved.add(cost)
        async for record in records(connection, ["evaluations", "feedback"], wanted.since):
            if isinstance(record, Evaluation):
                book.evaluation(record)
            elif isinstance(record, Feedback):
                book.feedback(record)
        # A second reading: which models there are to compare with is known only now, and to keep a million calls for it
        # would take more memory than anything else here.
        routing = Routing(plane.price, named or sorted(used))
        async for cost in costs(connection, wanted):
            routing.add(cost)
    if not saved.total.calls:
        say_empty(wanted)
    rows = list(_rows(routing, book, frozenset(named)))
    if as_json:
        click.echo(json.dumps(_document(wanted, saved, rows), ensure_ascii=False))
    elif saved.total.calls:
        _print(saved, rows)


def _check_candidates(named: tuple[str, ...], plane: ConfigPlane) -> None:
    priced = sorted({str(getattr(price, "model", "")) for price in plane.entries("prices").values()})
    for model in named:
        if model not in priced:
            some = ", ".join(priced[:10]) + (", ..." if len(priced) > 10 else "")
            raise click.ClickException(
                f"{model} has no price: publish one, or name another; there are {some or 'none'}"
            )


def _rows(routing: Routing, book: ScoreBook, named: frozenset[str]) -> Iterator[_Row]:
    for (team, route, model), candidate, money in routing.cheaper(named):
        calls = routing.used[team, route, model]
        yield _Row(team, route, model, candidate, calls, money, book.compare(team, route, model, candidate))


def _print(saved: Savings, rows: list[_Row]) -> None:
    print_table(as_table(saved.sheet()))
    click.echo()
    if not rows:
        click.echo("no model with a price would have been cheaper for the tokens of this period; try --candidates")
        return
    print_table(as_table(_money_sheet(rows)))
    click.echo()
    print_table(as_table(_score_sheet(rows)))
    click.echo()
    for caveat in CAVEATS:
        click.echo(f"- {caveat}")


_WHO = (Column("team", "text"), Column("route", "text"), Column("model", "text"), Column("candidate", "text"))


def _money_sheet(rows: list[_Row]) -> Sheet:
    columns = (
        *_WHO, Column("calls", "integer", always=True), Column("compared_calls", "integer"),
        Column("actual", "money", always=True), Column("candidate_cost", "money", always=True),
        Column("saving", "money", always=True), Column("saving_share", "share"),
        Column("too_long_calls", "integer"), Column("unknown_calls", "integer"), Column("warnings", "text"),
    )  # fmt: skip
    title = "The same tokens on cheaper models, USD"
    return Sheet(columns, [[*_who(row), *_money(row), "; ".join(row.warnings) or None] for row in rows], title=title)


def _who(row: _Row) -> tuple[str, str, str, str]:
    return row.team, row.route, row.model, row.candidate


def _money(row: _Row) -> tuple[Cell, ...]:
    one = row.money
    known = bool(one.compared_calls)
    return (
        row.calls,
        one.compared_calls,
        from_pico(one.actual) if known else None,
        from_pico(one.there) if known else None,
        from_pico(one.saving) if known else None,
        share_of(one.saving, one.actual),
        one.too_long,
        one.unknown,
    )


def _score_sheet(rows: list[_Row]) -> Sheet:
    columns = (
        *_WHO, Column("score", "text"), Column("better", "text"), Column("of the model", "text"),
        Column("of the candidate", "text"), Column("candidate's traffic", "text"), Column("difference", "text"),
        Column("p", "number"),
    )  # fmt: skip
    cells = [[*_who(row), name, *_score_cells(scores)] for row in rows for name, scores in row.scores.items()]
    return Sheet(columns, cells, title=f"Mean scores with {CONFIDENCE:.0%} intervals, each on the model's own traffic")


def _score_cells(scores: Comparison) -> tuple[Cell, ...]:
    gap = scores.difference
    shown = f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" if gap else None
    return (
        scores.better, _mean(scores.model), _mean(scores.candidate), scores.traffic, shown, gap.p if gap else None,
    )  # fmt: skip


def _mean(moments: Moments) -> str | None:
    if not moments.n:
        return None
    bounds = interval(moments)
    return f"{moments.mean:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "") + f" n={moments.n:,}"


def _document(wanted: Selection, saved: Savings, rows: list[_Row]) -> dict[str, object]:
    sheet = saved.sheet()
    names = [column.name for column in sheet.columns]
    money = [column.name for column in _money_sheet([]).columns[len(_WHO) : -1]]
    return {
        "since": wanted.since and wanted.since.isoformat(),
        "until": wanted.until and wanted.until.isoformat(),
        "team": wanted.team,
        "savings": [dict(zip(names, map(json_cell, row), strict=True)) for row in sheet.rows],
        "total": dict(zip(names[2:], map(json_cell, (sheet.total or ())[2:]), strict=True)),
        "routing": [
            {
                **dict(zip((column.name for column in _WHO), _who(row), strict=True)),
                **dict(zip(money, map(json_cell, _money(row)), strict=True)),
                "scores": {name: comparison.document() for name, comparison in row.scores.items()},
                "warnings": row.warnings,
            }
            for row in rows
        ],
        "caveats": list(CAVEATS),
    }

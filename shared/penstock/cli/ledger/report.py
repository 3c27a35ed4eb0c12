"""penstock ledger report: what was spent, by any dimension."""

from __future__ import annotations

from datetime import datetime
from typing import get_args

import click

from penstock.cli.connection import connect, run_command
from penstock.cli.ledger.output import emit, formatted, output
from penstock.cli.ledger.sources import costs, names_of, outcomes, period, say_empty, selection, warn_unpriced
from penstock.ledger.dimensions import OUTCOME, Selection, dimensions
from penstock.ledger.report import Order, Report
from penstock.ledger.tables import Format, with_total

__all__ = ["report"]


@click.command()
@click.option(
    "--by", "names", metavar="DIM[,DIM...]", default="team", show_default=True, callback=names_of,
    help="What to add up by: team, user, key, conversation, model, response_model, backend, route, prompt, prompt_version, "
    "policy, policy_version, kind, price_version, day, month, hour, outcome, tag:<name>.",
)  # fmt: skip
@period()
@click.option("--team", help="Only the costs of one team.")
@click.option("--kind", help="Only calls of one kind, e.g. completion, repeat, cached, judge, shadow or embedding.")
@output()
@click.option("--sort", type=click.Choice(get_args(Order)), help="Default: amount; name where the first is a time.")
@click.option("--total", "totalled", is_flag=True, help="End with the total in CSV, JSON and Parquet, too.")
@click.option("--limit", type=click.IntRange(min=1), help="Most lines; the others are summed up in one.")
def report(
    names: tuple[str, ...], since: datetime | None, until: datetime | None, team: str | None, kind: str | None,
    form: str | None, out: str, sort: Order | None, totalled: bool, limit: int | None,
) -> None:  # fmt: skip
    """Add up what was spent, exactly, by one or more dimensions.

    A cost counts when its request was admitted. Calls without a known price are counted apart and are in no amount.
    Tables end with the total; CSV, JSON lines and Parquet hold the lines alone, which sum up to it, unless --total asks
    for it.
    """
    wanted = selection(since, until, team, kind)
    run_command(_report(names, wanted, formatted(form, out), out, sort, totalled, limit))


async def _report(
    names: tuple[str, ...], wanted: Selection, form: Format, out: str, sort: Order | None, totalled: bool,
    limit: int | None,
) -> None:  # fmt: skip
    async with connect() as connection:
        outcome_of = (await outcomes(connection, wanted.since)).of if OUTCOME in names else None
        made = Report(dimensions(names, outcome_of))
        async for cost in costs(connection, wanted):
            made.add(cost)
    total = made.total
    if not total.calls:
        say_empty(wanted)
        if form == "table" and out == "-":
            return
    sheet = made.sheet(sort, limit)
    emit(with_total(sheet) if totalled and form != "table" else sheet, form, out)
    warn_unpriced(total.unpriced_calls, made.unpriced)

"""penstock ledger energy: what model calls took from the grid, as far as it is estimated."""

from __future__ import annotations

from datetime import datetime

import click

from penstock.cli.connection import connect, run_command
from penstock.cli.ledger.output import emit, formatted, output
from penstock.cli.ledger.sources import period, records, say_empty, selection
from penstock.contracts.records import Completion
from penstock.ledger.dimensions import Selection
from penstock.ledger.energy import ENERGY_DIMENSIONS, EnergyReport
from penstock.ledger.tables import Format

__all__ = ["energy"]


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in ENERGY_DIMENSIONS]
    if unknown or not names:
        what = f"{unknown[0]!r} is no dimension" if unknown else "it names none"
        raise click.BadParameter(f"{what}; there are {', '.join(ENERGY_DIMENSIONS)}")
    return names


@click.command()
@click.option(
    "--by", "names", metavar="DIM[,DIM...]", default="team,model", show_default=True, callback=_names,
    help=f"What to add up by: {', '.join(ENERGY_DIMENSIONS)}.",
)  # fmt: skip
@period()
@click.option("--team", help="Only the calls of one team.")
@output()
def energy(
    names: tuple[str, ...], since: datetime | None, until: datetime | None, team: str | None, form: str | None, out: str
) -> None:
    """Add up the energy and the emissions of model calls: estimates, from the figures that the configuration states.

    A call counts when it ended. Those of models without figures are counted apart and are in no sum.
    """
    run_command(_energy(names, selection(since, until, team), formatted(form, out), out))


async def _energy(names: tuple[str, ...], wanted: Selection, form: Format, out: str) -> None:
    made = EnergyReport(names, wanted)
    async with connect() as connection:
        async for record in records(connection, ["completions"], wanted.since):
            if isinstance(record, Completion):
                made.add(record)
    if not made.total.calls:
        say_empty(wanted)
        if form == "table" and out == "-":
            return
    emit(made.sheet(), form, out)

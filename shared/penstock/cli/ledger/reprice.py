"""penstock ledger reprice: what a period would have cost with other prices."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.ledger.output import print_table
from penstock.cli.ledger.sources import costs, names_of, outcomes, period, say_empty, selection
from penstock.cli.printable import printable
from penstock.config.files import ConfigInvalid, load_entries
from penstock.config.litellm import LiteLLMError, load_litellm
from penstock.config.plane import ConfigPlane
from penstock.config.prices import Price
from penstock.ledger.dimensions import OUTCOME, Selection, dimensions
from penstock.ledger.reprice import Repricing
from penstock.ledger.tables import as_table, json_cell, trimmed

__all__ = ["load_prices", "reprice"]


@click.command()
@period("--from", "--to")
@click.option(
    "--prices", "file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Prices as under infra/config/prices (YAML), or LiteLLM's price file (JSON).",
)  # fmt: skip
@click.option(
    "--as-of", type=INSTANT, help="Apply the prices in force at this instant to every call; default: at each call."
)
@click.option("--by", "names", metavar="DIM[,DIM...]", default="model", show_default=True, callback=names_of,
              help="What to add up by, as in `penstock ledger report`.")  # fmt: skip
@click.option("--team", help="Only the costs of one team.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, every amount exact.")
def reprice(
    since: datetime | None, until: datetime | None, file: Path, as_of: datetime | None, names: tuple[str, ...],
    team: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what a period would have cost with the prices in a file, exactly.

    The difference is over the calls that have a price before and after. Calls that had none are newly priced; calls whose
    model has no price in the file are listed, and count in no repriced amount.
    """
    wanted = selection(since, until, team)
    prices, skipped = load_prices(file)
    run_command(_reprice(wanted, prices, skipped, str(file), as_of, names, as_json))


def load_prices(file: Path) -> tuple[list[Price], dict[str, str]]:
    """Read prices from YAML, or from LiteLLM's JSON where the name ends with .json.

    Returns:
        The prices, and why models of the file were not taken over.

    Raises:
        click.ClickException: the file is no such file; the message names the first problem and how many there are.
    """
    try:
        if file.suffix.lower() == ".json":
            read = load_litellm(file)
            return list(read.prices), {one.model: f"in the file, but {one.reason}" for one in read.skipped}
        prices = [entry for located in load_entries("prices", file) if isinstance(entry := located.entry, Price)]
    except LiteLLMError as error:
        raise click.ClickException(str(error)) from error
    except ConfigInvalid as error:
        more = f" (and {len(error.problems) - 1} more problems)" if len(error.problems) > 1 else ""
        raise click.ClickException(f"{error.problems[0]}{more}") from error
    keys = [price.key for price in prices]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise click.ClickException(f"{file}: the price of {key} stands there twice: remove one")
    return prices, {}


async def _reprice(
    wanted: Selection, prices: list[Price], skipped: dict[str, str], file: str, as_of: datetime | None,
    names: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    async with connect() as connection:
        outcome_of = (await outcomes(connection, wanted.since)).of if OUTCOME in names else None
        made = Repricing(ConfigPlane.of(prices).price, dimensions(names, outcome_of), as_of, skipped)
        async for cost in costs(connection, wanted):
            made.add(cost)
    if not made.total.calls:
        say_empty(wanted)
    if as_json:
        click.echo(json.dumps(_document(made, wanted, file), ensure_ascii=False))
    elif made.total.calls:
        _print(made)


def _document(made: Repricing, wanted: Selection, file: str) -> dict[str, object]:
    sheet = made.sheet()
    names = [column.name for column in sheet.columns]
    lines = [dict(zip(names, map(json_cell, row), strict=True)) for row in sheet.rows]
    total = dict(zip(names, map(json_cell, sheet.total or ()), strict=True))
    return {
        "from": wanted.since and wanted.since.isoformat(),
        "to": wanted.until and wanted.until.isoformat(),
        "team": wanted.team,
        "prices": file,
        "as_of": made.as_of and made.as_of.isoformat(),
        "price_versions": {model: sorted(versions) for model, versions in sorted(made.versions.items())},
        "total": {name: cell for name, cell in total.items() if name not in names[: len(made.dimensions)]},
        "lines": lines,
        "without_price": [
            {"model": model, "reason": reason, "calls": left.calls, "actual": json_cell(left.usd)}
            for (model, reason), left in sorted(made.unmatched.items())
        ],
    }


def _print(made: Repricing) -> None:
    print_table(as_table(made.sheet()))
    if not made.unmatched:
        return
    click.echo("\nnot repriced, and in no repriced amount:")
    table = Table("model", "calls", "actual", "why", box=None)
    for (model, reason), left in sorted(made.unmatched.items()):
        cells = (printable(model), f"{left.calls:,}", trimmed(left.usd), reason)
        table.add_row(*map(Text, cells))
    print_table(table)

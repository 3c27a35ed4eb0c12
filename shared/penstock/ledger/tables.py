"""Sheets of the ledger as people and programs take them: a table, Markdown, CSV, JSON lines, Parquet.

CSV, JSON and Parquet carry every amount exactly, with 12 places: as text, as a string, as ``decimal128(38, 12)``. They hold
the lines only, so that what they sum up to is the total, unless it is asked for; tables and Markdown end with it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import chain, islice
from typing import IO, Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from penstock.cli.printable import printable
from penstock.money import PLACES

__all__ = [
    "FORMATS",
    "Cell",
    "Column",
    "Format",
    "Row",
    "Sheet",
    "as_markdown",
    "as_table",
    "json_cell",
    "table_width",
    "trimmed",
    "with_total",
    "write",
]

Cell = str | Decimal | int | float | bool | None
Row = Sequence[Cell]
Format = Literal["table", "csv", "json", "parquet", "markdown"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "parquet")
"""What :func:`write` writes."""

_NOTHING = "–"
_LEAST_PLACES = 2
_RATE_DIGITS = 4
_BATCH = 16_384
_LONGEST_NAME = 64
_UNBOUNDED = 100_000
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
"""A cell that begins so is run as a formula by spreadsheets (OWASP, CSV Injection)."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``money`` is exact USD, ``rate`` a quotient in USD, ``share`` a part of 1, ``number`` any other float.

    Tables for people leave out columns that are not ``brief``, and those in which every cell is 0 or empty, except
    texts and those that are shown ``always``.
    """

    name: str
    kind: Literal["text", "integer", "money", "rate", "share", "number", "flag"]
    brief: bool = True
    always: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """Columns, rows (read once) and, for people, a title and a row that sums up."""

    columns: tuple[Column, ...]
    rows: Iterable[Row]
    total: Row | None = None
    title: str = field(default="")


def with_total(sheet: Sheet) -> Sheet:
    """Return a sheet whose last row is its total, in every format."""
    return sheet if sheet.total is None else replace(sheet, rows=chain(sheet.rows, [sheet.total]), total=None)


def write(sheet: Sheet, form: Format, out: IO[bytes]) -> None:
    """Write ``sheet`` to a binary stream in one of :data:`FORMATS`, or as Markdown."""
    if form == "parquet":
        _write_parquet(sheet, out)
    elif form == "csv":
        for line in _csv_lines(sheet):
            out.write(line)
    elif form == "json":
        names = [column.name for column in sheet.columns]
        for row in sheet.rows:
            cells = dict(zip(names, map(json_cell, row), strict=True))
            out.write(json.dumps(cells, ensure_ascii=False).encode() + b"\n")
    elif form == "markdown":
        out.write(as_markdown(sheet).encode())
    else:
        text = io.StringIO()
        table = as_table(sheet)
        Console(file=text, width=table_width(table)).print(table)
        out.write(text.getvalue().encode())


def json_cell(cell: Cell) -> str | int | float | bool | None:
    """Return a cell as JSON takes it: amounts as strings, since a JSON number is a float to most readers."""
    return f"{cell:f}" if isinstance(cell, Decimal) else cell


def _csv_lines(sheet: Sheet) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text)
    for row in chain([[column.name for column in sheet.columns]], sheet.rows):
        writer.writerow([_csv_cell(cell) for cell in row])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()


def _csv_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return f"{cell:f}"
    text = str(cell)
    # Names are chosen by users; a quote before them keeps a spreadsheet from running them.
    return "'" + text if isinstance(cell, str) and text.startswith(_FORMULA) else text


def _write_parquet(sheet: Sheet, out: IO[bytes]) -> None:
    # Imported here: it takes a third of a second, which every other format would wait for.
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "money": pa.decimal128(38, PLACES),
        "rate": pa.decimal128(38, PLACES),
        "share": pa.float64(),
        "number": pa.float64(),
        "flag": pa.bool_(),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in sheet.columns])
    rows = iter(sheet.rows)
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        while batch := list(islice(rows, _BATCH)):
            columns = zip(*batch, strict=True)
            arrays = [pa.array(cells, type=item.type) for cells, item in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def as_table(sheet: Sheet) -> Table:
    """Return a sheet for a terminal: no digit of an amount is cut off, and the points stand under each other."""
    columns, rows, total = _for_people(sheet)
    table = Table(box=None, title=Text(sheet.title) if sheet.title else None, title_justify="left")
    table.show_footer = total is not None
    for index, column in enumerate(columns):
        is_text = column.kind == "text"
        table.add_column(
            Text(column.name),
            footer=Text(total[index]) if total else "",
            footer_style="bold",
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
            max_width=_LONGEST_NAME if is_text else None,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def as_markdown(sheet: Sheet) -> str:
    """Return a sheet as a Markdown table; what names hold is no markup of the page's."""
    columns, rows, total = _for_people(sheet)
    lines = [f"**{sheet.title}**\n"] if sheet.title else []
    lines.append("| " + " | ".join(escaped(column.name) for column in columns) + " |")
    lines.append("|" + "|".join("---" if column.kind == "text" else "---:" for column in columns) + "|")
    lines += ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]
    if total is not None:
        lines.append("| " + " | ".join(f"**{escaped(cell)}**" if cell else "" for cell in total) + " |")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return a text so that Markdown shows it as it is, in one line."""
    for char in "\\`*_[]<>|":
        text = text.replace(char, "\\" + char)
    return text.replace("\n", " ")


def _for_people(sheet: Sheet) -> tuple[list[Column], list[list[str]], list[str] | None]:
    """Return the columns worth showing, the rows as text, and the total as text."""
    rows = list(sheet.rows)
    every = [*rows, sheet.total] if sheet.total is not None else rows
    kept: list[Column] = []
    shown: list[list[str]] = []
    for index, column in enumerate(sheet.columns):
        cells = [row[index] for row in every]
        if column.kind == "text" or column.always or (column.brief and any(cells)):
            kept.append(column)
            shown.append(_texts(column, cells))
    lines = [list(line) for line in zip(*shown, strict=True)]
    if sheet.total is None:
        return kept, lines, None
    return kept, lines[:-1], ["" if cell == _NOTHING else cell for cell in lines[-1]]


def _texts(column: Column, cells: Sequence[Cell]) -> list[str]:
    amounts = [cell for cell in cells if isinstance(cell, Decimal)]
    places = _money_places(amounts) if column.kind == "money" else _rate_places(amounts)
    return [_NOTHING if cell is None else _text(column, cell, places) for cell in cells]


def _text(column: Column, cell: str | Decimal | float, places: int) -> str:
    if isinstance(cell, Decimal):
        return f"{cell:,.{places}f}"
    if isinstance(cell, str):
        # One line a row: names may hold anything.
        return printable(cell).replace("\n", "\\n").replace("\t", "\\t")
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if column.kind == "share":
        return f"{cell:.1%}"
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"


def _money_places(amounts: Iterable[Decimal]) -> int:
    """Return how many places a column needs to show every amount in full."""
    needed = (-int(amount.normalize().as_tuple().exponent) for amount in amounts if amount)
    return max(_LEAST_PLACES, *needed, 0)


def _rate_places(amounts: Sequence[Decimal]) -> int:
    """Return how many places show four significant digits of the smallest quotient."""
    needed = (_RATE_DIGITS - 1 - amount.adjusted() for amount in amounts if amount)
    return min(PLACES, max(_LEAST_PLACES, *needed, 0))


def trimmed(amount: Decimal | None) -> str:
    """Return one amount in full without the zeros at its end, at least two places; a dash where it is not known."""
    return _NOTHING if amount is None else f"{amount:,.{_money_places([amount])}f}"


def table_width(table: Table) -> int:
    """Return the columns of a terminal in which nothing of ``table`` is cut off or folded; 1 at least."""
    console = Console(width=_UNBOUNDED)
    return max(1, Measurement.get(console, console.options, table).maximum)

"""Where the commands about money write to: the terminal, a file or a pipe, in the format that is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from penstock.cli.cluster import table_console
from penstock.ledger.tables import FORMATS, Format, Sheet, as_table, table_width, write

__all__ = ["emit", "emit_text", "formatted", "output", "print_table"]

_F = TypeVar("_F", bound=Callable[..., Any])
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".md": "markdown", ".txt": "table",
}  # fmt: skip


def output(formats: Sequence[str] = FORMATS) -> Callable[[_F], _F]:
    """Add the options ``--format`` (``form``) and ``--out``."""

    def add(command: _F) -> _F:
        form = click.option(
            "--format", "form", type=click.Choice(formats), help="Default: what FILE's name ends with, else a table."
        )
        out = click.option("--out", metavar="FILE", default="-", help="File to replace; - for standard output.")
        return form(out(command))

    return add


def formatted(form: str | None, out: str, formats: Sequence[str] = FORMATS) -> Format:
    """Return the format to write: the one asked for, else the one of the file's name, else a table.

    Raises:
        click.UsageError: Parquet would go to a terminal.
    """
    chosen: Format = "table"
    if form is not None:
        chosen = form  # type: ignore[assignment]  # one of click's choices
    elif (by_name := _SUFFIXES.get(Path(out).suffix.lower(), "table")) in formats:
        chosen = by_name
    if chosen == "parquet" and out == "-" and sys.stdout.isatty():
        raise click.UsageError("Parquet is no text for a terminal: write it to a file with --out costs.parquet")
    return chosen


def emit(sheet: Sheet, form: Format, out: str) -> None:
    """Write a sheet.

    Raises:
        click.ClickException: the file cannot be written.
    """
    if form == "table" and out == "-":
        print_table(as_table(sheet))
    else:
        _to(out, lambda stream: write(sheet, form, stream))


def emit_text(text: str, out: str) -> None:
    """Write a text.

    Raises:
        click.ClickException: the file cannot be written.
    """
    _to(out, lambda stream: stream.write(text.encode()))


def print_table(table: Table) -> None:
    """Print a table; where it is wider than the terminal its lines are broken, but no digit is cut off."""
    console = table_console()
    needed = table_width(table)
    (console if needed <= console.width else Console(width=needed)).print(table)


def _to(out: str, job: Callable[[IO[bytes]], object]) -> None:
    if out == "-":
        stream = click.get_binary_stream("stdout")
        job(stream)
        stream.flush()
        return
    # Who reads the file sees the old one or the new one whole. (click's atomic files replace it after an error, too.)
    target = Path(out).absolute()
    partial = target.parent / f".{target.name}.{os.getpid()}"
    try:
        with partial.open("wb") as file:
            job(file)
        partial.replace(target)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        if partial.exists():
            partial.unlink()

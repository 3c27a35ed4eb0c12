"""The lines that `penstock evaluate score` writes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from penstock.contracts.records import Score

from services.evaluation.command.score_rows import Row
from services.evaluation.command.score_run import Said

__all__ = ["output_line", "writing"]


def output_line(row: Row, said: Said, details: bool) -> bytes:
    """Return a line of JSON: the row's fields in their order, ``score`` (a field of that name is replaced), and where asked
    for ``evaluation``, all that was said."""
    fields: dict[str, Any] = dict(row.fields)
    fields["score"] = said.score if isinstance(said, Score) else said
    if details:
        fields["evaluation"] = msgspec.to_builtins(said) if isinstance(said, Score) else None
    try:
        return json.dumps(fields, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold and an escape can
        return json.dumps(fields).encode() + b"\n"


@contextmanager
def writing(target: Path | None, inputs: Sequence[Path]) -> Iterator[Callable[[bytes], object]]:
    """Yield what takes lines for ``target`` (``-`` is standard output, None is nowhere).

    A file appears under its name when all is written: what is broken off leaves no half of one.

    Raises:
        click.ClickException: it cannot be written, or is one of ``inputs``, which writing would destroy.
    """
    if target is None:
        yield lambda line: None
        return
    if str(target) == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    if any(str(one) != "-" and one.exists() and target.exists() and one.samefile(target) for one in inputs):
        raise click.ClickException(f"{target} is read and cannot be written at the same time: give --out another name")
    # A pipe or a device takes lines as they come: there is no half of it to hide.
    direct = target.exists() and not target.is_file()
    part = target if direct else target.with_name(f"{target.name}.part")
    try:
        file = part.open("wb")
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror or error}") from error
    try:
        with file:
            yield file.write
        if not direct:
            os.replace(part, target)
    finally:
        if not direct:
            part.unlink(missing_ok=True)

"""Files of JSON lines: read one at a time, with every problem named by file and line."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec
from penstock.cli.reading import reading

__all__ = ["BadLine", "Line", "plain", "read_lines", "read_rows", "writing"]

_BOM = b"\xef\xbb\xbf"
_KIND_OF_JSON = {b"{": "an object", b"[": "a list", b'"': "a text", b"t": "true", b"f": "false", b"n": "null"}


class BadLine(Exception):
    """A line that cannot be judged; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line and where it stands: ``where`` is ``file:number``, ``end`` the bytes read up to its end."""

    where: str
    raw: bytes
    end: int

    def fields(self) -> dict[str, msgspec.Raw]:
        """The line's fields as they are written, so that they can be passed on unchanged.

        Raises:
            BadLine: it is not UTF-8, not JSON, or not an object.
        """
        try:
            self.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadLine(
                f"is not UTF-8 (byte {error.start + 1} is 0x{self.raw[error.start]:02x}); convert it"
            ) from error
        try:
            return msgspec.json.decode(self.raw, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError as error:
            shape = _KIND_OF_JSON.get(self.raw.lstrip()[:1], "a number")
            raise BadLine(f'is {shape} where an object belongs, such as {{"text": "..."}}') from error
        except RecursionError as error:
            raise BadLine("is nested too deeply; flatten it") from error
        except msgspec.DecodeError as error:
            return _as_python_reads(self.raw, error)


def _as_python_reads(raw: bytes, error: Exception) -> dict[str, msgspec.Raw]:
    """The fields of a line that only Python's json writes: with NaN or Infinity, which many data sets hold."""
    try:
        fields = json.loads(raw)
        written = {name: json.dumps(value, ensure_ascii=False) for name, value in fields.items()}
        return {name: msgspec.Raw(value.encode("utf-8")) for name, value in written.items()}
    except UnicodeEncodeError:
        raise BadLine(
            "holds half of a surrogate pair (such as \\ud83d alone), which is no character; write the whole or remove it"
        ) from error
    except (ValueError, AttributeError, RecursionError):
        raise BadLine(f"is not JSON: {error}") from error


def plain(raw: msgspec.Raw) -> Any:
    """The value of a field."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return json.loads(bytes(raw))


def read_lines(source: Path) -> Iterator[Line]:
    """Yield every line of ``source`` (``-`` is standard input) that is not blank; only one is held at a time.

    Raises:
        click.ClickException: the file cannot be read.
    """
    with reading(source) as file:
        name, end = ("<stdin>" if str(source) == "-" else str(source)), 0
        for number, raw in enumerate(file, 1):
            end += len(raw)
            text = raw.removeprefix(_BOM) if number == 1 else raw
            if text.strip():
                yield Line(f"{name}:{number}", text.rstrip(b"\r\n"), end)


def read_rows(source: Path) -> Iterator[tuple[str, Mapping[str, Any] | BadLine]]:
    """Yield (file:line, fields) of a file of JSON lines, or of a table in a ``.csv`` file with a line of names.

    Raises:
        click.ClickException: the file cannot be read.
    """
    if source.suffix.lower() == ".csv":
        with reading(source) as file:
            table = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline=""))
            for row in table:
                yield f"{source}:{table.line_num}", {name: value for name, value in row.items() if name is not None}
        return
    for line in read_lines(source):
        try:
            yield line.where, {name: plain(raw) for name, raw in line.fields().items()}
        except BadLine as error:
            yield line.where, error


@contextmanager
def writing(target: Path, *inputs: Path) -> Iterator[BinaryIO]:
    """Open ``target`` (``-`` is standard output) for writing.

    Raises:
        click.ClickException: it cannot be written, or is one of ``inputs``, which writing would destroy.
    """
    if str(target) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if target.is_file() and any(str(one) != "-" and one.exists() and one.samefile(target) for one in inputs):
        raise click.ClickException(f"{target} is read and cannot be written at the same time: give --out another name")
    try:
        with target.open("wb") as file:
            yield file
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror or error}") from error

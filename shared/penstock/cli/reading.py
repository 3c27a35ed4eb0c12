"""Files that commands read, or what is piped into them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

__all__ = ["reading"]


@contextmanager
def reading(source: Path) -> Iterator[BinaryIO]:
    """Open ``source`` (``-`` is standard input) for reading.

    Raises:
        click.ClickException: the file cannot be read.
    """
    if str(source) == "-":
        yield sys.stdin.buffer
        return
    try:
        with source.open("rb") as file:
            yield file
    except OSError as error:
        raise click.ClickException(f"{source} cannot be read: {error.strerror or error}") from error

"""What was published of one kind of entry, as every reader of its topic reads it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from penstock.config.entry import Entry
from penstock.config.plane import parse_entry
from penstock.contracts.records import ConfigEntry

__all__ = ["published"]

E = TypeVar("E", bound=Entry)


def published(records: Iterable[ConfigEntry], kind: type[E]) -> Iterator[tuple[ConfigEntry, E | None]]:
    """Yield each record with its entry, None where it withdraws one. An invalid one is left out, as every reader leaves it
    out.

    Args:
        records: of the topic of ``kind``, oldest first.
    """
    for record in records:
        if record.deleted:
            yield record, None
            continue
        try:
            entry = parse_entry(record)
        except ValueError:
            continue
        if isinstance(entry, kind):
            yield record, entry

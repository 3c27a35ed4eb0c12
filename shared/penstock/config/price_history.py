"""The prices there are and were: each version with when it counts, when it was published, and what ended it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from penstock.config.plane import parse_entry
from penstock.config.prices import Price
from penstock.contracts.records import ConfigEntry

__all__ = ["PriceVersion", "price_history", "timeline"]

State = Literal["in force", "ended", "to come", "replaced", "withdrawn"]
_ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """One version of a price.

    Attributes:
        state: at the instant asked about. Replaced and withdrawn ones are no longer configured: until ``closed_at`` they
            applied as the others do.
        ends: first instant that it does not count for, since a later price begins then; None where none does.
        published_at: when it was published; None for one that was read from a file.
        closed_at: when another version took its place, or it was withdrawn; None while it is configured.
    """

    price: Price
    state: State = "in force"
    ends: datetime | None = None
    published_at: datetime | None = None
    closed_at: datetime | None = None
    author: str = ""
    reason: str = ""


def price_history(records: Iterable[ConfigEntry], at: datetime) -> list[PriceVersion]:
    """Return every version that was published, by model, then by when it counts from, then by when it was published.

    Args:
        records: of the topic config-prices, oldest first. An invalid one is left out, as every reader leaves it out.
        at: the instant that ``state`` is told for.
    """
    live: dict[str, PriceVersion] = {}
    closed: list[PriceVersion] = []
    for record in records:
        open_one = live.get(record.name)
        if record.deleted:
            if open_one is not None:
                closed.append(replace(live.pop(record.name), state="withdrawn", closed_at=record.occurred_at))
            continue
        try:
            entry = parse_entry(record)
        except ValueError:
            continue
        if not isinstance(entry, Price) or (open_one is not None and open_one.price.version == entry.version):
            continue
        if open_one is not None:
            closed.append(replace(open_one, state="replaced", closed_at=record.occurred_at))
        live[record.name] = PriceVersion(
            entry, published_at=record.occurred_at, author=record.author, reason=record.reason
        )
    return sorted([*timeline(live.values(), at), *closed], key=_order)


def timeline(configured: Iterable[PriceVersion], at: datetime) -> list[PriceVersion]:
    """Return prices that are configured together, each with when it ends and whether it is in force at ``at``."""
    found: list[PriceVersion] = []
    for version in sorted(configured, key=_order, reverse=True):
        later = found[-1] if found and found[-1].price.model == version.price.model else None
        ends = later.price.effective_from if later else None
        state: State = "in force"
        if _begins(version) > at:
            state = "to come"
        elif ends is not None and ends <= at:
            state = "ended"
        found.append(replace(version, ends=ends, state=state))
    return found[::-1]


def _begins(version: PriceVersion) -> datetime:
    return version.price.effective_from or _ALWAYS


def _order(version: PriceVersion) -> tuple[str, datetime, datetime]:
    return version.price.model, _begins(version), version.published_at or _ALWAYS

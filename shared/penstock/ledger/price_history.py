"""Every price that was ever published, and which of them was in force, as far as was known at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from penstock.config.plane import parse_entry
from penstock.config.prices import Price
from penstock.contracts.records import ConfigEntry

__all__ = ["PriceHistory"]

_ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Entry:
    """What stood under one key: from each instant of publication (ms) on a price, or None where it was withdrawn."""

    published_ms: list[int] = field(default_factory=list)
    prices: list[Price | None] = field(default_factory=list)

    def known(self, at_ms: int) -> Price | None:
        position = bisect_right(self.published_ms, at_ms)
        return self.prices[position - 1] if position else None


class PriceHistory:
    """The topic ``config-prices``, read from its beginning: nothing is ever deleted there.

    Attributes:
        invalid: what was published and is no price, by key and version; services passed over it, too.
    """

    def __init__(self) -> None:
        self.invalid: list[str] = []
        self._versions: dict[str, Price] = {}
        self._models: dict[str, dict[str, _Entry]] = {}
        self._keys: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._versions)

    def take(self, record: ConfigEntry, published_ms: int) -> None:
        """Take over what was published at an instant, ms since the epoch; in the order of the log."""
        if record.deleted:
            model = self._keys.get(record.name)
            if model is not None:
                self._put(model, record.name, None, published_ms)
            return
        try:
            price = parse_entry(record)
        except ValueError as error:
            self.invalid.append(f"{record.name}@{record.version}: {error}")
            return
        if isinstance(price, Price):
            self._versions[price.version] = price
            self._keys[record.name] = price.model
            self._put(price.model, record.name, price, published_ms)

    def version(self, version: str) -> Price | None:
        """Return the price with a content hash; None where none was ever published."""
        return self._versions.get(version)

    def in_force(self, model: str, at: datetime, known_ms: int) -> Price | None:
        """Return the price of ``model`` in force at ``at``, of those published until ``known_ms``; None for none."""
        entries = self._models.get(model, {})
        known = ((key, entry.known(known_ms)) for key, entry in entries.items())
        begun = [
            ((price.effective_from or _ALWAYS, key), price)
            for key, price in known
            if price is not None and (price.effective_from or _ALWAYS) <= at
        ]
        return max(begun, key=lambda each: each[0])[1] if begun else None

    def changes(self, model: str, from_ms: int, until_ms: int) -> Iterator[int]:
        """Yield ``from_ms``, and each later instant until ``until_ms`` at which a price of ``model`` was published or
        withdrawn: between them, what is in force does not change."""
        yield from_ms
        for entry in self._models.get(model, {}).values():
            yield from (at for at in entry.published_ms if from_ms < at <= until_ms)

    def _put(self, model: str, key: str, price: Price | None, published_ms: int) -> None:
        entry = self._models.setdefault(model, {}).setdefault(key, _Entry())
        # The broker's clock may be set back; the order of the log holds.
        entry.published_ms.append(max([published_ms, *entry.published_ms[-1:]]))
        entry.prices.append(price)

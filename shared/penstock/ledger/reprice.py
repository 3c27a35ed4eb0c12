"""What a period would have cost with other prices, call by call, and where the two differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal

from penstock.config.prices import Price
from penstock.contracts.records import Cost
from penstock.ledger.dimensions import Dimension
from penstock.ledger.report import Key
from penstock.ledger.tables import Cell, Column, Sheet
from penstock.money import charge, from_pico, pico

__all__ = ["NO_PRICE", "NO_TIME", "PriceAt", "Repricing", "Unmatched", "repriced"]

PriceAt = Callable[[str, datetime], Price | None]
"""The price of a model in force at an instant, or None."""

NO_PRICE = "no price at that time"
NO_TIME = "charged by the second, and the time of the call was not recorded"


@dataclass(slots=True)
class Unmatched:
    """Calls that the prices say nothing about: ``amount`` (1e-12 USD) is what those of them did cost that had a price."""

    calls: int = 0
    priced_calls: int = 0
    amount: int = 0

    @property
    def usd(self) -> Decimal | None:
        """The amount, USD; None where none of them had a price."""
        return from_pico(self.amount) if self.priced_calls else None


@dataclass(slots=True)
class Comparison:
    """Sums over costs, money in integers of 1e-12 USD.

    ``actual = unmatched + compared`` and ``repriced = compared + difference + newly_priced``, where ``compared`` is what the
    calls did cost that have a price before and after.
    """

    calls: int = 0
    priced_calls: int = 0
    matched_calls: int = 0
    actual: int = 0
    repriced: int = 0
    difference: int = 0
    compared_calls: int = 0
    newly_priced_calls: int = 0
    newly_priced: int = 0
    unmatched_calls: int = 0
    unmatched: int = 0

    def add(self, actual: Decimal | None, after: Decimal | None) -> None:
        """Add a call: what it did cost and what it would have; None where that is not known."""
        self.calls += 1
        before_pico = pico(actual) if actual is not None else 0
        self.actual += before_pico
        self.priced_calls += actual is not None
        if after is None:
            self.unmatched_calls += 1
            self.unmatched += before_pico
            return
        after_pico = pico(after)
        self.matched_calls += 1
        self.repriced += after_pico
        if actual is None:
            self.newly_priced_calls += 1
            self.newly_priced += after_pico
        else:
            self.compared_calls += 1
            self.difference += after_pico - before_pico

    def merge(self, other: Comparison) -> None:
        """Add what ``other`` has summed up."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    def cells(self) -> tuple[Cell, ...]:
        """The cells of a line, in the order of :data:`COLUMNS`; null where nothing is known, which is not zero."""
        before = self.actual - self.unmatched
        return (
            self.calls,
            from_pico(self.actual) if self.priced_calls else None,
            from_pico(self.repriced) if self.matched_calls else None,
            from_pico(self.difference) if self.compared_calls else None,
            self.difference / before if before else None,
            self.newly_priced_calls,
            from_pico(self.newly_priced) if self.newly_priced_calls else None,
            self.unmatched_calls,
            from_pico(self.unmatched) if self.unmatched_calls else None,
        )


COLUMNS: tuple[Column, ...] = (
    Column("calls", "integer", always=True),
    Column("actual", "money", always=True),
    Column("repriced", "money", always=True),
    Column("difference", "money", always=True),
    Column("difference_share", "share"),
    Column("newly_priced_calls", "integer"),
    Column("newly_priced", "money"),
    Column("calls_without_price", "integer"),
    Column("actual_without_price", "money"),
)
"""``difference`` is over the calls that have a price before and after; the others stand in the columns behind it."""


def repriced(cost: Cost, price: Price | None) -> Decimal | str:
    """Return what a call would have cost with ``price``, USD, or why that cannot be said.

    An answer from a cache called no model, so it costs nothing with any price; nor does a call that failed without a
    token. The time of a call is recorded only where its price charged for time; a price by the second says nothing of
    another call.
    """
    if price is None:
        return NO_PRICE
    usage = cost.usage
    failed = not (usage.input_tokens or usage.output_tokens or cost.compute_us or cost.amount)
    if cost.kind == "cached" or failed:
        return Decimal(0)
    if price.per_second and not cost.compute_us and cost.price_version != price.version:
        return NO_TIME
    return charge(price, usage, cost.compute_us).total


@dataclass(slots=True)
class Repricing:
    """The comparison by dimensions.

    Attributes:
        price_at: price of a model at an instant. Looked up under the model that was asked for, else the one that answered.
        dimensions: what the lines are told apart by.
        as_of: instant whose prices apply to every call; None takes those in force when each was made.
        skipped: why a model has no price, where it is known.
        unmatched: calls without a price, by model and reason.
        versions: price versions that were applied, by model.
    """

    price_at: PriceAt
    dimensions: Sequence[Dimension]
    as_of: datetime | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    unmatched: dict[tuple[str, str], Unmatched] = field(default_factory=dict)
    versions: dict[str, set[str]] = field(default_factory=dict)
    _lines: dict[Key, Comparison] = field(default_factory=dict)

    def add(self, cost: Cost) -> None:
        """Price one call again."""
        at = self.as_of or cost.occurred_at
        price = self.price_at(cost.model, at)
        if price is None and cost.response_model is not None:
            price = self.price_at(cost.response_model, at)
        after = repriced(cost, price)
        if isinstance(after, str):
            reason = self.skipped.get(cost.model, after) if after == NO_PRICE else after
            left = self.unmatched.setdefault((cost.model, reason), Unmatched())
            left.calls += 1
            if cost.amount is not None:
                left.priced_calls += 1
                left.amount += pico(cost.amount)
        elif price is not None:
            self.versions.setdefault(price.model, set()).add(price.version)
        key = tuple(one.of(cost) for one in self.dimensions)
        self._lines.setdefault(key, Comparison()).add(cost.amount, None if isinstance(after, str) else after)

    @property
    def total(self) -> Comparison:
        """The sums over everything."""
        total = Comparison()
        for line in self._lines.values():
            total.merge(line)
        return total

    def sheet(self) -> Sheet:
        """Return the lines, those that change most first, and the total."""
        names = tuple(Column(one.name, "text") for one in self.dimensions)
        total: Sequence[Cell] = ("total", *(None for _ in names[1:]), *self.total.cells())
        return Sheet(columns=(*names, *COLUMNS), rows=list(self._rows()), total=total)

    def _rows(self) -> Iterator[Sequence[Cell]]:
        ordered = sorted(self._lines.items(), key=lambda item: tuple((v is not None, v or "") for v in item[0]))
        ordered.sort(key=lambda item: (-abs(item[1].difference), -item[1].actual))
        for key, line in ordered:
            yield (*key, *line.cells())

"""Costs added up by any dimension, exact to the last digit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

from penstock.contracts.records import Cost
from penstock.ledger.dimensions import TIMES, Dimension
from penstock.ledger.tables import Column, Sheet
from penstock.money import exact, from_pico, pico

__all__ = ["SUM_COLUMNS", "Key", "Line", "Order", "Report", "Sums", "quotient", "sum_cells"]

Key = tuple[str | None, ...]
Order = Literal["amount", "name"]

_DIVISION = Context(prec=38, rounding=ROUND_HALF_EVEN)


@dataclass(slots=True)
class Sums:
    """Sums over costs. Money in integers of 1e-12 USD, which add up exactly and without bound.

    Attributes:
        calls: all of them, unpriced and cached ones included.
        priced_calls: calls whose price was known, answers from a cache among them.
        cached_calls: calls that a cache answered in the model's place.
        amount: of the priced calls.
        saved: all causes together.
        input_tokens: of the prompts, as are the cached ones among them; where a cache answered no model read any, and
            they do not count.
        output_tokens: generated, those spent on reasoning among them.
        priced_tokens: input and output tokens of the priced calls.
    """

    calls: int = 0
    priced_calls: int = 0
    cached_calls: int = 0
    amount: int = 0
    saved: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    priced_tokens: int = 0

    def add(self, cost: Cost) -> None:
        """Add one cost."""
        self.calls += 1
        usage = cost.usage
        tokens = 0
        if cost.kind == "cached":
            self.cached_calls += 1
        else:
            tokens = usage.input_tokens + usage.output_tokens
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
            self.cached_input_tokens += usage.cached_input_tokens
            self.reasoning_tokens += usage.reasoning_tokens
        if cost.amount is not None:
            self.priced_calls += 1
            self.priced_tokens += tokens
            self.amount += pico(cost.amount)
        for saved in cost.saved.values():
            self.saved += pico(saved)

    def merge(self, other: Sums) -> None:
        """Add what ``other`` has summed up."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def unpriced_calls(self) -> int:
        """Calls without a known price: they are in no amount."""
        return self.calls - self.priced_calls

    @property
    def usd(self) -> Decimal | None:
        """The amount, USD; None where no call has a price: that is not zero."""
        return from_pico(self.amount) if self.priced_calls or not self.calls else None

    @property
    def usd_saved(self) -> Decimal | None:
        """What was saved, USD; None where no call has a price: then it is not known either."""
        return from_pico(self.saved) if self.priced_calls or not self.calls else None

    @property
    def usd_per_call(self) -> Decimal | None:
        """USD a priced call, rounded half to even at 12 places; None where there is none."""
        return quotient(from_pico(self.amount), self.priced_calls)

    @property
    def usd_per_1000_tokens(self) -> Decimal | None:
        """USD per 1,000 tokens that were paid for, likewise."""
        return quotient(from_pico(self.amount) * 1000, self.priced_tokens)


@dataclass(frozen=True, slots=True)
class Line:
    """The sums of one combination of values, in the order of the report's dimensions."""

    key: Key
    sums: Sums


SUM_COLUMNS: tuple[Column, ...] = (
    Column("amount", "money", always=True),
    Column("calls", "integer", always=True),
    Column("priced_calls", "integer", brief=False),
    Column("unpriced_calls", "integer"),
    Column("cached_calls", "integer"),
    Column("input_tokens", "integer"),
    Column("output_tokens", "integer"),
    Column("cached_input_tokens", "integer"),
    Column("reasoning_tokens", "integer"),
    Column("saved", "money"),
    Column("cost_per_call", "rate"),
    Column("cost_per_1000_tokens", "rate"),
)
"""The columns of :func:`sum_cells`."""


def sum_cells(sums: Sums) -> tuple[Decimal | int | None, ...]:
    """Return the cells of a line, in the order of :data:`SUM_COLUMNS`."""
    return (
        sums.usd,
        sums.calls,
        sums.priced_calls,
        sums.unpriced_calls,
        sums.cached_calls,
        sums.input_tokens,
        sums.output_tokens,
        sums.cached_input_tokens,
        sums.reasoning_tokens,
        sums.usd_saved,
        sums.usd_per_call,
        sums.usd_per_1000_tokens,
    )


class Report:
    """Sums by dimensions. Memory grows with the combinations of values there are, not with the costs."""

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.dimensions = tuple(dimensions)
        self._of = tuple(one.of for one in self.dimensions)
        self._sums: dict[Key, Sums] = {}
        self._unpriced: dict[str, int] = {}

    def add(self, cost: Cost) -> None:
        """Add one cost."""
        key = tuple(of(cost) for of in self._of)
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = Sums()
        sums.add(cost)
        if cost.amount is None:
            self._unpriced[cost.model] = self._unpriced.get(cost.model, 0) + 1

    def extend(self, costs: Iterable[Cost]) -> Report:
        """Add costs; return this report."""
        for cost in costs:
            self.add(cost)
        return self

    @property
    def total(self) -> Sums:
        """The sums over everything."""
        total = Sums()
        for sums in self._sums.values():
            total.merge(sums)
        return total

    @property
    def unpriced(self) -> dict[str, int]:
        """Calls without a known price by model, most first."""
        return dict(sorted(self._unpriced.items(), key=lambda item: (-item[1], item[0])))

    def lines(self, order: Order | None = None) -> list[Line]:
        """Return the lines: dearest first, or by their names; None takes names where the first dimension is a time.

        Lines without any price come last by amount, since theirs is not known.
        """
        if order is None:
            order = "name" if self.dimensions[0].name in TIMES else "amount"
        lines = [Line(key, sums) for key, sums in self._sums.items()]
        # No value sorts before every value.
        lines.sort(key=lambda line: tuple((value is not None, value or "") for value in line.key))
        if order == "amount":
            lines.sort(key=lambda line: (line.sums.priced_calls == 0, -line.sums.amount))
        return lines

    def sheet(self, order: Order | None = None, limit: int | None = None) -> Sheet:
        """Return the lines as a sheet with its total. Beyond ``limit`` they are summed up in one: nothing is left out."""
        names = tuple(Column(one.name, "text") for one in self.dimensions)
        total = sum_cells(self.total)
        return Sheet(
            columns=(*names, *SUM_COLUMNS),
            rows=self._rows(self.lines(order), limit),
            total=("total", *(None for _ in names[1:]), *total),
        )

    def _rows(self, lines: list[Line], limit: int | None) -> Iterator[tuple[str | Decimal | int | None, ...]]:
        shown = lines if limit is None else lines[:limit]
        for line in shown:
            yield (*line.key, *sum_cells(line.sums))
        if rest := lines[len(shown) :]:
            others = Sums()
            for line in rest:
                others.merge(line.sums)
            yield (f"({len(rest)} others)", *(None for _ in self.dimensions[1:]), *sum_cells(others))


def quotient(amount: Decimal, by: int) -> Decimal | None:
    """Return ``amount / by`` with 12 places, rounded half to even; None where ``by`` is 0."""
    return exact(_DIVISION.divide(amount, Decimal(by))) if by else None

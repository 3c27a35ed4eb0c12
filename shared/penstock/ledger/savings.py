"""What caches and shorter prompts saved, exactly, and what the same tokens would have cost on cheaper models.

The second is a report of prices, not a promise: see :data:`CAVEATS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from penstock.config.prices import Price
from penstock.contracts.records import Cost
from penstock.ledger.dimensions import Dimension
from penstock.ledger.report import Key
from penstock.ledger.reprice import PriceAt
from penstock.ledger.tables import Cell, Column, Sheet
from penstock.money import charge, from_pico, pico

__all__ = ["CAUSES", "CAVEATS", "GENERATING", "Alternative", "Routing", "Saved", "Savings", "share_of"]

CAUSES = ("exact_cache", "semantic_cache", "prefix_cache", "prompt_reduction")
"""Why something was not spent, as ``Cost.saved`` names it; prompt_reduction is an estimate."""

GENERATING = frozenset({"completion", "repeat", "cancelled"})
"""Kinds of calls that another model could have answered in the place of the one that did."""

CAVEATS = (
    "The candidate is charged for the tokens that the other model counted. Its own tokenizer would cut the same texts into "
    "more or fewer, and its answers would be longer or shorter.",
    "Prompt tokens from the provider's cache are charged as cached where the candidate has such a price, though its cache "
    "might have held others.",
    "Scores are means over each model's own traffic: the requests differ, so a difference may come from the requests.",
)
"""What the routing report cannot know; it is printed with it."""


@dataclass(slots=True)
class Saved:
    """Money in integers of 1e-12 USD: what was paid, and what was not by cause."""

    calls: int = 0
    unpriced_calls: int = 0
    cached_calls: int = 0
    paid: int = 0
    causes: dict[str, int] = field(default_factory=dict)

    @property
    def saved(self) -> int:
        """All causes together."""
        return sum(self.causes.values())

    def add(self, cost: Cost) -> None:
        """Add one cost."""
        self.calls += 1
        self.cached_calls += cost.kind == "cached"
        if cost.amount is None:
            self.unpriced_calls += 1
        else:
            self.paid += pico(cost.amount)
        for cause, amount in cost.saved.items():
            self.causes[cause] = self.causes.get(cause, 0) + pico(amount)

    def merge(self, other: Saved) -> None:
        """Add what ``other`` has summed up."""
        self.calls += other.calls
        self.unpriced_calls += other.unpriced_calls
        self.cached_calls += other.cached_calls
        self.paid += other.paid
        for cause, amount in other.causes.items():
            self.causes[cause] = self.causes.get(cause, 0) + amount


class Savings:
    """What was saved, by dimensions and cause."""

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.dimensions = tuple(dimensions)
        self._lines: dict[Key, Saved] = {}

    def add(self, cost: Cost) -> None:
        """Add one cost."""
        key = tuple(one.of(cost) for one in self.dimensions)
        self._lines.setdefault(key, Saved()).add(cost)

    @property
    def total(self) -> Saved:
        """The sums over everything."""
        total = Saved()
        for line in self._lines.values():
            total.merge(line)
        return total

    def sheet(self) -> Sheet:
        """Return a line for each combination of values, the largest saving first, with each cause's share."""
        total = self.total
        causes = [*CAUSES, *sorted(set(total.causes) - set(CAUSES))]
        names = tuple(Column(one.name, "text") for one in self.dimensions)
        by_cause = (
            column for cause in causes for column in (Column(cause, "money"), Column(f"{cause}_share", "share"))
        )
        columns = (
            *names, Column("calls", "integer"), Column("unpriced_calls", "integer"), Column("cached_calls", "integer"),
            Column("paid", "money", always=True), Column("saved", "money", always=True), Column("saved_share", "share"),
            *by_cause,
        )  # fmt: skip
        ordered = sorted(self._lines.items(), key=lambda item: (-item[1].saved, tuple(v or "" for v in item[0])))
        rows = [(*key, *_saved_cells(line, causes)) for key, line in ordered]
        end: Sequence[Cell] = ("total", *(None for _ in names[1:]), *_saved_cells(total, causes))
        return Sheet(columns, rows, end, "Saved, in USD and as a share of what would have been paid")


def _saved_cells(line: Saved, causes: Sequence[str]) -> Iterator[Cell]:
    whole = line.paid + line.saved
    # Of calls without a price neither is known: that is not zero.
    known = not line.calls or line.calls > line.unpriced_calls
    yield line.calls
    yield line.unpriced_calls
    yield line.cached_calls
    yield from_pico(line.paid) if known else None
    yield from_pico(line.saved) if known else None
    yield share_of(line.saved, whole)
    for cause in causes:
        yield from_pico(line.causes.get(cause, 0)) if known else None
        yield share_of(line.causes.get(cause, 0), whole)


def share_of(part: int, whole: int) -> float | None:
    """Return ``part / whole``; None where there is no whole."""
    return part / whole if whole else None


@dataclass(slots=True)
class Alternative:
    """The calls of one model compared with one candidate, money in integers of 1e-12 USD.

    Attributes:
        compared_calls: calls that have a price on both, and a prompt that fits the candidate's context.
        actual: what those did cost.
        there: what their tokens would have cost with the candidate's price when each was made.
        too_long: calls whose prompt does not fit the candidate.
        unknown: calls without a price on either side, or with one by the second on the candidate's.
    """

    compared_calls: int = 0
    actual: int = 0
    there: int = 0
    too_long: int = 0
    unknown: int = 0

    @property
    def saving(self) -> int:
        """What would have been saved; negative where the candidate is dearer."""
        return self.actual - self.there

    def add(self, cost: Cost, price: Price | None) -> None:
        """Compare one call."""
        if cost.amount is None or price is None or price.per_second:
            self.unknown += 1
        elif price.max_input_tokens is not None and cost.usage.input_tokens > price.max_input_tokens:
            self.too_long += 1
        else:
            self.compared_calls += 1
            self.actual += pico(cost.amount)
            self.there += pico(charge(price, cost.usage).total)


@dataclass(slots=True)
class Routing:
    """The generating calls of every team, route and model against other models.

    Args:
        price_at: price of a model at an instant.
        candidates: models to compare with.
    """

    price_at: PriceAt
    candidates: Sequence[str]
    used: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _alternatives: dict[tuple[str, str, str], dict[str, Alternative]] = field(default_factory=dict)

    def add(self, cost: Cost) -> None:
        """Compare one call with every candidate; calls of other kinds than :data:`GENERATING` are passed over."""
        if cost.kind not in GENERATING:
            return
        group = (cost.tenant_id, cost.context.route, cost.model)
        self.used[group] = self.used.get(group, 0) + 1
        alternatives = self._alternatives.setdefault(group, {})
        for model in self.candidates:
            if model != cost.model:
                one = alternatives.get(model) or alternatives.setdefault(model, Alternative())
                one.add(cost, self.price_at(model, cost.occurred_at))

    def cheaper(self, named: frozenset[str] = frozenset()) -> Iterator[tuple[tuple[str, str, str], str, Alternative]]:
        """Return team, route and model, a candidate, and the comparison, the largest saving first.

        Candidates that would have cost as much or more are left out, except those in ``named``: who asks for one is told.
        """
        found = [
            (group, model, one)
            for group, alternatives in self._alternatives.items()
            for model, one in alternatives.items()
            if model in named or (one.compared_calls and one.saving > 0)
        ]
        yield from sorted(found, key=lambda item: (-item[2].saving, item[0], item[1]))

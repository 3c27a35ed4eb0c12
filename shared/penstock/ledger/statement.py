"""The chargeback statement: what a team owes for a month, by what it was spent on and at which prices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.config.prices import Price
from penstock.contracts.records import Cost, Status
from penstock.ledger.dimensions import UNKNOWN_OUTCOME, Dimension
from penstock.ledger.reading import accounted_at
from penstock.ledger.report import Key, Sums
from penstock.ledger.tables import Cell, Column, Sheet
from penstock.money import exact, from_pico, pico, subjects

__all__ = ["SUMS", "BudgetUse", "Month", "PriceOf", "Statement", "StatementLine", "TeamStatement"]

PriceOf = Callable[[str], Price | None]
"""The price of a version, by the version; None where the history does not hold it."""

_SETTLES = timedelta(days=8)
"""How long after its last instant calls may still be accounted in a month: they count when their request was admitted,
and a request that waits for a service is made up for from the log, which intake remembers it for so long."""


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month, UTC."""

    start: datetime

    @classmethod
    def parse(cls, text: str) -> Month:
        """Return the month that ``YYYY-MM`` names.

        Raises:
            ValueError: it names none.
        """
        try:
            return cls(datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC))
        except ValueError:
            raise ValueError(f"{text!r} is no month: write it as YYYY-MM, e.g. 2026-11") from None

    @property
    def name(self) -> str:
        """``YYYY-MM``."""
        return f"{self.start:%Y-%m}"

    @property
    def end(self) -> datetime:
        """First instant after the month."""
        return (self.start + timedelta(days=32)).replace(day=1)

    @property
    def closes_at(self) -> datetime:
        """From when on nothing more is expected to be accounted in it: eight days after its end."""
        return self.end + _SETTLES

    def closed(self, now: datetime) -> bool:
        """Whether nothing more is expected to be accounted in it."""
        return now >= self.closes_at


@dataclass(frozen=True, slots=True)
class StatementLine:
    """Calls with the same values of the dimensions that were priced with one version; no version: unpriced."""

    key: Key
    price_version: str | None
    price: Price | None
    sums: Sums


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What a monthly budget was used for.

    Attributes:
        budget: as it is configured now.
        subjects: users, keys, models or tag values that spent in it; 1 for the team's own.
        over: how many of them spent more than the limit.
        highest: who spent most; empty for the team, and for calls without a user, key or tag.
        used: USD that the highest one spent.
    """

    budget: Budget
    subjects: int
    over: int
    highest: str
    used: Decimal

    @property
    def share(self) -> Decimal:
        """The part of the limit that the highest one used."""
        return self.used / self.budget.limit


@dataclass(slots=True)
class TeamStatement:
    """One team's part of a month.

    Attributes:
        total: the sums of all lines.
        saved: USD that was not spent, by cause.
        by_outcome: USD of the priced calls by the outcome of their request.
    """

    team: str
    lines: list[StatementLine]
    total: Sums
    saved: dict[str, Decimal]
    by_outcome: dict[str, Decimal]
    budgets: list[BudgetUse]

    @property
    def wasted(self) -> Decimal:
        """USD spent on requests that ended without a released answer, as far as outcomes are known."""
        return sum((self.by_outcome[name] for name in self.wasted_outcomes), Decimal(0))

    @property
    def wasted_outcomes(self) -> list[str]:
        """How those requests ended, where it cost something."""
        kept = (Status.COMPLETED, UNKNOWN_OUTCOME)
        return [name for name, usd in self.by_outcome.items() if usd and name not in kept]

    @property
    def outcome_unknown(self) -> Decimal:
        """USD of calls whose result is not on the log: what was wasted among it is not known."""
        return self.by_outcome.get(UNKNOWN_OUTCOME, Decimal(0))


@dataclass(slots=True)
class _Account:
    lines: dict[tuple[Key, str | None], Sums] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    by_outcome: dict[str, int] = field(default_factory=dict)
    budgets: dict[str, dict[str, int]] = field(default_factory=dict)


_RATES = (
    "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost", "cache_creation_input_token_cost",
    "output_cost_per_reasoning_token", "input_cost_per_request", "input_cost_per_second", "output_cost_per_second",
)  # fmt: skip

_TIERED = Column("other_rates_above", "flag")
"""Whether the price has other rates for long prompts, which its version names; those shown are the ones below."""

SUMS: tuple[Column, ...] = (
    Column("amount", "money", always=True),
    Column("calls", "integer", always=True),
    Column("unpriced_calls", "integer"),
    Column("cached_calls", "integer"),
    Column("input_tokens", "integer"),
    Column("cached_input_tokens", "integer"),
    Column("output_tokens", "integer"),
    Column("reasoning_tokens", "integer"),
    Column("saved", "money"),
)


class Statement:
    """The statement of a month, team by team.

    Args:
        month: costs accounted in another are refused.
        dimensions: what the lines of a team are told apart by, beside the price version.
        price_of: the prices of every version.
        teams: the teams as they are configured now, for their monthly budgets.
        outcome_of: status of the result of a cost's request.
    """

    def __init__(
        self,
        month: Month,
        dimensions: Sequence[Dimension],
        *,
        price_of: PriceOf,
        teams: Mapping[str, Team],
        outcome_of: Callable[[Cost], str],
    ) -> None:
        self.month = month
        self.dimensions = tuple(dimensions)
        self._price_of = price_of
        self._outcome_of = outcome_of
        self._teams = teams
        self._monthly = {
            name: [budget for budget in team.budgets if budget.window == "month"] for name, team in teams.items()
        }
        self._accounts: dict[str, _Account] = {}

    def add(self, cost: Cost) -> None:
        """Add one cost of the month.

        Raises:
            ValueError: it is accounted in another month.
        """
        at = accounted_at(cost)
        if not self.month.start <= at < self.month.end:
            raise ValueError(
                f"cost {cost.event_id} is accounted at {at.isoformat()}, which is not in {self.month.name}"
            )
        account = self._accounts.setdefault(cost.tenant_id, _Account())
        key = (tuple(one.of(cost) for one in self.dimensions), cost.price_version)
        account.lines.setdefault(key, Sums()).add(cost)
        for cause, saved in cost.saved.items():
            account.saved[cause] = account.saved.get(cause, 0) + pico(saved)
        amount = 0 if cost.amount is None else pico(cost.amount)
        outcome = self._outcome_of(cost)
        account.by_outcome[outcome] = account.by_outcome.get(outcome, 0) + amount
        context = cost.context
        for subject in subjects(
            self._monthly.get(cost.tenant_id, ()),
            user=context.user_id, key=context.key_id, model=cost.model, tags=context.tags,
        ):  # fmt: skip
            spent = account.budgets.setdefault(subject.budget.name, {})
            spent[subject.value] = spent.get(subject.value, 0) + amount

    def teams(self) -> list[TeamStatement]:
        """Return the statements of the teams that had calls, by name."""
        return [self._team(name, account) for name, account in sorted(self._accounts.items())]

    def _team(self, name: str, account: _Account) -> TeamStatement:
        total = Sums()
        lines = []
        for (key, version), sums in account.lines.items():
            total.merge(sums)
            lines.append(StatementLine(key, version, self._price_of(version) if version else None, sums))
        lines.sort(key=lambda line: (tuple(value or "" for value in line.key), line.price_version or ""))
        lines.sort(key=lambda line: (line.sums.priced_calls == 0, -line.sums.amount))
        return TeamStatement(
            team=name,
            lines=lines,
            total=total,
            saved={cause: from_pico(amount) for cause, amount in sorted(account.saved.items())},
            by_outcome={outcome: from_pico(amount) for outcome, amount in sorted(account.by_outcome.items())},
            budgets=[_use(budget, account.budgets.get(budget.name, {})) for budget in self._monthly.get(name, [])],
        )

    def sheet(self, teams: Sequence[TeamStatement]) -> Sheet:
        """Return every line of ``teams``: what they sum up to is the ledger's amount of the month."""
        return Sheet(
            columns=(
                Column("month", "text"), Column("team", "text"), *self.line_columns,
            ),
            rows=[(self.month.name, one.team, *cells) for one in teams for cells in self._cells(one)],
        )  # fmt: skip

    def team_sheet(self, one: TeamStatement) -> Sheet:
        """Return the lines of one team and its subtotal."""
        blank = [None] * (len(self.dimensions) + len(_RATES) + 1)
        return Sheet(
            columns=self.line_columns,
            rows=list(self._cells(one)),
            total=("subtotal", *blank, *_sum_cells(one.total)),
        )

    @property
    def line_columns(self) -> tuple[Column, ...]:
        """Columns of a line: dimensions, price version, unit prices, and :data:`SUMS`."""
        names = (Column(dimension.name, "text") for dimension in self.dimensions)
        return (*names, Column("price_version", "text"), *(Column(rate, "money") for rate in _RATES), _TIERED, *SUMS)

    def _cells(self, one: TeamStatement) -> Iterator[tuple[Cell, ...]]:
        for line in one.lines:
            rates = (None if line.price is None else _rate(line.price, rate) for rate in _RATES)
            tiered = None if line.price is None else _is_tiered(line.price)
            yield (*line.key, line.price_version, *rates, tiered, *_sum_cells(line.sums))


def _sum_cells(sums: Sums) -> tuple[Cell, ...]:
    return (
        sums.usd,
        sums.calls,
        sums.unpriced_calls,
        sums.cached_calls,
        sums.input_tokens,
        sums.cached_input_tokens,
        sums.output_tokens,
        sums.reasoning_tokens,
        sums.usd_saved,
    )


def _rate(price: Price, name: str) -> Decimal | None:
    rate: Decimal | None = getattr(price, name)
    return None if rate is None else exact(rate)


def _is_tiered(price: Price) -> bool:
    return len(price.tiers) > 1


def _use(budget: Budget, spent: Mapping[str, int]) -> BudgetUse:
    limit = pico(budget.limit)
    highest = min(spent, key=lambda value: (-spent[value], value), default="")
    over = sum(amount > limit for amount in spent.values())
    return BudgetUse(budget, len(spent), over, highest, from_pico(spent.get(highest, 0)))

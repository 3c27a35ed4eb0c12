"""What is left of each budget: from the counters of the hard ones, and from what evaluation tells of the soft ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.contracts.records import TeamSpend
from penstock.money.budgets import window_of
from penstock.money.counters import Counter, first_bucket

__all__ = ["BudgetBalance", "balances"]

_ZERO = Decimal("0.000000000000")


@dataclass(frozen=True, slots=True)
class BudgetBalance:
    """One budget of one subject in the present window. Amounts are USD with 12 places.

    Attributes:
        subject: the user, key, model or tag's value; empty where that is not given, None for the team, and for a budget
            that nobody has spent of yet.
        reserved: what admitted requests may still cost; None of a soft budget, which nothing is reserved in.
        spent: of a soft rolling window, as of ``as_of``.
        as_of: the last cost that evaluation has counted; None where the figures are of now.
    """

    team: str
    budget: Budget
    subject: str | None
    starts_at: datetime
    ends_at: datetime
    spent: Decimal = _ZERO
    reserved: Decimal | None = None
    as_of: datetime | None = None

    @property
    def left(self) -> Decimal:
        """USD that can still be spent; below zero where a soft budget is exceeded."""
        return self.budget.limit - self.spent - (self.reserved or _ZERO)


def balances(
    teams: Iterable[Team], counters: Iterable[Counter], spends: Iterable[TeamSpend], now: datetime
) -> list[BudgetBalance]:
    """Return every budget of ``teams`` in its present window, those of one budget by what they have left.

    Args:
        counters: of hard budgets.
        spends: events of ``team-spend``, of one window the newest last.
    """
    held: dict[tuple[str, str, str], list[Counter]] = {}
    for counter in counters:
        held.setdefault((counter.team, counter.budget, counter.window_id), []).append(counter)
    told: dict[tuple[str, str], dict[tuple[str, datetime | None], TeamSpend]] = {}
    for spend in spends:
        if spend.budget_name is not None:
            # All rolling windows of a subject are one that moves on.
            start = None if spend.window.startswith("rolling") else spend.window_start
            told.setdefault((spend.tenant_id, spend.budget_name), {})[spend.subject or "", start] = spend
    found: list[BudgetBalance] = []
    for team in sorted(teams, key=lambda one: one.name):
        for budget in team.budgets:
            if budget.mode == "hard":
                rows = _hard(team.name, budget, held, now)
            else:
                rows = _soft(team.name, budget, told.get((team.name, budget.name), {}).values(), now)
            window = window_of(budget, now)
            nobody = BudgetBalance(
                team.name, budget, None, window.start, window.end, reserved=_ZERO if budget.mode == "hard" else None
            )
            found += sorted(rows, key=lambda row: (row.left, row.subject or "")) or [nobody]
    return found


def _hard(
    team: str, budget: Budget, held: Mapping[tuple[str, str, str], list[Counter]], now: datetime
) -> list[BudgetBalance]:
    window = window_of(budget, now)
    rows = []
    for counter in held.get((team, budget.name, window.id), []):
        balance = counter.since(first_bucket(budget, now))
        rows.append(
            BudgetBalance(
                team, budget, None if budget.per == "team" else counter.value, window.start, window.end,
                spent=balance.spent + _ZERO, reserved=balance.reserved + _ZERO,
            )
        )  # fmt: skip
    return rows


def _soft(team: str, budget: Budget, spends: Iterable[TeamSpend], now: datetime) -> list[BudgetBalance]:
    rows = []
    for spend in spends:
        ends_at = spend.window_end
        if spend.window != budget.window_name or ends_at is None:
            continue
        # A rolling window ends with its newest bucket; once it has moved on by its whole length, nothing of it counts.
        stays = timedelta() if budget.hours is None else ends_at - spend.window_start
        if ends_at + stays <= now:
            continue
        rows.append(
            BudgetBalance(
                team, budget, None if budget.per == "team" else spend.subject or "", spend.window_start, ends_at,
                spent=spend.amount, as_of=spend.occurred_at,
            )
        )  # fmt: skip
    return rows

"""The teams' budgets, and since when each counts as it does now."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.config.plane import parse_entry
from penstock.contracts.records import ConfigEntry

__all__ = ["BudgetHistory", "Known"]


@dataclass(frozen=True, slots=True)
class Known:
    """A budget.

    Attributes:
        since_ms: when it was published with these subjects and windows, ms since the epoch; as far back as the topic
            ``config-teams`` still says.
        hard_since_ms: when it became a hard one; None for a soft one.
    """

    budget: Budget
    since_ms: int
    hard_since_ms: int | None


class BudgetHistory:
    """The topic ``config-teams``, taken over in the order of the log.

    Attributes:
        invalid: what was published and is no team; services passed over it, too.
    """

    def __init__(self) -> None:
        self.invalid: list[str] = []
        self._teams: dict[str, dict[str, Known]] = {}
        self._budgets: dict[str, tuple[Budget, ...]] = {}

    def take(self, record: ConfigEntry, published_ms: int) -> None:
        """Take over what was published at an instant, ms since the epoch."""
        if record.deleted:
            self._teams.pop(record.name, None)
            self._budgets.pop(record.name, None)
            return
        try:
            team = parse_entry(record)
        except ValueError as error:
            self.invalid.append(f"{record.name}@{record.version}: {error}")
            return
        if isinstance(team, Team):
            self._budgets[team.name] = team.budgets
            before = self._teams.get(team.name, {})
            self._teams[team.name] = {
                budget.name: _known(budget, before.get(budget.name), published_ms) for budget in team.budgets
            }

    def teams(self) -> list[str]:
        """Return the teams, by name."""
        return sorted(self._teams)

    def budgets(self, team: str) -> tuple[Budget, ...]:
        """Return the budgets of a team; none of one that is not known."""
        return self._budgets.get(team, ())

    def known(self, team: str, budget: str) -> Known | None:
        """Return a budget by name; None where the team has none of it."""
        return self._teams.get(team, {}).get(budget)


def _known(budget: Budget, before: Known | None, now_ms: int) -> Known:
    same = before is not None and _counted(before.budget) == _counted(budget)
    since = before.since_ms if before is not None and same else now_ms
    hard_since = None
    if budget.mode == "hard":
        hard_since = (
            before.hard_since_ms if before is not None and same and before.hard_since_ms is not None else now_ms
        )
    return Known(budget, since, hard_since)


def _counted(budget: Budget) -> tuple[object, ...]:
    """Return what decides which costs count in which of its windows."""
    return budget.per, budget.tag, budget.match, budget.window, budget.hours

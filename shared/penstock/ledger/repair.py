"""Redis' counters set from the ledger: after Redis lost data, or where a hard budget begins in mid-window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from penstock.ledger.budget_history import BudgetHistory
from penstock.ledger.rebuild import Ledger, Series, span
from penstock.money import BUCKETS, Subject, from_pico, pico, window_of
from penstock.money.counters import KEPT, Counter, counter_name, first_bucket

__all__ = ["Change", "Plan", "plan_repair"]


@dataclass(frozen=True, slots=True)
class Change:
    """What one counter says was spent, and what it will say; USD."""

    counter: str
    before: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Plan:
    """What :func:`penstock.money.counters.restore` gets for one team, and what that changes."""

    team: str
    spent: Mapping[Subject, Mapping[datetime, Decimal]]
    changes: tuple[Change, ...]


def plan_repair(ledger: Ledger, history: BudgetHistory, counters: Iterable[Counter], now: datetime) -> list[Plan]:
    """Return what has to be restored, by team; teams whose counters agree with the ledger are left out.

    Every window that Redis still keeps gets the ledger's sum: those that are open, and those that ended within 40 days.
    """
    held: dict[str, dict[str, dict[int, int]]] = {}
    for counter in counters:
        known = history.known(counter.team, counter.budget)
        if known is None or known.hard_since_ms is None:
            continue  # nobody asks a counter of a budget that is no more
        name = counter_name(counter.team, counter.budget, counter.window_id, counter.value)
        first = first_bucket(known.budget, now)
        buckets = {
            bucket: pico(balance.spent)
            for bucket, balance in counter.buckets.items()
            if balance.spent and bucket >= first
        }
        held.setdefault(counter.team, {})[name] = buckets
    wanted: dict[str, dict[str, dict[int, int]]] = {}
    spent: dict[str, dict[Subject, dict[datetime, Decimal]]] = {}
    for series in ledger.series():
        known = None if series.budget is None else history.known(series.team, series.budget)
        if known is None or known.hard_since_ms is None or known.budget.window_name != series.window:
            continue
        subject = Subject(known.budget, series.subject)
        rolling = known.budget.window == "rolling"
        for number in ledger.numbers(series):
            amount = ledger.bucket(series, number).amount
            start = _start(series, number)
            over = number < first_bucket(known.budget, now) if rolling else span(series.window, number)[1] + KEPT <= now
            if over or not amount:
                continue
            name = counter_name(series.team, known.budget.name, window_of(known.budget, start).id, series.subject)
            wanted.setdefault(series.team, {}).setdefault(name, {})[number if rolling else 0] = amount
            spent.setdefault(series.team, {}).setdefault(subject, {})[start] = from_pico(amount)
    plans = []
    for team in sorted(wanted.keys() | held.keys()):
        own, theirs = wanted.get(team, {}), held.get(team, {})
        changes = tuple(
            Change(name, _sum(theirs.get(name)), _sum(own.get(name)))
            for name in sorted(own.keys() | theirs.keys())
            if own.get(name, {}) != theirs.get(name, {})
        )
        if changes:
            plans.append(Plan(team, spent.get(team, {}), changes))
    return plans


def _start(series: Series, number: int) -> datetime:
    """Return an instant of a calendar window or of one bucket: its first."""
    start, end = span(series.window, number)
    if not series.window.startswith("rolling"):
        return start
    return end - (end - start) / (BUCKETS + 1)


def _sum(buckets: Mapping[int, int] | None) -> Decimal:
    return from_pico(sum((buckets or {}).values()))

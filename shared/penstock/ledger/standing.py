"""How a live sum stands to the ledger: the same, behind it, ahead of it, or another. Pure.

While requests are answered, the live sums trail the log. A sum that is behind may still come; one that is ahead holds
costs that the ledger has not read yet. So each is compared at a moment at which both are of the same costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Protocol

from penstock.contracts.records import TeamSpend
from penstock.ledger.budget_history import BudgetHistory
from penstock.ledger.rebuild import Figures, Ledger, Series, number_at, span
from penstock.money import from_pico, pico
from penstock.money.counters import Counter

__all__ = [
    "LiveCounter", "LiveSum", "LiveWindow", "LiveWindows", "Pending", "Standing", "counter_window", "missing_windows",
    "window_name",
]  # fmt: skip


class Standing(Enum):
    """How a live sum stands to the ledger's."""

    SAME = "same"
    BEHIND = "behind"
    AHEAD = "ahead"
    OTHER = "other"


class LiveSum(Protocol):
    """A live sum that is to be compared."""

    @property
    def series(self) -> Series: ...

    def standing(self, ledger: Ledger) -> Standing:
        """Return how it stands to the ledger as far as that has been read."""
        ...


@dataclass(frozen=True, slots=True)
class LiveWindow:
    """The newest sum of one window on ``team-spend``; ``record`` is None where there is none."""

    series: Series
    number: int
    record: TeamSpend | None

    def standing(self, ledger: Ledger) -> Standing:
        """Return how it stands to the ledger as far as that has been read."""
        if self.record is None:
            return Standing.BEHIND
        if self.series.window.startswith("rolling"):
            newest = ledger.newest(self.series)
            if newest is None or newest != self.number:
                return Standing.AHEAD if newest is None or newest < self.number else Standing.BEHIND
        figures = ledger.at(self.series, self.number)
        if figures.calls != self.record.calls:
            return Standing.BEHIND if self.record.calls < figures.calls else Standing.AHEAD
        return Standing.OTHER if any(self.differing(figures)) else Standing.SAME

    def differing(self, figures: Figures) -> Iterator[tuple[str, str, str]]:
        """Yield the figures that differ: name, the ledger's, the live one."""
        record = self.record
        if record is None:
            return
        live = _live_figures(record, figures)
        for name in Figures.__dataclass_fields__:
            own, other = getattr(figures, name), getattr(live, name)
            if own != other:
                money = name in ("amount", "saved")
                yield (
                    name,
                    *((f"{from_pico(own):f} USD", f"{from_pico(other):f} USD") if money else (f"{own}", f"{other}")),
                )


class LiveWindows:
    """The newest event of each window on ``team-spend``."""

    def __init__(self) -> None:
        self._newest: dict[tuple[Series, int | None], LiveWindow] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def take(self, record: TeamSpend) -> LiveWindow:
        """Take an event over, in the order of the log."""
        rolling = record.window.startswith("rolling")
        series = Series(record.tenant_id, record.window, record.budget_name, record.subject or "")
        if rolling and record.window_end is not None:
            # Its end is that of its newest bucket.
            number = number_at(record.window, record.window_end.astimezone(UTC)) - 1
        else:
            number = number_at(record.window, record.window_start.astimezone(UTC))
        window = LiveWindow(series, number, record)
        self._newest[series, None if rolling else number] = window
        return window

    def all(self) -> list[LiveWindow]:
        """Return the newest sum of every window."""
        return list(self._newest.values())

    def has(self, series: Series, number: int) -> bool:
        """Return whether there is a sum of a window (rolling: of any)."""
        return (series, None if series.window.startswith("rolling") else number) in self._newest


@dataclass(frozen=True, slots=True)
class LiveCounter:
    """What Redis says was spent in one window of a subject of a hard budget.

    Attributes:
        numbers: the window's number, of a rolling one those of the buckets that count.
        spent: integers of 1e-12 USD by number; empty where Redis has no counter.
    """

    series: Series
    numbers: range
    spent: Mapping[int, int]
    exists: bool

    @property
    def total(self) -> int:
        """Integers of 1e-12 USD."""
        return sum(self.spent.values())

    def ledger_spent(self, ledger: Ledger) -> dict[int, int]:
        """Return what the ledger says, by number; windows without an amount are left out."""
        amounts = {
            number: ledger.bucket(self.series, number).amount
            for number in ledger.numbers(self.series)
            if number in self.numbers
        }
        return {number: amount for number, amount in amounts.items() if amount}

    def standing(self, ledger: Ledger) -> Standing:
        """Return how it stands to the ledger as far as that has been read."""
        own = self.ledger_spent(ledger)
        if own == self.spent:
            return Standing.SAME
        total = sum(own.values())
        if total == self.total:
            return Standing.OTHER
        return Standing.BEHIND if self.total < total else Standing.AHEAD


class Pending:
    """Live sums that have not been found the same as the ledger yet."""

    def __init__(self) -> None:
        self._waiting: dict[Series, dict[int | None, LiveSum]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def has(self, series: Series, number: int | None) -> bool:
        """Return whether a window (rolling: None) waits."""
        return number in self._waiting.get(series, ())

    def expect(self, number: int | None, live: LiveSum, ledger: Ledger) -> None:
        """Compare a live sum; unless it is the same it waits, in the place of an older one."""
        waiting = self._waiting.setdefault(live.series, {})
        waiting.pop(number, None)
        if live.standing(ledger) is not Standing.SAME:
            waiting[number] = live
        if not waiting:
            del self._waiting[live.series]

    def grown(self, series: Iterable[Series], ledger: Ledger) -> None:
        """Compare again what waits of ``series``: the ledger has counted another cost in them."""
        for each in series:
            for number, live in list(self._waiting.get(each, {}).items()):
                self.expect(number, live, ledger)

    def any(self, standing: Standing, ledger: Ledger) -> bool:
        """Return whether something that waits stands so to the ledger."""
        return any(live.standing(ledger) is standing for live in self.all())

    def all(self) -> Iterator[LiveSum]:
        """Yield what waits."""
        for waiting in self._waiting.values():
            yield from waiting.values()


def missing_windows(ledger: Ledger, live: LiveWindows) -> Iterator[LiveWindow]:
    """Yield the windows that the ledger has costs for and ``team-spend`` has no sum of."""
    for series in ledger.series():
        numbers = ledger.numbers(series)
        for number in numbers[-1:] if series.window.startswith("rolling") else numbers:
            if not live.has(series, number):
                yield LiveWindow(series, number, None)


def counter_window(history: BudgetHistory, counter: Counter) -> tuple[Series, int | None] | None:
    """Return what a counter in Redis is of: its series, and the window's number (None for a rolling one).

    None: no hard budget of the configuration has such a counter.
    """
    known = history.known(counter.team, counter.budget)
    if known is None or known.hard_since_ms is None:
        return None
    window = known.budget.window_name
    series = Series(counter.team, window, counter.budget, counter.value)
    if known.budget.window == "rolling":
        return (series, None) if counter.window_id == window else None
    try:
        start = date.fromisoformat(counter.window_id if window == "day" else f"{counter.window_id}-01")
    except ValueError:
        return None
    return series, number_at(window, datetime(start.year, start.month, start.day, tzinfo=UTC))


def window_name(series: Series, number: int) -> str:
    """Return a window as a person reads it."""
    start, end = span(series.window, number)
    if series.window == "day":
        when = f"{start:%Y-%m-%d}"
    elif series.window == "month":
        when = f"{start:%Y-%m}"
    else:
        when = f"until {end:%Y-%m-%dT%H:%MZ}"
    of = "" if series.budget is None else f", budget {series.budget}"
    whom = f" of {series.subject!r}" if series.subject else ""
    return f"team {series.team}{of}{whom}, {series.window} {when}"


def _live_figures(record: TeamSpend, own: Figures) -> Figures:
    # Events older than these fields do not say them: then there is nothing to compare.
    old = record.saved is None
    saved = Decimal(0) if record.saved is None else record.saved
    return Figures(
        amount=pico(record.amount),
        calls=record.calls,
        unpriced_calls=record.unpriced_calls,
        cached_calls=own.cached_calls if old else record.cached_calls,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cached_input_tokens=own.cached_input_tokens if old else record.cached_input_tokens,
        saved=own.saved if old else pico(saved),
    )

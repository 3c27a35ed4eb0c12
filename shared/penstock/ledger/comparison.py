"""The live sums beside the ledger: team-spend and the counters in Redis, and what differs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from penstock.contracts.records import TeamSpend
from penstock.ledger.faults import Fault
from penstock.ledger.rebuild import Series, number_at, span
from penstock.ledger.standing import (
    LiveCounter,
    LiveWindow,
    LiveWindows,
    Pending,
    Standing,
    counter_window,
    missing_windows,
    window_name,
)
from penstock.ledger.verification import Verification
from penstock.money import BUCKETS, from_pico, pico
from penstock.money.counters import Balance, Counter, Reservation, counter_name, first_bucket

__all__ = ["Comparison"]

_LATE = timedelta(days=92)
"""Costs that come later than this are in no live sum: evaluation closes its windows."""
_AHEAD_BUCKETS = 10_000
"""Buckets of a clock that runs ahead count as well."""


@dataclass(slots=True)
class _Reserved:
    """Reserved in one counter, integers of 1e-12 USD by bucket."""

    counter: dict[int, int] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)


class Comparison:
    """Compares live sums with the ledger of a :class:`Verification`, over and over until nothing trails any more.

    Attributes:
        windows_compared: windows on team-spend that were compared.
        counters_compared: counters in Redis.
        unlike: windows and counters of budgets that the configuration no longer has, or that are older than the log:
            these are not compared.
        partial: windows that began before their budget was known and hold its costs from then on only.
    """

    def __init__(self, verification: Verification, now: datetime) -> None:
        self.windows_compared = 0
        self.counters_compared = 0
        self.unlike = 0
        self.partial: list[str] = []
        self._log = verification
        self._ledger = verification.ledger
        self._now = now
        self._live = LiveWindows()
        self._windows = Pending()
        self._counters = Pending()
        self._started = False
        self._redis_seen = False
        self._reserved: dict[str, _Reserved] = {}
        self._over: list[Fault] = []

    # -- team-spend --------------------------------------------------------------------------------------------------

    def live(self, record: TeamSpend) -> None:
        """Take an event of team-spend over."""
        window = self._live.take(record)
        number = _key(window.series, window.number)
        if self._started and self._windows.has(window.series, number):
            self._windows.expect(number, window, self._ledger)

    def start(self) -> None:
        """Compare every window, once team-spend has been read to its end."""
        self._started = True
        for window in [*self._live.all(), *missing_windows(self._ledger, self._live)]:
            if not self._comparable(window.series, span(window.series.window, window.number)[0]):
                self.unlike += 1
                continue
            if window.record is None and self._is_before(window):
                continue
            self.windows_compared += 1
            self._windows.expect(_key(window.series, window.number), window, self._ledger)

    def grown(self, series: Iterable[Series]) -> None:
        """Compare again what trailed: the ledger has counted another cost in these series."""
        self._windows.grown(series, self._ledger)
        self._counters.grown(series, self._ledger)

    # -- Redis -------------------------------------------------------------------------------------------------------

    def redis(self, counters: Iterable[Counter], reservations: Mapping[str, Iterable[Reservation]]) -> None:
        """Compare what Redis holds now; to be called again while something trails.

        Args:
            counters: all of them.
            reservations: the open ones, by team.
        """
        counters = list(counters)
        seen = set()
        for counter in counters:
            found = counter_window(self._log.budgets, counter)
            live = None if found is None else self._live_counter(*found, counter)
            if live is None:
                self.unlike += not self._redis_seen
                continue
            assert found is not None
            seen.add(found)
            self._expect(found[1], live)
        for series, number in self._wanted_counters():
            if (series, number) not in seen:
                live = self._live_counter(series, number, None)
                if live is not None and (live.ledger_spent(self._ledger) or self._counters.has(series, number)):
                    self._expect(number, live)
        self._compare_reserved(counters, reservations)
        self._over = list(self._over_limits(counters))
        self._redis_seen = True

    def _expect(self, number: int | None, live: LiveCounter) -> None:
        if not self._redis_seen:
            self.counters_compared += 1
        if not self._redis_seen or self._counters.has(live.series, number):
            self._counters.expect(number, live, self._ledger)

    # -- the end -----------------------------------------------------------------------------------------------------

    @property
    def trails(self) -> bool:
        """Whether something may still become the same by itself."""
        return (
            bool(self._reserved)
            or self._windows.any(Standing.BEHIND, self._ledger)
            or self._counters.any(Standing.BEHIND, self._ledger)
        )

    @property
    def is_ahead(self) -> bool:
        """Whether a live sum holds costs that the ledger has not read yet."""
        return self._windows.any(Standing.AHEAD, self._ledger) or self._counters.any(Standing.AHEAD, self._ledger)

    def faults(self) -> Iterator[Fault]:
        """Yield what differs, once no more is waited for."""
        for live in self._windows.all():
            assert isinstance(live, LiveWindow)
            if self._is_partial(live):
                self.partial.append(window_name(live.series, live.number))
            else:
                yield self._window_fault(live)
        for live in self._counters.all():
            assert isinstance(live, LiveCounter)
            yield self._counter_fault(live)
        for name, reserved in sorted(self._reserved.items()):
            own, held = sum(reserved.counter.values()), sum(reserved.held.values())
            yield Fault(
                "reserved", name, ledger=f"open reservations {_usd(held)}", live=_usd(own), difference=from_pico(own - held),
                cause="Redis lost a part of its data, or was changed by hand: what is reserved too much stays so until the "
                "window ends",
            )  # fmt: skip
        yield from self._over

    # -- details -----------------------------------------------------------------------------------------------------

    def _comparable(self, series: Series, start: datetime) -> bool:
        if start.timestamp() * 1000 < self._log.ledger_since_ms():
            return False
        if series.budget is None:
            return True
        known = self._log.budgets.known(series.team, series.budget)
        return known is not None and known.budget.window_name == series.window

    def _is_before(self, live: LiveWindow) -> bool:
        """Return whether every cost of a window came before its budget was published."""
        calls = self._ledger.at(live.series, live.number).calls
        return calls == sum(self._log.before[live.series, number] for number in _numbers(live))

    def _is_partial(self, live: LiveWindow) -> bool:
        """Return whether a window lacks no more than what may have come before evaluation knew its budget."""
        early = sum(self._log.early[live.series, number] for number in _numbers(live))
        calls = self._ledger.at(live.series, live.number).calls
        counted = 0 if live.record is None else live.record.calls
        return bool(early) and calls - early <= counted <= calls

    def _window_fault(self, live: LiveWindow) -> Fault:
        own = self._ledger.at(live.series, live.number)
        where = window_name(live.series, live.number)
        if live.record is None:
            cause = "evaluation has not counted these costs: is it running?"
            if span(live.series.window, live.number)[1] < self._now - _LATE:
                cause = "the costs may have come later than 92 days, when evaluation had closed the window"
            return Fault(
                "no_window", where, ledger=f"{own.usd:f} USD, {own.calls:,} calls", difference=-own.usd, cause=cause
            )
        differing = list(live.differing(own))
        standing = live.standing(self._ledger)
        if standing is Standing.BEHIND:
            cause = "evaluation has not counted every cost: it trails, stands still, or was behind by more than 92 days"
        elif standing is Standing.AHEAD:
            cause = "costs were counted that are not on the log: counted twice, or the sum was written by another"
        else:
            cause = "as many calls with other figures: the sum was written by another than evaluation"
        return Fault(
            "window", where,
            ledger="; ".join(f"{name} {mine}" for name, mine, _ in differing) or f"calls {own.calls}",
            live="; ".join(f"{name} {theirs}" for name, _, theirs in differing) or f"calls {live.record.calls}",
            difference=from_pico(pico(live.record.amount) - own.amount), cause=cause,
        )  # fmt: skip

    def _counter_fault(self, live: LiveCounter) -> Fault:
        series = live.series
        own = sum(live.ledger_spent(self._ledger).values())
        number = number_at(series.window, self._now) if series.window.startswith("rolling") else live.numbers[0]
        known = self._log.budgets.known(series.team, series.budget or "")
        since = known.hard_since_ms if known is not None else None
        begun = max(span(series.window, number)[0].timestamp() * 1000, 0)
        standing = live.standing(self._ledger)
        if standing is Standing.BEHIND and since is not None and since > begun:
            when = datetime.fromtimestamp(since / 1000, UTC)
            cause = (
                f"the budget counts since {when:%Y-%m-%dT%H:%MZ}, in mid-window; `penstock ledger verify --repair` counts "
                "what was spent before"
            )
        elif standing is Standing.BEHIND:
            cause = (
                "Redis lost data, or the settlement of intake trails; `penstock ledger verify --repair` restores the "
                "counters"
            )
        else:
            cause = (
                "the counter was changed by hand, or charged twice after Redis forgot; `penstock ledger verify --repair` "
                "restores it"
            )
        return Fault(
            "counter" if live.exists else "no_counter", window_name(series, number), ledger=_usd(own), live=_usd(live.total),
            difference=from_pico(live.total - own), cause=cause,
        )  # fmt: skip

    def _wanted_counters(self) -> Iterator[tuple[Series, int | None]]:
        """Yield what must have a counter, as it counts now, if anything was spent in it."""
        for series in self._ledger.series():
            known = None if series.budget is None else self._log.budgets.known(series.team, series.budget)
            if known is None or known.hard_since_ms is None or known.budget.window_name != series.window:
                continue
            yield series, None if known.budget.window == "rolling" else number_at(series.window, self._now)

    def _live_counter(self, series: Series, number: int | None, counter: Counter | None) -> LiveCounter | None:
        """Return what is to be compared; None where it is older than the log."""
        known = self._log.budgets.known(series.team, series.budget or "")
        assert known is not None
        if number is None:
            first = first_bucket(known.budget, self._now)
            numbers = range(first, first + _AHEAD_BUCKETS)
            start = span(series.window, first + BUCKETS)[0]
        else:
            numbers = range(number, number + 1)
            start = span(series.window, number)[0]
        if not self._comparable(series, start):
            return None
        balances = {} if counter is None else counter.buckets
        spent = {
            (bucket if number is None else number): pico(balance.spent)
            for bucket, balance in balances.items()
            if balance.spent and (number is not None or bucket in numbers)
        }
        return LiveCounter(series, numbers, spent, exists=counter is not None)

    def _compare_reserved(self, counters: Iterable[Counter], reservations: Mapping[str, Iterable[Reservation]]) -> None:
        found: dict[str, _Reserved] = {}
        for counter in counters:
            name = counter_name(counter.team, counter.budget, counter.window_id, counter.value)
            own = {bucket: pico(balance.reserved) for bucket, balance in counter.buckets.items() if balance.reserved}
            if own:
                found.setdefault(name, _Reserved()).counter = own
        for team in reservations.values():
            for reservation in team:
                for hold in reservation.holds:
                    held = found.setdefault(hold.counter, _Reserved()).held
                    held[hold.bucket] = held.get(hold.bucket, 0) + pico(hold.amount)
        unlike = {name: each for name, each in found.items() if each.counter != each.held}
        # What was the same once is proven: reservations come and go while this is read.
        self._reserved = unlike if not self._redis_seen else {n: e for n, e in unlike.items() if n in self._reserved}

    def _over_limits(self, counters: Iterable[Counter]) -> Iterator[Fault]:
        for counter in counters:
            found = counter_window(self._log.budgets, counter)
            known = self._log.budgets.known(counter.team, counter.budget)
            if found is None or known is None:
                continue
            series, number = found
            balance: Balance = counter.since(first_bucket(known.budget, self._now) if number is None else 0)
            both: Decimal = balance.spent + balance.reserved
            if both > known.budget.limit and (number is None or span(series.window, number)[1] > self._now):
                here = number_at(series.window, self._now) if number is None else number
                yield Fault(
                    "over_limit", window_name(series, here),
                    ledger=f"limit {known.budget.limit:f} USD",
                    live=f"{balance.spent:f} USD spent and {balance.reserved:f} USD reserved",
                    difference=both - known.budget.limit,
                    cause="the limit was lowered in mid-window, or calls were charged that admission does not bound "
                    "(judges, shadows, embedded documents)",
                )  # fmt: skip


def _numbers(live: LiveWindow) -> range:
    """Return the windows, of a rolling one the buckets, that are added up."""
    first = live.number - BUCKETS if live.series.window.startswith("rolling") else live.number
    return range(first, live.number + 1)


def _key(series: Series, number: int) -> int | None:
    return None if series.window.startswith("rolling") else number


def _usd(amount: int) -> str:
    return f"{from_pico(amount):f} USD"

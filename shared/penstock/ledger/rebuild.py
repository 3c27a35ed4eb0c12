"""The ledger rebuilt from costs: exact sums of every window, and one hash over every entry. Pure.

    ledger = Ledger(lambda team: budgets_of(team))
    for cost in costs:
        ledger.add(cost)
    ledger.totals.amount  # integers of 1e-12 USD
    ledger.digest()  # the same for the same costs, in whatever order and however often each came

Shares no code with the services that keep the live sums; windows are cut here, too. Memory: some 200 bytes a cost, and
150 a window.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import msgspec

from penstock.config.budgets import Budget
from penstock.contracts.records import Cost
from penstock.ledger.reading import accounted_at, identity
from penstock.money import PLACES, exact, from_pico, pico, subjects

__all__ = ["ROLLING", "Figures", "Ledger", "Series", "canonical", "number_at", "span"]

ROLLING = ("rolling-24h", "rolling-168h", "rolling-720h")
"""The rolling windows of every team, beside its day and its month."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BUCKETS = 24
_DIGEST_BYTES = 32
_JSON = msgspec.json.Encoder(order="sorted")


class Series(NamedTuple):
    """Windows that follow one another: of a team (``budget`` None), or of one subject of one of its budgets.

    ``window`` is ``day``, ``month`` or ``rolling-<hours>h``; ``subject`` is the user, key, model or tag's value, empty for
    the whole team.
    """

    team: str
    window: str
    budget: str | None = None
    subject: str = ""


@dataclass(slots=True)
class Figures:
    """Sums over costs; ``amount`` and ``saved`` in integers of 1e-12 USD. Answers from a cache count no tokens: no model
    read any."""

    amount: int = 0
    calls: int = 0
    unpriced_calls: int = 0
    cached_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    saved: int = 0

    def add(self, other: Figures) -> None:
        """Add other sums to these."""
        self.amount += other.amount
        self.calls += other.calls
        self.unpriced_calls += other.unpriced_calls
        self.cached_calls += other.cached_calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached_input_tokens += other.cached_input_tokens
        self.saved += other.saved

    @property
    def usd(self) -> Decimal:
        """The amount in USD, 12 places."""
        return from_pico(self.amount)


def figures_of(cost: Cost) -> Figures:
    """Return the figures of one cost.

    Raises:
        ValueError: an amount has more than 12 places.
    """
    read = cost.kind != "cached"
    usage = cost.usage
    return Figures(
        amount=0 if cost.amount is None else pico(cost.amount),
        calls=1,
        unpriced_calls=int(not cost.priced),
        cached_calls=int(not read),
        input_tokens=usage.input_tokens if read else 0,
        output_tokens=usage.output_tokens if read else 0,
        cached_input_tokens=usage.cached_input_tokens if read else 0,
        saved=sum(map(pico, cost.saved.values())),
    )


def canonical(cost: Cost) -> bytes:
    """Return the bytes of a cost that the hash is over: JSON, keys sorted, instants in UTC, amounts with 12 places."""
    return _JSON.encode(_normal(cost))


def number_at(window: str, at: datetime) -> int:
    """Return the number of the window, of a rolling one the number of the bucket, that an instant (UTC) lies in.

    Days are counted from the year 1, months from the year 0, buckets (a 24th of the window) from 1970.
    """
    if window == "day":
        return at.toordinal()
    if window == "month":
        return at.year * 12 + at.month - 1
    return (at - _EPOCH) // _bucket(window)


def span(window: str, number: int) -> tuple[datetime, datetime]:
    """Return where a window begins and ends (excluded); a rolling one ends with the bucket ``number`` and has 24 more."""
    if window == "day":
        start = datetime.combine(date.fromordinal(number), datetime.min.time(), UTC)
        return start, start + timedelta(days=1)
    if window == "month":
        first, after = (datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in (number, number + 1))
        return first, after
    bucket = _bucket(window)
    return _EPOCH + (number - _BUCKETS) * bucket, _EPOCH + (number + 1) * bucket


class Ledger:
    """Costs added up: each event_id once.

    Args:
        budgets_of: the budgets of a team, whose subjects have windows of their own; default: none.

    Attributes:
        totals: over everything.
        repeats: costs that came again under their event_id and were left out.
        conflicts: event_id of those that came again with other content; the first counts.
    """

    def __init__(self, budgets_of: Callable[[str], Iterable[Budget]] = lambda team: ()) -> None:
        self.totals = Figures()
        self.repeats = 0
        self.conflicts: list[str] = []
        self._budgets_of = budgets_of
        self._entries: dict[bytes | str, int] = {}
        self._digests = bytearray()
        self._called_at = array("q")
        self._windows: dict[Series, dict[int, Figures]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, event_id: str) -> bool:
        return identity(event_id) in self._entries

    def add(self, cost: Cost) -> list[Series]:
        """Count a cost and return the series that it counts in; none where its event_id was counted before.

        Raises:
            ValueError: an amount has more than 12 places; nothing was counted.
        """
        digest = sha256(canonical(cost)).digest()
        own = identity(cost.event_id)
        index = self._entries.get(own)
        if index is not None:
            self.repeats += 1
            if self._digest(index) != digest:
                self.conflicts.append(cost.event_id)
            return []
        figures = figures_of(cost)
        self._entries[own] = len(self._entries)
        self._digests += digest
        self._called_at.append(_micros(cost.occurred_at))
        self.totals.add(figures)
        at = accounted_at(cost)
        counted = list(self.series_of(cost))
        for series in counted:
            windows = self._windows.setdefault(series, {})
            number = number_at(series.window, at)
            if number in windows:
                windows[number].add(figures)
            else:
                windows[number] = replace(figures)
        return counted

    def series_of(self, cost: Cost) -> Iterator[Series]:
        """Yield the series that a cost counts in."""
        team = cost.tenant_id
        for window in ("day", "month", *ROLLING):
            yield Series(team, window)
        context = cost.context
        for subject in subjects(
            self._budgets_of(team), user=context.user_id, key=context.key_id, model=cost.model, tags=context.tags
        ):
            yield Series(team, subject.budget.window_name, subject.budget.name, subject.value)

    def digest(self) -> str:
        """Return the hash over all entries, 64 hexadecimal digits: SHA-256 over the SHA-256 of each entry's canonical
        bytes, in the order of the event_ids (UUIDs by value, then others by text)."""
        whole = sha256()
        uuids = sorted(own for own in self._entries if isinstance(own, bytes))
        others = sorted(own for own in self._entries if isinstance(own, str))
        for group in (uuids, others):
            for own in group:
                whole.update(self._digest(self._entries[own]))
        return whole.hexdigest()

    def series(self) -> Iterator[Series]:
        """Yield every series that has costs."""
        yield from self._windows

    def numbers(self, series: Series) -> list[int]:
        """Return the numbers of the windows (rolling: buckets) of a series that have costs, ascending."""
        return sorted(self._windows.get(series, ()))

    def newest(self, series: Series) -> int | None:
        """Return the highest of these numbers; None where there is none."""
        return max(self._windows.get(series, ()), default=None)

    def at(self, series: Series, number: int) -> Figures:
        """Return the sums of one window; of a rolling one those of the 25 buckets up to ``number``."""
        windows = self._windows.get(series, {})
        first = number - _BUCKETS if series.window.startswith("rolling") else number
        total = Figures()
        for each in range(first, number + 1):
            if each in windows:
                total.add(windows[each])
        return total

    def bucket(self, series: Series, number: int) -> Figures:
        """Return the sums of one calendar window or one bucket."""
        return self._windows.get(series, {}).get(number, Figures())

    def says(self, cost: Cost) -> bool:
        """Return whether the entry of this event_id is this very cost."""
        index = self._entries.get(identity(cost.event_id))
        return index is not None and self._digest(index) == sha256(canonical(cost)).digest()

    def index(self, event_id: str) -> int | None:
        """Return which entry an event_id is, in the order of adding; None where there is none."""
        return self._entries.get(identity(event_id))

    def identities(self, indexes: Set[int]) -> set[bytes | str]:
        """Return what stands for the event_ids of entries (:func:`penstock.ledger.reading.identity`)."""
        return {own for own, index in self._entries.items() if index in indexes} if indexes else set()

    def called_at_us(self, index: int) -> int:
        """Return ``occurred_at`` of an entry, microseconds since the epoch."""
        return self._called_at[index]

    def _digest(self, index: int) -> bytes:
        return bytes(self._digests[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES])


@lru_cache
def _bucket(window: str) -> timedelta:
    hours = int(window.removeprefix("rolling-").removesuffix("h"))
    return timedelta(hours=hours) / _BUCKETS


def _normal(cost: Cost) -> Cost:
    """Return a cost whose instants are in UTC and whose amounts have 12 places, as what was decoded from the log has."""
    amounts = (cost.amount, cost.input_amount, cost.output_amount, cost.compute_amount, *cost.saved.values())
    instants = (cost.occurred_at, cost.accounted_at, *_instants(cost))
    if all(amount is None or amount.as_tuple().exponent == -PLACES for amount in amounts) and all(
        at is None or at.tzinfo is UTC for at in instants
    ):
        return cost
    context = cost.context
    return msgspec.structs.replace(
        cost,
        occurred_at=_utc(cost.occurred_at),
        accounted_at=_utc(cost.accounted_at),
        amount=_exact(cost.amount),
        input_amount=_exact(cost.input_amount),
        output_amount=_exact(cost.output_amount),
        compute_amount=_exact(cost.compute_amount),
        saved={cause: exact(amount) for cause, amount in cost.saved.items()},
        context=msgspec.structs.replace(
            context,
            requested_at=_utc(context.requested_at),
            deadline_at=_utc(context.deadline_at),
            admitted_at=_utc(context.admitted_at),
        ),
    )


def _instants(cost: Cost) -> tuple[datetime | None, ...]:
    context = cost.context
    return context.requested_at, context.deadline_at, context.admitted_at


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)


def _exact(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else exact(amount)


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)

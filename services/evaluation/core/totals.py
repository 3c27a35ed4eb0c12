"""Sums of costs, where in time they belong, and how they are published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact
from functools import lru_cache
from typing import Literal

import msgspec
from penstock.config.budgets import Budget
from penstock.contracts.envelope import derive
from penstock.contracts.records import Cost, TeamSpend
from penstock.money import BUCKETS, Window, bucket_of, from_pico, window_of

__all__ = [
    "SpendEmit",
    "Total",
    "WindowKind",
    "accounted_at",
    "add_up",
    "place",
    "plus",
    "put",
    "total_of",
    "window_until",
]

ZERO = from_pico(0)
# 38 digits, as in the Avro records. A sum that does not fit is refused rather than rounded.
_EXACT = Context(prec=38, traps=[Inexact])
plus = _EXACT.add
"""Adds two amounts, USD, exactly. Raises decimal.Inexact where the sum has more than 38 digits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# All boundaries of windows and buckets are multiples of this: the 24th of the shortest rolling window, an hour.
_SLOT = timedelta(seconds=150)


class Total(msgspec.Struct, frozen=True, array_like=True):
    """Sums over costs, as in :class:`penstock.contracts.records.TeamSpend`. Tokens that no model read, since a cache
    answered, do not count."""

    amount: Decimal = ZERO
    calls: int = 0
    unpriced_calls: int = 0
    cached_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    saved: Decimal = ZERO

    def __add__(self, other: Total) -> Total:
        return Total(
            plus(self.amount, other.amount),
            self.calls + other.calls,
            self.unpriced_calls + other.unpriced_calls,
            self.cached_calls + other.cached_calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            plus(self.saved, other.saved),
        )


def total_of(cost: Cost) -> Total:
    """Return one cost as a total."""
    saved = ZERO
    for amount in cost.saved.values():
        saved = plus(saved, amount)
    amount = ZERO if cost.amount is None else cost.amount
    if cost.kind == "cached":
        return Total(amount, 1, int(not cost.priced), 1, 0, 0, 0, saved)
    usage = cost.usage
    return Total(
        amount, 1, int(not cost.priced), 0, usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, saved
    )  # fmt: skip


def add_up(totals: Iterable[Total]) -> Total:
    """Return the sum of totals."""
    total = Total()
    for each in totals:
        total += each
    return total


def accounted_at(cost: Cost) -> datetime:
    """Return the instant that decides the windows of a cost, UTC."""
    return (cost.accounted_at or cost.occurred_at).astimezone(UTC)


class WindowKind(msgspec.Struct, frozen=True):
    """What windows are alike: those of a day, of a month, or the last hours."""

    window: Literal["day", "month", "rolling"]
    hours: int | None = None

    @property
    def name(self) -> str:
        """The name in events."""
        return f"rolling-{self.hours}h" if self.window == "rolling" else self.window


def place(kind: WindowKind, at: datetime) -> tuple[Window, int]:
    """Return the window that an instant lies in, and its bucket there (0 in a calendar window), as
    :mod:`penstock.money` says."""
    return _place(kind, (at - _EPOCH) // _SLOT)


def window_until(kind: WindowKind, bucket: int) -> Window:
    """Return the rolling window whose newest bucket this is."""
    assert kind.hours is not None
    return place(kind, _EPOCH + bucket * kind.hours * _SLOT)[0]


def put(buckets: Mapping[int, Total], bucket: int, total: Total) -> dict[int, Total]:
    """Return the buckets of a window with a cost added, and without those that its newest one puts out of the window. A
    cost that lies before the window adds nothing."""
    known = buckets.get(bucket)
    if known is not None:
        return {**buckets, bucket: known + total}
    newest = max(buckets, default=bucket)
    if bucket < newest - BUCKETS:
        return dict(buckets)
    oldest = max(newest, bucket) - BUCKETS
    return {**{kept: each for kept, each in buckets.items() if kept >= oldest}, bucket: total}


@lru_cache(maxsize=16_384)
def _place(kind: WindowKind, slot: int) -> tuple[Window, int]:
    at = _EPOCH + slot * _SLOT
    like = Budget.model_construct(window=kind.window, hours=kind.hours)
    return window_of(like, at), bucket_of(like, at)


class SpendEmit(msgspec.Struct, frozen=True):
    """The new total of a window on its way to ``team-spend``. The record is made when it is asked for: of the totals
    between two checkpoints only the newest of each window is.

    Attributes:
        cost: the cost that changed it.
        totals: what is added up, by bucket.
        budget_name: the budget whose subject it is; None for the whole team.
        subject: whom the budget is for; None for the whole team.
        limit: USD; None for none.
    """

    cost: Cost
    kind: WindowKind
    window: Window
    totals: Mapping[int, Total]
    limit: Decimal | None
    budget_name: str | None = None
    subject: str | None = None

    @property
    def topic(self) -> str:
        """The topic."""
        return "team-spend"

    @property
    def key(self) -> str:
        """The record's key: a newer total of the window replaces this one."""
        start = "" if self.kind.window == "rolling" else f"/{self.window.start:%Y-%m-%d}"
        of = "" if self.budget_name is None else f"/{self.budget_name}/{self.subject or ''}"
        return f"{self.cost.tenant_id}/{self.kind.name}{start}{of}"

    @property
    def record(self) -> TeamSpend:
        """The event."""
        name = self.kind.name if self.budget_name is None else f"{self.kind.name}.{self.budget_name}"
        total = add_up(self.totals.values())
        return TeamSpend(
            **derive(self.cost, f"evaluation.spend.{name}", 0, self.cost.occurred_at),
            window=self.kind.name,
            window_start=self.window.start,
            window_end=self.window.end,
            amount=total.amount,
            calls=total.calls,
            unpriced_calls=total.unpriced_calls,
            cached_calls=total.cached_calls,
            input_tokens=total.input_tokens,
            output_tokens=total.output_tokens,
            cached_input_tokens=total.cached_input_tokens,
            saved=total.saved,
            budget=self.limit,
            budget_name=self.budget_name,
            subject=self.subject,
        )

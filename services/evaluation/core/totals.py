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
    "ZERO", "Place", "SpendEmit", "Total", "WindowKind", "add_up", "place", "plus", "put", "slot_of", "total_of",
    "window_until",
]  # fmt: skip

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


class WindowKind(msgspec.Struct, frozen=True):
    """What windows are alike: those of a day, of a month, or the last hours."""

    window: Literal["day", "month", "rolling"]
    hours: int | None = None

    @property
    def name(self) -> str:
        """The name in events."""
        return f"rolling-{self.hours}h" if self.window == "rolling" else self.window


class Place(msgspec.Struct, frozen=True):
    """Where an instant lies.

    Attributes:
        window: a calendar window, or the rolling one whose newest bucket this is.
        bucket: its bucket; 0 in a calendar window.
        label: the window in the keys of ``team-spend``.
    """

    window: Window
    bucket: int
    label: str


def slot_of(cost: Cost) -> int:
    """Return when a cost counts, in units so short that no window and no bucket begins or ends within one."""
    return ((cost.accounted_at or cost.occurred_at) - _EPOCH) // _SLOT


@lru_cache(maxsize=16_384)
def place(kind: WindowKind, slot: int) -> Place:
    """Return the window and the bucket that a slot lies in, as :mod:`penstock.money` says."""
    at = _EPOCH + slot * _SLOT
    like = Budget.model_construct(window=kind.window, hours=kind.hours)
    window = window_of(like, at)
    label = kind.name if kind.window == "rolling" else f"{kind.window}/{window.start:%Y-%m-%d}"
    return Place(window, bucket_of(like, at), label)


def window_until(kind: WindowKind, bucket: int) -> Window:
    """Return the rolling window whose newest bucket this is."""
    assert kind.hours is not None
    return place(kind, bucket * kind.hours).window


def put(buckets: dict[int, Total], bucket: int, total: Total) -> dict[int, Total]:
    """Return the buckets of a window with a cost added, and without those that its newest one puts out of the window. A
    cost that lies before the window adds nothing."""
    known = buckets.get(bucket)
    if known is not None:
        return {**buckets, bucket: known + total}
    newest = max(buckets, default=bucket)
    if bucket < newest - BUCKETS:
        return buckets
    oldest = max(newest, bucket) - BUCKETS
    return {**{kept: each for kept, each in buckets.items() if kept >= oldest}, bucket: total}


class SpendEmit(msgspec.Struct, frozen=True):
    """The new total of a window on its way to ``team-spend``. The record is made when it is asked for: of the totals
    between two checkpoints only the newest of each window is.

    Attributes:
        key: the record's key; a newer total of the window replaces this one.
        cost: the cost that changed it.
        window: a calendar window; None for the rolling one that ends with the newest bucket.
        totals: what is added up, by bucket.
        limit: USD; None for none.
        budget_name: the budget whose subject it is; None for the whole team.
        subject: whom the budget is for; None for the whole team.
    """

    key: str
    cost: Cost
    kind: WindowKind
    window: Window | None
    totals: Mapping[int, Total]
    limit: Decimal | None
    budget_name: str | None = None
    subject: str | None = None
    topic: str = "team-spend"

    @property
    def record(self) -> TeamSpend:
        """The event."""
        name = self.kind.name
        stage = name if self.budget_name is None else f"{name}.{self.budget_name}"
        total = add_up(self.totals.values())
        window = self.window or window_until(self.kind, max(self.totals))
        return TeamSpend(
            **derive(self.cost, f"evaluation.spend.{stage}", 0, self.cost.occurred_at),
            window=name,
            window_start=window.start,
            window_end=window.end,
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

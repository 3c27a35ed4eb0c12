"""Spending by minute and by five minutes, and the dearest calls among it. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import msgspec

__all__ = ["Bin", "Call", "Dear", "added", "dearest_of", "spent_since"]

_SAMPLES = 5


class Call(NamedTuple):
    """One priced call."""

    minute: int
    """Since the epoch, of the instant that the ledger accounts it at."""
    amount: Decimal
    offset: int
    request_id: str


class Bin(msgspec.Struct, frozen=True, array_like=True):
    """What was spent in one minute, or in five. ``capped`` and ``top`` (the dearest call) count no call beyond the cap."""

    number: int
    amount: Decimal
    capped: float
    top: float
    calls: int
    first: int
    last: int


class Dear(msgspec.Struct, frozen=True, array_like=True):
    """A dear call of the last hour."""

    amount: Decimal
    minute: int
    request_id: str


def added(bins: tuple[Bin, ...], number: int, call: Call, capped: float, oldest: int) -> tuple[Bin, ...]:
    """Return ``bins`` with a call added, without those before ``oldest`` where a bin begins."""
    if bins and bins[-1].number == number:
        return (*bins[:-1], _with(bins[-1], call, capped))
    fresh = Bin(number, call.amount, capped, capped, 1, call.offset, call.offset)
    if not bins or bins[-1].number < number:
        return (*(each for each in bins if each.number >= oldest), fresh)
    for index, each in enumerate(bins):
        if each.number == number:
            return (*bins[:index], _with(each, call, capped), *bins[index + 1 :])
        if each.number > number:
            return (*bins[:index], fresh, *bins[index:])
    return bins


def _with(bin_: Bin, call: Call, capped: float) -> Bin:
    return Bin(
        bin_.number,
        bin_.amount + call.amount,
        bin_.capped + capped,
        max(bin_.top, capped),
        bin_.calls + 1,
        min(bin_.first, call.offset),
        max(bin_.last, call.offset),
    )


def dearest_of(dearest: tuple[Dear, ...], call: Call, oldest: int) -> tuple[Dear, ...]:
    """Return the dearest calls with one more, dearest first, without those before the minute ``oldest``."""
    if (
        len(dearest) == _SAMPLES
        and call.amount <= dearest[-1].amount
        and min(each.minute for each in dearest) >= oldest
    ):
        return dearest
    kept = [each for each in dearest if each.minute >= oldest and each.request_id != call.request_id]
    kept.append(Dear(call.amount, call.minute, call.request_id))
    kept.sort(key=lambda each: (-each.amount, each.request_id))
    return tuple(kept[:_SAMPLES])


def spent_since(bins: tuple[Bin, ...], oldest: int) -> tuple[int, float]:
    """Return the index of the first bin from ``oldest`` on, and what was spent since, without the dearest call."""
    first = len(bins)
    spent = top = 0.0
    while first and (each := bins[first - 1]).number >= oldest:
        first -= 1
        spent += each.capped
        if each.top > top:
            top = each.top
    return first, spent - top

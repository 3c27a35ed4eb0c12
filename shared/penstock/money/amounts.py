"""Amounts of money: decimals with 12 places, or the same as integers of 1e-12 USD (pico-USD)."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal

__all__ = ["PLACES", "exact", "from_pico", "pico", "rounded_up"]

PLACES = 12
"""Decimal places of every amount, as in the Avro records. Prices per token reach below 1e-8 USD."""

_UNIT = Decimal(1).scaleb(-PLACES)
# 38 digits, as in the Avro records and in Parquet: the default 28 would end at 1e16 USD.
_CONTEXT = Context(prec=38)


def exact(amount: Decimal) -> Decimal:
    """Return ``amount`` with 12 places written out; what lies beyond them is rounded half to even.

    Only what is charged by the second has more places; tokens at prices of 12 places are exact.

    Raises:
        decimal.InvalidOperation: it has more than 26 digits before the point.
    """
    return amount.quantize(_UNIT, rounding=ROUND_HALF_EVEN, context=_CONTEXT)


def rounded_up(amount: Decimal) -> Decimal:
    """Return ``amount`` with 12 places, never less than it was: for bounds."""
    return amount.quantize(_UNIT, rounding=ROUND_CEILING, context=_CONTEXT)


def pico(amount: Decimal) -> int:
    """Return ``amount`` in integers of 1e-12 USD.

    Raises:
        ValueError: it has more than 12 places.
    """
    scaled = amount.scaleb(PLACES, context=_CONTEXT)
    whole = int(scaled)
    if whole != scaled:
        raise ValueError(f"{amount} USD has more than {PLACES} decimal places")
    return whole


def from_pico(amount: int) -> Decimal:
    """Return an integer of 1e-12 USD as a decimal with 12 places."""
    return exact(Decimal(amount).scaleb(-PLACES, context=_CONTEXT))

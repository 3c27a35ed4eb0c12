"""Amounts of money: decimals with 12 places, or the same as integers of 1e-12 USD (pico-USD)."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation

__all__ = ["PLACES", "exact", "from_pico", "pico"]

PLACES = 12
"""Decimal places of every amount, as in the Avro records. Prices per token reach below 1e-8 USD."""

_UNIT = Decimal(1).scaleb(-PLACES)
# 38 digits, as in the Avro records and in Parquet: the default 28 would end at 1e16 USD. The traps make what does not
# fit an error, whatever the context of the process says.
_CONTEXT = Context(prec=38, traps=[InvalidOperation])
_LOSSLESS = Context(prec=38, traps=[InvalidOperation, Inexact])


def exact(amount: Decimal) -> Decimal:
    """Return ``amount`` with 12 places written out; what lies beyond them is rounded half to even.

    Only what is charged by the second has more places; tokens at prices of 12 places are exact.

    Raises:
        decimal.InvalidOperation: it has more than 26 digits before the point, or is not finite.
    """
    if not amount.is_finite():
        raise InvalidOperation(f"{amount} is no amount of money")
    return amount.quantize(_UNIT, rounding=ROUND_HALF_EVEN, context=_CONTEXT)


def pico(amount: Decimal) -> int:
    """Return ``amount`` in integers of 1e-12 USD.

    Raises:
        ValueError: it has more than 12 places or more than 26 digits before the point, or is not finite.
    """
    if not amount.is_finite():
        raise ValueError(f"{amount} is no amount of money")
    try:
        return int(amount.quantize(_UNIT, context=_LOSSLESS).scaleb(PLACES, context=_LOSSLESS))
    except (InvalidOperation, Inexact) as error:
        too_many = f"{PLACES} decimal places" if isinstance(error, Inexact) else "26 digits before the point"
        raise ValueError(f"{amount} USD has more than {too_many}") from None


def from_pico(amount: int) -> Decimal:
    """Return an integer of 1e-12 USD as a decimal with 12 places.

    Raises:
        decimal.InvalidOperation: it has more than 38 digits.
    """
    return exact(Decimal(amount).scaleb(-PLACES, context=_CONTEXT))

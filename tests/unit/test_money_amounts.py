"""Amounts: decimals with 12 places and integers of 1e-12 USD are the same money."""

from __future__ import annotations

import decimal
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.money import PLACES, exact, from_pico, pico

STEADY: dict[str, Any] = {"deadline": None, "derandomize": True}
LARGEST = 10**38 - 1


@settings(**STEADY)
@given(st.integers(-LARGEST, LARGEST))
def test_integers_come_back_from_decimals(amount: int) -> None:
    usd = from_pico(amount)
    assert pico(usd) == amount
    assert Fraction(usd) == Fraction(amount, 10**12)
    assert usd.as_tuple().exponent == -PLACES


@settings(**STEADY)
@given(st.decimals(min_value=-(10**20), max_value=10**20, places=12))
def test_decimals_come_back_from_integers(usd: Decimal) -> None:
    assert from_pico(pico(usd)) == usd


@settings(**STEADY)
@given(st.decimals(min_value=-(10**9), max_value=10**9, places=20))
def test_rounding_is_half_to_even_at_12_places(usd: Decimal) -> None:
    scaled = Fraction(usd) * 10**12
    assert pico(exact(usd)) == round(scaled)  # round() of a Fraction is half to even


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [
        ("0", "0.000000000000"),
        ("1", "1.000000000000"),
        ("1.5e-07", "0.000000150000"),
        ("0.0000000000005", "0.000000000000"),
        ("0.0000000000015", "0.000000000002"),
        ("0.0000000000025", "0.000000000002"),
        ("0.00000000000250001", "0.000000000003"),
        ("99999999999999999999999999.999999999999", "99999999999999999999999999.999999999999"),
    ],
)
def test_amounts_have_all_their_places_written_out(amount: str, rounded: str) -> None:
    assert f"{exact(Decimal(amount)):f}" == rounded


@pytest.mark.parametrize("amount", ["1e26", "1e30", "NaN", "Infinity"])
def test_amount_that_the_records_cannot_hold_is_an_error(amount: str) -> None:
    with pytest.raises(InvalidOperation):
        exact(Decimal(amount))


@pytest.mark.parametrize(
    ("amount", "cause"),
    [
        ("0.0000000000001", "more than 12 decimal places"),
        # More digits than are carried: cut to 38, it would look like whole integers.
        ("12345678901234567890123456.00000000000000000001", "more than 12 decimal places"),
        ("1e26", "more than 26 digits before"),
        ("NaN", "is no amount"),
        ("-Infinity", "is no amount"),
    ],
)
def test_decimal_that_is_no_integer_of_pico_usd_is_refused(amount: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        pico(Decimal(amount))


def test_integer_beyond_the_digits_of_the_records_is_an_error() -> None:
    with pytest.raises(InvalidOperation):
        from_pico(LARGEST + 1)


@settings(**STEADY)
@given(st.integers(0, LARGEST))
def test_amounts_do_not_depend_on_the_context_of_the_process(amount: int) -> None:
    with decimal.localcontext(decimal.Context(prec=3)):
        usd = from_pico(amount)
        assert pico(usd) == amount
        assert Fraction(exact(usd)) == Fraction(amount, 10**12)

"""The rebuilt ledger: one hash and the same sums in whatever order costs come and however often; windows cut exactly."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.budgets import Budget
from penstock.contracts.records import Cost
from penstock.ledger.rebuild import ROLLING, Figures, Ledger, Series, canonical, number_at, span
from penstock.money import bucket_of, window_of

from tests.unit.ledger_costs import cost, costs

BUDGETS = (
    Budget(name="features", per="tag", tag="feature", window="rolling", hours=5, limit=Decimal(1)),
    Budget(name="zoe", per="user", match=("zoë",), window="month", limit=Decimal(1)),
)
ENTRIES = st.lists(costs(), max_size=12).map(
    lambda many: [
        msgspec.structs.replace(one, event_id=str(uuid.UUID(int=n)) if n % 3 else f"producer's own {n}")
        for n, one in enumerate(many)
    ]
)
INSTANTS = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2199, 12, 31), timezones=st.just(UTC))


def ledger_of(entries: list[Cost]) -> Ledger:
    ledger = Ledger(lambda team: BUDGETS)
    for one in entries:
        ledger.add(one)
    return ledger


def everything(ledger: Ledger) -> dict[tuple[Series, int], Figures]:
    return {
        (series, number): ledger.bucket(series, number)
        for series in ledger.series()
        for number in ledger.numbers(series)
    }


@settings(deadline=None, max_examples=50)
@given(entries=ENTRIES, seed=st.integers(0, 2**32))
def test_order_and_repeats_change_neither_hash_nor_sums(entries: list[Cost], seed: int) -> None:
    rng = random.Random(seed)
    shuffled = [*entries, *(entry for entry in entries if rng.random() < 0.5)]
    rng.shuffle(shuffled)
    ledger, again = ledger_of(entries), ledger_of(shuffled)
    assert again.digest() == ledger.digest()
    assert again.totals == ledger.totals
    assert everything(again) == everything(ledger)
    assert (len(again), again.repeats, again.conflicts) == (len(entries), len(shuffled) - len(entries), [])


@settings(deadline=None, max_examples=50)
@given(entries=ENTRIES.filter(len), data=st.data())
def test_any_change_is_another_hash(entries: list[Cost], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    one = entries[index]
    usage = msgspec.structs.replace(one.usage, output_tokens=one.usage.output_tokens + 1)
    change: dict[str, Any] = data.draw(
        st.sampled_from(
            [
                {"amount": (one.amount or Decimal(0)) + Decimal("0.000000000001")}, {"usage": usage}, {"tenant_id": "other"},
                {"price_version": "0" * 16}, {"saved": {**one.saved, "exact_cache": Decimal(1)}}, {"event_id": "another"},
                {"occurred_at": one.occurred_at + timedelta(microseconds=1)},
            ]
        )
    )  # fmt: skip
    other = [*entries[:index], msgspec.structs.replace(one, **change), *entries[index + 1 :]]
    assert ledger_of(other).digest() != ledger_of(entries).digest()
    assert ledger_of(entries[:-1]).digest() != ledger_of(entries).digest()


@settings(deadline=None, max_examples=50)
@given(entries=ENTRIES)
def test_totals_are_the_sum_in_fractions(entries: list[Cost]) -> None:
    ledger = ledger_of(entries)
    assert Fraction(ledger.totals.amount, 10**12) == sum(Fraction(one.amount or 0) for one in entries)
    assert Fraction(ledger.totals.saved, 10**12) == sum(Fraction(a) for one in entries for a in one.saved.values())
    assert ledger.totals.calls == len(entries)
    days: dict[str, int] = {}
    for one in entries:
        days[one.tenant_id] = days.get(one.tenant_id, 0) + 1
    for team, calls in days.items():
        for window in ("day", "month", *ROLLING):
            series = Series(team, window)
            assert sum(ledger.bucket(series, number).calls for number in ledger.numbers(series)) == calls


@settings(deadline=None, max_examples=50)
@given(entries=ENTRIES)
def test_equal_content_is_one_cost_however_it_is_written(entries: list[Cost]) -> None:
    """Another time zone, or fewer zeros, is no other content; another amount is, and the first counts."""
    east = timezone(timedelta(hours=9))
    ledger = ledger_of(entries)
    for one in entries:
        amount = None if one.amount is None else Decimal(format(one.amount.normalize(), "f"))
        same = msgspec.structs.replace(one, occurred_at=one.occurred_at.astimezone(east), amount=amount)
        assert ledger.says(same)
        ledger.add(same)
    assert ledger.conflicts == []
    assert ledger.digest() == ledger_of(entries).digest()
    for one in entries:
        ledger.add(msgspec.structs.replace(one, backend="another"))
    assert ledger.conflicts == [one.event_id for one in entries]
    assert ledger.totals == ledger_of(entries).totals


@settings(deadline=None, max_examples=50)
@given(at=INSTANTS, hours=st.integers(1, 744))
def test_windows_are_those_of_admission(at: datetime, hours: int) -> None:
    """Cut here on their own; the same as those that intake reserves in."""
    for window in ("day", "month", "rolling"):
        budget = Budget(name="b", window=window, hours=hours if window == "rolling" else None, limit=Decimal(1))
        name = budget.window_name
        number = number_at(name, at)
        theirs = window_of(budget, at)
        assert span(name, number) == (theirs.start, theirs.end)
        if window == "rolling":
            assert number == bucket_of(budget, at)
        else:
            assert span(name, number)[0] <= at < span(name, number)[1]
            assert number_at(name, span(name, number)[1]) == number + 1


def test_a_rolling_window_holds_its_bucket_and_24_before() -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    ledger = ledger_of(
        [cost(event_id=f"{n}", accounted_at=start + timedelta(hours=n), amount=Decimal(1)) for n in range(30)]
    )
    series = Series("support", "rolling-24h")
    newest = ledger.numbers(series)[-1]
    assert ledger.at(series, newest).calls == 25
    assert ledger.at(series, newest).usd == Decimal(25)
    assert ledger.at(series, newest - 29).calls == 1


def test_answers_from_a_cache_count_no_tokens() -> None:
    one = cost(event_id="1", kind="cached", amount=Decimal(0), saved={"exact_cache": Decimal("0.5")})
    used = msgspec.structs.replace(one, usage=msgspec.structs.replace(one.usage, input_tokens=7, output_tokens=9))
    figures = ledger_of([used]).totals
    assert figures == Figures(calls=1, cached_calls=1, saved=500_000_000_000)


@pytest.mark.parametrize("amount", ["0.0000000000001", "NaN"])
def test_no_amount_is_rounded(amount: str) -> None:
    ledger = Ledger()
    with pytest.raises((ValueError, ArithmeticError)):
        ledger.add(cost(amount=Decimal(amount)))
    assert (len(ledger), ledger.totals) == (0, Figures())


def test_the_canonical_bytes_are_readable() -> None:
    text = canonical(cost(amount=Decimal("0.5"))).decode()
    assert '"amount":"0.500000000000"' in text
    assert msgspec.json.decode(text)["event_id"] == "e"

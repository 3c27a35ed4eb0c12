"""Counters of hard budgets: how long they are kept, which buckets count, how their keys are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from penstock.config.budgets import Budget
from penstock.money import BUCKETS, Subject, bucket_of, bucket_seconds, counter_key, window_of
from penstock.money.counters import KEPT, Balance, Counter, counter_name, first_bucket, kept_ms

INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
BUDGETS = st.sampled_from(
    [
        Budget(name="day", limit=Decimal(1)),
        Budget(name="month", window="month", limit=Decimal(1)),
        Budget(name="hour", window="rolling", hours=1, limit=Decimal(1)),
        Budget(name="long", window="rolling", hours=744, limit=Decimal(1)),
    ]
)


@given(BUDGETS, INSTANTS, st.text(max_size=20))
def test_a_key_is_the_same_from_its_subject_and_from_its_parts(budget: Budget, at: datetime, value: str) -> None:
    key = counter_name("team", budget.name, window_of(budget, at).id, value)
    assert counter_key("team", Subject(budget, value), at) == key


@given(BUDGETS, INSTANTS, st.timedeltas(timedelta(0), timedelta(days=35)))
def test_the_buckets_that_count_cover_the_window_and_no_more_than_a_bucket_beyond(
    budget: Budget, at: datetime, ago: timedelta
) -> None:
    if budget.hours is None:
        assert first_bucket(budget, at) == bucket_of(budget, at) == 0
        return
    counts = bucket_of(budget, at - ago) >= first_bucket(budget, at)
    length = timedelta(hours=budget.hours)
    if ago <= length:
        assert counts
    if ago >= length + timedelta(seconds=bucket_seconds(budget)):
        assert not counts


@given(BUDGETS, INSTANTS)
def test_a_counter_outlives_every_charge_of_its_window_by_40_days(budget: Budget, at: datetime) -> None:
    kept = timedelta(milliseconds=kept_ms(budget, at, at))
    assert kept >= KEPT
    if budget.hours is None:
        assert at + kept - KEPT <= window_of(budget, at).end
        # Whoever writes later keeps it to the same instant.
        later = at + timedelta(hours=3)
        assert abs(later + timedelta(milliseconds=kept_ms(budget, at, later)) - (at + kept)) <= timedelta(
            milliseconds=1
        )


def test_a_counter_adds_up_its_buckets_and_those_that_count() -> None:
    unit = Decimal("0.000000000001")
    counter = Counter(
        "t", "b", "rolling-24h", "v", {n: Balance(spent=unit * n, reserved=unit) for n in range(BUCKETS + 2)}
    )
    assert (counter.spent, counter.reserved) == (unit * 325, unit * 26)
    assert counter.since(24) == Balance(unit * 49, unit * 2)
    assert counter.since(99) == Balance(Decimal(0), Decimal(0))

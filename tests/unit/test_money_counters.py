"""Counters of hard budgets: how long they are kept, which buckets count, how their keys are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.contracts.records import TeamSpend
from penstock.money import BUCKETS, Subject, bucket_of, bucket_seconds, counter_key, window_of
from penstock.money.balances import balances
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


NOW = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
HARD = Budget(name="hard", limit=Decimal(1))
HARD_HOURS = Budget(name="hours", per="user", window="rolling", hours=24, limit=Decimal(1))
SOFT = Budget(name="soft", per="tag", tag="feature", window="month", limit=Decimal(1), mode="soft")
SOFT_HOURS = Budget(name="soft-hours", window="rolling", hours=24, limit=Decimal(1), mode="soft")
TEAM = Team(name="t", budgets=(HARD, HARD_HOURS, SOFT, SOFT_HOURS))


def a_spend(budget: Budget, amount: str, at: datetime, subject: str | None = None) -> TeamSpend:
    window = window_of(budget, at)
    return TeamSpend(
        event_id="e", request_id="", tenant_id="t", occurred_at=at, causation_id="", window=budget.window_name,
        window_start=window.start, window_end=window.end, amount=Decimal(amount), budget_name=budget.name,
        subject=subject, budget=budget.limit,
    )  # fmt: skip


def shown(counters: list[Counter], spends: list[TeamSpend]) -> list[tuple[str, str | None, str, str | None, str]]:
    return [
        (one.budget.name, one.subject, f"{one.spent:f}", None if one.reserved is None else f"{one.reserved:f}",
         f"{one.left:f}")
        for one in balances([TEAM], counters, spends, NOW)
    ]  # fmt: skip


def test_a_budget_that_nobody_has_spent_of_has_all_of_it_left() -> None:
    none = "0.000000000000"
    assert shown([], []) == [
        ("hard", None, none, none, "1.000000000000"),
        ("hours", None, none, none, "1.000000000000"),
        ("soft", None, none, None, "1.000000000000"),
        ("soft-hours", None, none, None, "1.000000000000"),
    ]


def test_the_present_windows_count_and_others_do_not() -> None:
    part = Balance(Decimal("0.1"), Decimal("0.2"))
    present, past = bucket_of(HARD_HOURS, NOW), bucket_of(HARD_HOURS, NOW) - 25
    counters = [
        Counter("t", "hard", "2026-01-05", "", {0: part}),
        Counter("t", "hard", "2026-01-04", "", {0: Balance(Decimal(1))}),
        Counter("t", "hours", "rolling-24h", "ann", {past: Balance(Decimal(1)), present: part}),
        Counter("t", "hours", "rolling-24h", "", {present: Balance(Decimal(1))}),
        # Of a budget that was defined otherwise then.
        Counter("t", "hours", "rolling-6h", "ann", {present: Balance(Decimal(1))}),
        Counter("other", "hard", "2026-01-05", "", {0: Balance(Decimal(1))}),
    ]
    spends = [
        a_spend(SOFT, "0.9", NOW - timedelta(days=5), "chat"),
        a_spend(SOFT, "0.3", NOW, "chat"),
        a_spend(SOFT, "1.5", NOW, "chat"),
        a_spend(SOFT_HOURS, "0.9", NOW - timedelta(days=3)),
    ]
    assert shown(counters, spends) == [
        ("hard", None, "0.100000000000", "0.200000000000", "0.700000000000"),
        ("hours", "", "1.000000000000", "0.000000000000", "0.000000000000"),
        ("hours", "ann", "0.100000000000", "0.200000000000", "0.700000000000"),
        ("soft", "chat", "1.5", None, "-0.500000000000"),
        ("soft-hours", None, "0.000000000000", None, "1.000000000000"),
    ]
    (rolling,) = [one for one in balances([TEAM], [], [a_spend(SOFT_HOURS, "0.4", NOW - timedelta(hours=20))], NOW)
                  if one.budget is SOFT_HOURS]  # fmt: skip
    assert (rolling.spent, rolling.as_of) == (Decimal("0.4"), NOW - timedelta(hours=20))

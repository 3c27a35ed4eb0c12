"""Which budgets a call counts in, and in which of their windows."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.budgets import Budget
from penstock.money import BUCKETS, Subject, bucket_of, bucket_seconds, counter_key, subjects, window_of

STEADY: dict[str, Any] = {"deadline": None, "derandomize": True}
NEAREST = timedelta(microseconds=1)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(datetime(1999, 1, 1), datetime(2101, 1, 1), timezones=zones)
rolling = st.integers(1, 744).map(lambda length: budget(window="rolling", hours=length))


def budget(**fields: Any) -> Budget:
    return Budget.model_validate({"name": "b", "limit": 1, **fields})


def hours(length: int) -> Budget:
    return budget(window="rolling", hours=length)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


DAY, MONTH = budget(window="day"), budget(window="month")


@pytest.mark.parametrize(
    ("limit", "instant", "id", "start", "end"),
    [
        (DAY, "2026-01-05T00:00:00Z", "2026-01-05", "2026-01-05T00:00Z", "2026-01-06T00:00Z"),
        (DAY, "2026-01-05T23:59:59.999999Z", "2026-01-05", "2026-01-05T00:00Z", "2026-01-06T00:00Z"),
        (DAY, "2024-02-28T23:59:59.999999Z", "2024-02-28", "2024-02-28T00:00Z", "2024-02-29T00:00Z"),
        (DAY, "2024-02-29T12:00:00Z", "2024-02-29", "2024-02-29T00:00Z", "2024-03-01T00:00Z"),
        (DAY, "2026-01-01T01:30:00+02:00", "2025-12-31", "2025-12-31T00:00Z", "2026-01-01T00:00Z"),
        (DAY, "2025-12-31T20:00:00-05:00", "2026-01-01", "2026-01-01T00:00Z", "2026-01-02T00:00Z"),
        (MONTH, "2026-01-31T23:59:59.999999Z", "2026-01", "2026-01-01T00:00Z", "2026-02-01T00:00Z"),
        (MONTH, "2024-02-29T23:59:59.999999Z", "2024-02", "2024-02-01T00:00Z", "2024-03-01T00:00Z"),
        (MONTH, "2023-02-28T23:59:59.999999Z", "2023-02", "2023-02-01T00:00Z", "2023-03-01T00:00Z"),
        (MONTH, "2025-12-31T23:00:00-02:00", "2026-01", "2026-01-01T00:00Z", "2026-02-01T00:00Z"),
        (MONTH, "2026-12-01T00:00:00Z", "2026-12", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        (hours(24), "2026-01-05T10:59:59Z", "rolling-24h", "2026-01-04T10:00Z", "2026-01-05T11:00Z"),
        (hours(24), "2026-01-05T11:00:00Z", "rolling-24h", "2026-01-04T11:00Z", "2026-01-05T12:00Z"),
        (hours(1), "1970-01-02T00:01:00Z", "rolling-1h", "1970-01-01T23:00Z", "1970-01-02T00:02:30Z"),
    ],
)  # fmt: skip
def test_windows_begin_and_end_where_they_should(limit: Budget, instant: str, id: str, start: str, end: str) -> None:
    window = window_of(limit, at(instant))
    assert (window.id, window.start, window.end) == (id, at(start), at(end))


@settings(**STEADY)
@given(instants)
def test_a_day_and_a_month_hold_their_instant_and_tile_time(instant: datetime) -> None:
    utc = instant.astimezone(UTC)
    for limit, length in (
        (DAY, timedelta(days=1)),
        (MONTH, timedelta(days=calendar.monthrange(utc.year, utc.month)[1])),
    ):
        window = window_of(limit, instant)
        assert window.start <= instant < window.end
        assert window.end - window.start == length
        assert window_of(limit, window.start) == window == window_of(limit, window.end - NEAREST)
        assert window_of(limit, window.end).start == window.end
        assert window_of(limit, window.start - NEAREST).end == window.start
        assert bucket_of(limit, instant) == 0


@settings(**STEADY)
@given(instants, rolling)
def test_a_rolling_window_covers_its_hours_and_at_most_a_bucket_more(instant: datetime, limit: Budget) -> None:
    window = window_of(limit, instant)
    assert limit.hours is not None
    length, bucket = timedelta(hours=limit.hours), timedelta(seconds=bucket_seconds(limit))
    assert bucket * BUCKETS == length
    assert window.end - window.start == length + bucket
    assert window.end - bucket <= instant < window.end  # the instant lies in the newest bucket
    assert length <= instant - window.start < length + bucket


@settings(**STEADY)
@given(instants, rolling, st.integers(0, 40 * 86_400_000_000))
def test_calls_count_together_exactly_while_their_buckets_are_in_the_window(
    instant: datetime, limit: Budget, apart_us: int
) -> None:
    earlier = instant - timedelta(microseconds=apart_us)
    window = window_of(limit, instant)
    counted = bucket_of(limit, instant) - bucket_of(limit, earlier) <= BUCKETS
    assert counted == (window.start <= earlier)
    assert limit.hours is not None
    if apart_us <= limit.hours * 3_600_000_000:  # what was spent within the hours before always counts
        assert counted


@settings(**STEADY)
@given(instants, st.sampled_from([DAY, MONTH]) | rolling, zones)
def test_a_window_does_not_depend_on_the_zone_of_the_clock(instant: datetime, limit: Budget, zone: timezone) -> None:
    moved = instant.astimezone(zone)
    assert window_of(limit, moved) == window_of(limit, instant)
    assert bucket_of(limit, moved) == bucket_of(limit, instant)


def test_an_instant_without_a_zone_lies_in_no_window() -> None:
    for limit in (DAY, MONTH, hours(24)):
        with pytest.raises(ValueError, match="no time zone"):
            window_of(limit, datetime(2026, 1, 5))


CALL: dict[str, Any] = {"user": "ada", "key": "k-1", "model": "gpt-4o", "tags": {"feature": "search"}}


@pytest.mark.parametrize(
    ("fields", "call", "value"),
    [
        ({"per": "team"}, {}, ""),
        ({"per": "user"}, {}, "ada"),
        ({"per": "user"}, {"user": None}, ""),
        ({"per": "user", "match": ["ada"]}, {}, "ada"),
        ({"per": "user", "match": ["bob"]}, {}, None),
        ({"per": "user", "match": ["bob"]}, {"user": None}, None),
        ({"per": "user", "match": ["Ada"]}, {}, None),
        ({"per": "user", "match": [""]}, {"user": None}, ""),
        ({"per": "key"}, {}, "k-1"),
        ({"per": "key"}, {"key": None}, ""),
        ({"per": "model"}, {}, "gpt-4o"),
        ({"per": "model", "match": ["gpt-4o", "o1"]}, {"model": "o1"}, "o1"),
        ({"per": "model", "match": ["gpt-4o", "o1"]}, {"model": "o1-mini"}, None),
        ({"per": "tag", "tag": "feature"}, {}, "search"),
        ({"per": "tag", "tag": "feature"}, {"tags": {}}, ""),
        ({"per": "tag", "tag": "feature"}, {"tags": {"other": "x"}}, ""),
        ({"per": "tag", "tag": "feature", "match": ["search"]}, {"tags": {"feature": "chat"}}, None),
    ],
)
def test_a_call_counts_for_what_has_the_budget(fields: dict[str, Any], call: dict[str, Any], value: str | None) -> None:
    limit = budget(**fields)
    expected = [] if value is None else [Subject(limit, value)]
    assert subjects([limit], **{**CALL, **call}) == expected


def test_a_call_counts_in_every_budget_in_their_order() -> None:
    limits = [
        budget(name=per, per=per, tag="feature" if per == "tag" else None) for per in ("tag", "user", "team", "key")
    ]
    assert [(s.budget.name, s.value) for s in subjects(limits, **CALL)] == [
        ("tag", "search"), ("user", "ada"), ("team", ""), ("key", "k-1"),
    ]  # fmt: skip


texts = st.text(st.sampled_from(":{}ab-2"), max_size=6)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,5}", fullmatch=True)
counters = st.tuples(
    names, names, texts, st.sampled_from([("day", None), ("month", None), ("rolling", 24), ("rolling", 48)])
)


@settings(**STEADY)
@given(counters, counters)
def test_counters_of_different_budgets_and_subjects_never_share_a_key(one: Any, other: Any) -> None:
    def key(team: str, name: str, value: str, window: tuple[str, int | None]) -> str:
        limit = budget(name=name, per="user", window=window[0], hours=window[1])
        return counter_key(team, Subject(limit, value), at("2026-01-05T10:00:00Z"))

    assert (key(*one) == key(*other)) == (one == other)

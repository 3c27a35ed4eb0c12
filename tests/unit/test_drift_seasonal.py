"""Months of office hours: that Monday morning is no drift, and that what is none of its season is still seen.

The rhythm: on weekdays from 8 to 18 there are seven times as many events as at night, at another level or rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.drift.detection.scalar import ScalarParameters, ScalarState, observe
from services.drift.detection.seasonal import Profile, adjusted, expected, phase
from services.drift.detection.shift import Shift

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = 168
Scale = Literal["rate", "score", "amount"]


def busy(hour: int) -> bool:
    return hour % WEEK < 120 and 8 <= hour % 24 < 18


def traffic(seed: int, weeks: float, a_busy_hour: float = 20) -> Iterator[tuple[int, datetime]]:
    """(hour, instant) of each event."""
    rng = np.random.default_rng(seed)
    for hour in range(int(weeks * WEEK)):
        count = rng.poisson(a_busy_hour if busy(hour) else a_busy_hour / 7)
        for within in np.sort(rng.random(count)):
            yield hour, MONDAY + timedelta(hours=hour + float(within))


def levels(
    seed: int, weeks: float, amplitude: float, shift: float = 0.0, since: int = 1 << 30
) -> Iterator[tuple[int, datetime, float]]:
    rng = np.random.default_rng([seed, 1])
    for hour, at in traffic(seed, weeks):
        yield hour, at, float(rng.normal()) + amplitude * busy(hour) + shift * (hour >= since)


def rates(
    seed: int, weeks: float, at_work: float, else_: float, shift: float = 0.0, since: int = 1 << 30
) -> Iterator[tuple[int, datetime, float]]:
    rng = np.random.default_rng([seed, 2])
    for hour, at in traffic(seed, weeks):
        share = (at_work if busy(hour) else else_) + shift * (hour >= since)
        yield hour, at, float(rng.random() < share)


def left(
    values: Iterator[tuple[int, datetime, float]], scale: Scale = "score"
) -> tuple[list[tuple[int, float]], Profile]:
    profile: Profile | None = None
    found = []
    for hour, at, value in values:
        profile, adjusted_value = adjusted(profile, value, at, scale=scale)
        found.append((hour, adjusted_value))
    assert profile is not None
    return found, profile


def means(found: list[tuple[int, float]], since: int, until: int) -> tuple[float, float]:
    """Mean of the busy and of the other hours."""
    values = [(busy(hour), value) for hour, value in found if since <= hour < until]
    at_work = [value for is_busy, value in values if is_busy]
    other = [value for is_busy, value in values if not is_busy]
    return float(np.mean(at_work)), float(np.mean(other))


@pytest.mark.parametrize("amplitude", [0.5, 1.0, 3.0])
def test_from_the_second_week_on_office_hours_are_like_others(amplitude: float) -> None:
    found, profile = left(levels(1, 6, amplitude))
    assert phase(profile) == "hour of week"
    at_work, other = means(found, 2 * WEEK, 6 * WEEK)
    assert abs(at_work - other) < 0.25 * amplitude
    # The figures stay in the signal's units, at the level of an average value.
    plain = [value for _, _, value in levels(1, 6, amplitude)]
    assert np.mean([value for _, value in found]) == pytest.approx(np.mean(plain), abs=0.1)


def test_from_the_second_day_on_the_hour_of_the_day_is_known() -> None:
    found, profile = left(levels(2, 4 / 7, 3.0))
    assert phase(profile) == "hour of day"
    first, rest = means(found, 0, 24), means(found, 48, 96)
    assert first[0] - first[1] > 2.5
    assert rest[0] - rest[1] < 1.0


def test_the_first_day_is_as_it_is() -> None:
    values = list(levels(3, 1 / 7, 3.0))
    found, profile = left(iter(values))
    assert [value for _, value in found] == [value for _, _, value in values]
    assert phase(profile) == phase(None) == "none"


def test_a_rate_stays_one_and_loses_its_rhythm() -> None:
    found, _ = left(rates(4, 8, 0.3, 0.1), "rate")
    assert {value for _, value in found} == {0.0, 1.0}
    at_work, other = means(found, 3 * WEEK, 8 * WEEK)
    assert abs(at_work - other) < 0.07


def test_a_number_without_a_season_is_left_alone() -> None:
    rng = np.random.default_rng(5)
    profile: Profile | None = None
    differences = []
    for hour, at in traffic(5, 6):
        value = float(rng.normal())
        profile, adjusted_value = adjusted(profile, value, at)
        if hour >= WEEK:
            differences.append(adjusted_value - value)
    assert float(np.std(differences)) < 0.1


@pytest.mark.parametrize(("since", "name"), [(4 * WEEK + 34, "Tuesday, 10"), (4 * WEEK + 26, "Tuesday, 2")])
def test_a_shift_in_the_middle_of_a_season_is_all_there(since: int, name: str) -> None:
    shifted, _ = left(levels(6, 6, 1.0, 1.0, since))
    usual, _ = left(levels(6, 6, 1.0))
    gained = [a - b for (hour, a), (_, b) in zip(shifted, usual, strict=True) if since <= hour < since + 24]
    assert np.mean(gained) == pytest.approx(1.0, abs=0.05), name
    # And a week later, with a week of the new state learned, most of it is.
    later = [a - b for (hour, a), (_, b) in zip(shifted, usual, strict=True) if hour >= since + WEEK]
    assert np.mean(later) > 0.7


def test_a_rate_that_doubles_at_work_is_seen_at_work() -> None:
    since = 4 * WEEK + 34
    found, _ = left(rates(7, 5, 0.3, 0.1, 0.3, since), "rate")
    before = [value for hour, value in found if since - WEEK <= hour < since]
    after = [value for hour, value in found if since <= hour < since + 8]
    assert np.mean(after) > np.mean(before) + 0.15


def test_a_change_of_level_in_the_first_week_does_not_become_a_season() -> None:
    """It looks like one: half of the week is higher than the other. The second week does not repeat it."""
    found, _ = left(levels(8, 4, 0.0, 1.0, 84))
    days = [np.mean([v for hour, v in found if day <= hour < day + 24]) for day in range(2 * WEEK, 4 * WEEK, 24)]
    assert float(np.std(days)) < 0.25


def alarms(values: Iterator[tuple[int, datetime, float]], scale: Scale, seasonal: bool) -> list[tuple[int, Shift]]:
    profile: Profile | None = None
    state, found = ScalarState(), []
    for offset, (hour, at, value) in enumerate(values):
        seen = value
        if seasonal:
            profile, seen = adjusted(profile, value, at, scale=scale)
        state, shift = observe(state, seen, offset, ScalarParameters(), 2e-5, scale=scale)
        if shift is not None:
            found.append((hour, shift))
    return found


@pytest.mark.parametrize(("scale", "least"), [("score", 20), ("rate", 4)])
def test_monday_morning_is_no_drift(scale: Scale, least: int) -> None:
    """Two months twice over, 21,000 values: from the third week on next to no alarm, and tens without the profile."""
    plain = known = 0
    for seed in (21, 22):
        for seasonal in (False, True):
            values = rates(seed, 8, 0.3, 0.1) if scale == "rate" else levels(seed, 8, 1.0)
            late = sum(hour >= 2 * WEEK for hour, _ in alarms(values, scale, seasonal))
            plain, known = (plain, known + late) if seasonal else (plain + late, known)
    assert plain >= least
    assert known <= 2


def test_a_real_shift_on_a_monday_morning_is_found_and_told_in_the_signals_units() -> None:
    since = 4 * WEEK + 8
    hours, levels_after = [], []
    for seed in range(31, 36):
        values = list(levels(seed, 5, 1.0, 1.0, since))
        late = [(hour, shift) for hour, shift in alarms(iter(values), "score", True) if hour >= since]
        assert late, seed
        hours.append(late[0][0] - since)
        levels_after.append(late[0][1].after["mean"])
    assert max(hours) <= 4
    # The level of an average value of this traffic is 0.75, and 1.75 since.
    assert float(np.median(levels_after)) == pytest.approx(1.75, abs=0.35)


def test_outliers_teach_little() -> None:
    calm, profile = left(levels(9, 3, 1.0))

    def spiked() -> Iterator[tuple[int, datetime, float]]:
        for number, (hour, at, value) in enumerate(levels(9, 3, 1.0)):
            yield hour, at, value + (50.0 if number % 97 == 0 else 0.0)

    _, wild = left(spiked())
    at = MONDAY + timedelta(weeks=3)
    difference = [
        expected(wild, at + timedelta(hours=h)) - expected(profile, at + timedelta(hours=h)) for h in range(168)
    ]
    assert float(np.abs(difference).mean()) < 0.6
    assert calm


def test_clocks_that_change_are_followed() -> None:
    def summer() -> Iterator[tuple[int, datetime, float]]:
        for hour, at, value in levels(10, 12, 2.0):
            yield hour, at - timedelta(hours=1 if hour >= 6 * WEEK else 0), value

    found, _ = left(summer())
    at_work, other = means(found, 10 * WEEK, 12 * WEEK)
    assert abs(at_work - other) < 0.4


def test_it_is_the_hour_in_utc_whatever_zone_the_instant_is_in() -> None:
    zone = timezone(timedelta(hours=9))
    _, here = left(levels(11, 2, 1.0))
    _, there = left((hour, at.astimezone(zone), value) for hour, at, value in levels(11, 2, 1.0))
    assert here == there


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        adjusted(None, value, MONDAY)
    with pytest.raises(ValueError, match="time zone"):
        adjusted(None, 1.0, datetime(2026, 1, 5))


def test_a_profile_is_small_and_a_new_one_next_to_nothing() -> None:
    _, profile = left(levels(12, 4, 1.0))
    assert len(msgspec.msgpack.encode(profile)) < 1500
    young, _ = adjusted(None, 1.0, MONDAY)
    assert len(msgspec.msgpack.encode(young)) < 200


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(-48 * 60, 400 * 60)), min_size=1, max_size=120),
    st.sampled_from(["score", "amount"]),
)
def test_any_numbers_in_any_order_of_time(values: list[tuple[float, int]], scale: Scale) -> None:
    """Finite in, finite out; what is stored goes on as if nothing had happened; the argument is not changed."""
    profile: Profile | None = None
    for value, minutes in values:
        at = MONDAY + timedelta(minutes=minutes)
        before = msgspec.msgpack.encode(profile)
        following, found = adjusted(profile, value, at, scale=scale)
        assert math.isfinite(found)
        assert math.isfinite(expected(following, at))
        assert msgspec.msgpack.encode(profile) == before
        if profile is not None:
            restored = msgspec.msgpack.decode(before, type=Profile)
            assert adjusted(restored, value, at, scale=scale) == (following, found)
        profile = msgspec.json.decode(msgspec.json.encode(following), type=Profile)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 1), st.floats(0, 1))
def test_any_rate_stays_a_rate(seed: int, at_work: float, else_: float) -> None:
    found, _ = left(rates(seed, 1.5, at_work, else_), "rate")
    assert {value for _, value in found} <= {0.0, 1.0}

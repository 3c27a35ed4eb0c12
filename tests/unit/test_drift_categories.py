"""Drift of categories: what is found, how it is told, and what a state keeps whatever comes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.drift.detection.categories import (
    CategoryParameters,
    CategoryState,
    inherited,
    observe,
    rebased,
    shares_of,
    stability_index,
)
from services.drift.detection.category_scan import Scatter
from services.drift.detection.category_windows import HASHED, NAMES, added, named, suffixes
from services.drift.detection.shift import Shift

PARAMETERS = CategoryParameters()
ALLOWANCE = 2e-5
LANGUAGES = {"en": 0.9, "de": 0.05, "fr": 0.03, "es": 0.02}
MORE_GERMAN = {"en": 0.6, "de": 0.35, "fr": 0.03, "es": 0.02}


def draw(seed: int | Sequence[int], shares: dict[str, float], count: int) -> list[str]:
    total = sum(shares.values())
    rng = np.random.default_rng(seed)
    return [str(name) for name in rng.choice(list(shares), size=count, p=[share / total for share in shares.values()])]


def run(
    categories: Iterable[str], state: CategoryState | None = None, allowance: float = ALLOWANCE, start: int = 0
) -> tuple[CategoryState, list[tuple[int, Shift]]]:
    """State at the end, and each shift with the number of the event that confirmed it; offsets are ten times that."""
    state, found = state or CategoryState(), []
    for number, category in enumerate(categories, start):
        state, shift = observe(state, category, 10 * number, PARAMETERS, allowance)
        if shift is not None:
            found.append((number, shift))
    return state, found


def test_a_language_that_becomes_frequent_is_told_with_its_shares() -> None:
    _, ((number, shift),) = run(draw(1, LANGUAGES, 1000) + draw(2, MORE_GERMAN, 300))
    assert 1000 < number < 1080
    assert (shift.what, shift.pattern, shift.returned) == ("mixture", "abrupt", False)
    assert shift.before["de"] == pytest.approx(0.05, abs=0.03)
    assert shift.after["de"] > 0.2
    assert next(iter(shift.before)) == "en"
    assert sum(shift.before.values()) == pytest.approx(1.0)
    assert sum(shift.after.values()) == pytest.approx(1.0)
    assert shift.statistic >= shift.threshold == pytest.approx(-math.log(shift.alpha))
    assert shift.size == pytest.approx(0.3, abs=0.2)
    # Ten offsets an event, the first 24 of which chose the cells.
    assert shift.reference_first_offset == 240
    assert abs(shift.test_first_offset - 10_000) < 300
    assert shift.before_count + 24 == pytest.approx(1000, abs=30)
    assert shift.before_count + shift.after_count + 24 == number + 1


def test_a_category_that_was_never_there_is_found_within_a_few_events() -> None:
    delays = []
    for seed in range(5):
        after = {**{name: 0.7 * share for name, share in LANGUAGES.items()}, "zh": 0.3}
        _, found = run(draw([seed, 3], LANGUAGES, 1000) + draw([seed, 4], after, 300))
        assert found, seed
        delays.append(found[0][0] - 1000)
        # It has no cell of its own yet: it is among the others.
        assert found[0][1].after["other"] > 0.2
    assert float(np.median(delays)) < 30


def test_what_was_never_there_has_a_name_from_then_on() -> None:
    after = {**LANGUAGES, "zh": 0.4}
    state, found = run(draw(5, LANGUAGES, 1000) + draw(6, after, 500))
    assert len(found) == 1
    assert shares_of(state)["zh"] == pytest.approx(0.4 / 1.4, abs=0.08)


def test_the_baseline_that_returns_is_told_as_such() -> None:
    returned = again = 0
    for seed in range(6):
        events = draw([seed, 7], LANGUAGES, 1000) + draw([seed, 8], MORE_GERMAN, 600)
        events += draw([seed, 9], LANGUAGES, 600) + draw([seed, 10], MORE_GERMAN, 500)
        _, found = run(events)
        told = [(shift.pattern, shift.returned) for _, shift in found]
        assert len(told) == 3
        assert not told[0][1]
        assert not told[2][1]
        returned += told[1] == ("recurring", True)
        again += told[2] == ("recurring", False)
    assert returned >= 5
    assert again >= 4


def test_a_burst_that_is_over_is_one_outlier_and_no_new_reference() -> None:
    outliers = 0
    for seed in range(6):
        state, found = run(draw([seed, 11], LANGUAGES, 1000) + ["??"] * 10 + draw([seed, 12], LANGUAGES, 1000))
        assert len(found) <= 1
        outliers += [shift.pattern for _, shift in found] == ["outlier"]
        assert "??" not in shares_of(state)
    assert outliers >= 4


def test_a_slow_change_is_found_and_told_as_gradual_when_it_goes_on() -> None:
    rng = np.random.default_rng(13)
    ramp = ["de" if rng.random() < 0.05 + 0.9 * step / 600 else "en" for step in range(600)]
    _, found = run(draw(14, {"en": 0.95, "de": 0.05}, 1000) + ramp)
    assert len(found) >= 2
    assert all(number > 1000 for number, _ in found)
    assert "gradual" in [shift.pattern for _, shift in found]


@pytest.mark.parametrize("stay", [2, 4])
def test_conversations_that_stay_in_their_language_are_no_drift(stay: int) -> None:
    rng = np.random.default_rng(15)
    events: list[str] = []
    for first in draw(16, LANGUAGES, 4000):
        events += [first] * (1 + rng.geometric(1 / stay))
    _, found = run(events[:6000])
    assert found == []


def test_nothing_is_told_without_an_allowance() -> None:
    state, found = run(draw(17, LANGUAGES, 500) + draw(18, {"zh": 1.0}, 500), allowance=0.0)
    assert found == []
    assert state.wealth == 0


@pytest.mark.parametrize("allowance", [-1e-9, math.nan, math.inf])
def test_an_allowance_that_is_none_is_refused(allowance: float) -> None:
    with pytest.raises(ValueError, match="expected number of false alarms"):
        observe(CategoryState(), "en", 0, PARAMETERS, allowance)


def test_what_was_spent_and_what_is_left_is_what_was_allowed() -> None:
    """Alpha is taken out of the wealth whatever becomes of the candidate: never more than was allowed."""
    events = draw(19, {f"c{n}": 1 / (n + 1) for n in range(40)}, 4000)
    state, spent = CategoryState(), 0.0
    for number, category in enumerate(events):
        before = state.wealth
        state, _ = observe(state, category, number, PARAMETERS, ALLOWANCE)
        assert 0 <= state.wealth <= before + ALLOWANCE + 1e-15
        spent += before + ALLOWANCE - state.wealth
    assert spent + state.wealth == pytest.approx(4000 * ALLOWANCE)


def test_the_present_becomes_the_reference_on_command() -> None:
    state, _ = run(draw(20, LANGUAGES, 1000) + draw(21, MORE_GERMAN, 12))
    state = rebased(state)
    assert state.regimes == ()
    assert state.pending is None
    assert sum(shares_of(state).values()) == pytest.approx(1.0)
    state, found = run(draw(22, MORE_GERMAN, 1000), rebased(run(draw(23, MORE_GERMAN, 200))[0]), start=200)
    assert found == []
    assert rebased(CategoryState()) == CategoryState()


def test_a_release_is_compared_with_the_one_before() -> None:
    old, _ = run(draw(24, LANGUAGES, 2000))
    new = inherited(old)
    assert shares_of(new) == shares_of(old)
    assert new.wealth == 0
    _, same = run(draw(25, LANGUAGES, 400), new)
    _, other = run(draw(26, MORE_GERMAN, 400), new)
    assert same == []
    assert other[0][0] < 80
    assert inherited(CategoryState()) == CategoryState()


def test_a_state_is_restored_exactly() -> None:
    events = draw(27, LANGUAGES, 700) + draw(28, MORE_GERMAN, 300)
    whole, _ = run(events)
    state = CategoryState()
    for number, category in enumerate(events):
        state, _ = observe(state, category, 10 * number, PARAMETERS, ALLOWANCE)
        if number % 97 == 0:
            encoded = msgspec.msgpack.encode(state)
            state = msgspec.msgpack.decode(encoded, type=CategoryState)
            assert msgspec.msgpack.encode(state) == encoded
            state = msgspec.json.decode(msgspec.json.encode(state), type=CategoryState)
    assert state == whole


def test_a_state_is_small_however_long_the_stream_and_the_names() -> None:
    events = draw(29, {f"{n:04d}{'x' * 200}": 1 / (n + 1) for n in range(1000)}, 20_000)
    state, _ = run(events)
    assert len(msgspec.msgpack.encode(state)) < 24_000
    few, _ = run(draw(30, LANGUAGES, 20_000))
    assert len(msgspec.msgpack.encode(few)) < 4_000


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(["a", "b", "c"]), st.text(max_size=5)), max_size=400),
    st.floats(0, 1e-2),
)
def test_any_categories(events: list[str], allowance: float) -> None:
    state = CategoryState()
    for number, category in enumerate(events):
        before = msgspec.msgpack.encode(state)
        following, shift = observe(state, category, number, PARAMETERS, allowance)
        assert msgspec.msgpack.encode(state) == before
        assert observe(state, category, number, PARAMETERS, allowance) == (following, shift)
        if shift is not None:
            assert sum(shift.before.values()) == pytest.approx(1.0)
            assert sum(shift.after.values()) == pytest.approx(1.0)
            assert 0 <= shift.reference_first_offset <= shift.test_first_offset <= number
            assert 0 < shift.alpha <= 1
        state = following
    assert state.seen == len(events)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=900), st.integers(1, 400))
def test_windows_hold_the_newest_events(events: list[str], reference: int) -> None:
    windows = named(["a", "b", "c"])
    for number, category in enumerate(events):
        windows, _ = added(windows, category, 5 * number)
    assert windows.weight == len(events) == windows.totals.sum()
    found = suffixes(windows, max(len(events) - reference, 0))
    for size, counts, first in zip(found.sizes, found.counts, found.first_offsets, strict=True):
        newest = events[len(events) - int(size) :]
        assert [counts[cell] for cell in range(3)] == [newest.count(name) for name in windows.names]
        assert counts.sum() == size
        assert first == 5 * (len(events) - int(size))


def test_no_more_than_32_names_have_a_cell() -> None:
    windows = named([f"c{n}" for n in range(100)])
    assert len(windows.names) == NAMES
    windows, _ = added(windows, "never seen", 0)
    assert windows.totals[NAMES:].sum() == 1
    assert len(windows.totals) == NAMES + HASHED


def test_the_stability_index_is_0_for_the_same_and_grows_with_the_difference() -> None:
    before = np.array([900.0, 100.0])
    assert stability_index(before, np.array([90.0, 10.0])) == pytest.approx(0.0, abs=1e-3)
    # By hand: (0.7 - 0.9) ln(0.7 / 0.9) + (0.3 - 0.1) ln(0.3 / 0.1).
    expected = -0.2 * math.log(0.7 / 0.9) + 0.2 * math.log(3)
    assert stability_index(before, np.array([7000.0, 3000.0])) == pytest.approx(expected, rel=0.01)


def test_repetitions_are_told_from_a_mixture_of_one() -> None:
    # Of a category that is nearly always the same, repetitions are what chance gives.
    assert Scatter(repeats=998, events=1000, chances=998).repetition < 0.3
    assert Scatter(repeats=998, events=1000, chances=500).repetition > 0.9
    assert Scatter(repeats=500, events=1000, chances=500).repetition < 0.01

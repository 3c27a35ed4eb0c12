"""How long a request will be under way, from its queue."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.queueing import FREE, STARTUP_GAIN, Epoch, Standing, estimate, late_reason, too_long

S = 1_000_000
NOW = 1_000_000 * S


def an_epoch(rate: float, length: float, *, age_s: float = 1.0, busy_s: float = 2.0) -> Epoch:
    return Epoch(round(NOW - age_s * S), round(rate * busy_s), round(busy_s * S), round(length * busy_s * S))


FULL = an_epoch(100, 500)
"""100 a second while 500 stood there: each took 5 s."""


def standing(own: int = 1, teams: int = 1, same: int | None = None, before: int = 0, **changes: Any) -> Standing:
    fields: dict[str, Any] = {"base_us": S // 10, "epochs": [FULL]}
    return Standing(
        True, True, own, teams, own if same is None else same, before, NOW, **{"last_us": NOW, **fields, **changes}
    )


def test_of_a_queue_that_served_nobody_yet_nothing_is_known() -> None:
    assert estimate(standing(10_000, epochs=[])) is None
    assert estimate(standing(10_000, epochs=[an_epoch(100, 500, age_s=601)])) is None


def test_the_last_of_a_full_queue_waits_for_all_of_it_at_the_rate_of_the_epochs_in_which_it_was_full() -> None:
    # In the last one it was not.
    expected = estimate(standing(400, epochs=[an_epoch(60, 500), an_epoch(140, 500), an_epoch(300, 6)]))
    assert expected is not None
    assert (expected.ahead, expected.took_us, expected.measured) == (399, 4_800_000, True)
    # Nobody's is there sooner than one's that waits for nobody.
    alone = estimate(standing(1, base_us=S))
    assert alone is not None
    assert alone.took_us == 1_200_000


def test_a_queue_whose_requests_miss_their_deadlines_is_full_however_short_it_is() -> None:
    seen = an_epoch(10, 30)
    assert estimate(standing(30, base_us=0, epochs=[seen])) is None
    missed = dataclasses.replace(seen, missed=2)
    expected = estimate(standing(30, base_us=0, epochs=[missed]))
    assert expected is not None
    assert (expected.rate, expected.measured) == (10, True)
    # One in twenty says nothing of the others.
    assert estimate(standing(30, base_us=0, epochs=[dataclasses.replace(seen, missed=1)])) is None


@pytest.mark.parametrize(
    ("seen", "ahead"),
    [
        # One of a team that has no other: a turn of each of the five teams.
        (standing(1, teams=5, same=2000), 4),
        (standing(7, teams=5, same=2000), 34),
        # Its own is nearly all there is.
        (standing(1990, teams=5, same=2000), 1999),
        # Classes that go first go whole.
        (standing(1, teams=2, same=300, before=100), 101),
    ],
)
def test_teams_take_turns_and_classes_go_one_after_another(seen: Standing, ahead: int) -> None:
    expected = estimate(seen)
    assert expected is not None
    assert expected.ahead == ahead


@given(
    st.integers(1, 5000), st.integers(1, 50), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 3),
    st.lists(st.tuples(st.floats(0.5, 500), st.floats(1, 5000)), min_size=1, max_size=10),
)  # fmt: skip
def test_more_in_the_queue_never_takes_less_and_turns_never_more_than_all(
    own: int, teams: int, others: int, before: int, more: int, seen: list[tuple[float, float]]
) -> None:
    epochs = [an_epoch(rate, length) for rate, length in seen]
    first = estimate(standing(own, teams, own + others, before, epochs=epochs))
    second = estimate(standing(own + more, teams, own + more + others, before, epochs=epochs))
    if first is None:
        assert before + own <= FREE
        return
    assert second is not None
    assert second.took_us >= first.took_us - 1
    assert first.ahead < before + own + others


def test_a_queue_that_never_was_full_lets_some_in_and_is_thought_to_serve_more() -> None:
    """Three that were served at once in 100 ms each: 30 a second, of how many nobody knows."""
    calm = [an_epoch(30, 3)]
    assert estimate(standing(FREE, epochs=calm)) is None
    expected = estimate(standing(1000, epochs=calm))
    assert expected is not None
    assert not expected.measured
    assert expected.rate == pytest.approx(30 * STARTUP_GAIN)
    late = too_long(expected, 2 * S, S // 10)
    assert late is not None
    # More is known in a moment: it is not told to come after all of them.
    assert late.wait_us == S
    assert late.estimate_ms == pytest.approx(1.2e6 / (30 * STARTUP_GAIN), abs=1)


def test_one_is_refused_only_where_the_queue_outlasts_its_deadline_and_told_when_it_would_fit() -> None:
    expected = estimate(standing(400))
    assert expected is not None
    assert too_long(expected, 4_800_000, S // 10) is None
    late = too_long(expected, 3 * S, S // 10)
    assert late is not None
    assert (late.ahead, late.estimate_ms, late.left_ms, late.wait_us) == (399, 4800, 3000, 1_800_000)
    assert late_reason(late, 1800) == (
        "399 requests are ahead of it: its answer is expected within 4.8 s, and its deadline is in 3.0 s; send it again in "
        "1.800 s, or with a later one"
    )
    # One that nobody is ahead of waits for nobody.
    alone = estimate(standing(1, base_us=S))
    assert alone is not None
    assert too_long(alone, S // 2, S) is None


def test_a_queue_that_stands_still_is_thought_slower_by_as_long_as_it_does() -> None:
    moving, still = estimate(standing(400)), estimate(standing(400, last_us=NOW - 60 * S))
    assert moving is not None
    assert still is not None
    assert still.took_us == pytest.approx(6 * moving.took_us)
    # Where one answer takes a minute, a minute without one is nothing to be told by.
    slow = [an_epoch(0.5, 100, busy_s=60)]
    patient = estimate(standing(400, base_us=60 * S, last_us=NOW - 60 * S, epochs=slow))
    assert patient is not None
    assert patient.took_us == 960 * S

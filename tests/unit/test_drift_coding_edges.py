"""Codings of numbers that are few, rounded or enormous."""

from __future__ import annotations

import numpy as np
import pytest

from services.drift.detection.coding import Scale, coding_of
from services.drift.detection.scalar import ScalarParameters, ScalarState, observe

_PARAMETERS = ScalarParameters()


def _found(values: np.ndarray, scale: Scale = "score") -> tuple[list[int], ScalarState]:
    state, found = ScalarState(), []
    for index, value in enumerate(values):
        state, shift = observe(state, float(value), index, _PARAMETERS, 2e-5, scale=scale)
        if shift is not None:
            found.append(index)
    return found, state


def test_a_usual_value_is_still_the_usual_one_when_the_coding_is_chosen_anew() -> None:
    # About as many of the first 40 values are the same as make a rate: some streams become one at 128 values only, with
    # a location that was rounded.
    rates, found = 0, 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        stream = np.where(rng.random(500) < 0.85, 0.3, rng.random(500))
        alarms, state = _found(stream)
        found += len(alarms)
        if state.coding is not None and state.coding.rate:
            rates += 1
            assert state.coding.coded(state.coding.standard(0.3)) == 0.0
            assert state.coding.coded(state.coding.standard(0.31)) == 1.0
    assert rates >= 5
    assert found <= 1


@pytest.mark.parametrize(("first", "then"), [((1, 2), (1, 9)), ((2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1), (5,))])
def test_a_value_that_was_never_there_is_seen_beside_two_that_were(
    first: tuple[int, ...], then: tuple[int, ...]
) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found, _ = _found(np.r_[rng.choice(first, 600), rng.choice(then, 200)])
        assert [index for index in found if 600 <= index < 660]


def test_the_largest_floats_are_summed() -> None:
    rng = np.random.default_rng(1)
    found, state = _found(rng.choice([-1, 1], 400) * rng.random(400) * 1.7e308)
    assert state.coding is not None
    assert found == []


def test_zeros_and_ones_are_a_rate_of_ones_whichever_is_more_frequent() -> None:
    mostly_ones = coding_of([1.0] * 38 + [0.0] * 2, "score")
    assert mostly_ones.rate
    assert mostly_ones.location == 0.0

"""Properties of the detector of numbers that hold for any values."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.drift.detection.coding import Array, code, coding_of, scale_of
from services.drift.detection.scalar import ScalarState, observe
from tests.unit.test_drift_scalar import ALLOWANCE, PARAMETERS, run


@st.composite
def streams(draw: st.DrawFn) -> Array:
    """Return a stream with a change of level and of spread, of one of four kinds."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    before, after = draw(st.integers(80, 400)), draw(st.integers(40, 200))
    kind = draw(st.sampled_from(["normal", "lognormal", "rate", "constant"]))
    shift, factor = draw(st.sampled_from([0.0, 1.0, 5.0])), draw(st.sampled_from([1.0, 2.0]))
    if kind == "rate":
        shares = np.repeat([0.1, 0.1 + shift / 10], [before, after])
        return (rng.random(before + after) < shares).astype(np.float64)
    values: Array = rng.normal(0, 1, before + after) * np.repeat([1.0, factor], [before, after])
    values += np.repeat([0.0, shift], [before, after])
    if kind == "lognormal":
        values = np.exp(values)
    if kind == "constant":
        values[:before] = 3.0
    return values


@settings(max_examples=25, deadline=None)
@given(streams())
def test_a_state_that_went_through_the_changelog_at_every_step_gives_the_same(values: Array) -> None:
    scale = scale_of(values.tolist())
    direct, expected = run(values)
    state, found = ScalarState(), []
    for index, value in enumerate(values.tolist()):
        stored = msgspec.msgpack.encode(state)
        restored = msgspec.msgpack.decode(stored, type=ScalarState)
        state, shift = observe(restored, value, index * 2, PARAMETERS, ALLOWANCE, scale=scale)
        # What was given is as it was.
        assert msgspec.msgpack.encode(restored) == stored
        if shift is not None:
            found.append((index, shift))
    assert found == expected
    assert state == direct
    assert msgspec.json.decode(msgspec.json.encode(state), type=ScalarState) == state


@settings(max_examples=25, deadline=None)
@given(values=streams(), exponent=st.integers(-20, 20), shift=st.sampled_from([0.0, 1.0, -64.0]))
def test_unit_and_origin_of_a_score_do_not_matter(values: Array, exponent: int, shift: float) -> None:
    # Steps of 2^-16 and factors that are powers of two, so that the arithmetic itself is exact.
    values = np.round(values * 2**16) / 2**16
    if set(values) <= {0.0, 1.0}:
        values += 2  # zeros and ones are a rate under any scale, two other values are not
    other = (values + shift) * 2.0**exponent
    _, found = run(values, scale="score")
    _, moved = run(other, scale="score")
    assert [(index, shift.what, shift.pattern) for index, shift in found] == [
        (index, shift.what, shift.pattern) for index, shift in moved
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        observe(ScalarState(), value, 0, PARAMETERS, ALLOWANCE, scale="score")


def test_a_rate_that_is_neither_zero_nor_one_is_refused() -> None:
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        observe(ScalarState(), 0.5, 0, PARAMETERS, ALLOWANCE, scale="rate")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=PARAMETERS.warm_up, max_size=60))
def test_any_finite_values_are_taken(values: list[float]) -> None:
    run(np.array(values), scale="score")


@settings(max_examples=50, deadline=None)
@given(streams())
def test_one_value_is_coded_as_many_are(values: Array) -> None:
    coding = coding_of(values[:60].tolist(), "score")
    standard = np.array([coding.standard(value) for value in values.tolist()])
    assert [coding.coded(value) for value in standard.tolist()] == pytest.approx(code(standard, coding).tolist())


def test_a_lognormal_is_coded_as_the_normal_it_comes_from() -> None:
    values = np.random.default_rng(1).lognormal(2, 1, 4000)
    coding = coding_of(values.tolist(), "score")
    codes = code(np.array([coding.standard(value) for value in values]), coding)
    assert coding.g == pytest.approx(1, abs=0.1)
    assert float(np.mean(codes)) == pytest.approx(0, abs=0.1)
    assert float(np.std(codes)) == pytest.approx(1, abs=0.1)


def test_only_zeros_and_ones_are_a_rate() -> None:
    assert scale_of([0, 1.0, 1, 0.0]) == "rate"
    assert scale_of([0, 1, 0.5]) == "score"
    assert coding_of([0.0, 1.0] * 20, "score").rate
    assert coding_of([7.0] * 38 + [7.5, 9.0], "score").rate
    assert not coding_of([1.0, 2.0, 3.0, 4.0] * 10, "score").rate

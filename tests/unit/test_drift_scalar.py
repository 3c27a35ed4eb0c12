"""Drift of numbers, pure: it finds changes of level and spread, keeps quiet without one, and its state survives anything."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from river import drift

from services.drift.scalar import ScalarParameters, ScalarShift, ScalarState, observe

PARAMETERS = ScalarParameters()
Values = npt.NDArray[np.float64]


def run(
    values: Values, state: ScalarState | None = None, watch_spread: bool = True
) -> tuple[ScalarState, list[tuple[int, ScalarShift]]]:
    state = state or ScalarState()
    shifts = []
    for index, value in enumerate(values):
        state, shift = observe(state, float(value), index * 2, PARAMETERS, watch_spread=watch_spread)
        if shift is not None:
            shifts.append((index, shift))
    return state, shifts


def around(seed: int, mean: float, deviation: float, count: int) -> Values:
    return np.random.default_rng(seed).normal(mean, deviation, count)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("unit", [1.0, 1e-5, 1e4])
def test_a_shift_of_the_mean_is_found_in_any_unit(seed: int, unit: float) -> None:
    values = unit * np.concatenate([around(seed, 10, 1, 400), around(seed + 100, 11.5, 1, 100)])
    _, shifts = run(values)
    assert len(shifts) == 1
    index, shift = shifts[0]
    assert 400 < index < 460
    assert shift.what == "mean"
    assert shift.statistic > shift.threshold
    assert shift.before == pytest.approx(10 * unit, abs=0.2 * unit)
    assert shift.after == pytest.approx(11.5 * unit, abs=0.6 * unit)
    assert shift.reference_first_offset == 0
    # Marks lie up to 7 values apart after 400.
    assert abs(shift.test_first_offset / 2 - 400) <= 16
    assert shift.before_count + shift.after_count == index + 1


@pytest.mark.parametrize("seed", range(5))
def test_a_doubled_variance_is_found_though_the_mean_stays(seed: int) -> None:
    _, shifts = run(np.concatenate([around(seed, 0, 1, 600), around(seed + 100, 0, 2**0.5, 400)]))
    assert len(shifts) == 1
    assert shifts[0][0] > 600
    assert shifts[0][1].what == "spread"
    assert shifts[0][1].after > shifts[0][1].before > 0


def test_a_rate_that_was_zero_is_found() -> None:
    rng = np.random.default_rng(3)
    _, shifts = run(np.concatenate([np.zeros(300), rng.random(300) < 0.2]), watch_spread=False)
    assert len(shifts) == 1
    assert 300 < shifts[0][0] < 450
    assert shifts[0][1].before == pytest.approx(0, abs=0.02)
    assert shifts[0][1].after == pytest.approx(0.2, abs=0.1)


def test_after_a_change_the_new_level_is_the_reference_and_the_old_one_a_change_again() -> None:
    state, shifts = run(np.concatenate([around(1, 0, 1, 300), around(2, 3, 1, 300)]))
    assert len(shifts) == 1
    _, back = run(around(3, 0, 1, 100), state)
    assert len(back) == 1
    assert back[0][1].before > back[0][1].after


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(0, 1, 5000),
        lambda rng: rng.random(5000) < 0.2,
        lambda rng: rng.random(5000) < 0.05,
        lambda rng: rng.standard_t(2, 5000),
        lambda rng: np.log(rng.lognormal(5, 1, 5000)),
        lambda rng: np.full(5000, 7.0),
    ],
    ids=["normal", "rate", "rare", "heavy", "log", "constant"],
)
def test_no_change_no_alarm(draw: Callable[[np.random.Generator], Values]) -> None:
    values = np.asarray(draw(np.random.default_rng(17)))
    assert run(values.astype(float), watch_spread=values.dtype != bool)[1] == []


def test_one_outlier_is_no_change() -> None:
    values = around(4, 0, 1, 400)
    values[200] = 1e6
    assert run(values)[1] == []


def test_the_detector_is_rivers_own_restored_at_every_step() -> None:
    values = np.concatenate([around(5, 0, 1, 300), around(6, 1, 1, 8)])
    scale = float(np.std(values[:40], ddof=1))
    whole = drift.ADWIN(delta=PARAMETERS.delta, clock=PARAMETERS.clock, min_window_length=5, grace_period=20)
    for value in values:
        whole.update(max(-5.0, min(5.0, (value - float(np.mean(values[:40]))) / scale)))
    state, _ = run(values)
    restored = drift.ADWIN(delta=PARAMETERS.delta, clock=PARAMETERS.clock, min_window_length=5, grace_period=20)
    restored._helper.__setstate__(state.level)
    assert (restored.width, restored.n_detections) == (whole.width, whole.n_detections)
    assert restored.estimation == pytest.approx(whole.estimation, rel=1e-9)


def test_a_state_that_went_through_the_changelog_at_every_step_gives_the_same() -> None:
    values = np.concatenate([around(7, 0, 1, 200), around(8, 2, 1, 120), around(9, 2, 4, 200)])
    direct, expected = run(values)
    state, found = ScalarState(), []
    for index, value in enumerate(values):
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=ScalarState)
        state, shift = observe(state, float(value), index * 2, PARAMETERS)
        if shift is not None:
            found.append((index, shift))
    assert found == expected
    assert len(found) >= 2
    assert state == direct
    assert msgspec.json.decode(msgspec.json.encode(state), type=ScalarState) == state


def test_the_state_is_bounded() -> None:
    state = ScalarState()
    for index in range(20_000):
        state, _ = observe(state, math.sin(index), 10**9 + index, PARAMETERS)
    assert len(msgspec.msgpack.encode(state)) < 6_000


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        observe(ScalarState(), value, 0, PARAMETERS)

"""Drift of numbers: abrupt, gradual and recurring changes and bursts of outliers are told apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from services.drift.detection.coding import Array
from services.drift.detection.regimes import Regime, matching, ramp_gain, remembered
from tests.unit.test_drift_scalar import around, rate, run

SEEDS = 20


def noise(seed: int, levels: Array) -> Array:
    return levels + np.random.default_rng(seed).normal(0, 1, len(levels))


def first_patterns(levels: Array, before: int) -> Counter[str]:
    """Return how often each pattern is told of the first change after ``before``."""
    found: Counter[str] = Counter()
    for seed in range(SEEDS):
        told = [shift.pattern for index, shift in run(noise(seed, levels))[1] if index >= before]
        found[told[0] if told else "missed"] += 1
    return found


def test_a_step_is_abrupt() -> None:
    assert first_patterns(np.repeat([0.0, 1.0], [600, 200]), 600)["abrupt"] >= 18


@pytest.mark.parametrize("length", [200, 500])
def test_a_ramp_is_found_and_told_as_gradual_by_its_second_alarm(length: int) -> None:
    levels = np.concatenate([np.zeros(600), np.linspace(0, 3, length), np.full(400, 3.0)])
    gradual = 0
    for seed in range(SEEDS):
        told = [shift.pattern for index, shift in run(noise(seed, levels))[1] if index >= 600]
        assert told
        gradual += "gradual" in told[:2]
    assert gradual >= 17


@pytest.mark.parametrize("length", [5, 10, 20])
def test_a_burst_is_told_once_as_outliers_and_changes_no_reference(length: int) -> None:
    levels = np.repeat([0.0, 6.0, 0.0], [600, length, 500])
    found: Counter[str] = Counter()
    for seed in range(SEEDS):
        state, shifts = run(noise(seed, levels))
        found["+".join(shift.pattern for index, shift in shifts if index >= 600)] += 1
        if [shift.pattern for _, shift in shifts] == ["outlier"]:
            assert shifts[0][1].after_count == pytest.approx(length, abs=8)
            assert 600 + length <= shifts[0][0] <= 600 + length + 20
            assert state.seen == pytest.approx(1100, abs=8)
    assert found["outlier"] >= 18, found


def test_a_burst_of_ones_in_a_rare_rate_is_an_outlier() -> None:
    found: Counter[str] = Counter()
    for seed in range(SEEDS):
        values = rate(seed, 0.02, 1200)
        values[700:712] = 1
        found["+".join(shift.pattern for _, shift in run(values)[1])] += 1
    assert found["outlier"] >= 17, found


def test_what_was_there_before_recurs_and_the_baseline_returns() -> None:
    levels = np.repeat([0.0, 2.0, 0.0, 2.0], 500)
    found: Counter[tuple[int, str, bool]] = Counter()
    for seed in range(SEEDS):
        for index, shift in run(noise(seed, levels))[1]:
            found[index // 500, shift.pattern, shift.returned] += 1
    assert found[1, "abrupt", False] >= 18, found
    assert found[2, "recurring", True] >= 17, found
    assert found[3, "recurring", False] >= 17, found


def test_another_level_does_not_recur() -> None:
    for seed in range(5):
        _, shifts = run(np.concatenate([around(seed, 0, 1, 500), around(seed + 50, 2, 1, 500), around(9, 5, 1, 100)]))
        assert [shift.pattern == "recurring" for _, shift in shifts] == [False, False]


def test_a_spread_that_returns_is_the_baseline() -> None:
    returned = 0
    for seed in range(SEEDS):
        values = np.random.default_rng(seed).normal(0, 1, 1800) * np.repeat([1.0, 2.0, 1.0], 600)
        told = [shift for index, shift in run(values)[1] if index >= 1200]
        returned += bool(told) and told[0].what == "spread" and told[0].returned
    assert returned >= 15


def test_the_baseline_and_the_newest_regimes_are_remembered() -> None:
    kept: tuple[Regime, ...] = ()
    for mean in (0.0, 10.0, 20.0, 30.0, 40.0, 10.0):
        kept = remembered(kept, Regime(mean, 1.0, 500))
    assert [regime.mean for regime in kept] == [0, 30, 40, 10]
    assert remembered(kept, Regime(40.05, 1.05, 400)) == kept


def test_a_regime_recurs_only_when_it_is_nearer_than_half_the_way() -> None:
    known = [Regime(0.0, 1.0, 1000), Regime(3.0, 1.0, 300)]
    assert matching(known, Regime(3.0, 1.0, 300), Regime(0.2, 1.0, 30), spread=False) == 0
    assert matching(known, Regime(0.0, 1.0, 300), Regime(2.8, 1.0, 30), spread=False) == 1
    assert matching(known, Regime(0.0, 1.0, 300), Regime(1.2, 1.0, 30), spread=False) is None
    assert matching(known, Regime(0.0, 2.0, 300), Regime(0.0, 1.05, 200), spread=True) == 0
    assert matching(known, Regime(0.0, 2.0, 300), Regime(0.0, 3.0, 200), spread=True) is None


def test_a_ramp_fits_a_ramp_better_and_a_step_a_step() -> None:
    ramp = np.concatenate([np.zeros(100), np.linspace(0, 3, 100)])
    step = np.concatenate([np.zeros(100), np.full(100, 3.0)])
    gain, length = ramp_gain(0.0, 500, ramp, 1.0)
    assert gain > 10
    assert length == pytest.approx(100, abs=5)
    assert ramp_gain(0.0, 500, step, 1.0)[0] < -10

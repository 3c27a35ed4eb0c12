"""Numbers that depend on the ones before them: the bound on false alarms holds from the first candidate on."""

from __future__ import annotations

import numpy as np
import pytest

from services.drift.detection.coding import Array
from services.drift.detection.history import Series, inflation_of
from services.drift.detection.scalar import ScalarParameters, ScalarState, observe

_COUNT = 2_500
_STREAMS = 10
_MOST = 4
"""Of 25,000 values without a change, at an allowance of 0.2 in 10,000; 15 and more where dependence is not reckoned with
in the first hundred values."""


def _autoregressive(rng: np.random.Generator) -> Array:
    values = np.zeros(_COUNT + 200)
    for index, noise in enumerate(rng.normal(0, 1, len(values) - 1)):
        values[index + 1] = 0.7 * values[index] + noise
    return values[200:]


def _bursts_of_errors(rng: np.random.Generator) -> Array:
    values = np.zeros(_COUNT)
    for index, chance in enumerate(rng.random(_COUNT - 1)):
        values[index + 1] = chance < (0.7 if values[index] else 0.1)
    return values


@pytest.mark.parametrize("make", [_autoregressive, _bursts_of_errors])
def test_dependence_is_no_change(make: object) -> None:
    assert callable(make)
    parameters, found = ScalarParameters(), 0
    for seed in range(_STREAMS):
        state = ScalarState()
        for index, value in enumerate(make(np.random.default_rng(7_000 + seed))):
            state, shift = observe(state, float(value), index, parameters, 2e-5, scale="score")
            found += shift is not None
    assert found <= _MOST


def test_dependence_is_known_from_forty_values() -> None:
    streams = [_autoregressive(np.random.default_rng(seed))[:40] for seed in range(60)]
    # (1 + 0.7) / (1 - 0.7)
    assert 3.5 < float(np.median([inflation_of(Series(), values) for values in streams])) < 8
    independent = [np.random.default_rng(seed).normal(0, 1, 40) for seed in range(60)]
    assert float(np.median([inflation_of(Series(), values) for values in independent])) == 1.0

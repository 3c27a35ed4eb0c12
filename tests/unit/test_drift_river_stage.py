"""River's detectors as a first stage of numbers: their states are plain, and what they flag is judged like the scan's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift

from services.drift.detection import river_stage
from services.drift.detection.coding import Array, Scale
from services.drift.detection.river_stage import RIVER_DETECTORS, advanced, applicable
from services.drift.detection.scalar import ScalarParameters, ScalarState, observe
from services.drift.detection.shift import Shift
from services.drift.lookback.replay_detectors import factory
from services.drift.lookback.replay_finding import UnknownParameter
from services.drift.signals import SIGNALS

ALLOWANCE = 2e-5
PARAMETERS = ScalarParameters()


def run(values: Array, scale: Scale, river: tuple[str, ...]) -> tuple[ScalarState, list[tuple[int, Shift]]]:
    state, found = ScalarState(), []
    for index, value in enumerate(values.tolist()):
        state, shift = observe(state, value, index, PARAMETERS, ALLOWANCE, scale=scale, river=river)
        if shift is not None:
            found.append((index, shift))
    return state, found


def made(name: str) -> Any:
    """Return River's own detector, set as the stage sets it."""
    if name == "hddm-w":
        return drift.binary.HDDMW(  # type: ignore[no-untyped-call]
            drift_confidence=river_stage.CONFIDENCE, lambda_val=river_stage.WEIGHT, two_sided_test=True
        )
    if name == "page-hinkley":
        return drift.PageHinkley(delta=river_stage.TOLERANCE, threshold=river_stage.SUM, alpha=1.0)
    return drift.ADWIN(  # type: ignore[no-untyped-call]
        delta=river_stage.DELTA, clock=4, min_window_length=5, grace_period=20
    )


def stream(seed: int, rate: bool, parts: int = 3) -> Array:
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.uniform(0, 1 if rate else 3, parts), 150)
    values: Array = (rng.random(len(levels)) < levels).astype(float) if rate else rng.normal(levels, 1)
    return values


@pytest.mark.parametrize("name", RIVER_DETECTORS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_detector_built_again_at_every_value_flags_what_rivers_own_does(name: str, seed: int) -> None:
    rate = name == "hddm-w" or seed % 2 == 0
    detector, frozen, flags, expected = made(name), dict[str, bytes](), [], []
    for index, value in enumerate(stream(seed, rate).tolist()):
        detector.update(value != 0 if name == "hddm-w" else value)
        if detector.drift_detected:
            expected.append(index)
        frozen, flagged = advanced(frozen, [value], [name])
        # Through the changelog and back.
        frozen = msgspec.msgpack.decode(msgspec.msgpack.encode(frozen), type=dict[str, bytes])
        if flagged:
            flags.append(index)
    assert flags == expected
    assert name != "adwin" or len(frozen[name]) < 1_500
    assert name == "adwin" or len(frozen[name]) <= 136


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), rate=st.booleans())
def test_a_state_that_went_through_the_changelog_at_every_step_gives_the_same(seed: int, rate: bool) -> None:
    values, scale = stream(seed, rate), "rate" if rate else "score"
    direct, expected = run(values, "rate" if rate else "score", RIVER_DETECTORS)
    state, found = ScalarState(), []
    for index, value in enumerate(values.tolist()):
        restored = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=ScalarState)
        state, shift = observe(
            restored, value, index, PARAMETERS, ALLOWANCE, scale="rate" if scale == "rate" else "score",
            river=RIVER_DETECTORS,
        )  # fmt: skip
        if shift is not None:
            found.append((index, shift))
    assert (state, found) == (direct, expected)
    assert run(values, "rate" if rate else "score", RIVER_DETECTORS) == (direct, expected)


def shares(before: float, after: float) -> Callable[[int], Array]:
    return lambda seed: (np.random.default_rng(seed).random(1800) < np.repeat([before, after], [1000, 800])).astype(
        float
    )


def ramp(seed: int) -> Array:
    risen = np.concatenate([np.zeros(1000), np.minimum(np.arange(800) / 500, 1)])
    values: Array = np.random.default_rng(seed).normal(0, 1, 1800) + risen
    return values


def test_what_a_named_detector_raises_is_confirmed_and_told_so() -> None:
    for seed in (0, 6):
        _, found = run(ramp(seed)[:1400], "amount", ("page-hinkley",))
        index, shift = found[0]
        assert index >= 1000
        assert shift.detector.startswith("Page-Hinkley of the level, confirmed by fresh values")
        assert shift.statistic >= shift.threshold


def test_false_alarms_stay_within_the_allowance_with_all_of_them() -> None:
    alarms, values = 0, 0
    for seed in range(2):
        rng = np.random.default_rng(2000 + seed)
        streams: list[tuple[Array, Scale]] = [
            ((rng.random(1000) < 0.2).astype(float), "rate"),
            ((rng.random(1000) < 0.02).astype(float), "rate"),
            (rng.normal(0, 1, 1000), "amount"),
        ]
        for each, scale in streams:
            values += len(each)
            alarms += len(run(each, scale, RIVER_DETECTORS)[1])
    assert values >= 6_000
    # Half an alarm is to be expected.
    assert alarms <= 1


def test_a_signal_that_names_none_keeps_none() -> None:
    state, _ = run(stream(1, rate=True), "rate", RIVER_DETECTORS)
    assert set(state.river) == set(RIVER_DETECTORS)
    state, _ = observe(state, 1.0, 10**6, PARAMETERS, ALLOWANCE, scale="rate")
    assert state.river == {}


def test_names_that_river_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="no detector 'cusum'"):
        applicable(("cusum",), rate=True)
    assert applicable(("hddm-w", "adwin"), rate=False) == ("adwin",)
    assert all(set(each.river) <= set(RIVER_DETECTORS) for each in SIGNALS)


def test_a_replay_selects_them() -> None:
    values = shares(0.2, 0.4)(3)

    def found(spec: str, signal: str) -> list[tuple[int, float | None]]:
        detector = factory(spec)[1](signal)
        results = ((index, detector.update(value, index)) for index, value in enumerate(values.tolist()))
        return [(index, each.statistic) for index, each in results if each is not None]

    both = found("penstock:river=adwin+hddm_w", "x")
    assert both
    assert found("penstock:river=none", "feedback.disagreement") == found("penstock", "result.withheld")
    with pytest.raises(UnknownParameter, match="kswin"):
        factory("penstock:river=kswin")

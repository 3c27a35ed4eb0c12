"""Canaries and what is observed of their calls, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from penstock.config.canaries import CANARY, CanaryExperiment, canary_experiment
from penstock.config.kinds import Canary, Route, Target
from penstock.contracts.records import Observation

from tests.unit.experiment_cases import an_observation

__all__ = ["a_canary", "calls"]

TRIED = Target(backend="openai", model="tried")


def a_canary(**changes: Any) -> CanaryExperiment:
    fields: dict[str, Any] = {"target": TRIED, "share": 0.2}
    canary = Canary(**fields | changes)
    experiment = canary_experiment(Route(name="default", targets=(Target(backend="openai", model="m"),), canary=canary))
    assert experiment is not None
    return experiment


def calls(
    experiment: Any, count: int, *, failing: float, stable: float = 0.01, users: int | None = None, seed: int = 1
) -> Iterator[Observation]:
    """Calls of ``users``, each request of its own one where None; some fail, the others take 200 ms or so."""
    dice = np.random.default_rng(seed)
    for number in range(count):
        user = f"u{number if users is None else dice.integers(users)}"
        observation = an_observation(experiment, number, user, {}, source="completions", tenant_id="support")
        fails = dice.random() < (failing if observation.arm == CANARY else stable)
        values = {"failed": 1.0} if fails else {"failed": 0.0, "model_ms": float(200 * np.exp(0.3 * dice.normal()))}
        yield msgspec.structs.replace(observation, values=values)

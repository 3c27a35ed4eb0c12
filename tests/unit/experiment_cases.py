"""Experiments and observations for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from penstock.bus import Message as LogMessage
from penstock.config.kinds import Arm, Experiment, Metric
from penstock.contracts.records import Observation
from penstock.stateful import EmitLike

from services.evaluation.experiments.core import experiments
from services.evaluation.experiments.state import Standing

__all__ = ["NOW", "Log", "an_experiment", "an_observation", "requests"]

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def an_experiment(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "name": "models", "team": "support", "arms": (Arm(name="control"), Arm(name="large", route="large")),
        "metrics": (
            Metric(name="answer.groundedness", margin=0.01),
            Metric(name="latency_ms", better="lower", role="guard", margin=300, upper_bound=30_000),
            Metric(name="cost", better="lower", upper_bound=0.05),
        ),
    }  # fmt: skip
    return Experiment(**fields | changes)


def an_observation(
    experiment: Experiment, number: int, user: str, values: dict[str, float], **changes: Any
) -> Observation:
    unit = experiment.unit_of(user, None, "")
    arm = experiment.arm_of(unit)
    assert arm is not None
    fields: dict[str, Any] = {
        "event_id": f"o{number}", "request_id": f"r{number}", "tenant_id": experiment.team,
        "occurred_at": NOW + timedelta(seconds=number), "causation_id": f"c{number}", "experiment": experiment.name,
        "version": experiment.design, "arm": arm.name, "unit": unit, "source": "llm-results", "values": values,
    }  # fmt: skip
    return Observation(**fields | changes)


def requests(
    experiment: Experiment, count: int, *, seed: int = 1, users: int = 300, better: float = 0.0, slower: float = 0.0
) -> list[Observation]:
    """Each request's result, score and cost. The second arm's score is higher by ``better``, its latency by ``slower``."""
    dice, observations = np.random.default_rng(seed), list[Observation]()
    own = dice.normal(size=users)
    for number in range(count):
        user = int(dice.integers(users))
        treated = experiment.arm_of(experiment.unit_of(f"u{user}", None, "")) != experiment.control
        score = float(np.clip(0.6 + 0.1 * own[user] + 0.1 * dice.normal() + better * treated, 0, 1))
        latency = float(800 * np.exp(0.3 * own[user] + 0.5 * dice.normal()) + slower * treated)
        common = (experiment, number, f"u{user}")
        observations += [
            an_observation(*common, {"completed": 1.0, "latency_ms": latency}),
            an_observation(*common, {"answer.groundedness": score}, event_id=f"s{number}", source="evaluations"),
            an_observation(*common, {"cost": float(dice.gamma(2.0) * 1e-4)}, event_id=f"m{number}", source="costs"),
        ]
    return observations


@dataclass
class Log:
    """The agent over one partition: observations in, state and emits out."""

    experiment: Experiment | None
    state: Standing | None = None
    emits: list[EmitLike] = field(default_factory=list)
    offset: int = 0

    def take(self, observations: Iterable[Observation], *, through_bytes: bool = False) -> Log:
        logic = experiments(lambda name: self.experiment)
        for observation in observations:
            at = observation.occurred_at + timedelta(seconds=5)
            message = LogMessage("experiment-observations", 0, self.offset, int(at.timestamp() * 1000), b"k", b"")
            self.offset += 1
            for _, event in logic.route(observation, message, lambda key: None):
                self.state, emits = logic.step(self.state, event, at)
                self.emits += emits
                if through_bytes:
                    self.state = msgspec.msgpack.decode(msgspec.msgpack.encode(self.state), type=Standing)
        return self

    def told(self) -> Sequence[Any]:
        """The events of decisions, in order."""
        return [emit.record for emit in self.emits if emit.topic == "experiment-events"]

    def alerts(self) -> Sequence[Any]:
        return [emit.record for emit in self.emits if emit.topic == "alerts"]

"""Canaries as experiments: the target on trial of a route against the others, across teams.

Nobody writes these down: each follows from a route that has a canary. So one machinery observes them, decides and tells, and
what is on trial is watched exactly as long as the route says so.
"""

from __future__ import annotations

from functools import cached_property
from typing import Self

from pydantic import Field, model_validator

from penstock.bus.history import history
from penstock.bus.types import Transport
from penstock.config.canonical import canonical_json, content_hash
from penstock.config.experiments import Arm, Experiment, Metric, draw
from penstock.config.kinds import Canary, Route
from penstock.contracts.codec import Codec
from penstock.contracts.records import ExperimentEvent

__all__ = ["CANARY", "STABLE", "CanaryExperiment", "canary_experiment", "canary_name", "read_rollback", "takes_back"]

CANARY, STABLE = "canary", "stable"
"""The arms: answered by the target on trial first, or by the others."""

_PLATFORM = "platform"
_WEIGHTS = 1000
_CONTROLS = 4
"""So many times the canary's units are what it is compared with, where there are as many: with all others instead, the
difference would be known a tenth better, and all of the route's traffic would be observations of one partition."""


class CanaryExperiment(Experiment):
    """What a route's canary is compared by. It is of no team alone: decisions and alerts belong to the platform."""

    name: str = Field(description="canary:ROUTE, which no configured experiment can be called.")
    team: str = Field(default=_PLATFORM, description="Who is told.")
    metrics: tuple[Metric, ...] = Field(default=(), description="Guards alone, from the canary's bounds.")
    canary: Canary = Field(description="The canary as the route has it.")

    @cached_property
    def design(self) -> str:
        """Hash of the canary: whatever of it is changed, another one is on trial, and what was observed counts no more.

        The stable targets are no part of it: a canary that was taken back does not return because one of them changed.
        """
        return content_hash(
            canonical_json({"name": self.name, "canary": self.canary.model_dump(exclude_defaults=True)})
        )

    @property
    def tests_ratio(self) -> bool:
        """Never: a mismatch would end the watch over what may do harm."""
        return False

    @property
    def route(self) -> str:
        """Name of the route."""
        return self.routes[0]

    def includes(self, team: str) -> bool:
        return True

    def answers_with(self, arm: Arm) -> str:
        return f"target {self.canary.target.label}" if arm.name == CANARY else "the stable targets"

    def arm_of(self, unit: str) -> Arm | None:
        """Return the arm of a unit, or None where it takes no part and is answered by the stable targets, unobserved.

        A larger share moves units to the canary, and none away.
        """
        control, canary = self.arms
        position = draw(unit, self.salt, b"canary")
        if position < int(self.canary.share * 2**64):
            return canary
        return control if position < int(_taking_part(self.canary) * 2**64) else None

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Not the rules of configured experiments: its arms differ by the target, and it has no goal."""
        return self


def canary_name(route: str) -> str:
    """Return the name of the experiment that the canary of ``route`` is."""
    return f"canary:{route}"


def canary_experiment(route: Route) -> CanaryExperiment | None:
    """Return what the canary of ``route`` is compared by; None where it has none."""
    canary = route.canary
    if canary is None:
        return None
    share = canary.share / _taking_part(canary)
    weight = min(max(round(share * _WEIGHTS), 1), _WEIGHTS - 1)
    return CanaryExperiment(
        name=canary_name(route.name),
        routes=(route.name,),
        unit=canary.sticky,
        arms=(Arm(name=STABLE, weight=_WEIGHTS - weight), Arm(name=CANARY, weight=weight)),
        metrics=tuple(_guards(canary)),
        share=_taking_part(canary),
        alpha=canary.alpha,
        salt=canary.salt,
        canary=canary,
    )


def _taking_part(canary: Canary) -> float:
    """Share of the units that are in one of the arms."""
    return min(1.0, (1 + _CONTROLS) * canary.share)


def _guards(canary: Canary) -> list[Metric]:
    guards: list[Metric] = []
    if canary.max_error_rate is not None:
        guards.append(Metric(name="failed", better="lower", role="guard", margin=canary.max_error_rate))
    limits = (
        ("model_ms", canary.max_latency_ms, canary.latency_limit_ms),
        ("cost", canary.max_cost, canary.cost_limit),
    )
    for name, margin, most in limits:
        if margin is not None:
            guards.append(Metric(name=name, better="lower", role="guard", margin=margin, upper_bound=most))
    for score, loss in sorted(canary.max_score_loss.items()):
        guards.append(Metric(name=score, better="higher", role="guard", margin=loss))
    return guards


def takes_back(event: ExperimentEvent, experiment: CanaryExperiment) -> bool:
    """Return whether ``event`` is the decision that the canary, as it is now, is worse than its bounds allow."""
    mine = (event.experiment, event.version) == (experiment.name, experiment.design)
    return mine and event.decision == "worse" and event.arm == CANARY


async def read_rollback(transport: Transport, codec: Codec, route: Route) -> ExperimentEvent | None:
    """Return the decision that took the canary of ``route`` back; None where it is on trial still, or there is none.

    Raises:
        penstock.bus.KafkaUnavailable: Kafka is away, or the topic is missing (run `penstock topics apply`).
    """
    experiment = canary_experiment(route)
    if experiment is None:
        return None
    async with history(transport, ["experiment-events"]) as messages:
        async for message in messages:
            record = codec.readable(message.topic, message.value)
            if isinstance(record, ExperimentEvent) and takes_back(record, experiment):
                return record
    return None

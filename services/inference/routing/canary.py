"""Who gets a route's target on trial, and until when: until a decision says that it is worse than its bounds allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from penstock.bus import Message, Transport
from penstock.bus.following import EndNotReached, Following
from penstock.clock import Clock
from penstock.config.canaries import CANARY, CanaryExperiment, canary_name, takes_back
from penstock.config.kinds import Experiment, Route
from penstock.config.plane import ConfigError
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import ExperimentEvent, GroundedRequest, Purpose
from penstock.telemetry import get_logger, metrics

from services.inference.routing.protocol import Assignment

__all__ = ["CanaryArms", "Rollbacks"]

log = get_logger(__name__)

_TOPIC = "experiment-events"


class Rollbacks:
    """The decisions that took canaries back, as experiment-events has them.

    They are read whole at the start, so that a restart forgets none of them, and followed from then on. A decision is about
    one design: of a canary that was changed since, it says nothing.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._harmful: dict[tuple[str, str], ExperimentEvent] = {}
        self._source: Following | None = None

    @classmethod
    async def open(cls, transport: Transport, codec: Codec, *, timeout_s: float, clock: Clock) -> Rollbacks:
        """Return what was decided so far.

        Raises:
            ConfigError: the end of the topic was not reached within ``timeout_s``.
            penstock.bus.KafkaUnavailable: Kafka is away, or the topic is missing (run `penstock topics apply`).
        """
        rollbacks = cls(codec)
        try:
            rollbacks._source = await Following.open(
                transport, [_TOPIC], rollbacks.take, timeout_s=timeout_s, clock=clock
            )
        except EndNotReached as error:
            raise ConfigError(str(error)) from error
        return rollbacks

    def take(self, messages: Sequence[Message]) -> None:
        """Note the decisions among ``messages``; what cannot be read is logged."""
        for message in messages:
            try:
                event = self._codec.decode(message.topic, message.value)
            except Undecodable as error:
                log.error("decision skipped", partition=message.partition, offset=message.offset, cause=str(error))
                continue
            if not isinstance(event, ExperimentEvent) or (event.decision, event.arm) != ("worse", CANARY):
                continue
            if (event.experiment, event.version) not in self._harmful:
                self._harmful[event.experiment, event.version] = event
                log.warning("canary taken back", experiment=event.experiment, design=event.version, metric=event.metric)

    def of(self, experiment: CanaryExperiment) -> ExperimentEvent | None:
        """Return the decision that took a canary back, as it is now; None where there is none."""
        event = self._harmful.get((experiment.name, experiment.design))
        return event if event is not None and takes_back(event, experiment) else None

    async def follow(self, stopping: asyncio.Event | None = None) -> None:
        """Take what is decided from now on, until ``stopping`` is set or the task is cancelled."""
        if self._source is None:
            raise ConfigError("these decisions were not read from a log: there is nothing to follow")
        await self._source.follow(stopping)

    async def close(self) -> None:
        """Release the connection."""
        if self._source is not None:
            await self._source.close()


class CanaryArms:
    """Assigns requests that are served, by a hash of who asks.

    Args:
        experiment_of: the configuration of an experiment by its name, as the config plane has it.
        rollbacks: what was taken back.
    """

    def __init__(self, experiment_of: Callable[[str], Experiment | None], rollbacks: Rollbacks) -> None:
        self._experiment_of = experiment_of
        self._rollbacks = rollbacks

    def assign(self, route: Route, request: GroundedRequest) -> Assignment | None:
        if route.canary is None or request.context.purpose != Purpose.SERVE:
            return None
        experiment = self._experiment_of(canary_name(route.name))
        # The configuration may have moved on since ``route`` was looked up.
        if not isinstance(experiment, CanaryExperiment) or experiment.canary != route.canary:
            return None
        if self._rollbacks.of(experiment) is not None:
            return None
        context = request.context
        unit = experiment.unit_of(context.user_id, context.conversation_id, request.request_id, request.tenant_id)
        drawn = experiment.arm_of(unit)
        if drawn is None:
            return None
        arm = drawn.name
        metrics.CANARY_REQUESTS.labels(route.name, arm).inc()
        context = msgspec.structs.replace(
            context,
            experiments={**context.experiments, experiment.name: arm},
            experiment_versions={**context.experiment_versions, experiment.name: experiment.design},
        )
        return Assignment(route.canary.target if arm == CANARY else None, context)

"""Which weights are in force when: follows ``config-models``."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

import msgspec
from penstock.bus import Message, Transport
from penstock.bus.following import EndNotReached, Following
from penstock.clock import Clock, SystemClock
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import ModelWeights
from penstock.telemetry import get_logger

from services.evaluation.learning.learner import Learner
from services.evaluation.learning.publishing import (
    CHALLENGER,
    MODELS,
    WITHDRAWN,
    read_schedule,
    read_weights,
)  # fmt: skip
from services.evaluation.learning.state import Change

__all__ = ["Champions", "ChampionsError"]

log = get_logger(__name__)


class ChampionsError(Exception):
    """The champions cannot be read; the message names the cause and the remedy."""


class Champions:
    """Champions by model and instant. Look-ups are reads of dictionaries: no I/O, no await, no copy.

    Fill it from the log with :meth:`open` and keep it current with :meth:`follow`. Without anything on the topic, and where
    nothing on it is valid, the shipped weights are in force.
    """

    def __init__(self, learners: Iterable[Learner[Any]]) -> None:
        """Begin with the shipped weights of ``learners``."""
        self._learners = {learner.name: learner for learner in learners}
        self._weights: dict[str, dict[str, Any]] = {
            name: {learner.version: learner.shipped()} for name, learner in self._learners.items()
        }
        self._challengers: dict[str, ModelWeights] = {}
        self._schedules: dict[str, tuple[ModelWeights, tuple[Change, ...]]] = {}
        # With their weights: a look-up in another thread then never finds a version whose weights are being taken out.
        self._in_force: dict[str, tuple[list[datetime], list[tuple[str, Any]]]] = {
            name: ([], list(weights.items())) for name, weights in self._weights.items()
        }
        self._source: Following | None = None

    def at(self, model: str, instant: datetime) -> tuple[str, Any]:
        """Return version and weights of the champion for what occurred at ``instant``.

        The same instant gives the same champion at any later time, while the schedule still has it. What occurred before
        the first change that the schedule still has is given the version of that change.

        Raises:
            KeyError: no classifier of this name learns.
        """
        instants, versions = self._in_force[model]
        return versions[max(bisect_right(instants, instant) - 1, 0)]

    def schedule(self, model: str) -> tuple[Change, ...]:
        """Return the changes of a model, oldest first; empty where nothing was ever published."""
        return self._schedules[model][1] if model in self._schedules else ()

    def frozen(self, model: str) -> bool:
        """Return whether nothing of the model is promoted."""
        return model in self._schedules and self._schedules[model][0].metadata.get("frozen") == "true"

    def challenger(self, model: str) -> Mapping[str, Any] | None:
        """Return the figures of the challenger as last published, or None."""
        record = self._challengers.get(model)
        if record is None:
            return None
        figures: dict[str, Any] = msgspec.json.decode(record.metadata.get("figures", "{}"))
        return {"at": record.occurred_at, **figures}

    def versions(self, model: str) -> list[str]:
        """Return every version whose weights are here, the shipped one first."""
        return list(self._weights[model])

    @property
    def models(self) -> list[str]:
        """Names of the classifiers."""
        return list(self._learners)

    def apply(self, record: ModelWeights) -> None:
        """Take one record over.

        Raises:
            ValueError: it is invalid; everything is as it was.
        """
        model, at, version = record.name.partition("@")
        learner = self._learners.get(model)
        if learner is None:
            return  # of a classifier that another service reads
        if not at:
            changes = read_schedule(record)
            if record.metadata.get("shipped") != learner.version:
                raise ValueError(
                    f"the schedule of {model} builds on {record.metadata.get('shipped')}, the shipped weights are "
                    f"{learner.version}: what was learned on others is not used"
                )
            self._schedules[model] = (record, changes)
        elif record.format == WITHDRAWN:
            if version != learner.version:
                self._weights[model].pop(version, None)
        elif version == CHALLENGER:
            read_weights(record, learner)
            self._challengers[model] = record
        else:
            self._weights[model][version] = read_weights(record, learner)
        self._index(model, learner)

    @classmethod
    async def open(
        cls,
        transport: Transport,
        codec: Codec,
        learners: Iterable[Learner[Any]],
        *,
        timeout_s: float = 30.0,
        clock: Clock | None = None,
        topic: str = MODELS,
    ) -> Champions:
        """Return the champions of everything published so far.

        Raises:
            ChampionsError: the end of the topic was not reached within ``timeout_s``.
            penstock.bus.KafkaUnavailable: Kafka is away, or the topic is missing (run `penstock topics apply`).
        """
        champions = cls(learners)
        try:
            champions._source = await Following.open(
                transport,
                [topic],
                lambda messages: champions.take(messages, codec),
                timeout_s=timeout_s,
                clock=clock or SystemClock(),
            )
        except EndNotReached as error:
            raise ChampionsError(str(error)) from error
        return champions

    async def follow(self, stopping: asyncio.Event | None = None) -> None:
        """Take over what is published from now on, until ``stopping`` is set or the task is cancelled.

        Raises:
            ChampionsError: these were not read from a log.
        """
        if self._source is None:
            raise ChampionsError("these champions were not read from a log: there is nothing to follow")
        await self._source.follow(stopping)

    async def close(self) -> None:
        """Release the connection; what was read stays readable."""
        if self._source is not None:
            await self._source.close()

    def take(self, messages: Iterable[Message], codec: Codec) -> None:
        """Apply ``messages``; what is undecodable or invalid is logged and skipped, and the last good state stays."""
        for message in messages:
            try:
                self.apply(cast("ModelWeights", codec.decode(message.topic, message.value)))
            except (Undecodable, ValueError) as error:
                log.error(
                    "weights skipped; what was good before stays",
                    topic=message.topic,
                    partition=message.partition,
                    offset=message.offset,
                    key=(message.key or b"").decode(errors="replace"),
                    cause=str(error),
                )

    def _index(self, model: str, learner: Learner[Any]) -> None:
        """Note what is in force when: a change to a version that is not here leaves the one before in force."""
        usable = [change for change in self.schedule(model) if change.version in self._weights[model]]
        self._in_force[model] = (
            [change.effective_from for change in usable],
            [(change.version, self._weights[model][change.version]) for change in usable]
            or [(learner.version, self._weights[model][learner.version])],
        )

"""How experiments stand, read from the agent's own table: the very state that decisions are taken on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from penstock.bus import history
from penstock.bus.kafka import KafkaUnavailable
from penstock.bus.types import Transport
from penstock.config.kinds import Experiment
from penstock.config.plane import ConfigError, ConfigPlane
from penstock.contracts.codec import Codec
from penstock.contracts.records import ExperimentEvent
from penstock.stateful.entries import EntryCodec, state_key

from services.evaluation.experiments.core import state_key as key_of
from services.evaluation.experiments.state import Standing

__all__ = ["CHANGELOG", "Found", "read_experiments"]

CHANGELOG = "evaluation-experiments-changelog"
"""The agent's table: compacted, so it is as large as the states are, and holds what retention took from the log. It is as
old as the last checkpoint, a fraction of a second."""

_EVENTS = "experiment-events"


@dataclass(frozen=True, slots=True)
class Found:
    """An experiment that is configured.

    Attributes:
        standing: None where nothing was observed of this design yet.
        told: its decisions as they were told, oldest first.
        former: how many decisions other designs of it had.
    """

    experiment: Experiment
    standing: Standing | None
    told: tuple[ExperimentEvent, ...] = ()
    former: int = 0


async def read_experiments(
    transport: Transport, codec: Codec, *, names: Collection[str] | None = None, team: str | None = None
) -> list[Found]:
    """Return how every experiment stands that is configured, canaries of routes among them, by name.

    Args:
        names: only these; None for all.
        team: only of this team.

    Raises:
        KafkaUnavailable: Kafka is away.
        ConfigError: the configuration cannot be read, or another version of the service wrote the table.
    """
    plane = await ConfigPlane.open(transport, codec)
    await plane.close()
    configured = [entry for entry in plane.entries("experiments").values() if isinstance(entry, Experiment)]
    chosen = [
        experiment
        for experiment in sorted((*configured, *plane.canaries()), key=lambda each: each.name)
        if (names is None or experiment.name in names) and team in (None, experiment.team)
    ]
    standings = await _standings(transport, chosen)
    events = await _events(transport, codec) if chosen else []
    found = []
    for experiment in chosen:
        mine = [e for e in events if (e.tenant_id, e.experiment) == (experiment.team, experiment.name)]
        told = tuple(event for event in mine if event.version == experiment.design)
        found.append(Found(experiment, standings.get(experiment.name), told, len(mine) - len(told)))
    return found


async def _standings(transport: Transport, chosen: Collection[Experiment]) -> dict[str, Standing]:
    entries = EntryCodec(Standing)
    wanted = {key_of(each.team, each.name, each.design): each.name for each in chosen}
    newest: dict[str, bytes | None] = {}
    try:
        async with history(transport, [CHANGELOG]) as messages:
            async for message in messages:
                key = _key_of_state(message.key, message.partition)
                if key in wanted:
                    newest[wanted[key]] = message.value
    except KafkaUnavailable as error:
        # Faust makes the topic with the first start of evaluation.
        if "does not exist" not in str(error):
            raise
    try:
        return {name: entries.unpack(value)[1] for name, value in newest.items() if value is not None}
    except ValueError as error:
        raise ConfigError(
            f"{CHANGELOG} cannot be read ({error}): another version of evaluation wrote it; use that version's command"
        ) from error


def _key_of_state(key: bytes | None, partition: int) -> str | None:
    prefix = state_key(partition, "")
    return key[len(prefix) :].decode() if key is not None and key.startswith(prefix) else None


async def _events(transport: Transport, codec: Codec) -> list[ExperimentEvent]:
    found: dict[str, ExperimentEvent] = {}
    async with history(transport, [_EVENTS]) as messages:
        async for message in messages:
            record = codec.readable(message.topic, message.value)
            if isinstance(record, ExperimentEvent):
                found[record.event_id] = record
    return sorted(found.values(), key=lambda event: event.occurred_at)

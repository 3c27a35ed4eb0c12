"""The shell of drift: a stateless hop that takes signals from the flow, and a Faust agent that watches them by segment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

import faust
from penstock.bus import Event, Hop, Outcome, Reject
from penstock.clock import Clock
from penstock.contracts.codec import Codec
from penstock.settings import ServiceSettings
from penstock.stateful import Checkpointing, FaustWorker, StallGuard, StatefulProcessor, faust_settings
from penstock.stateful.protocols import Output

from services.drift.core import Rules, logic
from services.drift.projection import InvalidEmbedding, project
from services.drift.signals import SOURCES

__all__ = ["GROUP", "JOINED", "Reader", "projection_hop", "watcher"]

GROUP = "drift"
JOINED = ("signals", "drift-commands")
"""Sources of the table of segments: keyed alike, with as many partitions each."""
# After this share of the session timeout without a tick, the worker must assume that its partitions went to another.
_STALL_SHARE = 0.75
# Decoded states that are kept beside those waiting for a checkpoint: up to 100 KB each.
_DECODED = 2_000


class Reader(Protocol):
    """Reads the texts of events; :class:`services.drift.texts.TextReader` is one."""

    async def read(self, events: Sequence[Event[Any]]) -> Sequence[Mapping[str, str | bytes]]:
        """Return for each event, by signal, what its texts are about or which language they are in."""
        ...


def projection_hop(reader: Reader) -> Hop:
    """Return the hop from the flow's topics to signals."""

    async def handle(events: Sequence[Event[Any]]) -> Sequence[Outcome]:
        read = await reader.read(events)
        return [_outcome(event, of_texts) for event, of_texts in zip(events, read, strict=True)]

    return Hop(service="drift", group="drift-signals", topics=tuple(SOURCES), handler=handle)


def _outcome(event: Event[Any], of_texts: Mapping[str, str | bytes]) -> Outcome:
    try:
        return project(event.topic, event.partition, event.offset, event.record, of_texts)
    except InvalidEmbedding as error:
        return Reject("invalid_embedding", str(error))


def watcher(
    settings: ServiceSettings,
    rules: Rules,
    partitions: int,
    codec: Codec,
    output: Output,
    clock: Clock,
    checkpoint_s: float,
    ready: Callable[[], None],
) -> FaustWorker:
    """Return the worker that runs signals and drift-commands -> drift-events, alerts over the table of segments.

    Args:
        settings: brokers, timeouts.
        rules: how detectors, budget and references are set.
        partitions: partitions of ``signals``; the other source and the table's changelog have as many.
        codec: decodes signals and commands.
        output: the producer of events, alerts and the changelog.
        clock: measures intervals.
        checkpoint_s: seconds between two writes of the changed segments. A segment is tens of kilobytes and changes
            with every message; what it emits does not wait for this.
        ready: called when the table is restored.
    """
    app = faust.App(GROUP, **faust_settings(settings, partitions, faust.SASLCredentials))
    guard = StallGuard(clock, settings.session_timeout_ms / 1000 * _STALL_SHARE)
    table = app.Table("segments", key_type=bytes, value_type=bytes, partitions=partitions)
    processor = StatefulProcessor(
        "segments",
        logic(rules),
        group=GROUP,
        codec=codec,
        output=output,
        table=table,
        clock=clock,
        guard=guard,
        checkpointing=Checkpointing(interval_s=checkpoint_s, max_clean_states=_DECODED),
    )

    @app.agent(app.topic(*JOINED, key_type=bytes, value_type=bytes), concurrency=1, name="segments")
    async def segments(stream: Any) -> AsyncIterator[None]:
        async for _ in processor.process(stream):
            yield

    return FaustWorker(
        app,
        {processor: table},
        sources={table.changelog_topic.get_topic_name(): JOINED},
        settings=settings,
        guard=guard,
        ready=ready,
    )

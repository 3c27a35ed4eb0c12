"""The shell of drift: a stateless hop that takes signals from the flow, and a Faust agent that watches them by
segment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import faust
from penstock.bus import Event, Hop, Outcome, Reject
from penstock.bus.producer import Producer
from penstock.clock import Clock
from penstock.contracts.codec import Codec
from penstock.settings import ServiceSettings
from penstock.stateful import Checkpointing, FaustWorker, StallGuard, StatefulProcessor, faust_settings

from services.drift.core import InvalidEmbedding, Parameters, logic, project
from services.drift.signals import SOURCES

__all__ = ["GROUP", "projection_hop", "watcher"]

GROUP = "drift"
# After this share of the session timeout without a tick, the worker must assume that its partitions went to another.
_STALL_SHARE = 0.75


def projection_hop() -> Hop:
    """Return the hop requests-screened, completions, costs, evaluations -> signals."""

    async def handle(events: Sequence[Event[Any]]) -> Sequence[Outcome]:
        return [_outcome(event) for event in events]

    return Hop(service="drift", group="drift-signals", topics=tuple(SOURCES), handler=handle)


def _outcome(event: Event[Any]) -> Outcome:
    try:
        return project(event.topic, event.partition, event.offset, event.record)
    except InvalidEmbedding as error:
        return Reject("invalid_embedding", str(error))


def watcher(
    settings: ServiceSettings,
    parameters: Parameters,
    partitions: int,
    codec: Codec,
    output: Producer,
    clock: Clock,
    checkpoint_s: float,
    ready: Callable[[], None],
) -> FaustWorker:
    """Return the worker that runs signals -> drift-events, alerts over the table of segments.

    Args:
        settings: brokers, timeouts.
        parameters: how the detectors are set.
        partitions: partitions of ``signals``; the table's changelog has as many.
        codec: decodes signals.
        output: the producer of events, alerts and the changelog.
        clock: measures intervals.
        checkpoint_s: seconds between two writes of the changed segments. A segment is tens of kilobytes and changes
            with every message; what it emits does not wait for this.
        ready: called when the table is restored.
    """
    app = faust.App(GROUP, **faust_settings(settings, partitions))
    guard = StallGuard(clock, settings.session_timeout_ms / 1000 * _STALL_SHARE)
    table = app.Table("segments", key_type=bytes, value_type=bytes, partitions=partitions)
    processor = StatefulProcessor(
        "segments",
        logic(parameters),
        group=GROUP,
        codec=codec,
        output=output,
        table=table,
        clock=clock,
        guard=guard,
        checkpointing=Checkpointing(interval_s=checkpoint_s, max_clean_states=5_000),
    )

    @app.agent(app.topic("signals", key_type=bytes, value_type=bytes), concurrency=1, name="segments")
    async def segments(stream: Any) -> AsyncIterator[None]:
        async for _ in processor.process(stream):
            yield

    return FaustWorker(
        app,
        {processor: table},
        sources={"signals": table.changelog_topic.get_topic_name()},
        settings=settings,
        guard=guard,
        ready=ready,
    )

"""The agent ``feedback`` alone as a process, over copies of its topics: for the test that kills it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import faust
import uvloop
from penstock.bus import Emit, KafkaBus, Producer
from penstock.clock import SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.settings import ServiceSettings
from penstock.stateful import (
    Checkpointing,
    FaustWorker,
    Logic,
    StallGuard,
    StatefulProcessor,
    faust_settings,
    partition_count,
)

from services.evaluation.feedback.core import SOURCES, FeedbackRules, feedback_logic
from tests.unit.feedback_partition import Lengths

TOPICS = (*SOURCES, "labels", "annotation-tasks", "dlq-evaluation")


def own_catalogue(suffix: str) -> tuple[Catalogue, Mapping[str, str]]:
    """Return copies of the agent's topics, and their names by the names that it knows them by."""
    shipped = Catalogue.load()
    names = {topic: f"{topic}-{suffix}" for topic in TOPICS}
    # In their writer's time: what is days apart in the test comes within seconds.
    timed = {"message.timestamp.type": "CreateTime"}
    copies = {
        name: replace(shipped.topics[topic], name=name, config={**shipped.topics[topic].config, **timed})
        for topic, name in names.items()
    }
    return Catalogue(topics=copies, root=shipped.root), names


def agent_logic() -> Logic[Any, Any]:
    """Return the agent's logic as the worker runs it."""
    return feedback_logic(FeedbackRules(), {"toxicity": Lengths()}, lambda name: None)


def onto(logic: Logic[Any, Any], names: Mapping[str, str]) -> Logic[Any, Any]:
    """Return the logic with outputs on the copies of its topics."""

    def step(state: Any, event: Any, now: datetime) -> tuple[Any, Sequence[Emit]]:
        state, emits = logic.step(state, event, now)
        return state, [Emit(names[emit.topic], emit.key, emit.record) for emit in emits]

    return replace(logic, step=step, recognises=frozenset(names[topic] for topic in logic.recognises))


async def main(bootstrap: str, suffix: str) -> None:
    """Run until SIGTERM."""
    settings = ServiceSettings(kafka_bootstrap=bootstrap, session_timeout_ms=6000)
    catalogue, names = own_catalogue(suffix)
    group, sources = f"feedback-{suffix}", [names[topic] for topic in SOURCES]
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    clock = SystemClock()
    codec = Codec.offline(catalogue)
    async with KafkaBus(settings) as bus:
        partitions = await partition_count(settings, sources)
        app = faust.App(group, **faust_settings(settings, partitions))
        guard = StallGuard(clock, limit_s=4.5)
        table = app.Table("feedback", key_type=bytes, value_type=bytes, partitions=partitions)
        processor = StatefulProcessor(
            "feedback",
            onto(agent_logic(), names),
            group=group,
            codec=codec,
            output=Producer(bus.producer(), codec, "evaluation", clock),
            table=table,
            clock=clock,
            guard=guard,
            checkpointing=Checkpointing(interval_s=0.2),
        )

        @app.agent(app.topic(*sources, key_type=bytes, value_type=bytes), concurrency=1, name="feedback")
        async def feedback(stream: Any) -> AsyncIterator[None]:
            async for _ in processor.process(stream):
                yield

        worker = FaustWorker(
            app,
            {processor: table},
            sources={table.changelog_topic.get_topic_name(): sources},
            settings=settings,
            guard=guard,
            ready=lambda: print("ready", flush=True),
        )
        await worker.run(stopping)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))

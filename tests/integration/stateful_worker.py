"""A stateful worker as a process of its own, for the crash tests: counts the costs of each team, emits each count."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import faust
import uvloop
from penstock.bus import Emit, KafkaBus, Message, Producer
from penstock.clock import SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import derive
from penstock.contracts.records import Cost, TeamSpend
from penstock.settings import ServiceSettings
from penstock.stateful import (
    FaustWorker,
    Logic,
    Lookup,
    StallGuard,
    StatefulProcessor,
    faust_settings,
    partition_count,
)

SOURCE, TARGET, LETTERS = "costs", "team-spend", "dlq-counting"


def own_catalogue(suffix: str) -> Catalogue:
    """Return copies of the topics that this worker reads and writes, under names of their own."""
    topics = Catalogue.load().topics
    copies = [
        replace(topics["costs"], name=f"{SOURCE}-{suffix}"),
        replace(topics["team-spend"], name=f"{TARGET}-{suffix}"),
        replace(topics["dlq-evaluation"], name=f"{LETTERS}-{suffix}"),
    ]
    return Catalogue(topics={copy.name: copy for copy in copies}, root=Catalogue.load().root)


def counting(output_topic: str) -> Logic[dict[str, int], Cost]:
    """Count the costs of each team; every event gives the running count."""

    def step(state: dict[str, int] | None, event: Cost, now: datetime) -> tuple[dict[str, int], list[Emit]]:
        count = (state or {"count": 0})["count"] + 1
        spend = TeamSpend(
            **derive(event, "test.count", 0, now),
            window="day",
            window_start=datetime(2026, 1, 1, tzinfo=UTC),
            amount=Decimal(count),
            calls=count,
        )
        return {"count": count}, [Emit(output_topic, event.tenant_id, spend)]

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str, Cost]]:
        return [(record.tenant_id, record)]

    return Logic(step=step, route=route)


async def main(bootstrap: str, suffix: str) -> None:
    """Count until SIGTERM."""
    settings = ServiceSettings(kafka_bootstrap=bootstrap, session_timeout_ms=6000)
    source, target, group = f"{SOURCE}-{suffix}", f"{TARGET}-{suffix}", f"counting-{suffix}"
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    clock = SystemClock()
    codec = Codec.offline(own_catalogue(suffix))
    async with KafkaBus(settings) as bus:
        partitions = await partition_count(settings, [source])
        app = faust.App(group, **faust_settings(settings, partitions))
        guard = StallGuard(clock, limit_s=4.5)
        table = app.Table("counts", key_type=bytes, value_type=bytes, partitions=partitions)
        processor = StatefulProcessor(
            "counts",
            counting(target),
            group=group,
            codec=codec,
            output=Producer(bus.producer(), codec, f"counting-{suffix}", clock),
            table=table,
            clock=clock,
            guard=guard,
        )

        @app.agent(app.topic(source, key_type=bytes, value_type=bytes), concurrency=1, name="counts")
        async def counts(stream: Any) -> AsyncIterator[None]:
            async for _ in processor.process(stream):
                yield

        worker = FaustWorker(
            app,
            {processor: table},
            sources={table.changelog_topic.get_topic_name(): [source]},
            settings=settings,
            guard=guard,
            ready=lambda: print("ready", flush=True),
        )
        await worker.run(stopping)
    print("stopped", flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))

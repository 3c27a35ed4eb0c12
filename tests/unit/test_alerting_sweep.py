"""What the dispatcher does at each look: many ends at once, Kafka away while it rebuilds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from penstock.bus import KafkaUnavailable
from penstock.bus.types import RawProducer, Sent
from penstock.contracts.catalogue import Catalogue

from tests.unit.alerting_fakes import Platform, an_alert, an_entry


class Noting:
    """Notes when a message is sent and when its acknowledgement is waited for."""

    def __init__(self, raw: RawProducer) -> None:
        self.seen: list[str] = []
        self._raw = raw

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Awaitable[Sent]:
        if topic == "alerts":
            self.seen.append("sent")
        acknowledged = await self._raw.send(topic, key, value, headers, partition)

        async def waited() -> Sent:
            if topic == "alerts":
                self.seen.append("waited")
            return await acknowledged

        return waited()


class Noted(Platform):
    """With such a producer."""

    def raw_producer(self) -> RawProducer:
        self.noting = Noting(super().raw_producer())
        return self.noting


async def test_ends_are_all_sent_before_any_is_waited_for(catalogue: Catalogue) -> None:
    platform = Noted(catalogue, an_entry("oncall", resolve_after_s=3600))
    await platform.publish(*(an_alert(f"a{number}", fingerprint=f"f{number}") for number in range(50)))
    await platform.work(5)
    platform.clock.advance(3600)
    await platform.dispatcher.sweep()
    assert platform.noting.seen == ["sent"] * 50 + ["waited"] * 50
    await platform.dispatcher.idle()
    await platform.work(60)
    assert sorted(ids for purpose, ids in platform.channels["oncall"].told() if purpose == "resolved")


async def test_kafka_away_while_it_rebuilds_is_waited_for(catalogue: Catalogue) -> None:
    platform = Platform(catalogue, an_entry("oncall"))
    await platform.publish(an_alert())
    platform.store.flush()
    tries = 0

    async def restore() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise KafkaUnavailable("no broker answers")
        await platform.recovery.restore()

    stopping = asyncio.Event()
    running = asyncio.create_task(platform.dispatcher.run(stopping, restore))
    for _ in range(2000):
        platform.clock.advance(0.1)
        for _ in range(5):
            await asyncio.sleep(0)
        if platform.channels["oncall"].told() or running.done():
            break
    stopping.set()
    await running
    assert tries == 3
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]

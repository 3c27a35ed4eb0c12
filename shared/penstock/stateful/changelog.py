"""Restores the contents of tables from their changelogs."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Set

from aiokafka import AIOKafkaConsumer, TopicPartition

from penstock.bus.kafka import client_options
from penstock.settings import KafkaSettings
from penstock.stateful.entries import partition_of
from penstock.telemetry import get_logger

__all__ = ["Changelog"]

log = get_logger(__name__)


class Changelog:
    """Reads one changelog into a table's contents, each assigned partition to its very end.

    Faust's own recovery is not relied upon: it takes a partition as restored when it has seen the last offset, whatever
    came before. A message of the previous generation that slips through a rebalance in mid-recovery makes it skip all
    between, and the table comes back with holes.
    """

    def __init__(self, settings: KafkaSettings, topic: str, contents: MutableMapping[bytes, bytes]) -> None:
        self.topic = topic
        self._options = client_options(settings)
        self._contents = contents
        self._read_to: dict[int, int] = {}

    async def restore(self, partitions: Set[int]) -> None:
        """Make the contents those of ``partitions`` as the changelog has them now.

        A partition that was ours before is read on from where it was left: what we wrote since is read again, and what
        another owner wrote meanwhile is taken over.

        Raises:
            aiokafka.errors.KafkaError: the broker is away.
        """
        for lost in self._read_to.keys() - partitions:
            del self._read_to[lost]
        for key in [key for key in self._contents if partition_of(key) not in partitions]:
            del self._contents[key]
        if partitions:
            await self._read(sorted(partitions))

    async def _read(self, partitions: list[int]) -> None:
        consumer = AIOKafkaConsumer(
            **self._options, enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20
        )
        await consumer.start()
        try:
            places = [TopicPartition(self.topic, partition) for partition in partitions]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            for place in places:
                if place.partition in self._read_to:
                    consumer.seek(place, self._read_to[place.partition])
            while behind := [place for place in places if await consumer.position(place) < ends[place]]:
                for messages in (await consumer.getmany(*behind, timeout_ms=500)).values():
                    for message in messages:
                        self._take(message.key, message.value)
                await asyncio.sleep(0)
            for place in places:
                self._read_to[place.partition] = await consumer.position(place)
        finally:
            await consumer.stop()
        log.info("table restored", changelog=self.topic, partitions=partitions, entries=len(self._contents))

    def _take(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._contents.pop(key, None)
        else:
            self._contents[key] = value

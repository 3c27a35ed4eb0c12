"""Restores the contents of tables from their changelogs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, MutableMapping, Sequence, Set
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from penstock.bus.kafka import client_options
from penstock.settings import KafkaSettings, ServiceSettings
from penstock.stateful.entries import partition_of
from penstock.telemetry import get_logger

__all__ = ["Changelog", "create_changelogs"]

log = get_logger(__name__)

_POLL_S = 0.1


async def create_changelogs(settings: ServiceSettings, sources: Mapping[str, Sequence[str]]) -> None:
    """Create each changelog (``sources``: the topics that it holds the state of, by changelog) unless it is there, and
    wait until the brokers tell of every partition of it. It gets as many partitions and replicas as its first source.

    Faust creates it as well, but does not wait: what the brokers do not tell of yet is left out of the first assignment.

    Raises:
        aiokafka.errors.KafkaError: the cluster refused it.
        TimeoutError: the brokers did not tell of it in time.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        first = sorted({topics[0] for topics in sources.values()})
        described = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics(first)}
        wanted = {changelog: described[topics[0]] for changelog, topics in sources.items()}
        new = [
            NewTopic(name, len(like), len(like[0]["replicas"]), topic_configs={"cleanup.policy": "compact"})
            for name, like in wanted.items()
        ]
        answer = await admin.create_topics(new)
        for name, code, *_ in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise for_code(code)(f"creating {name}")
        async with asyncio.timeout(settings.start_timeout_s):
            while not _usable(await admin.describe_topics(list(wanted)), wanted):  # noqa: ASYNC110  # nothing to wait on
                await asyncio.sleep(_POLL_S)
    finally:
        await admin.close()


def _usable(described: Iterable[Mapping[str, Any]], topics: Iterable[str]) -> bool:
    """Whether the brokers tell of each of ``topics``, and of a leader for every partition."""
    found = {topic["topic"]: topic["partitions"] for topic in described if topic["error_code"] == 0}
    return all(
        found.get(topic) and all(part["error_code"] == 0 and part["leader"] >= 0 for part in found[topic])
        for topic in topics
    )


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

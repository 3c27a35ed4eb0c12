"""What the monitors read from a real Kafka, and which replica leads."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient
from penstock.bus import KafkaBus, Partition
from penstock.bus.types import RawConsumer, RawReader
from penstock.clock import SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.provisioning import admin_client
from penstock.contracts.records import Alert
from penstock.settings import KafkaSettings
from redis.asyncio import Redis

from services.alerting.monitors.cluster import KafkaCluster, Unseen, asked_redis, asked_registry
from services.alerting.monitors.lag import LagRules, LagState, observe, to_be_dated
from services.alerting.monitors.leader import KafkaLeadership
from tests.integration.alerting_replicas import Replicas

OwnTopics = Callable[..., Awaitable[tuple[Any, Any]]]


@pytest.fixture
async def topic(own_topics: OwnTopics) -> str:
    _, names = await own_topics("feedback", partitions=2)
    return str(names["feedback"])


@pytest.fixture
def service() -> str:
    return f"svc{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def cluster(kafka_settings: KafkaSettings, topic: str, service: str) -> AsyncIterator[KafkaCluster]:
    opened = KafkaCluster(
        kafka_settings, SystemClock(), [topic, "no-such-topic"], [service, "never-deployed"], ["*-ignored", "never-*"]
    )
    yield opened
    await opened.close()


async def joined(bus: KafkaBus, group: str, topic: str) -> RawConsumer:
    """Return a member of the group that has its partitions."""
    assigned = asyncio.Event()

    async def revoked() -> None: ...

    consumer = await bus.subscribe(group, [topic], revoked, assigned.set)
    async with asyncio.timeout(60):
        while not assigned.is_set():
            await consumer.poll(0.1, 1)
    return consumer


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(60):
        while not (found := await condition()):
            await asyncio.sleep(0.1)
    return found


async def test_a_look_shows_topics_members_and_what_is_unread_since_when(
    bus: KafkaBus, cluster: KafkaCluster, topic: str, service: str
) -> None:
    producer, group = bus.producer(), f"{service}-reads"
    consumer = await joined(bus, group, topic)
    ignored = await joined(bus, f"{service}-ignored", topic)
    before = datetime.now(UTC)
    for number in range(5):
        await asyncio.sleep(0.002)  # each is written at a millisecond of its own: the newest is told by it
        await (await producer.send(topic, None, b"%d" % number, partition=1))
    await consumer.commit({Partition(topic, 1): 2})
    state, _ = observe(LagState(), await cluster.look(lambda look: to_be_dated(LagState(), look)), {}, LagRules())
    look = await cluster.look(lambda look: to_be_dated(state, look))
    assert sorted(look.topics) == [topic]
    assert [(p.replicas, p.in_sync, p.leader is not None) for p in look.topics[topic].values()] == [(1, 1, True)] * 2
    (seen,) = look.groups
    assert (seen.name, seen.service, seen.state) == (group, service, "stable")
    assert look.unwatched == {service, "never-deployed"}
    assert [member.client_id for member in seen.members] == ["penstock-tests"]
    assert seen.reads() == {Partition(topic, 0), Partition(topic, 1)}
    (unread,) = look.unread(seen)
    assert (unread.place, unread.next_offset, unread.count, unread.expired) == (Partition(topic, 1), 2, 3, 0)
    assert 0 < unread.age_s <= (datetime.now(UTC) - before).total_seconds() + 0.01
    place, offset, written_ms = look.newest[topic]
    assert (place, offset) == (Partition(topic, 1), 4)
    assert abs(written_ms / 1000 - before.timestamp()) < 60
    # Another message moves the oldest one on, and its age with it.
    await consumer.commit({Partition(topic, 1): 4})
    (unread,) = (look := await cluster.look(lambda look: to_be_dated(state, look))).unread(look.groups[0])
    assert (unread.next_offset, unread.count) == (4, 1)
    assert look.written_at[Partition(topic, 1), 4] == written_ms
    await consumer.close()
    await ignored.close()

    async def empty() -> bool:
        return (await cluster.look(lambda look: ())).groups[0].state == "empty"

    await until(empty)


async def test_a_cluster_that_is_away_is_unseen_in_time(topic: str, service: str) -> None:
    with socket.socket() as taken:  # bound and not listening: refused at once
        taken.bind(("127.0.0.1", 0))
        nowhere = KafkaSettings(kafka_bootstrap=f"127.0.0.1:{taken.getsockname()[1]}")
        cluster = KafkaCluster(nowhere, SystemClock(), [topic], [service], [], timeout_s=1.0)
        with pytest.raises(Unseen, match=r"127\.0\.0\.1"):
            async with asyncio.timeout(20):
                await cluster.look(lambda look: ())
        await cluster.close()


async def members(admin: AdminClient, group: str) -> list[Any]:
    """Return the members of a group that has settled, as Kafka knows them."""
    described = await asyncio.to_thread(admin.describe_consumer_groups([group])[group].result, 20)
    return list(described.members) if described.state == ConsumerGroupState.STABLE else []


async def test_one_replica_leads_and_the_next_knows_when_it_looked_last(
    kafka_settings: KafkaSettings, own_topics: OwnTopics
) -> None:
    _, names = await own_topics("dlq-alerting")
    lease, group = str(names["dlq-alerting"]), f"leaders-{uuid.uuid4().hex[:8]}"
    replicas = [KafkaLeadership(kafka_settings, session_timeout_ms=6000, group=group, topic=lease) for _ in range(2)]

    async def leaders() -> list[KafkaLeadership]:
        held = [each for each in replicas if await each.held()]
        # While the second joined, the first may have lost it.
        return [each for each in held if each.still_held()]

    admin = admin_client(kafka_settings)

    async def both_joined() -> bool:
        found = await leaders()
        assert len(found) <= 1
        return len(found) == 1 and len(await members(admin, group)) == 2

    await until(both_joined)
    (leader,) = await until(leaders)
    assert await leader.looked_at() is None
    looked_at = datetime(2026, 1, 5, 9, 30, 15, tzinfo=UTC)
    await leader.looked(looked_at)
    (other,) = [each for each in replicas if each is not leader]
    for _ in range(20):
        assert [each for each in replicas if await each.held()] == [leader]
    await leader.close()
    assert not leader.still_held()
    replicas = [other]
    await until(leaders)
    assert await other.looked_at() == looked_at
    # Who has lost the lease notes nothing, and is not hurt by trying.
    await leader.looked(datetime(2030, 1, 1, tzinfo=UTC))
    assert await other.looked_at() == looked_at
    await other.close()


async def test_what_answers_is_not_away(deployed: dict[str, str]) -> None:
    redis = Redis.from_url(deployed["REDIS_URL"])
    async with httpx.AsyncClient() as client:
        assert await asked_redis(redis) is None
        assert await asked_registry(client, deployed["SCHEMA_REGISTRY_URL"]) is None
        nowhere = Redis.from_url("redis://127.0.0.1:1/0")
        assert "127.0.0.1:1" in (await asked_redis(nowhere) or "")
        assert await asked_registry(client, "http://127.0.0.1:1") is not None
        await nowhere.aclose()
    await redis.aclose()


class Alerts:
    """The monitors' alerts about one subject, in the order of the log."""

    def __init__(self, reader: RawReader, codec: Codec, label: str, value: str) -> None:
        self._reader = reader
        self._codec = codec
        self._label = label
        self._value = value
        self.found: list[Alert] = []

    async def until(self, count: int) -> list[Alert]:
        """Wait for so many in all."""
        async with asyncio.timeout(90):
            while len(self.found) < count:
                for message in await self._reader.poll(0.5):
                    record = self._codec.decode(message.topic, message.value)
                    if isinstance(record, Alert) and record.labels.get(self._label) == self._value:
                        self.found.append(record)
        return self.found


async def test_two_replicas_tell_a_condition_once_and_a_crash_of_the_leader_neither_repeats_nor_forgets_it(
    bus: KafkaBus, deployed: dict[str, str], project: Path, tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    group = f"retrieval-{uuid.uuid4().hex[:8]}"
    await (
        await bus.producer().send("requests-screened", b"k", b"not for the services: planted by a test", partition=0)
    )
    await bus.commit(group, {Partition("requests-screened", 0): 0})
    told = Alerts(await bus.read(["alerts"], from_end=True), codec, "group", group)
    replicas = Replicas(project, deployed, tmp_path)
    quick = {"MONITOR_ENABLED": "true", "MONITOR_INTERVAL_S": "1", "MONITOR_ABSENT_S": "3"}
    try:
        replicas.start(**quick)
        replicas.start(**quick)
        (first,) = await told.until(1)
        assert (first.kind, first.name, first.status) == ("health", "group_without_members", "firing")
        leader = replicas.leader()
        assert leader is not None
        replicas.kill(leader)

        async def other_leads() -> bool:
            return replicas.leader() not in (None, leader)

        await until(other_leads)
        consumer = await joined(bus, group, "verdicts")
        (_, over) = await told.until(2)
        assert (over.status, over.causation_id, over.fingerprint) == ("resolved", first.event_id, first.fingerprint)
        assert over.starts_at == first.starts_at
        await consumer.close()
    finally:
        replicas.stop()

"""The release gate on real Redis and Kafka: one winner a request, under rivals, replays and SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from penstock.bus import KafkaBus, Transient
from penstock.bus.producer import Producer
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Completion, Context, LlmResult, Message, Refusal
from penstock.sealing import shared_secret
from redis.asyncio import Redis

from services.guardrails.adapters import Claimed, RedisReleases

REQUESTS = 300
DEADLINE_S = 90.0
PLACE = "penstock:test:shared-secret"


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    client = Redis.from_url(deployed["REDIS_URL"])
    yield client
    await client.aclose()


async def test_the_first_event_wins_and_wins_again_and_no_other_does(redis: Redis) -> None:
    releases = RedisReleases(redis, ttl_s=600)
    team = uuid.uuid4().hex
    rivals = [(team, "r", "completion"), (team, "r", "expiry"), ("other", team, "x")]
    assert await releases.claim(rivals) == [Claimed(True), Claimed(False), Claimed(True)]
    assert await releases.claim([(team, "r", "expiry"), (team, "r", "completion")]) == [Claimed(False), Claimed(True)]
    assert 0 < await redis.ttl(f"penstock:{{{team}}}:released:r") <= 600
    assert await releases.claim([]) == []
    assert await releases.ended([(team, "r"), (team, "other"), ("other", team)]) == [True, False, True]
    assert await releases.claim([(team, "other", "x")]) == [Claimed(True)]  # asking decided nothing


async def test_rivals_in_many_processes_leave_one_winner(redis: Redis) -> None:
    releases = RedisReleases(redis, ttl_s=600)
    team = uuid.uuid4().hex
    rivals = [[(team, str(number), f"event-{rival}") for number in range(50)] for rival in range(8)]
    won = await asyncio.gather(*(releases.claim(batch) for batch in rivals))
    assert [sum(claimed.won for claimed in column) for column in zip(*won, strict=True)] == [1] * 50


async def test_a_result_and_an_asking_again_never_miss_each_other(redis: Redis) -> None:
    releases = RedisReleases(redis, ttl_s=600)
    team = uuid.uuid4().hex
    assert await releases.repeat(team, "asked")
    assert await releases.claim([(team, "asked", "e"), (team, "ended", "e")]) == [Claimed(True, True), Claimed(True)]
    assert not await releases.repeat(team, "ended")
    assert await releases.repeat(team, "asked") is False
    assert 0 < await redis.ttl(f"penstock:{{{team}}}:asked-again:asked") <= 600
    for number in range(50):
        [claimed], may_repeat = await asyncio.gather(
            releases.claim([(team, str(number), "e")]), releases.repeat(team, str(number))
        )
        assert claimed.repeated or not may_repeat


async def test_redis_away_is_transient_and_names_the_remedy() -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:1/0")
    with pytest.raises(Transient, match="REDIS_URL"):
        await RedisReleases(nowhere, 60).claim([("t", "r", "e")])
    with pytest.raises(Transient, match="REDIS_URL"):
        await shared_secret(nowhere, PLACE, None)
    assert await shared_secret(nowhere, PLACE, "configured") == b"configured"
    await nowhere.aclose()


async def test_every_replica_gets_the_same_secret(redis: Redis) -> None:
    keys = await asyncio.gather(*(shared_secret(redis, PLACE, None) for _ in range(5)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 64


class Guardrails:
    """The service as a process."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = {**os.environ, **environment, "SESSION_TIMEOUT_MS": "6000"}
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.guardrails"],
                env=self._environment,
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def guardrails(deployed: Mapping[str, str], tmp_path: Path) -> Iterator[Guardrails]:
    service = Guardrails(deployed, tmp_path / "guardrails.log")
    service.start()
    yield service
    service.end(signal.SIGKILL)


async def publish(bus: KafkaBus, codec: Codec, prefix: str) -> None:
    """A completion and an expiry of every request."""
    producer = Producer(bus.producer(), codec, "test")
    acks = []
    for number in range(REQUESTS):
        now, request_id = datetime.now(UTC), f"{prefix}-{number}"
        context = Context(requested_at=now)
        completion = Completion(
            event_id=f"{request_id}-c", request_id=request_id, tenant_id="support", occurred_at=now, causation_id="",
            context=context, messages=[Message(role="user", content="q")], model="m", backend="openai",
            content="write to ann@example.org",
        )  # fmt: skip
        refusal = Refusal(
            event_id=f"{request_id}-r", request_id=request_id, tenant_id="support", occurred_at=now, causation_id="",
            context=context, stage="inference", status="expired", code="deadline_exceeded", reason="late",
        )  # fmt: skip
        acks.append(await producer.send("completions", request_id, completion))
        acks.append(await producer.send("refusals", request_id, refusal))
    for ack in acks:
        await ack


def lag(bootstrap: str, catalogue: Catalogue) -> int:
    """Messages that the gate has not committed."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "guardrails-release"})
    places = [
        TopicPartition(topic, partition)
        for topic in ("completions", "refusals")
        for partition in range(catalogue.topics[topic].partitions)
    ]
    try:
        behind = 0
        for place in consumer.committed(places, timeout=10):
            low, high = consumer.get_watermark_offsets(place, timeout=10)
            behind += high - max(low, place.offset)
        return behind
    finally:
        consumer.close()


async def test_sigkill_in_mid_stream_loses_no_request_and_releases_each_once(
    guardrails: Guardrails, bus: KafkaBus, catalogue: Catalogue, deployed: Mapping[str, str]
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    prefix = uuid.uuid4().hex
    reader = await bus.read(["llm-results"], from_end=True)
    results: dict[str, set[str]] = defaultdict(set)
    bodies: dict[str, LlmResult] = {}
    publishing = asyncio.create_task(publish(bus, codec, prefix))
    give_up = time.monotonic() + DEADLINE_S
    killed = False
    try:
        while len(results) < REQUESTS or await asyncio.to_thread(lag, deployed["KAFKA_BOOTSTRAP"], catalogue):
            assert time.monotonic() < give_up, f"{len(results)} of {REQUESTS} requests have a result"
            for message in await reader.poll(0.5):
                record = codec.decode(message.topic, message.value)
                if isinstance(record, LlmResult) and record.request_id.startswith(prefix):
                    results[record.request_id].add(record.event_id)
                    bodies[record.event_id] = record
            if not killed and len(results) >= REQUESTS // 6:
                assert guardrails.end(signal.SIGKILL) == -signal.SIGKILL
                guardrails.start()
                killed = True
        await publishing
        for message in await reader.poll(0.5):
            record = codec.decode(message.topic, message.value)
            if record.request_id.startswith(prefix):
                results[record.request_id].add(record.event_id)
    finally:
        publishing.cancel()
        await reader.close()
    assert killed
    assert {request_id: len(events) for request_id, events in results.items() if len(events) != 1} == {}
    assert all("ann@example.org" not in body.content for body in bodies.values())
    assert guardrails.end(signal.SIGTERM) == 0

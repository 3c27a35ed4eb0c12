"""The stateful shell on real Kafka: what crashes, rebalances and bad messages leave of a count."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from penstock.bus import KafkaBus, Producer, Sent
from penstock.bus.types import RawReader
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.provisioning import Topics, plan_topics
from penstock.contracts.records import Context, Cost, DeadLetter, TeamSpend
from penstock.settings import KafkaSettings

from tests.integration.stateful_worker import LETTERS, SOURCE, TARGET, own_catalogue

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class Counting:
    """Topics of one test, workers over them, and what came out."""

    settings: KafkaSettings
    bus: KafkaBus
    suffix: str
    log: Path
    codec: Codec
    producer: Producer
    reader: RawReader
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)
    """By event_id, the count it carries."""
    of_team: dict[str, list[int]] = field(default_factory=dict)
    repeated: int = 0
    changed: int = 0
    """Repeats of an event_id with another content."""

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.stateful_worker", self.settings.kafka_bootstrap, self.suffix],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.workers.append(worker)
        return worker

    def ready(self) -> int:
        return self.log.read_bytes().count(b"ready")

    async def send(self, number: int, team: str) -> Awaitable[Sent]:
        cost = Cost(
            event_id=event_id("test", "cost", number),
            request_id=f"r{number}",
            tenant_id=team,
            occurred_at=NOW,
            causation_id="",
            context=Context(requested_at=NOW),
            model="m",
            priced=True,
        )
        return await self.producer.send(f"{SOURCE}-{self.suffix}", team, cost)

    async def feed(self, events: int, seed: int, duplicates: float = 0.05) -> None:
        """Send the costs of 20 teams, some twice, as a producer does that crashed and sends again."""
        rng = random.Random(seed)
        recent: list[tuple[int, str]] = []
        acks = []
        first = sum(self.sent.values())
        for number in range(first, first + events):
            team = f"team-{int(20 * rng.random() ** 2)}"
            acks.append(await self.send(number, team))
            self.sent[team] += 1
            recent = [*recent[-200:], (number, team)]
            if rng.random() < duplicates:
                acks.append(await self.send(*rng.choice(recent)))
        for ack in acks:
            await ack

    async def collect(self, done: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Read what came out until ``done``."""
        async with asyncio.timeout(timeout_s):
            while not done():
                for message in await self.reader.poll(0.2):
                    record = self.codec.decode(message.topic, message.value)
                    assert isinstance(record, TeamSpend)
                    if record.event_id in self.counts:
                        self.repeated += 1
                        self.changed += self.counts[record.event_id] != record.calls
                        continue
                    self.counts[record.event_id] = record.calls
                    self.of_team.setdefault(record.tenant_id, []).append(record.calls)

    def assert_exact(self) -> None:
        """Each team's counts are 1, 2, ... n: nothing missing, nothing counted twice; a repeat says the same."""
        assert {team: sorted(counts) for team, counts in self.of_team.items()} == {
            team: list(range(1, count + 1)) for team, count in self.sent.items()
        }
        assert self.changed == 0


@pytest.fixture
async def counting(kafka_settings: KafkaSettings, tmp_path: Path) -> AsyncIterator[Counting]:
    suffix = uuid.uuid4().hex[:8]
    catalogue = own_catalogue(suffix)
    Topics(kafka_settings).apply(plan_topics(list(catalogue.topics.values()), {}))
    codec = Codec.offline(catalogue)
    async with KafkaBus(kafka_settings) as bus:
        reader = await bus.read([f"{TARGET}-{suffix}"])
        producer = Producer(bus.producer(), codec, f"counting-{suffix}")
        made = Counting(kafka_settings, bus, suffix, tmp_path / "worker.log", codec, producer, reader)
        yield made
        for worker in made.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        await reader.close()


async def test_a_killed_worker_counts_each_event_once(counting: Counting) -> None:
    total, kills = 6_000, 2
    worker = counting.start()
    feeding = asyncio.create_task(counting.feed(total, seed=1))
    for kill in range(kills):
        # In mid-stream: well before all has been sent and counted.
        await counting.collect(lambda kill=kill: len(counting.counts) > total * (kill + 1) / (kills + 2))  # type: ignore[misc]
        worker.kill()
        worker.wait()
        worker = counting.start()
    await feeding
    await counting.collect(lambda: len(counting.counts) >= total)
    counting.assert_exact()


async def test_a_stopped_worker_leaves_nothing_to_repeat(counting: Counting) -> None:
    worker = counting.start()
    await counting.feed(500, seed=2, duplicates=0.0)
    await counting.collect(lambda: len(counting.counts) >= 200)
    worker.terminate()
    assert await asyncio.to_thread(worker.wait, 20) == 0, counting.log.read_text()
    counting.start()
    await counting.feed(500, seed=3, duplicates=0.0)
    await counting.collect(lambda: len(counting.counts) >= 1_000)
    counting.assert_exact()
    assert counting.repeated == 0


async def test_partitions_move_to_a_second_worker_and_back(counting: Counting) -> None:
    first = counting.start()
    feeding = asyncio.create_task(counting.feed(4_000, seed=4))
    await counting.collect(lambda: len(counting.counts) > 200)
    second = counting.start()
    # Both have restored their tables after the rebalance.
    await counting.collect(lambda: counting.ready() >= 3)
    await feeding
    await counting.collect(lambda: len(counting.counts) >= 4_000)
    second.terminate()
    assert await asyncio.to_thread(second.wait, 20) == 0, counting.log.read_text()
    await counting.feed(1_000, seed=5)
    await counting.collect(lambda: len(counting.counts) >= 5_000)
    counting.assert_exact()
    assert first.poll() is None


async def test_a_poison_message_is_put_aside_and_the_partition_moves_on(counting: Counting) -> None:
    counting.start()
    await counting.feed(100, seed=6)
    for value in (b"", b"\x00\x00\x00", b"\x07not avro", b"\x00\x7f\xff\xff\xffx", None):
        await (await counting.producer.send_raw(f"{SOURCE}-{counting.suffix}", b"poison", value))
    await counting.feed(100, seed=7)
    await counting.collect(lambda: len(counting.counts) >= 200)
    counting.assert_exact()
    letters = await counting.bus.read([f"{LETTERS}-{counting.suffix}"])
    found: list[DeadLetter] = []
    async with asyncio.timeout(10):
        while len(found) < 5:
            found += [counting.codec.decode(m.topic, m.value) for m in await letters.poll(0.2)]  # type: ignore[misc]
    await letters.close()
    assert {letter.origin_topic for letter in found} == {f"{SOURCE}-{counting.suffix}"}
    assert {letter.code for letter in found} == {"truncated", "wrong_magic_byte", "unknown_schema_id", "no_value"}
    assert all(letter.origin_key == b"poison" for letter in found)

"""The service as a process on the real stack: killed in mid-stream it prices and scores everything once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from penstock.bus import KafkaBus, Producer
from penstock.bus.types import RawReader
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import (
    Alert,
    Completion,
    Context,
    Cost,
    Evaluation,
    Feedback,
    LlmResult,
    Record,
    TeamSpend,
    Usage,
)  # fmt: skip
from penstock.settings import KafkaSettings
from penstock.stateful import partition_count

PROJECT = Path(__file__).resolve().parents[2]
MODEL = "gpt-4o-mini"
"""Priced in infra/config/prices: 0.15 and 0.60 USD a million tokens."""


@dataclass
class Service:
    """Evaluation as a process, and all it wrote about one team of this test's own."""

    environment: Mapping[str, str]
    log: Path
    team: str
    codec: Codec
    producer: Producer
    reader: RawReader
    process: subprocess.Popen[bytes] | None = None
    seen: dict[str, Record] = field(default_factory=dict)
    """By event_id; a repeat must say the same."""
    repeats: int = 0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.evaluation"],
                cwd=PROJECT,
                env={
                    **os.environ,
                    **self.environment,
                    "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 30)

    async def collect(self, done: Callable[[], bool], timeout_s: float = 120.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not done():
                assert self.process is None or self.process.poll() in (None, -signal.SIGKILL), self.log.read_text()
                for message in await self.reader.poll(0.2):
                    record = self.codec.decode(message.topic, message.value)
                    if record.tenant_id != self.team:
                        continue
                    if record.event_id in self.seen:
                        self.repeats += 1
                        assert self.seen[record.event_id] == record
                    self.seen[record.event_id] = record

    def of(self, kind: type[Record]) -> list[Record]:
        return [record for record in self.seen.values() if type(record) is kind]

    def completion(self, number: int, model: str = MODEL) -> Completion:
        at = datetime.now(UTC)
        return Completion(
            event_id=f"{self.team}-c{number}", request_id=f"{self.team}-r{number}", tenant_id=self.team, occurred_at=at,
            causation_id="", context=Context(requested_at=at), messages=[], model=model, backend="openai", content="x",
            usage=Usage(input_tokens=1000, output_tokens=100),
        )  # fmt: skip

    def result(self, number: int, prompt: str, content: str = "Here you are.") -> LlmResult:
        at = datetime.now(UTC)
        return LlmResult(
            event_id=f"{self.team}-e{number}", request_id=f"{self.team}-r{number}", tenant_id=self.team, occurred_at=at,
            causation_id="", context=Context(requested_at=at), status="completed", prompt=prompt, content=content,
        )  # fmt: skip


@pytest.fixture
async def service(bus: KafkaBus, deployed: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Service]:
    codec = await Codec.resolve(Catalogue.load(), deployed["SCHEMA_REGISTRY_URL"])
    reader = await bus.read(["costs", "team-spend", "evaluations", "alerts"])
    team = f"team-{uuid.uuid4().hex[:8]}"
    made = Service(deployed, tmp_path / "evaluation.log", team, codec, Producer(bus.producer(), codec, "test"), reader)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    await reader.close()


async def test_a_killed_evaluation_prices_and_scores_everything_once(service: Service) -> None:
    total = 600
    for number in range(total):
        request = f"{service.team}-r{number}"
        await service.producer.send("completions", request, service.completion(number))
        await service.producer.send("llm-results", request, service.result(number, f"question number {number}"))
        if number % 10 == 0:  # a producer that crashed sends again
            await service.producer.send("completions", request, service.completion(number))
    await service.collect(lambda: len(service.of(Cost)) > total / 4)
    service.signal(signal.SIGKILL)
    await service.ended()
    service.start()
    await service.collect(lambda: len(service.of(Cost)) >= total and len(service.of(Evaluation)) >= total)
    each = Decimal("0.00015") + Decimal("0.00006")
    await service.collect(
        lambda: any(
            isinstance(s, TeamSpend) and s.window == "month" and s.calls == total for s in service.of(TeamSpend)
        )
    )
    assert {cost.amount for cost in service.of(Cost)} == {each}  # type: ignore[attr-defined]
    sums = [s.amount for s in service.of(TeamSpend) if s.window == "month" and s.calls == total]  # type: ignore[attr-defined]
    assert sums == [each * total]


async def test_offsets_set_back_price_nothing_again(service: Service, kafka_settings: KafkaSettings) -> None:
    count = 40

    async def priced(first: int) -> None:
        for number in range(first, first + count):
            await service.producer.send("completions", f"{service.team}-r{number}", service.completion(number))
        await service.collect(
            lambda: any(isinstance(s, TeamSpend) and s.calls == first + count for s in service.of(TeamSpend))
        )

    await priced(0)
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0, service.log.read_text()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=service.environment["KAFKA_BOOTSTRAP"], group_id="evaluation", enable_auto_commit=False
    )
    await consumer.start()
    partitions = await partition_count(kafka_settings, ["completions"])
    places = [TopicPartition("completions", number) for number in range(partitions)]
    consumer.assign(places)
    await consumer.commit(dict.fromkeys(places, 0))
    await consumer.stop()
    service.start()
    # Each partition's new calls come after all of its old ones.
    await priced(count)
    assert len(service.of(Cost)) == 2 * count
    assert service.repeats == 0


async def test_feedback_and_alerts_and_a_clean_stop(service: Service) -> None:
    text = "this stupid bug, you stupid machine"
    key = f"{service.team}-k"
    await service.producer.send("completions", key, service.completion(0, model=f"unknown-{service.team}"))
    await service.producer.send("llm-results", key, service.result(0, text, "you worthless fucking piece of shit"))
    await service.collect(lambda: len(service.of(Evaluation)) >= 1 and len(service.of(Alert)) >= 3)
    # Feedback follows what it is about.
    for repeat in range(10):
        await service.producer.send(
            "feedback", key,
            Feedback(
                event_id=f"{service.team}-f{repeat}", request_id=f"{service.team}-r0", tenant_id=service.team,
                occurred_at=datetime.now(UTC), causation_id="", source="moderator", labels={"prompt.toxicity": "clean"},
            ),
        )  # fmt: skip
    names = {alert.name for alert in service.of(Alert)}  # type: ignore[attr-defined]
    assert names == {"unpriced_model", "severe_prompt", "severe_answer"}

    number = 0

    async def taught() -> bool:
        """Send the text again until its score says that the labels have been learned."""
        nonlocal number
        number += 1
        await (await service.producer.send("llm-results", key, service.result(number, text)))
        request_id = f"{service.team}-r{number}"
        await service.collect(lambda: any(each.request_id == request_id for each in service.of(Evaluation)))
        last = next(e for e in service.of(Evaluation) if e.request_id == request_id)
        return last.scores[0].label == "clean"  # type: ignore[attr-defined]

    async with asyncio.timeout(60):
        while not await taught():
            pass
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0, service.log.read_text()

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

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from penstock.bus import KafkaBus, Producer
from penstock.bus.types import RawReader
from penstock.config.files import load_files
from penstock.config.plane import ConfigPlane
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
    Message,
    Record,
    TeamSpend,
    Usage,
)  # fmt: skip
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.settings import KafkaSettings
from penstock.stateful import partition_count

from services.evaluation.adapters import ToxicityInForce
from services.evaluation.evaluators.registry import all_evaluators
from services.evaluation.exchanges import scored
from services.evaluation.learning import Champions
from services.evaluation.learning.toxicity_learner import ToxicityLearner
from services.evaluation.scoring import Scorer
from services.evaluation.settings import Settings
from services.evaluation.toxicity import ToxicityModel

PROJECT = Path(__file__).resolve().parents[2]
MODEL = "gpt-4o-mini"
"""Priced in infra/config/prices: 0.15 and 0.60 USD a million tokens."""


def untimed(record: Record) -> Record:
    """Return ``record`` without how long evaluators took, which no two runs share."""
    if not isinstance(record, Evaluation):
        return record
    scores = [msgspec.structs.replace(score, latency_us=0) for score in record.scores]
    return msgspec.structs.replace(record, scores=scores)


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
                    record = untimed(record)
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
            causation_id="", context=Context(requested_at=at), messages=[Message(role="user", content="What is x?")],
            model=model, backend="openai", content=f"It is {number}, damn it.",
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
    total = 300
    sent: list[Completion | LlmResult] = []
    for number in range(total):
        request = f"{service.team}-r{number}"
        completion = service.completion(number)
        result = service.result(number, f"question number {number}, you {'idiot' if number % 3 else 'genius'}")
        sent += [completion, result]
        await service.producer.send("completions", request, completion)
        await service.producer.send("llm-results", request, result)
        if number % 10 == 0:  # a producer that crashed sends again
            await service.producer.send("completions", request, completion)
    await service.collect(lambda: len(service.of(Cost)) > total / 4)
    service.signal(signal.SIGKILL)
    await service.ended()
    service.start()
    await service.collect(lambda: len(service.of(Cost)) >= total and len(service.of(Evaluation)) >= 2 * total)
    each = Decimal("0.00015") + Decimal("0.00006")
    await service.collect(
        lambda: any(
            isinstance(s, TeamSpend) and s.window == "month" and s.calls == total for s in service.of(TeamSpend)
        )
    )
    assert {cost.amount for cost in service.of(Cost)} == {each}  # type: ignore[attr-defined]
    sums = [s.amount for s in service.of(TeamSpend) if s.window == "month" and s.calls == total]  # type: ignore[attr-defined]
    assert sums == [each * total]
    # Each score is the one that a run gives which nothing ever stopped.
    model, embedder = ToxicityModel.load(), MiniLmEmbedder()
    toxicity = ToxicityInForce(model, Champions([ToxicityLearner(model)]), embedder, Settings().toxicity_mode)
    config = ConfigPlane.of(load_files(PROJECT / "infra" / "config"))
    scorer = Scorer(all_evaluators(embedder, instead={"toxicity": []}), toxicity, config)
    scores = scorer.scores(sent)
    expected = {
        emit.record.event_id: untimed(emit.record)
        for record, found in zip(sent, scores, strict=True)
        for emit in scored(record, found)
    }
    assert {event.event_id: event for event in service.of(Evaluation)} == expected


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
    text = "shut up, you worthless fucking idiot"
    key = f"{service.team}-r0"
    await service.producer.send("completions", key, service.completion(0, model=f"unknown-{service.team}"))
    await service.producer.send("llm-results", key, service.result(0, text, "you worthless fucking piece of shit"))
    await service.collect(lambda: len(service.of(Evaluation)) >= 1 and len(service.of(Alert)) >= 3)
    given = Feedback(
        event_id=f"{service.team}-f", request_id=f"{service.team}-r0", tenant_id=service.team,
        occurred_at=datetime.now(UTC), causation_id="", source="moderator", labels={"prompt.toxicity": "clean"},
    )  # fmt: skip
    await service.producer.send("feedback", key, given)
    await service.collect(lambda: any(each.causation_id == given.event_id for each in service.of(Evaluation)))
    names = {alert.name for alert in service.of(Alert)}  # type: ignore[attr-defined]
    assert names == {"unpriced_model", "severe_prompt", "severe_answer"}
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0, service.log.read_text()

"""Learning online as a process on the real stack: killed in mid-stream it ends with the champions of one that never was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from penstock.bus import KafkaBus, Producer, history
from penstock.bus.types import RawReader
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Alert, Label, ModelWeights, Record

from services.evaluation.learning.champions import Champions
from services.evaluation.learning.publishing import read_schedule
from services.evaluation.learning.settings import LearningSettings
from tests.unit.learning_labels import Run, honest, learner

PROJECT = Path(__file__).resolve().parents[2]
LABELS = 140
SETTINGS = {"LEARNING_LABELS": "40", "LEARNING_GRACE_S": "0", "TOXICITY_MODE": "hashed"}


@dataclass
class Service:
    """Evaluation as a process, and what it says of classifiers."""

    environment: Mapping[str, str]
    log: Path
    reader: RawReader
    codec: Codec
    process: subprocess.Popen[bytes] | None = None
    models: list[ModelWeights] = field(default_factory=list)
    promoted: dict[str, Alert] = field(default_factory=dict)
    """By event_id; a repeat must say the same."""

    def start(self) -> None:
        path = f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.evaluation"],
                cwd=PROJECT,
                env={**os.environ, **self.environment, **SETTINGS, "PYTHONPATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.process.wait, 30)

    async def until(self, done: Callable[[], Any], timeout_s: float = 90.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not done():
                assert self.process is not None
                assert self.process.poll() is None, self.log.read_text()[-3000:]
                for message in await self.reader.poll(0.2):
                    if message.value is None:
                        continue
                    record = self.codec.decode(message.topic, message.value)
                    if isinstance(record, ModelWeights):
                        self.models.append(record)
                    elif isinstance(record, Alert) and record.name == "model_promoted":
                        assert self.promoted.setdefault(record.event_id, record) == record

    def schedules(self) -> list[ModelWeights]:
        return [record for record in self.models if record.name == "toxicity"]


@pytest.fixture
async def service(bus: KafkaBus, deployed: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Service]:
    codec = await Codec.resolve(Catalogue.load(), deployed["SCHEMA_REGISTRY_URL"])
    reader = await bus.read(["config-models", "alerts"])
    made = Service(deployed, tmp_path / "evaluation.log", reader, codec)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    await reader.close()


async def uninterrupted(bus: KafkaBus, codec: Codec) -> Run:
    """What one process without a break makes of the log as it stands."""
    run = Run(LearningSettings.model_validate({"learning_labels": 40, "learning_grace_s": 0}).learning_rules())
    seen: set[str] = set()
    for topic in ("labels", "model-commands"):  # every command came after the labels had been learned from
        async with history(bus, [topic]) as messages:
            async for message in messages:
                assert message.value is not None
                record: Record = codec.decode(message.topic, message.value)
                if record.event_id not in seen:
                    seen.add(record.event_id)
                    run.read(record, message)
    return run


async def test_a_killed_worker_promotes_once_what_an_uninterrupted_one_does_and_a_command_takes_it_back(
    service: Service,
    bus: KafkaBus,
    deployed: Mapping[str, str],
    penstock_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    team = f"team-{uuid.uuid4().hex[:8]}"
    producer = Producer(bus.producer(), service.codec, "test")
    labels: list[Label] = [
        msgspec.structs.replace(each, event_id=f"{team}-{n}", tenant_id=team, occurred_at=datetime.now(UTC))
        for n, each in enumerate(honest(LABELS))
    ]
    acks = []
    for number, each in enumerate(labels):
        # A producer that crashed sends again.
        acks += [await producer.send("labels", "toxicity", each) for _ in range(2 if number % 20 == 7 else 1)]
    for ack in acks:
        await ack
    await service.until(lambda: any(record.name == "toxicity@challenger" for record in service.models))
    await service.kill()
    service.start()
    await service.until(lambda: service.schedules() and service.promoted)

    run = await uninterrupted(bus, service.codec)
    expected = run.state
    assert expected.promotions >= 1
    await service.until(lambda: service.schedules()[-1].version == expected.version)
    assert read_schedule(service.schedules()[-1]) == expected.schedule
    assert {alert.labels["version"] for alert in service.promoted.values()} == {
        change.version for change in expected.schedule[1:]
    }
    assert len(service.promoted) == expected.promotions

    done = penstock_cli(["evaluate", "models", "rollback", "toxicity", "--reason", "a test"], deployed)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "is in force from" in done.stdout
    shown = penstock_cli(["evaluate", "models", "show", "toxicity", "--json"], deployed)
    assert shown.returncode == 0, shown.stderr + shown.stdout
    standing = json.loads(shown.stdout)
    run = await uninterrupted(bus, service.codec)
    assert run.state.schedule[-1].cause == "rolled back"
    assert standing["champion"] == run.state.version != expected.version
    champions = await Champions.open(bus, service.codec, [learner()])
    await champions.close()
    assert champions.schedule("toxicity") == run.state.schedule
    for change in run.state.schedule:
        version, weights = champions.at("toxicity", change.effective_from)
        archived = run.states.get(f"toxicity@{version}")
        assert learner().pack(weights) == (archived.weights if archived else learner().pack(learner().shipped()))

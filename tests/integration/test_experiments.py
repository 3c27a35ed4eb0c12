"""Experiments in the real service on real Kafka: killed in mid-stream it tells each decision once, and the same."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from penstock.bus import KafkaBus, Message, Producer, history
from penstock.bus.types import RawReader
from penstock.config.kinds import Arm, Experiment, Metric
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import (
    Context,
    Cost,
    Evaluation,
    ExperimentEvent,
    LlmResult,
    Observation,
    Record,
    Score,
)
from penstock.stateful.entries import EntryCodec

from services.evaluation.experiments.core import experiments
from services.evaluation.experiments.reading import CHANGELOG
from services.evaluation.experiments.state import Standing

PROJECT = Path(__file__).resolve().parents[2]
USERS = 150
REQUESTS = 600


def an_experiment(team: str) -> Experiment:
    return Experiment(
        name=f"models-{team}", team=team, arms=(Arm(name="control"), Arm(name="large", route="passthrough")),
        metrics=(
            Metric(name="feedback.rating"),
            Metric(name="cost", role="guard", better="lower", margin=0.001, upper_bound=0.1),
        ),
    )  # fmt: skip


def users() -> set[str]:
    """Who sends."""
    return {f"user-{random.Random(number).randrange(USERS)}" for number in range(REQUESTS)}


def flow(experiment: Experiment, number: int) -> list[tuple[str, Record]]:
    """The events of one request: answers of the second arm are rated better and cost more than the guard allows."""
    dice, at = random.Random(number), datetime.now(UTC)
    user = f"user-{dice.randrange(USERS)}"
    arm = experiment.arm_of(experiment.unit_of(user, None, ""))
    assert arm is not None
    context = Context(
        user_id=user, requested_at=at, admitted_at=at, experiments={experiment.name: arm.name},
        experiment_versions={experiment.name: experiment.design},
    )  # fmt: skip

    def common(what: str) -> dict[str, Any]:
        return {
            "event_id": f"{experiment.name}-{what}{number}", "request_id": f"{experiment.name}-r{number}",
            "tenant_id": experiment.team, "occurred_at": at + timedelta(seconds=1), "causation_id": "", "context": context,
        }  # fmt: skip

    large = arm.name == "large"
    rating = Score(name="rating", subject="feedback", score=float(dice.random() < (0.9 if large else 0.5)))
    amount = Decimal(dice.randrange(8, 12)) / (500 if large else 5_000)
    return [
        ("llm-results", LlmResult(**common("result"), status="completed")),
        ("evaluations", Evaluation(**common("rating"), scores=[rating])),
        ("costs", Cost(**common("cost"), model="m", priced=True, amount=amount)),
    ]


@asynccontextmanager
async def evaluation(environment: Mapping[str, str], log: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.evaluation"],
            cwd=PROJECT,
            env={**os.environ, **environment, "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


@dataclass
class Followed:
    """What topics hold under our keys, read once and followed."""

    reader: RawReader
    ours: Callable[[Message], bool]
    messages: list[Message] = field(default_factory=list)

    async def until(self, done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
        """Read on until ``done()``."""
        async with asyncio.timeout(150):
            while not done():
                assert process.poll() is None, await asyncio.to_thread(log.read_text)
                self.messages += [message for message in await self.reader.poll(0.2) if self.ours(message)]


def observations(followed: Followed, codec: Codec) -> list[tuple[Message, Observation]]:
    """In order: an experiment has one key, hence one partition."""
    decoded = [(message, codec.decode(message.topic, message.value)) for message in followed.messages]
    return [(message, record) for message, record in decoded if isinstance(record, Observation)]


def key(experiment: Experiment) -> bytes:
    return f"{experiment.team}|{experiment.name}".encode()


def uninterrupted(
    experiment: Experiment, seen: list[tuple[Message, Observation]]
) -> tuple[Standing, dict[str, Record]]:
    """The state and the events that one run over ``seen`` leads to, which nothing interrupts."""
    logic = experiments({experiment.name: experiment}.get)
    state: Standing | None = None
    emitted: dict[str, Record] = {}
    known: set[str] = set()
    for message, record in seen:
        if record.event_id in known:
            continue  # written again by a hop that was killed
        known.add(record.event_id)
        at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=message.timestamp_ms)
        for _, event in logic.route(record, message, lambda _: None):
            state, emits = logic.step(state, event, at)
            emitted |= {emit.record.event_id: emit.record for emit in emits}
    assert state is not None
    return state, emitted


async def test_a_killed_agent_decides_once_and_as_one_that_was_never_killed(
    bus: KafkaBus,
    deployed: Mapping[str, str],
    tmp_path: Path,
    penstock_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    codec = await Codec.resolve(Catalogue.load(), deployed["SCHEMA_REGISTRY_URL"])
    producer = Producer(bus.producer(), codec, "test")
    experiment = an_experiment(f"team-{uuid.uuid4().hex[:8]}")
    await publish_changes([Change("experiments", experiment.key, "new", None, experiment)], producer, datetime.now(UTC))
    log = tmp_path / "evaluation.log"

    async def send(numbers: range) -> None:
        sent = [
            await producer.send(topic, record.request_id, record)
            for number in numbers
            for topic, record in flow(experiment, number)
        ]
        for ack in sent:
            await ack

    mine = Followed(await bus.read(["experiment-observations"]), lambda message: message.key == key(experiment))

    def observed() -> int:
        return len({record.event_id for _, record in observations(mine, codec)})

    async with evaluation(deployed, log) as process:
        await send(range(REQUESTS // 2))
        await mine.until(lambda: observed() >= REQUESTS // 4, process, log)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
    await send(range(REQUESTS // 2, REQUESTS))
    async with evaluation(deployed, log) as process:
        await mine.until(lambda: observed() >= REQUESTS * 3, process, log)
        expected, events = uninterrupted(experiment, observations(mine, codec))
        table = Followed(
            await bus.read([CHANGELOG]), lambda message: experiment.design.encode() in (message.key or b"")
        )

        def stored() -> Standing | None:
            value = table.messages[-1].value if table.messages else None
            state: Standing | None = EntryCodec(Standing).unpack(value)[1] if value is not None else None
            return state

        # The state that a crash led to is the same to the last bit.
        await table.until(lambda: stored() == expected, process, log)
        async with history(bus, ["experiment-events", "alerts"]) as messages:
            told = [codec.decode(m.topic, m.value) async for m in messages]

    async def command(*arguments: str) -> str:
        run = await asyncio.to_thread(penstock_cli, ["experiments", *arguments], deployed)
        assert run.returncode == 0, run.stderr
        return run.stdout

    data = json.loads(await command("show", experiment.name, "--json"))
    listed = json.loads(await command("list", "--team", experiment.team, "--json"))
    assert listed["requests"] == REQUESTS
    assert sum(listed["units"].values()) == pytest.approx(len(users()), abs=1)
    await command("report", experiment.name, "--html", str(tmp_path / "page.html"))
    assert experiment.name in await asyncio.to_thread((tmp_path / "page.html").read_text)
    assert {(c["metric"], c["decision"]) for c in data["comparisons"]} == {
        ("feedback.rating", "better"),
        ("cost", "worse"),
    }
    assert len(data["told"]) == 2
    ours = [record for record in told if record.tenant_id == experiment.team and record.event_id in events]
    assert {record.event_id for record in ours} == set(events)
    assert all(record == events[record.event_id] for record in ours), "a repetition says the same"
    decided = {(e.metric, e.decision) for e in events.values() if isinstance(e, ExperimentEvent)}
    assert decided == {("feedback.rating", "better"), ("cost", "worse")}
    others = [r for r in told if r.tenant_id == experiment.team and isinstance(r, ExperimentEvent)]
    assert {r.event_id for r in others} <= set(events)
    for each in (mine, table):
        await each.reader.close()

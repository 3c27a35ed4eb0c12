"""Drift on the log: the projection hop in memory, and the whole service on real Kafka, killed and rebalanced in
mid-stream."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from penstock.bus import Event, KafkaBus, MemoryBus, Message, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import (
    Alert,
    Completion,
    Context,
    Cost,
    DeadLetter,
    DriftCommand,
    DriftEvent,
    Record,
    Timings,
    Usage,
)
from penstock.settings import ServiceSettings

from services.drift.app import projection_hop
from services.drift.budget import Budget
from services.drift.core import Rules, logic

PROJECT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CENTRES = np.random.default_rng(11).standard_normal((2, 384))
TOPIC, RELEASE, LAST = 60, 120, 170
"""Completions of a team after which its topic changes, and after which a new prompt version answers at length."""


def a_completion(number: int, team: str) -> Completion:
    """Return the ``number``-th completion of a team's traffic."""
    rng = np.random.default_rng(number)
    vector = CENTRES[int(number >= TOPIC)] + rng.standard_normal(384)
    tokens = (200 if number >= RELEASE else 20) + int(rng.integers(0, 9))
    return Completion(
        event_id=f"{team}-e{number}",
        request_id=f"{team}-r{number}",
        tenant_id=team,
        occurred_at=NOW + timedelta(seconds=number),
        causation_id=f"{team}-c{number}",
        context=Context(requested_at=NOW, prompt_version="v2" if number >= RELEASE else "v1"),
        messages=[],
        model="extractive",
        backend="extractive",
        usage=Usage(input_tokens=30 + number % 5, output_tokens=tokens),
        timings=Timings(model_us=1000 + 10 * (number % 7)),
        embedding=vector.astype("<f4").tobytes(),
    )


class NoTexts:
    """Reads no texts."""

    async def read(self, events: Sequence[Event[Any]]) -> list[Mapping[str, str | bytes]]:
        """Return nothing of each event."""
        return [{} for _ in events]


class Languages(NoTexts):
    """Says that every text is English."""

    async def read(self, events: Sequence[Event[Any]]) -> list[Mapping[str, str | bytes]]:
        """Return the language of answers."""
        return [{"answer.language": "en"} if event.topic == "completions" else {} for event in events]


async def test_the_hop_projects_all_sources_and_puts_aside_what_is_no_embedding(catalogue: Catalogue) -> None:
    bus = MemoryBus(catalogue, ManualClock())
    stop = asyncio.Event()
    settings = ServiceSettings(dlq_min_messages=1000)
    hop = run_hops([projection_hop(Languages())], bus, bus.codec, SystemClock(), settings, stop)
    task = asyncio.create_task(hop)
    for number in range(5):
        await bus.publish("completions", f"r{number}", a_completion(number, "support"))
    broken = msgspec.structs.replace(a_completion(9, "support"), embedding=b"abc")
    await bus.publish("completions", "r9", broken)
    cost = Cost(
        event_id="k1",
        request_id="support-r1",
        tenant_id="support",
        occurred_at=NOW,
        causation_id="c",
        context=Context(requested_at=NOW),
        model="extractive",
        priced=False,
    )
    await bus.publish("costs", "support", cost)
    signals = await bus.collect("signals", 10)
    (dead,) = await bus.collect("dlq-drift", 1)
    await bus.settled("drift-signals", ["completions", "costs"])
    stop.set()
    await task
    assert len(bus.messages("signals")) == 10, "one of the segment, one of its route; an unpriced call has no figure"
    assert {event.message.key for event in signals} == {b"support|default"}, "a family keeps one order"
    assert {event.record.segment for event in signals} == {"support|extractive|v1|default", "support|*|v1|default"}
    assert {event.record.source for event in signals} == {"completions"}
    of_model = [event.record for event in signals if event.record.segment == "support|extractive|v1|default"]
    assert {each.categories["answer.language"] for each in of_model} == {"en"}
    assert isinstance(dead.record, DeadLetter)
    assert (dead.record.code, dead.record.origin_topic) == ("invalid_embedding", "completions")


class Worker:
    """``python -m services.drift`` as a process of its own."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = environment
        self.log = log
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **self._environment,
            "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}",
            "SESSION_TIMEOUT_MS": "6000",
            "DRIFT_CHECKPOINT_S": "0.2",
            "DRIFT_ANSWER_SHARE": "0",
        }
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "services.drift"], cwd=PROJECT, env=environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def restart(self) -> None:
        self.process = self._start()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


def uninterrupted(messages: Iterable[tuple[Message, Record]], partitions: int) -> dict[str, Record]:
    """Return what one run over the log of signals gives that nothing ever stopped, by identity."""
    rules = logic(Rules(budget=Budget(per_day=1.0 / partitions)))
    states: dict[int, dict[str, Any]] = defaultdict(dict)
    seen: set[str] = set()
    found: dict[str, Record] = {}
    for message, record in messages:
        if record.event_id in seen:
            continue  # written again by the hop after a crash
        seen.add(record.event_id)
        known = states[message.partition]
        now = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=message.timestamp_ms)
        stores: dict[str, Any] = {}
        for key, event in rules.route(record, message, known.get):
            assert key is not None
            stores[key], emits = rules.step(known.get(key), event, now)
            found |= {emit.record.event_id: emit.record for emit in emits}
        known |= stores
    return found


@pytest.mark.timeout(420)
async def test_workers_that_are_killed_and_rebalanced_in_mid_stream_tell_what_an_uninterrupted_run_does(
    deployed: Mapping[str, str], bus: KafkaBus, catalogue: Catalogue, tmp_path: Path
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"], timeout_s=30)
    producer = Producer(bus.producer(), codec, "tests", SystemClock())
    run = uuid.uuid4().hex[:8]
    teams = [f"drift-{run}-{number}" for number in range(6)]
    reader = await bus.read(["drift-events", "alerts", "signals"])
    log: dict[int, list[tuple[Message, Record]]] = defaultdict(list)
    told: dict[str, Record] = {}
    signals: set[str] = set()
    workers = [Worker(deployed, tmp_path / "first.log")]

    async def until(condition: str, done: Callable[[], object]) -> None:
        async with asyncio.timeout(150):
            while not done():
                for worker in workers:
                    assert worker.process.poll() is None, (
                        f"a worker ended; {condition}: {worker.log.read_text()[-3000:]}"
                    )
                for message in await reader.poll(0.2):
                    record = codec.decode(message.topic, message.value)
                    if message.topic == "signals":
                        log[message.partition].append((message, record))
                        if record.tenant_id in teams:
                            signals.add(record.event_id)  # those that a killed hop wrote again count once
                    if record.tenant_id in teams and message.topic != "signals":
                        first = told.setdefault(record.event_id, record)
                        assert first == record, "a repetition is the same event"

    async def send(first: int, last: int) -> None:
        # One after the other: the order in which a segment sees them is then that of the log.
        for number in range(first, last):
            for team in teams:
                await (await producer.send("completions", team, a_completion(number, team)))

    def projected(count: int) -> Callable[[], object]:
        return lambda: len(signals) >= 2 * count * len(teams)

    try:
        await send(0, 40)
        await until("signals of the first part", projected(40))
        workers.append(Worker(deployed, tmp_path / "second.log"))  # half of the partitions go to it
        await send(40, TOPIC + 10)
        await until("signals of the second part", projected(TOPIC + 10))
        first = workers.pop(0)
        first.kill()  # all of them go to the second
        await send(TOPIC + 10, RELEASE - 10)
        await until("signals of the third part", projected(RELEASE - 10))
        first.restart()
        workers.append(first)
        await send(RELEASE - 10, RELEASE + 20)
        second = workers.pop(0)
        second.kill()
        await send(RELEASE + 20, LAST)
        second.restart()
        workers.append(second)
        await until("signals of the last part", projected(LAST))
        expected = {
            identity: record
            for part in log.values()
            for identity, record in uninterrupted(part, catalogue.topics["signals"].partitions).items()
            if record.tenant_id in teams
        }
        await until("all changes", lambda: expected.keys() <= told.keys())
        events = [record for record in told.values() if isinstance(record, DriftEvent)]
        assert told == expected
        for team in teams:
            own = [event for event in events if event.tenant_id == team]
            topic = [event for event in own if event.signal == "prompt.topic"]
            assert [event.segment.split("|")[2] for event in topic] == ["v1"]
            assert TOPIC <= int(topic[0].request_id.rpartition("r")[2]) < TOPIC + 45
            (release,) = [event for event in own if event.signal == "answer.tokens"]
            assert release.reference_mode == "release"
            assert [(each.name, each.before, each.after) for each in release.releases] == [("prompt", "v1", "v2")]

        firing = [record for record in told.values() if isinstance(record, Alert)]
        alert = next(each for each in firing if each.tenant_id == teams[0] and each.labels["signal"] == "answer.tokens")
        command = DriftCommand(
            event_id=f"{run}-rebase",
            request_id="",
            tenant_id=teams[0],
            occurred_at=datetime.now(UTC),
            causation_id="",
            action="rebase",
            segment=f"{teams[0]}|*|*|default",
            author="ada",
        )
        await (await producer.send("drift-commands", f"{teams[0]}|default", command))
        ended = lambda: [  # noqa: E731
            each
            for each in told.values()
            if isinstance(each, Alert) and each.status == "resolved" and each.fingerprint == alert.fingerprint
        ]
        await until("the end of the alert", ended)
        status = [worker.stop() for worker in workers]
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
        await reader.close()
    assert status == [0, 0], [worker.log.read_text()[-3000:] for worker in workers]

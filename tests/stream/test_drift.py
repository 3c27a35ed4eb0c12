"""Drift on the log: the projection hop in memory, and the whole service on real Kafka, killed in mid-stream."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from penstock.bus import KafkaBus, MemoryBus, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Alert, Completion, Context, Cost, DeadLetter, DriftEvent, Timings, Usage
from penstock.settings import ServiceSettings

from services.drift.app import projection_hop
from services.drift.core import Observed, Parameters, SegmentState, step

PROJECT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CENTRES = np.random.default_rng(11).standard_normal((2, 384))
BEFORE, AFTER = 70, 70


def a_completion(number: int, team: str) -> Completion:
    """Return the ``number``-th completion of a team's traffic, whose topic changes at ``BEFORE``."""
    rng = np.random.default_rng(number)
    vector = CENTRES[int(number >= BEFORE)] + rng.standard_normal(384)
    return Completion(
        event_id=f"{team}-e{number}",
        request_id=f"{team}-r{number}",
        tenant_id=team,
        occurred_at=NOW,
        causation_id=f"{team}-c{number}",
        context=Context(requested_at=NOW),
        messages=[],
        model="extractive",
        backend="extractive",
        usage=Usage(input_tokens=30 + number % 5, output_tokens=10),
        timings=Timings(model_us=1000 + 10 * (number % 7)),
        embedding=vector.astype("<f4").tobytes(),
    )


async def test_the_hop_projects_all_sources_and_puts_aside_what_is_no_embedding(catalogue: Catalogue) -> None:
    bus = MemoryBus(catalogue, ManualClock())
    stop = asyncio.Event()
    settings = ServiceSettings(dlq_min_messages=1000)
    hop = run_hops([projection_hop()], bus, bus.codec, SystemClock(), settings, stop)
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
    signals = await bus.collect("signals", 5)
    (dead,) = await bus.collect("dlq-drift", 1)
    await bus.settled("drift-signals", ["completions", "costs"])
    stop.set()
    await task
    assert len(bus.messages("signals")) == 5, "an unpriced call has no figure, so no signal"
    assert {event.message.key for event in signals} == {b"support|extractive|-|default"}
    assert {event.record.source for event in signals} == {"completions"}
    assert isinstance(dead.record, DeadLetter)
    assert (dead.record.code, dead.record.origin_topic) == ("invalid_embedding", "completions")
    state: SegmentState | None = None
    for event in signals:
        state, _ = step(state, Observed(event.record, event.partition, event.offset), NOW, Parameters())
    assert state is not None
    assert state.topic.seen == 5


class Service:
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
        }
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "services.drift"], cwd=PROJECT, env=environment, stdout=log, stderr=log
            )

    def kill_and_restart(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.process = self._start()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@pytest.mark.timeout(300)
async def test_a_service_killed_in_mid_stream_tells_the_same_changes_once(
    deployed: Mapping[str, str], bus: KafkaBus, catalogue: Catalogue, tmp_path: Path
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"], timeout_s=30)
    producer = Producer(bus.producer(), codec, "tests", SystemClock())
    team = f"drift-{uuid.uuid4().hex[:8]}"
    reader = await bus.read(["drift-events", "alerts", "signals"], from_end=True)
    events: dict[str, DriftEvent] = {}
    alerts: dict[str, Alert] = {}
    signals: dict[str, Observed] = {}

    async def until(condition: str, done: object) -> None:
        async with asyncio.timeout(120):
            while not done():  # type: ignore[operator]
                assert service.process.poll() is None, (
                    f"the service ended; {condition}: {service.log.read_text()[-3000:]}"
                )
                for message in await reader.poll(0.2):
                    record = codec.decode(message.topic, message.value)
                    if record.tenant_id != team:
                        continue
                    known = {"drift-events": events, "alerts": alerts}.get(message.topic)
                    if known is not None:
                        assert known.setdefault(record.event_id, record) == record, "a repetition is the same event"
                    else:
                        signals.setdefault(record.event_id, Observed(record, message.partition, message.offset))

    async def send(first: int, last: int) -> None:
        # One partition, one after the other: the order in which the segment sees them is then known.
        for number in range(first, last):
            await (await producer.send("completions", team, a_completion(number, team)))

    service = Service(deployed, tmp_path / "drift.log")
    try:
        await send(0, 50)
        await until("signals of the first part", lambda: len(signals) >= 50)
        service.kill_and_restart()
        await send(50, BEFORE + 10)
        await until("signals of the second part", lambda: len(signals) >= BEFORE + 10)
        service.kill_and_restart()
        await send(BEFORE + 10, BEFORE + AFTER)
        await until("the change", lambda: len(signals) >= BEFORE + AFTER and alerts)
        status = service.stop()
    finally:
        if service.process.poll() is None:
            service.process.kill()
        await reader.close()
    assert status == 0, service.log.read_text()[-3000:]

    state: SegmentState | None = None
    expected = []
    for observed in sorted(signals.values(), key=lambda each: each.offset):
        state, emits = step(state, observed, NOW, Parameters())
        expected += [emit.record.event_id for emit in emits if emit.topic == "drift-events"]
    assert len(expected) >= 1
    assert list(events) == expected, "an uninterrupted run over the same log finds the same"
    topic = [event for event in events.values() if event.signal == "prompt.topic"]
    assert len(topic) == 1
    assert BEFORE <= int(topic[0].request_id.rpartition("r")[2]) < BEFORE + 40
    assert {alert.causation_id for alert in alerts.values()} <= set(events)

"""The alerting service on real Kafka and Redis: killed while a receiver fails, and after it acknowledged."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from aiohttp import web
from penstock.bus import KafkaBus, Producer
from penstock.clock import SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Alert, AlertDelivery

PROJECT = Path(__file__).resolve().parents[2]


class Receiver:
    """A webhook that fails until it is told to work."""

    def __init__(self) -> None:
        self.works = False
        self.refused = 0
        self.acknowledged: Counter[str] = Counter()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if not self.works:
            self.refused += 1
            return web.Response(status=503)
        self.acknowledged.update(alert["event_id"] for alert in body["alerts"])
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    told = Receiver()
    app = web.Application()
    app.router.add_post("/hook", told.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield told
    await runner.cleanup()


def start(environment: Mapping[str, str], receiver: Receiver, log: Path) -> subprocess.Popen[bytes]:
    settings = {
        "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}",
        "SESSION_TIMEOUT_MS": "6000",
        "ALERT_WEBHOOK_URL": receiver.url,
        "ALERT_WEBHOOK_SECRET": "secret",
        "ALERT_GROUP_WAIT_S": "0.2",
    }
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "services.alerting"],
            cwd=PROJECT,
            env={**os.environ, **environment, **settings},
            stdout=out,
            stderr=out,
        )


@pytest.mark.timeout(300)
async def test_killed_while_the_receiver_fails_and_after_it_acknowledged_each_alert_arrives_once(
    deployed: Mapping[str, str], bus: KafkaBus, catalogue: Catalogue, receiver: Receiver, tmp_path: Path
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"], timeout_s=30)
    producer = Producer(bus.producer(), codec, "tests", SystemClock())
    reader = await bus.read(["alert-deliveries"], from_end=True)
    team = f"alerting-{uuid.uuid4().hex[:8]}"
    recorded: dict[str, AlertDelivery] = {}
    log = tmp_path / "alerting.log"

    async def until(done: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not done():
                assert process.poll() is None, log.read_text()[-3000:]
                for message in await reader.poll(0.2):
                    record = codec.decode(message.topic, message.value)
                    if isinstance(record, AlertDelivery) and record.tenant_id == team:
                        recorded[record.causation_id] = record

    async def send(first: int, last: int) -> None:
        for number in range(first, last):
            alert = Alert(
                event_id=f"{team}-{number}",
                request_id="r1",
                tenant_id=team,
                occurred_at=SystemClock().now(),
                causation_id="c1",
                kind="drift",
                name="topic_shift",
                severity="warning",
                title="the topic has shifted",
                description="It has.",
                fingerprint=f"{team}-f{number}",
            )
            await (await producer.send("alerts", alert.fingerprint, alert))

    process = start(deployed, receiver, log)
    try:
        await send(0, 5)
        await until(lambda: receiver.refused >= 2)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        receiver.works = True
        process = start(deployed, receiver, log)
        await send(5, 8)
        await until(lambda: len(recorded) >= 8)
        # The offsets of what was just recorded may not be committed yet.
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process = start(deployed, receiver, log)
        await send(8, 10)
        await until(lambda: len(recorded) >= 10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
        await reader.close()
    wanted = {f"{team}-{number}" for number in range(10)}
    assert set(recorded) == wanted
    assert {record.outcome for record in recorded.values()} == {"delivered"}
    assert {
        event_id: count for event_id, count in receiver.acknowledged.items() if event_id in wanted
    } == dict.fromkeys(wanted, 1)

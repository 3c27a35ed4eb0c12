"""The alerting service as processes on real Kafka and Redis: killed, joined by a second, robbed of what Redis held."""

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
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace
from penstock.bus import KafkaBus, Producer
from penstock.clock import SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Alert, AlertAction, AlertDelivery
from redis.asyncio import Redis

PROJECT = Path(__file__).resolve().parents[2]


class Receiver:
    """A webhook that answers as it is told: ``works``, ``fails`` or ``hangs``."""

    def __init__(self) -> None:
        self.mood = "works"
        self.refused: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.messages: list[dict[str, object]] = []
        self.hung = 0
        self.url = ""
        self._released = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        events = [alert["event_id"] for alert in body["alerts"]]
        if self.mood == "fails":
            self.refused.update(events)
            return web.Response(status=500)
        if self.mood == "hangs":
            self.hung += 1
            await self._released.wait()
            return web.Response(status=503)
        self.acknowledged.update(events)
        self.messages.append(body)
        return web.Response(status=204)

    def release(self) -> None:
        self._released.set()


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
    told.release()
    await runner.cleanup()


class Alerting:
    """Processes of alerting, and what they record about one team."""

    def __init__(
        self, deployed: Mapping[str, str], bus: KafkaBus, codec: Codec, receiver: Receiver, folder: Path
    ) -> None:
        self.team = f"alerting-{uuid.uuid4().hex[:8]}"
        self.receiver = receiver
        self.records: dict[str, AlertDelivery] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        self._deployed = deployed
        self._codec = codec
        self._bus = bus
        self._log = folder / "alerting.log"
        self._producer = Producer(bus.producer(), codec, "tests", SystemClock())

    async def __aenter__(self) -> Alerting:
        self._reader = await self._bus.read(["alert-deliveries"], from_end=True)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait(10)
        await self._reader.close()

    def start(self) -> subprocess.Popen[bytes]:
        settings = {
            "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}",
            "SESSION_TIMEOUT_MS": "6000",
            "MONITOR_ENABLED": "false",
            "ALERT_WEBHOOK_URL": self.receiver.url,
            "ALERT_WEBHOOK_SECRET": "secret",
            "ALERT_WEBHOOK_TIMEOUT_S": "3",
            "ALERT_GROUP_WAIT_S": "0.2",
        }
        with self._log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.alerting"],
                cwd=PROJECT,
                env={**os.environ, **self._deployed, **settings},
                stdout=out,
                stderr=out,
            )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        self.processes.remove(process)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, self._log.read_text()[-3000:]

    async def until(self, done: Callable[[], bool], timeout_s: float = 120) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not done():
                    for process in self.processes:
                        assert process.poll() is None, self._log.read_text()[-3000:]
                    for message in await self._reader.poll(0.2):
                        record = self._codec.decode(message.topic, message.value)
                        if isinstance(record, AlertDelivery) and record.tenant_id == self.team:
                            self.records[record.event_id] = record
        except TimeoutError:
            raise AssertionError(f"{self.records}\n{self._log.read_text()[-3000:]}") from None

    def begun(self) -> int:
        """Number of processes that have begun to run."""
        return self._log.read_text().count('"event": "starting"')

    def ended(self, outcome: str = "delivered") -> Counter[str]:
        """Alerts by the number of records that say so."""
        return Counter(record.causation_id for record in self.records.values() if record.outcome == outcome)

    async def send(self, first: int, last: int, **changes: object) -> list[str]:
        """Raise alerts, each of a condition of its own; return their event ids."""
        ids = []
        for number in range(first, last):
            alert = Alert(
                event_id=f"{self.team}-{number}",
                request_id="r1",
                tenant_id=self.team,
                occurred_at=SystemClock().now(),
                causation_id="c1",
                kind="drift",
                name="topic_shift",
                severity="warning",
                title="the topic has shifted",
                description="It has.",
                fingerprint=f"{self.team}-f{number}",
            )
            alert = replace(alert, **changes)
            await (await self._producer.send("alerts", alert.fingerprint, alert))
            ids.append(alert.event_id)
        return ids

    async def act(self, action: str, **changes: object) -> None:
        record = AlertAction(
            event_id=uuid.uuid4().hex,
            request_id="",
            tenant_id=self.team,
            occurred_at=SystemClock().now(),
            causation_id="",
            action=action,
            author="tests",
        )
        record = replace(record, **changes)
        key = record.fingerprint or record.silence_id or ""
        await (await self._producer.send("alert-actions", key, record))

    def acknowledged(self) -> dict[str, int]:
        """How often the receiver said 2xx to each alert of the team."""
        return {event: count for event, count in self.receiver.acknowledged.items() if event.startswith(self.team)}


@pytest.fixture
async def alerting(
    deployed: Mapping[str, str], bus: KafkaBus, catalogue: Catalogue, receiver: Receiver, tmp_path: Path
) -> AsyncIterator[Alerting]:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"], timeout_s=30)
    async with Alerting(deployed, bus, codec, receiver, tmp_path) as opened:
        yield opened


@pytest.mark.timeout(300)
async def test_killed_while_the_receiver_fails_and_after_it_acknowledged_each_alert_arrives_once(
    alerting: Alerting, receiver: Receiver
) -> None:
    receiver.mood = "fails"
    process = alerting.start()
    wanted = await alerting.send(0, 5)
    await alerting.until(lambda: receiver.refused.total() >= 10)
    alerting.kill(process)
    receiver.mood = "works"
    process = alerting.start()
    wanted += await alerting.send(5, 8)
    await alerting.until(lambda: len(alerting.ended()) >= 8)
    # The offsets of what was just recorded may not be committed yet.
    alerting.kill(process)
    process = alerting.start()
    wanted += await alerting.send(8, 10)
    await alerting.until(lambda: len(alerting.ended()) >= 10)
    alerting.stop(process)
    assert alerting.ended() == Counter(wanted)
    assert alerting.acknowledged() == dict.fromkeys(wanted, 1)


@pytest.mark.timeout(300)
async def test_a_second_replica_takes_over_what_the_first_was_sending_when_it_was_killed(
    alerting: Alerting, receiver: Receiver
) -> None:
    receiver.mood = "hangs"
    first = alerting.start()
    wanted = await alerting.send(0, 6)
    await alerting.until(lambda: receiver.hung >= 1)
    second = alerting.start()
    # While it joins, partitions move; what the first sends goes on.
    wanted += await alerting.send(6, 12)
    await alerting.until(lambda: receiver.hung >= 2)
    alerting.kill(first)
    receiver.mood = "works"
    wanted += await alerting.send(12, 20)
    await alerting.until(lambda: len(alerting.ended()) >= 20)
    third = alerting.start()
    await alerting.until(lambda: alerting.begun() == 3)
    wanted += await alerting.send(20, 40)
    await alerting.until(lambda: len(alerting.ended()) >= 40)
    alerting.stop(second)
    alerting.stop(third)
    assert alerting.ended() == Counter(wanted)
    assert alerting.acknowledged() == dict.fromkeys(wanted, 1)
    assert not alerting.ended("dead")


@pytest.mark.timeout(300)
async def test_what_redis_lost_is_rebuilt_from_the_log(
    alerting: Alerting, receiver: Receiver, deployed: Mapping[str, str]
) -> None:
    process = alerting.start()
    delivered = await alerting.send(0, 5)
    await alerting.until(lambda: len(alerting.ended()) >= 5)
    # One is in hand, one is silenced, three are on their way: the receiver does not answer well.
    await alerting.act("acknowledge", fingerprint=f"{alerting.team}-f0")
    until = SystemClock().now() + timedelta(hours=1)
    await alerting.act("silence", silence_id=alerting.team, match={"name": f"{alerting.team}*"}, ends_at=until)
    receiver.mood = "fails"
    under_way = await alerting.send(5, 8)
    await alerting.until(lambda: all(receiver.refused[event] for event in under_way))
    silenced = await alerting.send(8, 9, name=f"{alerting.team}-quiet")
    await alerting.until(lambda: bool(alerting.ended("suppressed")[silenced[0]]))

    async with Redis.from_url(deployed["REDIS_URL"]) as redis:
        await redis.flushall()
    receiver.mood = "works"
    await alerting.until(lambda: all(alerting.ended()[event] for event in under_way))
    # Worse than before would be told; the same again of what is acknowledged, silenced or told is not.
    again = [
        *await alerting.send(10, 11, fingerprint=f"{alerting.team}-f0"),
        *await alerting.send(11, 12, fingerprint=f"{alerting.team}-f1"),
        *await alerting.send(12, 13, name=f"{alerting.team}-quiet"),
    ]
    await alerting.until(lambda: all(alerting.ended("suppressed")[event] for event in again))
    last = await alerting.send(13, 14)
    await alerting.until(lambda: bool(alerting.ended()[last[0]]))
    reasons = {r.causation_id: r.reason or "" for r in alerting.records.values() if r.outcome == "suppressed"}
    assert "acknowledged" in reasons[again[0]]
    assert "repeats" in reasons[again[1]]
    assert "silenced" in reasons[again[2]]
    assert alerting.acknowledged() == dict.fromkeys([*delivered, *under_way, *last], 1)

    # Emptied while nobody runs.
    alerting.kill(process)
    async with Redis.from_url(deployed["REDIS_URL"]) as redis:
        await redis.flushall()
    process = alerting.start()
    last += await alerting.send(14, 15)
    await alerting.until(lambda: bool(alerting.ended()[last[1]]))
    alerting.stop(process)
    assert alerting.acknowledged() == dict.fromkeys([*delivered, *under_way, *last], 1)

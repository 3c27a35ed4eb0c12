"""Alerting on the in-memory log, with a real HTTP receiver on loopback and a memory of deliveries that can fail."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx
import msgspec
import pytest
from aiohttp import web
from penstock.bus import MemoryBus, Transient, run_hops
from penstock.clock import Clock, ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Alert, AlertDelivery
from penstock.settings import ServiceSettings

from services.alerting.adapters import Channel, Console, Webhook
from services.alerting.app import Deliveries, delivery_hop
from services.alerting.core import Policy, Receipt, Remembered, remembered

SETTINGS = ServiceSettings(dlq_min_messages=1000, stop_timeout_s=1.0)


class DictMemory:
    """A memory that outlives the service under test; ``away`` makes the next writes fail."""

    def __init__(self) -> None:
        self.receipts: dict[str, Receipt] = {}
        self.lasts: dict[str, Remembered] = {}
        self.away = 0

    async def last(self, fingerprint: str) -> Remembered | None:
        return self.lasts.get(fingerprint)

    async def receipt(self, event_id: str) -> Receipt | None:
        return self.receipts.get(event_id)

    async def remember(self, alert: Alert, receipt: Receipt) -> None:
        if self.away > 0:
            self.away -= 1
            raise Transient("Redis is away")
        self.receipts[alert.event_id] = receipt
        if receipt.outcome == "delivered":
            self.lasts[alert.fingerprint] = remembered(alert)


@dataclass
class Receiver:
    """A webhook receiver: answers as told, then 200; keeps what it got."""

    answers: list[int | str] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes, int]] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        answer = self.answers.pop(0) if self.answers else 200
        status = answer if isinstance(answer, int) else 0
        self.got.append((dict(request.headers), body, status))
        async with self.arrived:
            self.arrived.notify_all()
        if answer == "hang":
            await asyncio.Event().wait()
        headers = {"Location": "http://127.0.0.1:1/"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers, text="received")

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.got) >= count)

    def acknowledged(self) -> list[str]:
        """Return the event_id of every alert that was answered with 200, in order."""
        return [
            alert["event_id"] for _, body, status in self.got if status == 200 for alert in json.loads(body)["alerts"]
        ]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    told = Receiver()
    app = web.Application()
    app.router.add_post("/hook", told.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    told.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield told
    await runner.cleanup()


@pytest.fixture
def bus(catalogue: Catalogue) -> MemoryBus:
    return MemoryBus(catalogue, SystemClock())


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(follow_redirects=False) as opened:
        yield opened


class Hurried:
    """The machine's clock, on which every pause is a hundredth: retries are real, but soon over."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.slept: list[float] = []
        self._skipped = 0.0

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic() + self._skipped

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._skipped += seconds * 0.99
        await self._clock.sleep(seconds / 100)


def a_webhook(client: httpx.AsyncClient, url: str, clock: Clock, **changes: float) -> Webhook:
    options = {"timeout_s": 2.0, "retry_s": 60.0} | changes
    return Webhook(client, url, "secret", clock, dice=random.Random(5), **options)  # type: ignore[arg-type]


@asynccontextmanager
async def running(
    bus: MemoryBus, channel: Channel, memory: DictMemory, group_wait_s: float = 0.0, clock: Clock | None = None
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    deliveries = Deliveries(channel, memory, Policy(), clock or SystemClock(), group_wait_s, 20)
    hop = delivery_hop(deliveries, 16)
    task = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), SETTINGS, stop))
    try:
        yield
    finally:
        stop.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(task, 5)
        await deliveries.close()


def an_alert(event_id: str, fingerprint: str = "", minutes: float = 0, **changes: object) -> Alert:
    alert = Alert(
        event_id=event_id,
        request_id="r1",
        tenant_id="support",
        occurred_at=SystemClock().now() + timedelta(minutes=minutes),
        causation_id="c1",
        kind="drift",
        name="topic_shift",
        severity="warning",
        title="the topic has shifted",
        description="It has.",
        fingerprint=fingerprint or f"f-{event_id}",
    )
    return msgspec.structs.replace(alert, **changes)


async def publish(bus: MemoryBus, *alerts: Alert) -> None:
    for alert in alerts:
        await bus.publish("alerts", alert.fingerprint, alert)


async def outcomes(bus: MemoryBus, count: int) -> dict[str, AlertDelivery]:
    return {event.record.causation_id: event.record for event in await bus.collect("alert-deliveries", count, 10)}


async def test_an_alert_reaches_the_receiver_signed_and_is_recorded(
    bus: MemoryBus, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    async with running(bus, a_webhook(client, receiver.url, SystemClock()), DictMemory()):
        await publish(bus, an_alert("a1"))
        recorded = (await outcomes(bus, 1))["a1"]
    assert (recorded.outcome, recorded.attempts, recorded.status_code) == ("delivered", 1, 200)
    assert recorded.destination == receiver.url.removesuffix("/hook")
    headers, body, _ = receiver.got[0]
    assert headers["Idempotency-Key"] == "a1"
    stamp, digest = (part.split("=")[1] for part in headers["Penstock-Signature"].split(","))
    assert hmac.compare_digest(digest, hmac.new(b"secret", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest())


async def test_failures_are_retried_until_acknowledged_and_refusals_are_dead(
    bus: MemoryBus, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    clock = Hurried()
    receiver.answers = [500, 429, "hang", 503, 200, 400, 302]
    async with running(bus, a_webhook(client, receiver.url, clock, timeout_s=0.2), DictMemory()):
        for number in range(3):
            await publish(bus, an_alert(f"a{number}"))
            await bus.collect("alert-deliveries", number + 1, 10)
        found = await outcomes(bus, 3)
    assert (found["a0"].outcome, found["a0"].attempts) == ("delivered", 5)
    assert {headers["Idempotency-Key"] for headers, _, _ in receiver.got[:5]} == {"a0"}
    assert (found["a1"].outcome, found["a1"].attempts, found["a1"].status_code) == ("dead", 1, 400)
    assert (found["a2"].outcome, found["a2"].attempts, found["a2"].status_code) == ("dead", 1, 302)
    pauses = [pause for pause in clock.slept if pause > 0]
    assert len(pauses) == 4


async def test_a_receiver_that_stays_away_is_given_up_in_bounded_time(
    bus: MemoryBus, client: httpx.AsyncClient
) -> None:
    clock = Hurried()
    channel = a_webhook(client, "http://127.0.0.1:9/hook", clock, retry_s=20.0)
    async with running(bus, channel, DictMemory()):
        await publish(bus, an_alert("a1"))
        recorded = (await outcomes(bus, 1))["a1"]
    assert recorded.outcome == "dead"
    assert recorded.attempts >= 3
    assert "given up" in (recorded.reason or "")
    assert sum(clock.slept) <= 20


async def test_a_hanging_delivery_does_not_hold_up_the_others(
    bus: MemoryBus, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    receiver.answers = ["hang"]
    async with running(bus, a_webhook(client, receiver.url, SystemClock(), timeout_s=30.0), DictMemory()):
        await publish(bus, an_alert("a1"))
        await receiver.until(1)
        await publish(bus, *(an_alert(f"b{number}", tenant_id=f"t{number}") for number in range(5)))
        found = await outcomes(bus, 5)
    assert set(found) == {f"b{number}" for number in range(5)}


async def test_after_a_stop_in_mid_retry_the_delivery_is_made_by_the_next_process_and_only_then(
    bus: MemoryBus, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    memory = DictMemory()
    receiver.answers = ["hang"]
    async with running(bus, a_webhook(client, receiver.url, SystemClock(), timeout_s=60.0), memory):
        await publish(bus, an_alert("a1"))
        await receiver.until(1)
    assert not bus.messages("alert-deliveries")
    async with running(bus, a_webhook(client, receiver.url, SystemClock()), memory):
        found = await outcomes(bus, 1)
    assert found["a1"].outcome == "delivered"
    assert receiver.acknowledged() == ["a1"]


async def test_a_replay_after_the_acknowledgement_delivers_nothing_and_records_the_same(
    catalogue: Catalogue, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    memory = DictMemory()
    alerts = [an_alert("a1"), an_alert("a2", "f-a1"), an_alert("a3")]
    records = []
    for _ in range(2):
        # A new log without committed offsets is what a group sees that lost them.
        bus = MemoryBus(catalogue, SystemClock())
        async with running(bus, a_webhook(client, receiver.url, SystemClock()), memory):
            await publish(bus, *alerts)
            records.append(await outcomes(bus, 3))
    assert records[0] == records[1]
    assert records[0]["a2"].outcome == "suppressed"
    assert sorted(receiver.acknowledged()) == ["a1", "a3"]


async def test_a_memory_that_is_away_after_the_acknowledgement_does_not_send_again(
    bus: MemoryBus, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    memory = DictMemory()
    memory.away = 3
    async with running(bus, a_webhook(client, receiver.url, SystemClock()), memory):
        await publish(bus, an_alert("a1"))
        assert (await outcomes(bus, 1))["a1"].outcome == "delivered"
    assert receiver.acknowledged() == ["a1"]
    assert memory.receipts["a1"].outcome == "delivered"


async def test_another_replica_that_was_faster_ends_the_retries(
    bus: MemoryBus, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    memory = DictMemory()
    clock = ManualClock(SystemClock().now())
    receiver.answers = [500]
    async with running(bus, a_webhook(client, receiver.url, clock), memory, clock=clock):
        alert = an_alert("a1")
        await publish(bus, alert)
        await receiver.until(1)
        await memory.remember(alert, Receipt("delivered", "webhook", "http://elsewhere", 1, 200, at=clock.now()))
        await advance(clock, bus, 1)
        found = await outcomes(bus, 1)
    assert found["a1"].destination == "http://elsewhere"
    assert len(receiver.got) == 1


async def test_alerts_of_a_team_and_kind_travel_together(
    bus: MemoryBus, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    clock = ManualClock(SystemClock().now())
    alerts = [an_alert("a1"), an_alert("a2"), an_alert("a3"), an_alert("b1", tenant_id="other")]
    async with running(bus, a_webhook(client, receiver.url, clock), DictMemory(), group_wait_s=2.0, clock=clock):
        await publish(bus, *alerts)
        await advance(clock, bus, 4)
        found = await outcomes(bus, 4)
    assert {record.outcome for record in found.values()} == {"delivered"}
    groups = sorted(sorted(alert["event_id"] for alert in json.loads(body)["alerts"]) for _, body, _ in receiver.got)
    assert sorted(each for group in groups for each in group) == ["a1", "a2", "a3", "b1"]
    assert len(groups) < 4
    assert ["b1"] in groups


async def test_the_console_prints_each_alert(bus: MemoryBus) -> None:
    stream = io.StringIO()
    async with running(bus, Console("", stream), DictMemory()):
        await publish(bus, an_alert("a1", title="first"), an_alert("a2", title="second", tenant_id="t2"))
        found = await outcomes(bus, 2)
    assert {record.channel for record in found.values()} == {"console"}
    assert "first" in stream.getvalue()
    assert "second" in stream.getvalue()


async def advance(clock: ManualClock, bus: MemoryBus, deliveries: int) -> None:
    """Move the clock until so many deliveries are recorded: what is asleep wakes, however late it fell asleep."""
    async with asyncio.timeout(10):
        while len(bus.messages("alert-deliveries")) < deliveries:
            clock.advance(0.5)
            await asyncio.sleep(0.005)

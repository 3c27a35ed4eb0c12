"""Alerting's hops and dispatcher on the in-memory log, with real HTTP receivers on loopback."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from aiohttp import web
from msgspec.structs import replace
from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import SystemClock
from penstock.config.alerting import Alerting, AlertRoute, Receiver
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Alert, AlertAction, AlertDelivery
from penstock.settings import ServiceSettings

from services.alerting.app import action_hop, alert_hop
from services.alerting.channels.opening import open_channel
from services.alerting.channels.posting import open_http_client
from services.alerting.desk import Desk
from services.alerting.destinations import Destinations
from services.alerting.dispatch import Channels, Dispatcher
from services.alerting.outbox import Outbox
from services.alerting.recovery import Recovery
from services.alerting.register import Register
from services.alerting.routing import Directory
from tests.unit.alerting_fakes import MAX_AGE, an_action, an_alert
from tests.unit.alerting_memory_store import MemoryStore

SETTINGS = ServiceSettings(dlq_min_messages=1000, stop_timeout_s=1.0)


@dataclass
class Webhook:
    """A receiver: answers as told, then 200; keeps the messages that it took."""

    answers: list[int | str] = field(default_factory=list)
    tries: int = 0
    taken: list[dict[str, object]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.tries += 1
        self.keys.append(request.headers["webhook-id"])
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "hang":
            await asyncio.Event().wait()
        if answer == 200:
            self.taken.append(body)
        return web.Response(status=int(answer))

    def alerts(self) -> Counter[str]:
        return Counter(alert["event_id"] for body in self.taken for alert in body["alerts"])  # type: ignore[attr-defined]


class Receivers:
    """Webhooks by name, on one port."""

    def __init__(self) -> None:
        self.each: dict[str, Webhook] = {}
        self.url = ""

    def add(self, name: str, *answers: int | str) -> Receiver:
        self.each[name] = Webhook(list(answers))
        # Short where nothing is to come; elsewhere a busy machine may take its time.
        timeout_s = 0.5 if "hang" in answers else 10.0
        return Receiver(name=name, type="webhook", url=f"{self.url}/{name}", timeout_s=timeout_s)

    async def handle(self, request: web.Request) -> web.Response:
        return await self.each[request.match_info["name"]].handle(request)


@pytest.fixture
async def receivers() -> AsyncIterator[Receivers]:
    told = Receivers()
    app = web.Application()
    app.router.add_post("/{name}", told.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield told
    await runner.cleanup()


@pytest.fixture
def bus(catalogue: Catalogue) -> MemoryBus:
    return MemoryBus(catalogue, SystemClock())


def entry_of(*receivers: Receiver, **route: object) -> Alerting:
    names = [receiver.name for receiver in receivers]
    options = {"group_wait_s": 0, "group_interval_s": 0, "receivers": names, **route}
    return Alerting(name="default", receivers=receivers, routes=(AlertRoute.model_validate(options),))


@asynccontextmanager
async def running(
    bus: MemoryBus, entry: Alerting, store: MemoryStore | None = None, environ: Mapping[str, str] | None = None
) -> AsyncIterator[MemoryStore]:
    """One replica of alerting, put together as the service is, but for Kafka and Redis."""
    store = store or MemoryStore()
    clock = SystemClock()
    stop = asyncio.Event()
    client = open_http_client()
    destinations = Destinations(["127.0.0.0/8"])
    channels = Channels(lambda receiver: open_channel(receiver, environ or {}, destinations, clock, client, ""))
    register = Register(store, Directory(ConfigPlane.of([entry]), entry, MAX_AGE), [])
    outbox = Outbox(register, 100)
    desk = Desk(register, outbox, clock)
    recovery = Recovery(
        store, register, outbox, bus, bus.codec, clock, holder="one", always=[], horizon=timedelta(days=1)
    )
    producer = Producer(bus.producer(), bus.codec, "alerting", clock)
    dispatcher = Dispatcher(register, outbox, desk, channels, producer, clock, holder="one")
    hops = [alert_hop(desk, recovery.restore, 16), action_hop(desk, recovery.restore)]
    jobs = [
        asyncio.create_task(run_hops(hops, bus, bus.codec, clock, SETTINGS, stop)),
        asyncio.create_task(dispatcher.run(stop, recovery.restore)),
        asyncio.create_task(recovery.watch(stop)),
    ]
    try:
        yield store
    finally:
        stop.set()
        _, late = await asyncio.wait(jobs, timeout=5)
        for job in late:
            job.cancel()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        await channels.aclose()
        await client.aclose()
        for result in results:
            if isinstance(result, Exception):
                raise result


def fresh(event_id: str, **changes: object) -> Alert:
    return replace(an_alert(event_id, SystemClock().now(), fingerprint=f"f-{event_id}"), **changes)


async def publish(bus: MemoryBus, *alerts: Alert) -> None:
    for alert in alerts:
        await bus.publish("alerts", alert.fingerprint, alert)


async def act(bus: MemoryBus, action: AlertAction) -> None:
    await bus.publish("alert-actions", action.fingerprint or action.silence_id or "", action)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.01)


def records(bus: MemoryBus) -> list[AlertDelivery]:
    return [bus.codec.decode(m.topic, m.value) for m in bus.messages("alert-deliveries")]  # type: ignore[misc]


def ended(bus: MemoryBus, outcome: str, receiver: str = "") -> Counter[str]:
    return Counter(r.causation_id for r in records(bus) if r.outcome == outcome and receiver in ("", r.receiver))


async def test_a_receiver_that_answers_500_then_works_gets_each_alert_once_under_one_key(
    bus: MemoryBus, receivers: Receivers
) -> None:
    receiver = receivers.add("hook", 500, 429)
    async with running(bus, entry_of(receiver)):
        await publish(bus, fresh("a1"))
        await until(lambda: bool(ended(bus, "delivered")))
    hook = receivers.each["hook"]
    assert hook.alerts() == {"a1": 1}
    assert hook.tries == 3
    assert len(set(hook.keys)) == 1
    assert [(r.outcome, r.attempts, r.status_code) for r in records(bus)] == [
        ("failed", 1, 500),
        ("failed", 2, 429),
        ("delivered", 3, 200),
    ]
    assert all(r.next_try_at is not None for r in records(bus)[:2])


async def test_receivers_that_hang_or_refuse_hold_up_no_offset_and_nobody_else(
    bus: MemoryBus, receivers: Receivers
) -> None:
    entry = entry_of(
        receivers.add("good"), receivers.add("hangs", *["hang"] * 1000), receivers.add("refuses", *[400] * 1000),
        group_by=["fingerprint"],
    )  # fmt: skip
    alerts = [fresh(f"a{number}") for number in range(30)]
    async with running(bus, entry):
        await publish(bus, *alerts)
        await bus.settled("alerting", ["alerts"])
        await until(lambda: len(ended(bus, "delivered", "good")) == 30)
        await until(lambda: len(ended(bus, "dead", "refuses")) == 30)
        await until(lambda: len(ended(bus, "failed", "hangs")) >= 4)
    assert receivers.each["good"].alerts() == Counter(alert.event_id for alert in alerts)
    assert receivers.each["refuses"].tries == 30
    letters = [bus.codec.decode(m.topic, m.value) for m in bus.messages("dlq-alerting")]
    assert len(letters) == 30
    assert {letter.code for letter in letters} == {"undelivered"}  # type: ignore[attr-defined]


async def test_a_hundred_alerts_of_a_group_arrive_in_one_message(bus: MemoryBus, receivers: Receivers) -> None:
    entry = entry_of(receivers.add("hook"), group_wait_s=1.0)
    alerts = [fresh(f"a{number}") for number in range(100)]
    async with running(bus, entry):
        await publish(bus, *alerts)
        await until(lambda: len(ended(bus, "delivered")) == 100)
    assert receivers.each["hook"].tries == 1
    assert receivers.each["hook"].alerts() == Counter(alert.event_id for alert in alerts)
    assert receivers.each["hook"].taken[0]["group"] == {"team": "support", "kind": "drift"}


async def test_people_acknowledge_silence_and_resolve(bus: MemoryBus, receivers: Receivers) -> None:
    receiver = receivers.add("hook")
    async with running(bus, entry_of(receiver)) as store:
        now = SystemClock().now()
        silence = an_action(
            "silence", now, fingerprint=None, silence_id="s", match={"kind": "cost"}, ends_at=now + timedelta(hours=1)
        )
        await act(bus, silence)
        await until(lambda: bool(store.maps))
        await publish(bus, fresh("quiet", kind="cost"), fresh("a1"))
        await until(lambda: bool(ended(bus, "delivered")) and bool(ended(bus, "suppressed")))
        assert ended(bus, "suppressed") == {"quiet": 1}
        await act(bus, an_action("acknowledge", SystemClock().now(), fingerprint="f-a1"))
        await bus.settled("alerting-actions", ["alert-actions"])
        await publish(bus, fresh("a2", fingerprint="f-a1"))
        await until(lambda: bool(ended(bus, "suppressed")["a2"]))
        await act(bus, an_action("resolve", SystemClock().now(), fingerprint="f-a1"))
        await until(lambda: len(receivers.each["hook"].taken) == 2)
        await act(bus, an_action("unsilence", SystemClock().now(), fingerprint=None, silence_id="s"))
        await until(lambda: receivers.each["hook"].alerts()["quiet"] == 1)
    assert [body["purpose"] for body in receivers.each["hook"].taken] == ["firing", "resolved", "firing"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"action": "acknowledge", "fingerprint": None}, "names no alert"),
        ({"action": "silence", "silence_id": "s", "match": {"kind": "*"}}, "no end"),
        ({"action": "silence", "silence_id": "s", "ends_at": SystemClock().now()}, "empty match"),
        ({"action": "dance"}, "there is no action 'dance'"),
    ],
)
async def test_an_action_that_is_none_is_put_aside_with_the_remedy(
    bus: MemoryBus, receivers: Receivers, changes: dict[str, object], told: str
) -> None:
    action = replace(an_action("acknowledge", SystemClock().now()), **changes)
    async with running(bus, entry_of(receivers.add("hook"))):
        await act(bus, action)
        ((letter,),) = [await bus.collect("dlq-alerting", 1)]
        await bus.settled("alerting-actions", ["alert-actions"])
    assert (letter.record.code, letter.record.origin_topic) == ("invalid_action", "alert-actions")
    assert told in letter.record.reason


async def test_stopped_in_mid_delivery_the_next_process_delivers(bus: MemoryBus, receivers: Receivers) -> None:
    receiver = receivers.add("hook", "hang")
    async with running(bus, entry_of(receiver)) as store:
        await publish(bus, fresh("a1"))
        await until(lambda: receivers.each["hook"].tries == 1)
    async with running(bus, entry_of(receiver), store):
        await until(lambda: bool(ended(bus, "delivered")))
    assert receivers.each["hook"].alerts() == {"a1": 1}

"""What the tests of alerting's core share: alerts, channels that do as they are told, the whole put together."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
from penstock.bus import Event, MemoryBus, Message, Producer
from penstock.bus.types import RawProducer
from penstock.clock import ManualClock
from penstock.config.alerting import Alerting, AlertRoute, Receiver
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Alert, AlertAction, AlertDelivery

from services.alerting.channels.protocol import Attempt, Channel, Misconfigured, Notification
from services.alerting.desk import Desk
from services.alerting.dispatch import Channels, Dispatcher
from services.alerting.incidents import Silence
from services.alerting.outbox import Outbox
from services.alerting.recovery import Recovery
from services.alerting.register import Register
from services.alerting.routing import Directory
from services.alerting.store import Emptied, Keys, Store
from tests.unit import alerting_notifications
from tests.unit.alerting_memory_store import MemoryStore

T = TypeVar("T")
MAX_AGE = timedelta(hours=24)


def an_alert(event_id: str = "a1", at: datetime | None = None, **changes: object) -> Alert:
    """An alert about fingerprint f1 of team support, of few fields."""
    few: dict[str, object] = {
        "event_id": event_id,
        "occurred_at": at or ManualClock().now(),
        "labels": {"team": "support", "route": "default"},
        "figures": {},
        "evidence": [],
        "starts_at": None,
    }
    return alerting_notifications.an_alert(**few | changes)  # type: ignore[arg-type]


def an_action(action: str, at: datetime, **changes: object) -> AlertAction:
    """An action of ada about fingerprint f1."""
    record = AlertAction(
        event_id=f"{action}-{at.isoformat()}",
        request_id="",
        tenant_id="support",
        occurred_at=at,
        causation_id="",
        action=action,
        fingerprint="f1",
        author="ada",
        comment="looking",
    )
    return msgspec.structs.replace(record, **changes)


@dataclass
class FakeChannel:
    """Answers each try as told, then with success; ``hangs`` never answers."""

    answers: list[Attempt | str] = field(default_factory=list)
    ticks: int = 0
    """Turns of the loop that an answer takes."""
    meanwhile: Callable[[], object] | None = None
    """Called once while a message is on its way."""
    always: Attempt | None = None
    got: list[tuple[Notification, str]] = field(default_factory=list)
    name: str = "webhook"
    destination: str = "https://hooks.example"
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, notification: Notification) -> Attempt:
        answer = self.answers.pop(0) if self.answers else self.always or Attempt(outcome="delivered", status_code=200)
        self.begun.set()
        for _ in range(self.ticks):
            await asyncio.sleep(0)
        if self.meanwhile is not None:
            hook, self.meanwhile = self.meanwhile, None
            hook()
        if isinstance(answer, str):
            self.got.append((notification, answer))
            await asyncio.Event().wait()
            raise AssertionError
        self.got.append((notification, answer.outcome))
        return answer

    async def aclose(self) -> None:
        return

    def told(self) -> list[tuple[str, list[str]]]:
        """Purpose and alerts of every message that was taken."""
        return [
            (notification.purpose, [alert.event_id for alert in notification.alerts])
            for notification, outcome in self.got
            if outcome == "delivered"
        ]


def an_entry(*receivers: str, escalate: Sequence[object] = (), **route: object) -> Alerting:
    """An alerting entry ``default`` with one route to all receivers but those whose names begin with ``boss``."""
    options: dict[str, object] = {"group_wait_s": 0, "group_interval_s": 0}
    return Alerting(
        name="default",
        receivers=tuple(
            Receiver(name=name, type="webhook", url=f"https://{name}.example/", timeout_s=10) for name in receivers
        ),
        routes=(
            AlertRoute.model_validate(
                {
                    "receivers": [name for name in receivers if not name.startswith("boss")],
                    "escalate": list(escalate),
                    **options,
                    **route,
                }
            ),
        ),
    )


PlatformOf = Callable[[Alerting], "Platform"]
"""Puts alerting together for an entry; which store it stands on is the test module's to say."""


class Platform:
    """Alerting without Kafka, on a clock that the test moves; several replicas share its store and log."""

    def __init__(self, catalogue: Catalogue, entry: Alerting, store: Store | None = None) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(catalogue, self.clock)
        self.store: Any = store or MemoryStore()
        self.plane = ConfigPlane.of([entry])
        self.channels: defaultdict[str, FakeChannel] = defaultdict(FakeChannel)
        self.misconfigured: set[str] = set()
        self.silences: Sequence[Silence] = ()
        self.taken = 0
        self.acted = 0
        self.group_most = 100
        self.desk, self.dispatcher, self.recovery = self.replica("one")

    def replica(self, holder: str) -> tuple[Desk, Dispatcher, Recovery]:
        """Another process of alerting."""
        directory = Directory(self.plane, an_entry("nobody"), MAX_AGE)
        register = Register(self.store, directory, self.silences)
        outbox = Outbox(register, self.group_most)
        desk = Desk(register, outbox, self.clock)
        producer = Producer(self.raw_producer(), self.bus.codec, "alerting", self.clock)
        channels = Channels(self._opened)
        dispatcher = Dispatcher(
            register, outbox, desk, channels, producer, self.clock, holder=holder, dice=random.Random(5)
        )
        recovery = Recovery(
            self.store,
            register,
            outbox,
            self.bus,
            self.bus.codec,
            self.clock,
            holder=holder,
            always=self.silences,
            horizon=timedelta(days=7),
        )
        return desk, dispatcher, recovery

    def raw_producer(self) -> RawProducer:
        """What the replicas send with."""
        return self.bus.producer()

    def _opened(self, receiver: Receiver) -> Channel:
        if receiver.name in self.misconfigured:
            raise Misconfigured(f"the variable {receiver.name.upper()}_URL is not set")
        return self.channels[receiver.name]

    async def publish(self, *alerts: Alert) -> None:
        """Put alerts on the log and take them in."""
        for alert in alerts:
            await self.bus.publish("alerts", alert.fingerprint, alert)
        await self.take()

    async def act(self, action: AlertAction) -> None:
        """Put an action on the log and take it in."""
        await self.bus.publish("alert-actions", action.fingerprint or action.silence_id or "", action)
        await self.take()

    async def take(self) -> None:
        """Take in what stands on the log and was not."""
        while self.taken < len(self.bus.messages("alerts")) or self.acted < len(self.bus.messages("alert-actions")):
            for message in self.bus.messages("alerts")[self.taken :]:
                self.taken += 1
                await self.deliver(message)
            for message in self.bus.messages("alert-actions")[self.acted :]:
                self.acted += 1
                event = Event(message, self.bus.codec.decode(message.topic, message.value))
                outcome = await self.whole(lambda event=event: self.desk.action(event))  # type: ignore[misc]
                assert not hasattr(outcome, "code"), outcome
                for emit in outcome:  # type: ignore[union-attr]
                    await self.bus.publish(emit.topic, emit.key, emit.record)

    async def deliver(self, message: Message) -> None:
        """Take one message of ``alerts`` in, once more where it was."""
        record = self.bus.codec.decode(message.topic, message.value)
        assert isinstance(record, Alert)
        for emit in await self.whole(lambda: self.desk.alert(Event(message, record))):
            await self.bus.publish(emit.topic, emit.key, emit.record)

    async def whole(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do something, after what the store lost was rebuilt where it was."""
        while True:
            try:
                return await step()
            except Emptied:
                await self.restore()

    async def restore(self) -> None:
        """Rebuild from the log; the time that this waits for passes."""
        task = asyncio.create_task(self.recovery.restore())
        while not task.done():
            self.clock.advance(0.5)
            for _ in range(50):
                await asyncio.sleep(0)
        await task

    async def work(self, seconds: float = 0.0, step: float = 1.0) -> None:
        """Let time pass, and all that becomes due be done."""
        passed = 0.0
        while True:
            for _ in range(20):
                await self.whole(self.dispatcher.sweep)
                await self.dispatcher.idle()
                await self.take()
                if not await self.whole(self._pending):
                    break
            if passed >= seconds:
                return
            self.clock.advance(min(step, seconds - passed))
            passed += step

    async def _pending(self) -> bool:
        now = self.clock.now()
        keys = [Keys.WAKE, *(Keys.due(key) for key in await self.store.members(Keys.RECEIVERS))]
        return any([await self.store.due(key, now, 1) for key in keys])

    def deliveries(self, receiver: str | None = None) -> list[AlertDelivery]:
        """The records in the order of arrival, repeats of one event dropped."""
        found: dict[str, AlertDelivery] = {}
        for message in self.bus.messages("alert-deliveries"):
            record = self.bus.codec.decode(message.topic, message.value)
            assert isinstance(record, AlertDelivery)
            found.setdefault(record.event_id, record)
        return [record for record in found.values() if receiver is None or record.receiver == receiver]

    def outcomes(self, choose: Callable[[AlertDelivery], bool] = lambda record: True) -> list[tuple[str, str, str]]:
        """Alert, receiver and outcome of each record."""
        return [(r.causation_id, r.receiver, r.outcome) for r in self.deliveries() if choose(r)]

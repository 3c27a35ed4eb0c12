"""What the tests of alerting's core share: a store in memory, channels that do as they are told, the whole put together."""

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
from services.alerting.store import Body, Emptied, Keys, Store, Transaction, Write, milliseconds, moment

T = TypeVar("T")
MAX_AGE = timedelta(hours=24)


def an_alert(event_id: str = "a1", at: datetime | None = None, **changes: object) -> Alert:
    """An alert about fingerprint f1 of team support."""
    alert = Alert(
        event_id=event_id,
        request_id="r1",
        tenant_id="support",
        occurred_at=at or ManualClock().now(),
        causation_id="c1",
        kind="drift",
        name="topic_shift",
        severity="warning",
        title="support: the prompts' topic has shifted",
        description="The newest 12 lie away from the 40 before.",
        suggested_action="Read the sample requests.",
        fingerprint="f1",
        labels={"team": "support", "route": "default"},
        sample_requests=["r1", "r2"],
    )
    return msgspec.structs.replace(alert, **changes)


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


class MemoryStore:
    """The store in memory. Transactions conflict as they do in Redis: what was read and has changed makes them run again."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.lists: defaultdict[str, list[bytes]] = defaultdict(list)
        self.maps: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self.sorted: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self.sets: defaultdict[str, set[str]] = defaultdict(set)
        self.versions: defaultdict[str, int] = defaultdict(int)
        self.whole = True
        self.conflicts = 0

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        for part in (self.data, self.lists, self.maps, self.sorted, self.sets):
            for key in list(part):
                self.versions[key] += 1
            part.clear()  # type: ignore[attr-defined]
        self.whole = False

    async def run(self, body: Body[T], *, rebuilding: bool = False) -> T:
        while True:
            if not self.whole and not rebuilding:
                raise Emptied("flushed")
            reads = _Reads(self)
            transaction = Transaction(reads)
            result = await body(transaction)
            if not self.whole and not rebuilding:
                raise Emptied("flushed")
            if transaction.writes and any(self.versions[key] != seen for key, seen in reads.seen.items()):
                self.conflicts += 1
                continue
            for write in transaction.writes:
                self._apply(write)
            return result

    def _apply(self, write: Write) -> None:
        command, key, *rest = write
        assert isinstance(key, str)
        self.versions[key] += 1
        match command:
            case "SET":
                self.data[key] = rest[0]  # type: ignore[assignment]
            case "DEL":
                for name in (key, *rest):
                    for part in (self.data, self.lists, self.maps, self.sorted, self.sets):
                        part.pop(name, None)  # type: ignore[attr-defined]
            case "RPUSH":
                self.lists[key] += rest  # type: ignore[arg-type]
            case "LTRIM":
                self.lists[key] = self.lists[key][int(rest[0]) :]
            case "HSET":
                self.maps[key][str(rest[0])] = rest[1]  # type: ignore[assignment]
            case "HDEL":
                self.maps[key].pop(str(rest[0]), None)
            case "ZADD":
                self.sorted[key][str(rest[1])] = float(rest[0])
            case "ZREM":
                self.sorted[key].pop(str(rest[0]), None)
            case "ZREMRANGEBYSCORE":
                bound = float(str(rest[1]).removeprefix("("))
                self.sorted[key] = {m: score for m, score in self.sorted[key].items() if score >= bound}
            case "SADD":
                self.sets[key].add(str(rest[0]))
            case _:
                raise AssertionError(write)

    async def holds(self) -> bool:
        return self.whole

    async def forget_if_restarted(self) -> None:
        return

    async def lock(self, holder: str, ttl_s: float) -> bool:
        return self.data.setdefault(Keys.REBUILDING, holder.encode()) == holder.encode()

    async def unlock(self, holder: str) -> None:
        if self.data.get(Keys.REBUILDING) == holder.encode():
            del self.data[Keys.REBUILDING]

    async def clear(self) -> None:
        held = self.data.get(Keys.REBUILDING)
        self.flush()
        if held is not None:
            self.data[Keys.REBUILDING] = held

    async def open(self) -> None:
        self.whole = True

    async def due(self, key: str, until: datetime, most: int) -> list[str]:
        if not self.whole:
            raise Emptied("flushed")
        ordered = sorted(self.sorted[key].items(), key=lambda item: item[1])
        return [member for member, score in ordered if score <= milliseconds(until)][:most]

    async def standing(self, key: str) -> tuple[int, datetime | None]:
        scores = self.sorted[key].values()
        return len(scores), moment(min(scores)) if scores else None

    async def members(self, key: str) -> set[str]:
        return set(self.sets[key])

    async def leave(self, key: str, member: str) -> bool:
        if member in self.sets[key]:
            self.sets[key].discard(member)
            return True
        return False


class _Reads:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.seen: dict[str, int] = {}

    async def _see(self, key: str) -> None:
        self.seen.setdefault(key, self._store.versions[key])
        # Others run between a read and the end of its transaction, as they do over a network.
        await asyncio.sleep(0)

    async def get(self, *keys: str) -> list[bytes | None]:
        for key in keys:
            await self._see(key)
        return [self._store.data.get(key) for key in keys]

    async def items(self, key: str, most: int) -> list[bytes]:
        await self._see(key)
        return list(self._store.lists[key][: most or None])

    async def length(self, key: str) -> int:
        return len(self._store.lists[key])

    async def values(self, key: str) -> list[bytes]:
        await self._see(key)
        return list(self._store.maps[key].values())

    async def scores(self, key: str, first: float) -> list[float]:
        await self._see(key)
        return sorted(score for score in self._store.sorted[key].values() if score >= first)


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
        producer = Producer(self.bus.producer(), self.bus.codec, "alerting", self.clock)
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

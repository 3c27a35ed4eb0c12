"""A source partition, a changelog and an output topic in memory, and a broker that fails when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from penstock.bus import Emit, Message
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import derive, event_id
from penstock.contracts.records import Context, Cost, Record, TeamSpend
from penstock.stateful import Checkpointing, Logic, Lookup, StallGuard, StatefulProcessor

CODEC = Codec.offline(Catalogue.load())
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


class BrokerAway(Exception):
    """The broker takes nothing any more."""


@dataclass(eq=False)
class FakeMessage:
    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: Any = None


@dataclass(eq=False)
class FakeEvent:
    message: FakeMessage
    on_ack: Callable[[FakeMessage], None]

    def ack(self) -> bool:
        self.on_ack(self.message)
        return True


@dataclass
class FakeStream:
    """Yields given events, then waits for ever, as a stream does that has caught up."""

    given: Iterable[FakeEvent]
    idle: bool = True

    def noack(self) -> FakeStream:
        return self

    async def events(self) -> AsyncIterator[FakeEvent]:
        for event in self.given:
            yield event
        if self.idle:
            await asyncio.Event().wait()


@dataclass
class FakeTopic:
    def get_topic_name(self) -> str:
        return "changelog"


@dataclass
class FakeTable:
    data: MutableMapping[bytes, bytes] = field(default_factory=dict)
    changelog_topic: FakeTopic = field(default_factory=FakeTopic)

    def on_recover(self, fun: Callable[[], Awaitable[None]]) -> None:
        raise NotImplementedError


@dataclass
class Broker:
    """What survives a crash. ``journal`` is everything in the order in which it happened."""

    source: list[bytes | None] = field(default_factory=list)
    changelog: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    outputs: list[tuple[str, str, Record]] = field(default_factory=list)
    letters: list[tuple[int, str]] = field(default_factory=list)
    acked: set[int] = field(default_factory=set)
    journal: list[str] = field(default_factory=list)
    takes: float = float("inf")
    """Messages that are still taken; then every send fails."""
    held: asyncio.Event | None = None
    """Acknowledgements wait for this, where it is set."""
    spacing_s: float = 1.0
    """From one source message's timestamp to the next."""
    topic: str = "costs"
    """Of the source."""

    def committed(self) -> int:
        offset = 0
        while offset in self.acked:
            offset += 1
        return offset

    def events(self) -> list[FakeEvent]:
        """The source from the committed offset on."""
        return [
            FakeEvent(
                FakeMessage(
                    self.topic, 0, offset, NOW.timestamp() + offset * self.spacing_s, b"k", self.source[offset]
                ),
                self._ack,
            )
            for offset in range(self.committed(), len(self.source))
        ]

    def _ack(self, message: FakeMessage) -> None:
        self.acked.add(message.offset)
        self.journal.append(f"ack {message.offset}")

    def take(self) -> None:
        if self.takes <= 0:
            raise BrokerAway("the broker takes nothing any more")
        self.takes -= 1

    async def acknowledgement(self, what: str) -> None:
        if self.held is not None:
            await self.held.wait()
        self.journal.append(what)

    async def restore(self, contents: MutableMapping[bytes, bytes]) -> None:
        contents.clear()
        for key, value in self.changelog:
            if value is None:
                contents.pop(key, None)
            else:
                contents[key] = value


@dataclass
class FakeOutput:
    broker: Broker

    async def send(
        self, topic: str, key: str, record: Record, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Awaitable[None]:
        CODEC.encode(topic, record)
        self.broker.take()
        self.broker.outputs.append((topic, key, record))
        return asyncio.ensure_future(self.broker.acknowledgement(f"output {key}"))

    async def send_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Awaitable[None]:
        self.broker.take()
        if topic != "changelog":
            self.broker.outputs.append((topic, (key or b"").decode(), CODEC.decode(topic, value)))
            return asyncio.ensure_future(self.broker.acknowledgement("output latest"))
        assert key is not None
        assert partition == 0
        self.broker.changelog.append((key, value))
        return asyncio.ensure_future(self.broker.acknowledgement("state"))

    async def dead_letter(self, group: str, message: Message, code: str, reason: str) -> Awaitable[None]:
        self.broker.take()
        self.broker.letters.append((message.offset, code))
        return asyncio.ensure_future(self.broker.acknowledgement("letter"))


def cost(number: int, team: str = "a") -> bytes:
    """The ``number``-th cost; the same number is the same event."""
    record = Cost(
        event_id=event_id("test", "cost", number), request_id=f"r{number}", tenant_id=team, occurred_at=NOW,
        causation_id="", context=Context(requested_at=NOW), model="m", priced=True,
    )  # fmt: skip
    return CODEC.encode("costs", record)


def counting(topic: str = "team-spend", latest: frozenset[str] = frozenset()) -> Logic[dict[str, int], Cost]:
    """Count the costs of each team; every event gives the count. A team named "poison" raises."""

    def step(state: dict[str, int] | None, event: Cost, now: datetime) -> tuple[dict[str, int], list[Emit]]:
        if event.tenant_id == "poison":
            raise ZeroDivisionError("poison")
        count = (state or {"count": 0})["count"] + 1
        spend = TeamSpend(
            **derive(event, "count", 0, now), window="day", window_start=NOW, amount=Decimal(count), calls=count
        )  # fmt: skip
        return {"count": count}, [Emit(topic, event.tenant_id, spend)]

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str, Cost]]:
        return [(record.tenant_id, record)]

    return Logic(step=step, route=route, latest=latest)


def processor_of(
    broker: Broker,
    logic: Logic[Any, Any] | None = None,
    *,
    checkpointing: Checkpointing | None = None,
    guard: StallGuard | None = None,
    stateless: bool = False,
) -> StatefulProcessor[Any, Any]:
    """A processor over ``broker`` that takes checkpoints only when told to, unless ``checkpointing`` says otherwise."""
    return StatefulProcessor(
        "test",
        logic or counting(),
        group="test",
        codec=CODEC,
        output=FakeOutput(broker),
        table=None if stateless else FakeTable(),
        clock=ManualClock(),
        guard=guard,
        checkpointing=checkpointing or Checkpointing(interval_s=3600.0),
    )


async def run(processor: StatefulProcessor[Any, Any], broker: Broker, checkpoint_every: int = 0) -> None:
    """Restore, process what the source holds from the committed offset, checkpoint at the end; or until it fails.

    Raises:
        Exception: what the processor failed with.
    """
    await processor.recover(broker.restore)

    async def body() -> None:
        handled = 0
        async for _ in processor.process(FakeStream(broker.events(), idle=False)):
            handled += 1
            if checkpoint_every and handled % checkpoint_every == 0:
                await processor.checkpoint()
        await processor.checkpoint()

    working = asyncio.ensure_future(body())
    await asyncio.wait({working, processor.failed}, return_when=asyncio.FIRST_COMPLETED)
    await processor.close()
    failure = processor.failed.exception() if processor.failed.done() else None
    working.cancel()
    if failure is None:
        (result,) = await asyncio.gather(working, return_exceptions=True)
        failure = result if isinstance(result, Exception) else None
    if failure is not None:
        raise failure

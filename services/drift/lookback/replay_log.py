"""The log replayed: through the service's own processor, or value by value for any other detector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from penstock.bus import Message
from penstock.clock import Clock
from penstock.contracts.codec import Codec
from penstock.contracts.records import DriftEvent, Record, Signal
from penstock.stateful import Checkpointing, Logic, StatefulProcessor

from services.drift.lookback.replay_lines import Event, Place
from services.drift.projection import InvalidEmbedding, vector_of
from services.drift.signals import EMBEDDING_SIGNAL

__all__ = ["Confirmed", "ServiceReplay", "event_line", "events_of"]

_GROUP = "drift-replay"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A drift event as the service confirms it, and where the message that confirmed it stands."""

    event: DriftEvent
    index: int
    """Messages of ``signals`` that were read before it."""
    place: Place


def events_of(record: Signal, message: Message, index: int) -> Iterator[Event]:
    """Yield the values of a record of ``signals``, one by one; vectors that are none are left out."""
    place = Place(message.topic, message.partition, message.offset)
    for name, value in record.values.items():
        yield Event(index, record.segment, name, record.occurred_at, value, place)
    for name, category in record.categories.items():
        yield Event(index, record.segment, name, record.occurred_at, category, place)
    vectors = dict(record.vectors)
    if record.embedding is not None:
        vectors.setdefault(EMBEDDING_SIGNAL, record.embedding)
    for name, packed in vectors.items():
        try:
            yield Event(index, record.segment, name, record.occurred_at, vector_of(packed)[0], place)
        except InvalidEmbedding:
            continue


class ServiceReplay:
    """Runs the service's processor over history, so that the log gives the drift events that the service wrote.

    What the service knew before the period is not known here: to see its very events, replay from the first event of
    the segments on.

    Args:
        logic: the service's pure part, with the rules of its settings.
        codec: decodes signals and commands.
        clock: measures the intervals between checkpoints.
        commands: the messages of drift-commands; each is told when the signals of its partition have come to its time.
    """

    def __init__(self, logic: Logic[Any, Any], codec: Codec, clock: Clock, commands: Iterable[Message] = ()) -> None:
        self._logic = logic
        self._codec = codec
        self._clock = clock
        self._commands: dict[int, list[Message]] = {}
        for command in sorted(commands, key=lambda message: (message.timestamp_ms, message.offset)):
            self._commands.setdefault(command.partition, []).append(command)
        self.messages = 0
        """Messages of ``signals`` that were read."""
        self.refused = 0
        """Messages that the service puts aside."""

    async def run(self, signals: AsyncIterator[Message]) -> AsyncIterator[Confirmed]:
        """Yield what is confirmed, as it is found.

        Args:
            signals: the messages of the topic, each partition in its order.
        """
        output = _Output()
        processor: StatefulProcessor[Any, Any] = StatefulProcessor(
            "segments",
            self._logic,
            group=_GROUP,
            codec=self._codec,
            output=output,
            table=_Table(),
            clock=self._clock,
            # A person looks at history: no share of refused messages ends the run.
            checkpointing=Checkpointing(dead_letter_ratio=1.0, max_clean_states=2_000),
        )
        place = Place("signals", 0, -1)

        async def events() -> AsyncIterator[_Event]:
            nonlocal place
            async for message in signals:
                for command in self._due(message):
                    yield _Event(command)
                place = Place(message.topic, message.partition, message.offset)
                yield _Event(message)
                self.messages += 1
            for command in self._left():
                yield _Event(command)

        try:
            steps = processor.process(_Stream(events()))
            while await _next(steps, processor.failed):
                for record in output.taken():
                    if isinstance(record, DriftEvent):
                        # The stream stands at the message: it is counted when the next one is taken.
                        yield Confirmed(record, self.messages, place)
            for record in output.taken():
                if isinstance(record, DriftEvent):
                    yield Confirmed(record, max(self.messages - 1, 0), place)
            self.refused = output.refused
        finally:
            await processor.close()

    def _due(self, message: Message) -> Iterator[Message]:
        waiting = self._commands.get(message.partition, [])
        while waiting and waiting[0].timestamp_ms <= message.timestamp_ms:
            yield waiting.pop(0)

    def _left(self) -> Iterator[Message]:
        for waiting in self._commands.values():
            yield from waiting


async def _next(steps: AsyncIterator[None], failed: asyncio.Future[None]) -> bool:
    """Make one step; return whether there was one. A processor that failed would wait for its process to be replaced.

    Raises:
        Exception: what the processor failed with.
    """
    step = asyncio.create_task(_advanced(steps))
    await asyncio.wait((step, failed), return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        step.cancel()
        failed.result()
    return step.result()


async def _advanced(steps: AsyncIterator[None]) -> bool:
    async for _ in steps:
        return True
    return False


def event_line(confirmed: Confirmed) -> dict[str, Any]:
    """Return a drift event as the fields of its JSON line."""
    event, place = confirmed.event, confirmed.place
    return {
        "index": confirmed.index,
        "kind": event.pattern,
        "segment": event.segment,
        "signal": event.signal,
        "detector": "penstock",
        "timestamp": event.occurred_at.isoformat().replace("+00:00", "Z"),
        "change_index": None,
        "place": {"topic": place.topic, "partition": place.partition, "offset": place.offset},
        "what": event.what,
        "drift": event.kind,
        "returned": event.returned,
        "size": event.size,
        "statistic": event.statistic,
        "threshold": event.threshold,
        "before": event.before,
        "after": event.after,
        "evidence": {
            "reference": _ranges(event.reference),
            "test": _ranges(event.test),
            "reference_mode": event.reference_mode,
            "sample_before": event.sample_before,
            "sample_after": event.sample_after,
        },
        "releases": [
            {"name": one.name, "before": one.before, "after": one.after, "since": one.since.isoformat()}
            for one in event.releases
        ],
        "contributions": event.contributions,
        "event_id": event.event_id,
    }


def _ranges(ranges: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"topic": one.topic, "partition": one.partition, "first_offset": one.first_offset, "last_offset": one.last_offset}
        for one in ranges
    ]  # fmt: skip


# -- what the processor runs on here: a stream that ends, an output that keeps the events, a table without a changelog --


class _Event:
    def __init__(self, message: Message) -> None:
        self.message: Any = SimpleNamespace(
            topic=message.topic, partition=message.partition, offset=message.offset,
            timestamp=message.timestamp_ms / 1000, key=message.key, value=message.value, headers=message.headers,
        )  # fmt: skip

    def ack(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Stream:
    source: AsyncIterator[_Event]

    def noack(self) -> _Stream:
        return self

    def events(self) -> AsyncIterator[_Event]:
        return self.source


class _Output:
    def __init__(self) -> None:
        self._records: list[Record] = []
        self.refused = 0

    def taken(self) -> list[Record]:
        """Return what was sent since the last call."""
        records, self._records = self._records, []
        return records

    async def send(
        self, topic: str, key: str, record: Record, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Awaitable[None]:
        self._records.append(record)
        return _done()

    async def send_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Awaitable[None]:
        return _done()

    async def dead_letter(self, group: str, message: Message, code: str, reason: str) -> Awaitable[None]:
        self.refused += 1
        return _done()


def _done() -> Awaitable[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


class _Table:
    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.changelog_topic = SimpleNamespace(get_topic_name=lambda: "")

    def on_recover(self, fun: Any) -> Any:
        return fun

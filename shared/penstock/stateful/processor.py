"""One stateful processor: events in, outputs and state out, in the order that survives a crash."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from penstock.bus import Message
from penstock.bus.dead_letters import DeadLetterLimit
from penstock.clock import Clock
from penstock.contracts.codec import Codec, Undecodable
from penstock.stateful.checkpointing import Checkpointing
from penstock.stateful.guard import StallGuard
from penstock.stateful.protocols import (
    EmitLike,
    EventLike,
    InvalidEvent,
    Logic,
    MessageLike,
    Output,
    StreamLike,
    TableLike,
)
from penstock.stateful.table import KeyState, Overlay, UnreadableState, Writes
from penstock.telemetry import get_logger

__all__ = ["StatefulProcessor"]

StateT = TypeVar("StateT")
EventT = TypeVar("EventT")

log = get_logger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_Latest = dict[tuple[str, str], tuple[EmitLike, tuple[tuple[str, bytes], ...]]]


@dataclass(slots=True)
class _Pending:
    """What happened since the last cut."""

    events: list[EventLike] = field(default_factory=list)
    acks: list[Awaitable[Any]] = field(default_factory=list)
    latest: _Latest = field(default_factory=dict)


class StatefulProcessor(Generic[StateT, EventT]):
    """Runs a :class:`Logic` over a Faust stream and table so that a crash at any moment changes no outcome.

    For each message: decode, drop an upstream duplicate, route, ``step`` each key, send the outputs, show the new
    states to the next event. At a checkpoint: await the broker's acks of all outputs, then write each changed key's
    state once to the changelog and await those acks, then acknowledge the source events. Outputs stand before state,
    state before offsets: after a crash the events behind the last checkpoint are replayed on the state they met the
    first time, or are skipped where their key has already applied them, and give the same outputs with the same ids.

    ``failed`` resolves with an exception when the processor cannot go on; it then acknowledges nothing more, and the
    worker must stop the process.
    """

    def __init__(
        self,
        name: str,
        logic: Logic[StateT, EventT],
        *,
        group: str,
        codec: Codec,
        output: Output,
        table: TableLike | None,
        clock: Clock,
        guard: StallGuard | None = None,
        checkpointing: Checkpointing | None = None,
    ) -> None:
        """Create the processor.

        Args:
            name: for logs and metrics.
            logic: the pure part.
            group: consumer group, for dead letters.
            codec: decodes the source topics.
            output: the producer of outputs, changelog and dead letters.
            table: plain Faust table with raw keys and values; ``None`` for a processor without state, which then
                cannot drop upstream duplicates (its outputs repeat with equal ids).
            clock: measures intervals.
            guard: refuses to write after the process stood still for longer than the group waits for a member.
            checkpointing: intervals and bounds.
        """
        self.name = name
        self.failed: Future[None] = asyncio.get_running_loop().create_future()
        self._logic = logic
        self._group = group
        self._codec = codec
        self._output = output
        self._clock = clock
        self._guard = guard
        self._limits = checkpointing or Checkpointing()
        self.contents: dict[bytes, bytes] = {}
        """The table at the last checkpoint."""
        self._overlay: Overlay | None = None
        self._changelog = ""
        if table is not None:
            self._overlay = Overlay(
                self.contents,
                logic.state_type,
                logic.expires_at,
                self._limits.recent_ids,
                self._limits.max_clean_states,
            )
            self._changelog = table.changelog_topic.get_topic_name()
        self._pending = _Pending()
        self._unfinished = 0
        self._epoch = 0
        self._turn = asyncio.Lock()
        self._work = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        window = self._limits.dead_letter_window
        self._dead_letters = DeadLetterLimit(self._limits.dead_letter_ratio, min_messages=window, window=window)
        self._task: asyncio.Task[None] | None = None

    async def process(self, stream: StreamLike) -> AsyncIterator[None]:
        """Run as the body of a Faust agent (concurrency 1): ``async for _ in processor.process(stream): yield``."""
        if self._task is None:
            self._task = asyncio.create_task(self._checkpoints(), name=f"checkpoints-{self.name}")
        async for event in stream.noack().events():
            try:
                async with self._turn:
                    await self._handle(event)
            except Exception as error:
                self._fail(error)
            if self.failed.done():
                # The event stays unacknowledged, and so does all after it, until the process has been replaced.
                await asyncio.Event().wait()
            await self._room.wait()
            yield

    async def recover(self, restore: Callable[[MutableMapping[bytes, bytes]], Awaitable[None]]) -> None:
        """Begin again after a rebalance, from what is durable.

        What was not yet checkpointed is dropped and not acknowledged: it is delivered again, here or to its new owner.

        Args:
            restore: makes the contents it is given those of the changelog.
        """
        self._epoch += 1
        lost, self._pending = len(self._pending.events), _Pending()
        self._unfinished = 0
        self._room.set()
        if self._overlay is not None:
            await restore(self.contents)
            self._overlay.reset()
        if lost:
            log.info("uncheckpointed events will be delivered again", processor=self.name, events=lost)

    async def checkpoint(self) -> None:
        """Make everything handled so far durable, then acknowledge it.

        Raises:
            Exception: an output or a changelog write failed; nothing was acknowledged.
        """
        epoch = self._epoch
        try:
            latest = self._encoded()
        except ValueError as error:
            log.warning("an output fits no schema; its event is looked for", processor=self.name, error=str(error))
            async with self._turn:
                await self._redo()
            if epoch != self._epoch:
                return
            latest = self._encoded()
        pending, self._pending = self._pending, _Pending()
        self._full.clear()
        self._work.clear()
        if not pending.events:
            return
        writes = self._overlay.cut() if self._overlay is not None else {}
        for topic, key, value, headers in latest:
            pending.acks.append(await self._output.send_raw(topic, key, value, headers))
        await _all(pending.acks)
        if epoch != self._epoch:
            return
        if self._guard is not None:
            self._guard.check()
        await self._write(writes)
        if epoch != self._epoch:
            return
        if self._overlay is not None:
            self._overlay.install(writes)
        for event in pending.events:
            event.ack()
        self._unfinished -= len(pending.events)
        if self._unfinished < self._limits.max_in_flight:
            self._room.set()

    def refuse(self, error: Exception) -> None:
        """Fail the processor for a reason found outside it."""
        self._fail(error)

    async def close(self) -> None:
        """Stop taking checkpoints. The events since the last one will be delivered again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _encoded(self) -> list[tuple[str, bytes, bytes, tuple[tuple[str, bytes], ...]]]:
        """Return topic, key, value and headers of the newest records to send.

        Raises:
            ValueError: a record cannot be made or does not fit its schema.
        """
        return [
            (topic, key.encode(), self._encode(emit), headers)
            for (topic, key), (emit, headers) in self._pending.latest.items()
        ]

    def _encode(self, emit: EmitLike) -> bytes:
        try:
            record = emit.record
        except Exception as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        return self._codec.encode(emit.topic, record)

    async def _redo(self) -> None:
        """Handle the events since the last checkpoint again, each held to its schemas on its own: the one whose output
        does not fit is put aside, and nothing of it stays. What was sent already is sent again with the same identity."""
        epoch = self._epoch
        events, self._pending = self._pending.events, _Pending(acks=self._pending.acks)
        self._unfinished -= len(events)
        if self._overlay is not None:
            self._overlay.reset()
        for event in events:
            if epoch != self._epoch:
                return  # the group has moved on: the rest is delivered again, and its state may be another's by now
            await self._handle(event, check=True)

    async def _handle(self, event: EventLike, *, check: bool = False) -> None:
        epoch = self._epoch
        message = _message(event.message)
        acks: list[Awaitable[Any]] = []
        stores: list[tuple[KeyState, Any]] = []
        latest: _Latest = {}
        event_id = ""
        try:
            record = self._codec.decode(message.topic, message.value)
            event_id = record.event_id
            if not self._duplicate(event_id, message):
                emits, stores = self._apply(record, message)
                for emit in emits:
                    if emit.topic in self._logic.latest:
                        # Encoding waits for the checkpoint: most of these will have been replaced by then.
                        if check:
                            self._encode(emit)
                        latest[emit.topic, emit.key] = (emit, message.headers)
                        continue
                    ack = await self._output.send(emit.topic, emit.key, emit.record, message.headers)
                    acks.append(ack)
            self._dead_letters.saw(False)
        except Undecodable as error:
            acks.append(await self._dead_letter(message, error.code, error.reason))
        except InvalidEvent as error:
            acks.append(await self._output.dead_letter(self._group, message, error.code, str(error)))
        except _StepFailed as error:
            log.exception(
                "step failed",
                processor=self.name,
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
            )
            acks.append(await self._dead_letter(message, "step_failed", str(error)))
        except ValueError as error:
            # What the step made does not fit its schema, or is too large to send: like an error in the step.
            stores, latest = [], {}
            acks.append(await self._dead_letter(message, "invalid_output", str(error)))
        if epoch != self._epoch:
            return
        if self._overlay is not None:
            for live, state in stores:
                self._overlay.store(live, state, message.topic, message.offset)
            if event_id and message.topic not in self._logic.recognises:
                self._overlay.recent(message.topic, message.partition).add(
                    event_id, message.offset, message.timestamp_ms * 1000
                )
            self._overlay.observe(message.partition, message.timestamp_ms * 1000)
        self._pending.events.append(event)
        self._pending.acks.extend(acks)
        self._pending.latest.update(latest)
        self._unfinished += 1
        self._work.set()
        if len(self._pending.events) >= self._limits.max_events:
            self._full.set()
        if self._unfinished >= self._limits.max_in_flight:
            self._room.clear()

    def _duplicate(self, event_id: str, message: Message) -> bool:
        if self._overlay is None or message.topic in self._logic.recognises:
            return False
        return self._overlay.recent(message.topic, message.partition).seen_elsewhere(event_id, message.offset)

    def _apply(self, record: Any, message: Message) -> tuple[list[EmitLike], list[tuple[KeyState, Any]]]:
        """Route a record and step each of its keys; nothing is stored yet, so a failure half-way leaves no trace."""
        overlay = self._overlay
        now = _EPOCH + timedelta(milliseconds=message.timestamp_ms)
        emits: list[EmitLike] = []
        stores: list[tuple[KeyState, Any]] = []
        try:
            for key, event in self._logic.route(record, message, lambda key: self._lookup(message.partition, key)):
                if key is None or overlay is None:
                    emits.extend(self._logic.step(None, event, now)[1])
                    continue
                live = overlay.load(message.partition, key)
                if live.applied.get(message.topic, -1) >= message.offset:
                    continue
                state, outputs = self._logic.step(live.state, event, now)
                emits.extend(outputs)
                if state is not live.state:
                    stores.append((live, state))
        except (InvalidEvent, UnreadableState):
            raise
        except Exception as error:
            raise _StepFailed(f"{type(error).__name__}: {error}") from error
        return emits, stores

    def _lookup(self, partition: int, key: str) -> Any:
        return self._overlay.read(partition, key) if self._overlay is not None else None

    async def _dead_letter(self, message: Message, code: str, reason: str) -> Awaitable[Any]:
        self._dead_letters.saw(True)
        return await self._output.dead_letter(self._group, message, code, reason)

    async def _write(self, writes: Writes) -> None:
        acks = []
        for key, entry in writes.items():
            partition = int(key[: key.index(b"/")])
            acks.append(await self._output.send_raw(self._changelog, key, entry, (), partition))
        await _all(acks)

    async def _checkpoints(self) -> None:
        try:
            while True:
                await self._work.wait()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._limits.interval_s)
                await self.checkpoint()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            log.error("processor failed", processor=self.name, error=f"{type(error).__name__}: {error}")
            self.failed.set_exception(error)


class _StepFailed(Exception):
    """Route or step raised."""


async def _all(futures: list[Awaitable[Any]]) -> None:
    for future in futures:
        await future


def _message(raw: MessageLike) -> Message:
    headers = raw.headers or ()
    return Message(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        timestamp_ms=round((raw.timestamp or 0) * 1000),
        key=raw.key,
        value=raw.value,
        headers=tuple(headers.items() if hasattr(headers, "items") else headers),
    )

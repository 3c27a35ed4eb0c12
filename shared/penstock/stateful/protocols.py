"""What the shell needs of Faust, the bus and a service: nothing here imports any of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from penstock.bus import Message
from penstock.contracts.records import Record

__all__ = [
    "AppLike", "EmitLike", "EventLike", "InvalidEvent", "Logic", "Lookup", "MessageLike", "Output", "StreamLike",
    "TableLike", "TopicLike",
]  # fmt: skip

StateT = TypeVar("StateT")
EventT = TypeVar("EventT")

Lookup = Callable[[str], Any]
"""Reads the state of another key of the same partition; ``None`` where there is none. What it returns is not to be
changed."""


class InvalidEvent(ValueError):
    """Raised by a route or a step: whoever wrote the event got it wrong. The message names the cause and the remedy.

    The event becomes a dead letter like one whose step fails, but does not count towards the share from which the worker
    stops: that is for deployments gone bad, and on a public topic anybody could stop the service with it.
    """

    code = "invalid_event"


class EmitLike(Protocol):
    """One output of a step; :class:`penstock.bus.Emit` is one. Another may make its record only when it is asked for."""

    @property
    def topic(self) -> str:
        """Where it goes."""
        ...

    @property
    def key(self) -> str:
        """The key it goes there under."""
        ...

    @property
    def record(self) -> Record:
        """What goes there."""
        ...


class Output(Protocol):
    """The sink of a processor; :class:`penstock.bus.Producer` is one. What it returns is done at the broker's ack."""

    async def send(
        self, topic: str, key: str, record: Record, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Awaitable[Any]:
        """Hand a record to the producer."""
        ...

    async def send_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Awaitable[Any]:
        """Hand bytes to the producer; a value of ``None`` is a tombstone."""
        ...

    async def dead_letter(self, group: str, message: Message, code: str, reason: str) -> Awaitable[Any]:
        """Put a message on the service's dead letter topic with its origin and the reason."""
        ...


class MessageLike(Protocol):
    """A raw Kafka message as Faust delivers it."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: Any
    value: Any
    headers: Any


class EventLike(Protocol):
    """A Faust event; ``ack`` marks its offset as safe to commit."""

    message: MessageLike

    def ack(self) -> bool:
        """Mark the event as done."""
        ...


class StreamLike(Protocol):
    """A Faust stream."""

    def noack(self) -> StreamLike:
        """Return the stream with acknowledgement by hand."""
        ...

    def events(self) -> Any:
        """Iterate over the events."""
        ...


class TopicLike(Protocol):
    """A Faust topic."""

    def get_topic_name(self) -> str:
        """Return the name."""
        ...


class TableLike(Protocol):
    """A plain Faust table with raw keys and values: the shell writes its changelog, Faust restores it."""

    @property
    def data(self) -> MutableMapping[bytes, bytes]:
        """Local contents."""
        ...

    @property
    def changelog_topic(self) -> TopicLike:
        """The compacted topic behind it."""
        ...

    def on_recover(self, fun: Callable[[], Awaitable[None]]) -> Any:
        """Call ``fun`` after the contents were restored and before events flow again."""
        ...


class AppLike(Protocol):
    """A Faust app, as far as the worker drives it."""

    @property
    def conf(self) -> Any:
        """Its settings."""
        ...

    @property
    def consumer(self) -> Any:
        """Its consumer."""
        ...

    consumer_generation_id: int
    """Generation of the group."""
    rebalancing: bool
    """Whether a rebalance is under way."""
    in_recovery: bool
    """Whether it reads changelogs."""

    @property
    def tables(self) -> Any:
        """Its tables; ``tables.recovery.active_remaining_total()`` is how many records of changelogs are still to come."""
        ...

    @property
    def assignor(self) -> Any:
        """Knows which partitions are ours."""
        ...

    async def start(self) -> None:
        """Start, restore tables, return when ready."""
        ...

    async def stop(self) -> None:
        """Stop."""
        ...

    async def wait_until_stopped(self) -> None:
        """Return when stopped or crashed."""
        ...

    @property
    def crash_reason(self) -> BaseException | None:
        """Why it crashed."""
        ...


@dataclass(frozen=True)
class Logic(Generic[StateT, EventT]):
    """The pure part of a stateful processor.

    Attributes:
        step: ``step(state, event, now) -> (state, outputs)``. ``state`` is ``None`` for a key that has none; returning
            ``None`` deletes it, returning the same object says that nothing changed. Neither argument is ever mutated.
            ``now`` is the timestamp of the source message, so a replay computes the same.
        route: ``route(record, message, lookup) -> [(key, event), ...]``: which keys a message concerns, and what
            ``step`` gets for each. A key of ``None`` is a step without state. No key twice for one message. Each pair
            is applied exactly once to its key, on its own: let one step not rely on another key having been written
            with it. ``lookup`` reads the state of any other key of the message's partition (a stream-table join).
        state_type: a msgspec type to decode states into; ``Any`` gives plain JSON-able values.
        expires_at: ``expires_at(key, state)``: when the state of a key may be forgotten, or ``None`` for never.
            Measured against the newest timestamp seen in the partition, so it is event time. State past it may be gone
            at any moment.
        latest: compacted topics of which a reader wants the newest record of a key only: of the records that ``step``
            puts out there between two checkpoints, the last one of each key is made, encoded and sent.
        recognises: source topics of which the steps recognise a repeated event by their own state. It is not dropped by its
            id, so that a dead letter of theirs can be sent again.
    """

    step: Callable[[StateT | None, EventT, datetime], tuple[StateT | None, Sequence[EmitLike]]]
    route: Callable[[Any, Message, Lookup], Iterable[tuple[str | None, EventT]]]
    state_type: Any = Any
    expires_at: Callable[[str, StateT], datetime | None] | None = None
    latest: frozenset[str] = frozenset()
    recognises: frozenset[str] = frozenset()

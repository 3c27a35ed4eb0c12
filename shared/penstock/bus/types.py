"""What the bus carries and what a hop is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from penstock.bus.waiting import Urgency
from penstock.contracts.records import Record
from penstock.telemetry.traces import Headers, carried

__all__ = [
    "Backlog", "Emit", "Event", "Handler", "Hop", "Message", "Outcome", "Partition", "RawConsumer", "RawProducer",
    "RawReader", "Reject", "Sent", "Transient", "Transport", "Urgency",
]  # fmt: skip

R = TypeVar("R", bound=Record)


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Backlog(NamedTuple):
    """What stands in a partition and has not been committed: it may have been read before, by whoever had it then.

    Attributes:
        next: offset to be read next.
        end: the one after the last; not above ``next`` where nothing stands there.
        since_ms: log time of the first of it, ms since the epoch; None where there is none.
    """

    next: int
    end: int
    since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it stands in the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Event(Generic[R]):
    """A message whose record was decoded.

    Attributes:
        span: headers of the span of the work on it, where there is one.
    """

    message: Message
    record: R
    span: Headers | None = None

    @property
    def headers(self) -> Headers:
        """Headers for whatever the work on it sends: they carry its trace."""
        return carried(self.message.headers) if self.span is None else self.span

    @property
    def topic(self) -> str:
        return self.message.topic

    @property
    def partition(self) -> int:
        return self.message.partition

    @property
    def offset(self) -> int:
        return self.message.offset


@dataclass(frozen=True, slots=True)
class Emit:
    """One output: ``record`` goes to ``topic`` under ``key``."""

    topic: str
    key: str
    record: Record


@dataclass(frozen=True, slots=True)
class Reject:
    """The input cannot be processed, now or later: it goes to the service's dead letters."""

    code: str
    reason: str


class Transient(Exception):
    """Something outside is away for now: the batch is tried again, and nothing is committed meanwhile."""


class Sent(NamedTuple):
    """Where the broker put a message."""

    topic: str
    partition: int
    offset: int


Outcome = Sequence[Emit] | Reject
Handler = Callable[[Sequence[Event[Any]]], Awaitable[Sequence[Outcome]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One stateless stage: what it reads and what it makes of it.

    ``handler`` gets the events of each key in order and returns one outcome for each event, in the order of the call. With
    ``concurrency`` 1 it gets batches of up to ``max_batch``, one after another. With more it gets one event a call and
    up to ``concurrency`` calls run at once, those of one key in order. ``failed`` says what else to emit when the
    handler raises on an event, beside its dead letter: the stages of the request flow end the request with it.

    What waits for a call goes by ``urgency`` (see :class:`penstock.bus.waiting.Waiting`; None: in order of arrival), those
    of each ``flow`` in turn where one is named, and ``waiting`` of them are read beside those that are at work (None: a
    batch, or as many as there are concurrent calls): no more are compared. ``on_assigned`` is awaited whenever the hop has
    got partitions, before it is given anything of them; it is tried again where it raises Transient.

    ``wanted`` tells before a message is read whether the hop has any use for messages now; one without is passed over, as
    if nothing had come of it. What it cannot decode is then left to the other readers of its topic. None: all are read.

    ``concerns`` tells of an event that was read whether the hop has any use for it; one that it has none for is passed over,
    and waits for nobody. None: it has use for all of them.

    ``settled`` is called with an event when all that came of it is on the log.

    ``interruptible`` is for concurrent calls that may wait for long: where the hop stops or its partitions move they are
    cancelled, and read again, instead of being waited for.

    ``gather_ms`` is for hops that nobody waits for: the log gathers messages for so long before it gives them, so that there
    are fewer and larger reads.
    """

    service: str
    group: str
    topics: tuple[str, ...]
    handler: Handler
    max_batch: int = 256
    concurrency: int = 1
    failed: Callable[[Event[Any], Exception], Sequence[Emit]] | None = None
    urgency: Callable[[Event[Any]], Urgency] | None = None
    flow: Callable[[Event[Any]], str] | None = None
    waiting: int | None = None
    on_assigned: Callable[[Mapping[Partition, Backlog]], Awaitable[None]] | None = None
    wanted: Callable[[], bool] | None = None
    concerns: Callable[[Event[Any]], bool] | None = None
    settled: Callable[[Event[Any]], None] | None = None
    interruptible: bool = False
    gather_ms: int = 0


class RawProducer(Protocol):
    """Sends bytes; a send is done when its future is."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Awaitable[Sent]: ...


class RawConsumer(Protocol):
    """A member of a consumer group."""

    async def poll(self, timeout_s: float, max_messages: int) -> Sequence[Message]: ...
    async def commit(self, offsets: Mapping[Partition, int]) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    async def backlog(self) -> Mapping[Partition, Backlog]:
        """Return what stands in each partition that this member has and is still to be polled.

        Raises:
            Transient: partitions are moving, or the broker is away.
        """
        ...

    async def close(self) -> None: ...


class RawReader(Protocol):
    """Reads whole topics, without a group."""

    async def poll(self, timeout_s: float) -> Sequence[Message]: ...
    async def at_end(self) -> bool:
        """Return whether everything that stood in the topics at the call has been polled."""
        ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """A log: Kafka, or the one in memory."""

    def producer(self) -> RawProducer: ...

    async def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        on_revoke: Callable[[], Awaitable[None]],
        on_assign: Callable[[], None],
        gather_ms: int = 0,
    ) -> RawConsumer:
        """Join ``group``; ``on_revoke`` is awaited before partitions move away, ``on_assign`` called after. Where nobody
        waits for what is read, the log may gather messages for ``gather_ms`` before it gives them.
        """
        ...

    async def read(
        self,
        topics: Sequence[str],
        *,
        from_end: bool = False,
        since_ms: int | None = None,
        partitions: Collection[int] | None = None,
    ) -> RawReader:
        """Read topics without a group: whole, from ``since_ms`` (Unix time) on, or from where they end now.

        ``partitions`` are the only ones that are read of each topic; None: all.
        """
        ...

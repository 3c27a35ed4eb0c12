"""Which requests have been ended by inference: their completions and refusals stand in the log, the only store of that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager

from penstock.bus import Message, Transport
from penstock.bus.types import RawReader
from penstock.clock import Clock
from penstock.contracts.codec import Codec
from penstock.contracts.records import Completion, GroundedRequest, Refusal

from services.inference.core import completion_id, refusal_id

__all__ = ["AnsweredTail", "Reading"]

_TOPICS = ("completions", "refusals")
_SKEW_MS = 10_000
"""Messages bear the times of whoever wrote them, and clocks of machines differ by less than this."""
_POLL_S = 0.25


class AnsweredTail:
    """Identities of the events that ended requests, as far as they have been read.

    A request's events have its key, and the topics as many partitions as those of the requests: only the partitions that
    requests are read from are read.
    """

    def __init__(self, transport: Transport, codec: Codec, clock: Clock) -> None:
        self._transport = transport
        self._codec = codec
        self._clock = clock
        self._ids: set[str] = set()

    def __contains__(self, request: GroundedRequest) -> bool:
        return completion_id(request) in self._ids or refusal_id(request) in self._ids

    def forget(self) -> None:
        """Begin anew."""
        self._ids.clear()

    @asynccontextmanager
    async def reading(self, since_ms: int, partitions: Collection[int]) -> AsyncIterator[Reading]:
        """Read from the log time ``since_ms`` on, ms since the epoch.

        Raises:
            penstock.bus.KafkaUnavailable: the log is away, or does not know the topics.
        """
        reader = await self._transport.read(_TOPICS, since_ms=since_ms - _SKEW_MS, partitions=partitions)
        try:
            yield Reading(reader, self._take, self._clock)
        finally:
            await reader.close()

    def _take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            record = self._codec.readable(message.topic, message.value)
            if isinstance(record, Completion | Refusal):
                self._ids.add(record.event_id)


class Reading:
    """An open tail: what it reads is known to the :class:`AnsweredTail` that opened it."""

    def __init__(self, reader: RawReader, take: Callable[[Sequence[Message]], None], clock: Clock) -> None:
        self._reader = reader
        self._take = take
        self._clock = clock

    async def to_the_end(self, timeout_s: float) -> bool:
        """Read all that stands there now; return False where that was not done within ``timeout_s``."""
        give_up = self._clock.monotonic() + timeout_s
        while not await self._reader.at_end():
            if self._clock.monotonic() >= give_up:
                return False
            self._take(await self._reader.poll(_POLL_S))
        return True

    async def wait(self) -> None:
        """Wait a moment for what comes next, and read it."""
        self._take(await self._reader.poll(_POLL_S))

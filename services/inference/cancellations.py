"""Requests whose answer nobody wants any more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from penstock.bus import Message, Transport
from penstock.bus.following import Following
from penstock.clock import Clock
from penstock.contracts.codec import Codec
from penstock.contracts.records import Cancellation, GroundedRequest

__all__ = ["Cancellations", "FollowedCancellations", "NoCancellations"]

TOPIC = "cancellations"
_REMEMBERED = 100_000
"""Cancellations that are known at once: the oldest are forgotten first. Each takes some 300 bytes."""
_LONGEST_REASON = 500
"""Characters of a reason that are kept."""


class Cancellations(Protocol):
    """Knows which requests were cancelled."""

    def watch(self, request: GroundedRequest) -> asyncio.Future[str]:
        """Return a future that has the reason as soon as ``request`` is cancelled; it may have it at once.

        Whoever asked for it cancels it when the request is answered.
        """
        ...


class NoCancellations:
    """Nobody cancels anything."""

    def watch(self, request: GroundedRequest) -> asyncio.Future[str]:
        return asyncio.get_running_loop().create_future()


class FollowedCancellations:
    """Those on the topic ``cancellations``, which every process reads whole: none knows who answers which request.

    Only a request's own team can cancel it.

    Args:
        remembered_s: how long a cancellation waits for its request, by the log's time.
    """

    def __init__(self, codec: Codec, clock: Clock, remembered_s: float) -> None:
        self._codec = codec
        self._clock = clock
        self._remembered = timedelta(seconds=remembered_s)
        self._known: OrderedDict[tuple[str, str], tuple[int, str]] = OrderedDict()
        self._watched: dict[tuple[str, str], set[asyncio.Future[str]]] = {}
        self._following: Following | None = None

    async def open(self, transport: Transport, timeout_s: float) -> None:
        """Read what was cancelled lately: a request may come later than its cancellation.

        Raises:
            penstock.bus.following.EndNotReached: that took longer than ``timeout_s``.
            penstock.bus.KafkaUnavailable: Kafka is away, or the topic is missing (run `penstock topics apply`).
        """
        self._following = await Following.open(
            transport, [TOPIC], self.take, timeout_s=timeout_s, clock=self._clock, since_ms=self._oldest_ms()
        )

    async def follow(self, stopping: asyncio.Event) -> None:
        """Take what is cancelled from now on, until ``stopping`` is set."""
        if self._following is None:
            raise RuntimeError("cancellations are not open")
        await self._following.follow(stopping)

    async def close(self) -> None:
        """Release the connection."""
        if self._following is not None:
            await self._following.close()

    def watch(self, request: GroundedRequest) -> asyncio.Future[str]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        place = request.tenant_id, request.request_id
        known = self._known.get(place)
        if known is not None:
            future.set_result(known[1])
            return future
        self._watched.setdefault(place, set()).add(future)
        future.add_done_callback(lambda done: self._unwatch(place, done))
        return future

    def take(self, messages: Sequence[Message]) -> None:
        """Take in cancellations. What cannot be read is passed over: anybody may write to the topic."""
        for message in messages:
            record = self._codec.readable(message.topic, message.value)
            if not isinstance(record, Cancellation):
                continue
            place = record.tenant_id, record.request_id
            reason = f"cancelled by its producer: {record.reason[:_LONGEST_REASON]}" if record.reason else (
                "cancelled by its producer"
            )  # fmt: skip
            self._known.setdefault(place, (message.timestamp_ms, reason))
            for future in tuple(self._watched.get(place, ())):
                if not future.done():
                    future.set_result(reason)
        oldest = self._oldest_ms()
        while self._known and (
            len(self._known) > _REMEMBERED or next(iter(self._known.values()))[0] < oldest
        ):  # fmt: skip
            self._known.popitem(last=False)

    def _oldest_ms(self) -> int:
        return int((self._clock.now() - self._remembered).timestamp() * 1000)

    def _unwatch(self, place: tuple[str, str], future: asyncio.Future[str]) -> None:
        watching = self._watched.get(place)
        if watching is not None:
            watching.discard(future)
            if not watching:
                del self._watched[place]

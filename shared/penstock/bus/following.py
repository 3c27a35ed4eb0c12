"""Topics that are read whole at the start and followed from then on: configuration, weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from penstock.bus.types import Message, RawReader, Transport
from penstock.clock import Clock

__all__ = ["EndNotReached", "Following"]

_POLL_S = 1.0


class EndNotReached(Exception):
    """The end of the topics was not reached in time; the message names them and the remedy."""


class Following:
    """A reader of whole topics that hands over what it reads."""

    def __init__(self, reader: RawReader, take: Callable[[Sequence[Message]], None]) -> None:
        self._reader = reader
        self._take = take

    @classmethod
    async def open(
        cls,
        transport: Transport,
        topics: Sequence[str],
        take: Callable[[Sequence[Message]], None],
        *,
        timeout_s: float,
        clock: Clock,
        since_ms: int | None = None,
    ) -> Following:
        """Hand over everything published so far, or since ``since_ms`` (Unix time), and return what goes on from there.

        Raises:
            EndNotReached: that took longer than ``timeout_s``.
            penstock.bus.KafkaUnavailable: Kafka is away, or a topic is missing (run `penstock topics apply`).
        """
        following = cls(await transport.read(topics, since_ms=since_ms), take)
        try:
            give_up = clock.monotonic() + timeout_s
            while not await following._reader.at_end():
                remaining = give_up - clock.monotonic()
                if remaining <= 0:
                    raise EndNotReached(
                        f"the end of {', '.join(topics)} was not reached within {timeout_s:g} s: check the broker"
                    )
                take(await following._reader.poll(min(remaining, _POLL_S)))
        except BaseException:
            await following.close()
            raise
        return following

    async def follow(self, stopping: asyncio.Event | None = None) -> None:
        """Hand over what is published from now on, until ``stopping`` is set or the task is cancelled.

        A broker that is away stops nobody: the reader goes on when the broker is back.
        """
        told = asyncio.create_task((stopping or asyncio.Event()).wait())
        try:
            while not told.done():
                polled = asyncio.create_task(self._reader.poll(_POLL_S))
                try:
                    await asyncio.wait({polled, told}, return_when=asyncio.FIRST_COMPLETED)
                    if polled.done():
                        self._take(polled.result())
                finally:
                    polled.cancel()
        finally:
            told.cancel()

    async def close(self) -> None:
        """Release the connection."""
        await self._reader.close()

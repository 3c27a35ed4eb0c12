"""What stands on topics now, message by message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from penstock.bus.types import Message, Transport

__all__ = ["history"]

_POLL_S = 0.5


@asynccontextmanager
async def history(
    transport: Transport, topics: Sequence[str], *, since_ms: int | None = None
) -> AsyncIterator[AsyncIterator[Message]]:
    """Open what stands on ``topics`` now: ``async with history(bus, ["costs"]) as messages: async for ...``.

    Args:
        transport: the log.
        topics: what is read, without a group; each partition in its order, partitions in none.
        since_ms: first instant by the broker's clock, ms since the epoch; ``None`` reads from the beginning.

    Raises:
        penstock.bus.KafkaUnavailable: Kafka is away, or a topic does not exist.
    """
    reader = await transport.read(topics, since_ms=since_ms)

    async def messages() -> AsyncIterator[Message]:
        while not await reader.at_end():
            for message in await reader.poll(_POLL_S):
                yield message

    try:
        yield messages()
    finally:
        await reader.close()

"""Results that Redis does not have: the log keeps them for longer, and has those of requests that came another way."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from penstock.bus import KafkaUnavailable, Message, Transient, Transport
from penstock.contracts.codec import Codec
from penstock.contracts.records import LlmResult

from services.edge.redis_store import Place
from services.edge.waiters import RequestKey

__all__ = ["ResultLog"]

TOPIC = "llm-results"

_POLL_S = 0.5
_AT_ONCE = 2
"""Searches of each kind at a time: each has a connection of its own, and the long ones keep none from the short ones."""
_SKEW = timedelta(minutes=1)
"""How far the clocks of intake and guardrails may be apart."""


class ResultLog:
    """Looks for single results in the log."""

    def __init__(self, transport: Transport, codec: Codec, timeout_s: float = 30.0) -> None:
        self._transport = transport
        self._codec = codec
        self._timeout_s = timeout_s
        self._places, self._ranges = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)

    async def at(self, key: RequestKey, place: Place) -> LlmResult | None:
        """Return the result of a request that stands at ``place``; None where the log has it no more.

        Raises:
            Transient: it was not reached in time, or the log is away.
        """
        found = await self._search(key, place.timestamp_ms, place)
        return found[1] if found is not None else None

    async def since(self, key: RequestKey, since: datetime) -> tuple[Message, LlmResult] | None:
        """Return the last result of a request that came after ``since``; None where there is none yet.

        Raises:
            Transient: the end of the log was not reached in time, or it is away.
        """
        return await self._search(key, int((since - _SKEW).timestamp() * 1000), None)

    async def _search(self, key: RequestKey, since_ms: int, place: Place | None) -> tuple[Message, LlmResult] | None:
        try:
            if place is None:
                async with self._ranges, asyncio.timeout(self._timeout_s):
                    return await self._read(key, since_ms, None)
            # The wait for a slot counts here: somebody waits for this on a connection.
            async with asyncio.timeout(self._timeout_s), self._places:
                return await self._read(key, since_ms, place)
        except TimeoutError:
            raise Transient(f"the result was not reached in the log within {self._timeout_s:g} s") from None
        except (KafkaUnavailable, OSError, RuntimeError) as error:  # of aiokafka all are RuntimeErrors
            raise Transient(f"the log cannot be read: {error}") from error

    async def _read(self, key: RequestKey, since_ms: int, place: Place | None) -> tuple[Message, LlmResult] | None:
        reader = await self._transport.read(
            [TOPIC], since_ms=since_ms, partitions=None if place is None else [place.partition]
        )
        try:
            found = None
            while not await reader.at_end():
                for message in await reader.poll(_POLL_S):
                    if place is not None and message.offset < place.offset:
                        continue
                    if place is not None and message.offset > place.offset:
                        return None  # what stood there is gone
                    record = self._codec.readable(TOPIC, message.value)
                    if isinstance(record, LlmResult) and (record.tenant_id, record.request_id) == key:
                        found = message, record
                    if place is not None:
                        return found
            return found
        finally:
            await reader.close()

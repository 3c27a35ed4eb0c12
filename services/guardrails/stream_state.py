"""Where streamed answers stand between their pieces: sealed in Redis, since it holds text that nobody may see yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from penstock.bus import Transient
from penstock.sealing import Seal, Unsealable
from penstock.telemetry import get_logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.guardrails.streaming import StreamState

__all__ = ["MemoryStreams", "RedisStreams", "StreamKey", "Streams"]

log = get_logger(__name__)

_AWAY = (RedisError, OSError)

StreamKey = tuple[str, str]
"""(tenant_id, request_id)."""


class Streams(Protocol):
    """The states of streamed answers."""

    async def load(self, keys: Sequence[StreamKey]) -> list[StreamState | None]:
        """Return the state of each, in order; None where there is none.

        Raises:
            Transient: the store is away; nothing may be released meanwhile.
        """
        ...

    async def save(self, states: Mapping[StreamKey, StreamState]) -> None:
        """Keep the states: called once everything that they led to is in the log.

        Raises:
            Transient: the store is away.
        """
        ...


class RedisStreams:
    """One sealed entry a stream, gone ``ttl_s`` seconds after its last piece. One round trip a batch."""

    def __init__(self, redis: Redis, seal: Seal, ttl_s: int = 3600) -> None:
        self._redis: Any = redis
        self._seal = seal
        self._ttl_s = ttl_s
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(StreamState).decode

    async def load(self, keys: Sequence[StreamKey]) -> list[StreamState | None]:
        if not keys:
            return []
        places = [_place(key) for key in keys]
        try:
            entries = await self._redis.mget(places)
        except _AWAY as error:
            raise _transient(error) from error
        return [self._opened(place, entry) for place, entry in zip(places, entries, strict=True)]

    async def save(self, states: Mapping[StreamKey, StreamState]) -> None:
        if not states:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for key, state in states.items():
            place = _place(key)
            pipeline.set(place, self._seal.seal(place, self._encode(state)), ex=self._ttl_s)
        try:
            await pipeline.execute()
        except _AWAY as error:
            raise _transient(error) from error

    def _opened(self, place: str, entry: bytes | None) -> StreamState | None:
        """The state; one that cannot be read is lost, and the stream is cut."""
        if entry is None:
            return None
        try:
            return self._decode(self._seal.open(place, entry))
        except (Unsealable, msgspec.DecodeError) as error:
            log.error("state of a stream cannot be read", place=place, reason=str(error))
            return None


class MemoryStreams:
    """The same in a dictionary, for tests and for one process without Redis."""

    def __init__(self) -> None:
        self.states: dict[StreamKey, StreamState] = {}

    async def load(self, keys: Sequence[StreamKey]) -> list[StreamState | None]:
        return [self.states.get(key) for key in keys]

    async def save(self, states: Mapping[StreamKey, StreamState]) -> None:
        self.states.update(states)


def _place(key: StreamKey) -> str:
    tenant_id, request_id = key
    return f"penstock:{{{tenant_id}}}:stream:{request_id}"


def _transient(error: Exception) -> Transient:
    return Transient(f"Redis is away: {error}; start it or set REDIS_URL")

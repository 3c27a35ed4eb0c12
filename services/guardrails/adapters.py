"""What guardrails keep outside: which event ended a request. It stands in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from penstock.bus import Transient
from redis.asyncio import Redis
from redis.exceptions import RedisError

__all__ = ["MemoryReleases", "RedisReleases", "Release", "Releases"]

Release = tuple[str, str, str]
"""(tenant_id, request_id, event_id of the result that wants to be the one)."""

# Whatever Redis answers but a value (read-only while it fails over, out of memory, loading): nothing was decided by it.
_AWAY = (RedisError, OSError)


class Releases(Protocol):
    """Decides which event ends a request: the first one asked for, and that one again on a replay."""

    async def claim(self, releases: Sequence[Release]) -> list[bool]:
        """Whether each may be released, in order.

        Raises:
            Transient: the store is away; nothing may be released meanwhile.
        """
        ...


class RedisReleases:
    """SET NX, then GET: one round trip for a batch. Each entry expires after ``ttl_s`` seconds."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s

    async def claim(self, releases: Sequence[Release]) -> list[bool]:
        if not releases:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for tenant_id, request_id, event_id in releases:
            key = f"penstock:{{{tenant_id}}}:released:{request_id}"
            pipeline.set(key, event_id, nx=True, ex=self._ttl_s)
            pipeline.get(key)
        try:
            answers = await pipeline.execute()
        except _AWAY as error:
            raise Transient(f"Redis cannot be used: {error}; start it, mend it, or set REDIS_URL") from error
        # A winner that expired between the two commands has no rival left either.
        return [
            winner is None or winner.decode() == release[2]
            for winner, release in zip(answers[1::2], releases, strict=True)
        ]


class MemoryReleases:
    """The same in a dictionary, for tests and for one process without Redis."""

    def __init__(self) -> None:
        self.winners: dict[tuple[str, str], str] = {}

    async def claim(self, releases: Sequence[Release]) -> list[bool]:
        return [
            self.winners.setdefault((tenant_id, request_id), event_id) == event_id
            for tenant_id, request_id, event_id in releases
        ]

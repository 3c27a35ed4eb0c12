"""What guardrails keep outside: which event ended a request, and whether its answer was asked for again. Both in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.bus import Transient
from redis.asyncio import Redis
from redis.exceptions import RedisError

__all__ = ["Claimed", "MemoryReleases", "RedisReleases", "Release", "Releases"]

Release = tuple[str, str, str]
"""(tenant_id, request_id, event_id of the result that wants to be the one)."""

# Whatever Redis answers but a value (read-only while it fails over, out of memory, loading): nothing was decided by it.
_AWAY = (RedisError, OSError)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What became of a release.

    Attributes:
        won: whether it may be released.
        repeated: whether the request's answer was asked for again: then there may be, or come, another completion.
    """

    won: bool
    repeated: bool = False


class Releases(Protocol):
    """Decides which event ends a request: the first one asked for, and that one again on a replay.

    Each side writes before it reads what the other wrote. So of a result and an asking again that know nothing of each
    other (of two readings of one completion, before a crash and after it), one at least learns of the other.
    """

    async def claim(self, releases: Sequence[Release]) -> list[Claimed]:
        """Return whether each may be released, in order.

        Raises:
            Transient: the store is away; nothing may be released meanwhile.
        """
        ...

    async def ended(self, requests: Sequence[tuple[str, str]]) -> list[bool]:
        """Return whether each request (tenant_id, request_id) has its result already, in order; nothing is decided by it.

        Raises:
            Transient: the store is away.
        """
        ...

    async def repeat(self, tenant_id: str, request_id: str) -> bool:
        """Note that the answer is asked for again; return whether it may be: not where the request has ended already.

        Raises:
            Transient: the store is away.
        """
        ...


class RedisReleases:
    """One round trip for a batch. Each entry expires after ``ttl_s`` seconds."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s

    async def claim(self, releases: Sequence[Release]) -> list[Claimed]:
        if not releases:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for tenant_id, request_id, event_id in releases:
            key = _released(tenant_id, request_id)
            pipeline.set(key, event_id, nx=True, ex=self._ttl_s)
            pipeline.get(key)
            pipeline.exists(_repeated(tenant_id, request_id))
        answers = await _execute(pipeline)
        # A winner that expired between the two commands has no rival left either.
        return [
            Claimed(winner is None or winner.decode() == release[2], bool(repeated))
            for winner, repeated, release in zip(answers[1::3], answers[2::3], releases, strict=True)
        ]

    async def ended(self, requests: Sequence[tuple[str, str]]) -> list[bool]:
        if not requests:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for tenant_id, request_id in requests:
            pipeline.exists(_released(tenant_id, request_id))
        return [bool(found) for found in await _execute(pipeline)]

    async def repeat(self, tenant_id: str, request_id: str) -> bool:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(_repeated(tenant_id, request_id), 1, ex=self._ttl_s)
        pipeline.exists(_released(tenant_id, request_id))
        _, ended = await _execute(pipeline)
        return not ended


class MemoryReleases:
    """The same in dictionaries, for tests and for one process without Redis."""

    def __init__(self) -> None:
        self.winners: dict[tuple[str, str], str] = {}
        self.repeated: set[tuple[str, str]] = set()

    async def claim(self, releases: Sequence[Release]) -> list[Claimed]:
        return [
            Claimed(
                self.winners.setdefault((tenant_id, request_id), event_id) == event_id,
                (tenant_id, request_id) in self.repeated,
            )
            for tenant_id, request_id, event_id in releases
        ]

    async def ended(self, requests: Sequence[tuple[str, str]]) -> list[bool]:
        return [request in self.winners for request in requests]

    async def repeat(self, tenant_id: str, request_id: str) -> bool:
        self.repeated.add((tenant_id, request_id))
        return (tenant_id, request_id) not in self.winners


def _released(tenant_id: str, request_id: str) -> str:
    return f"penstock:{{{tenant_id}}}:released:{request_id}"


def _repeated(tenant_id: str, request_id: str) -> str:
    return f"penstock:{{{tenant_id}}}:asked-again:{request_id}"


async def _execute(pipeline: Any) -> list[Any]:
    try:
        answers: list[Any] = await pipeline.execute()
    except _AWAY as error:
        raise Transient(f"Redis cannot be used: {error}; start it, mend it, or set REDIS_URL") from error
    return answers

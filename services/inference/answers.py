"""Where answers are kept that are given again: sealed in Redis, or in memory."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any, Protocol

import msgspec
from penstock.bus import Transient
from penstock.clock import Clock
from penstock.sealing import Seal, Unsealable, derived_key, shared_secret
from penstock.telemetry import get_logger, metrics
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.inference.exact_cache import Kept

__all__ = ["Answers", "MemoryAnswers", "RedisAnswers"]

log = get_logger(__name__)

_AWAY = (RedisError, OSError, TimeoutError)
_SECRET = "penstock:inference:cache-key"
# Once it is away, Redis is left alone for this long: a cache that must be waited for is worse than none.
_LEFT_ALONE_S = 5.0
# A look-up takes a fifth of a millisecond. One that takes longer than this is given up, and the model called.
_LONGEST_S = 0.5


class Answers(Protocol):
    """Answers by team and by what was asked. It is an optimisation: what goes wrong with it harms no request."""

    async def find(self, tenant_id: str, asked: bytes) -> Kept | None:
        """Return the answer that the team got to the same question; None where there is none, or it cannot be had."""
        ...

    async def keep(self, tenant_id: str, asked: bytes, answer: Kept, ttl_s: int) -> None:
        """Keep an answer for ``ttl_s`` seconds, if that is possible."""
        ...


class RedisAnswers:
    """One sealed entry an answer, under a keyed hash of what was asked: Redis holds neither questions nor answers in clear.

    Args:
        configured: secret of the keys; None: one is made once and kept in Redis for all replicas.
    """

    def __init__(self, redis: Redis, configured: str | None, clock: Clock) -> None:
        self._redis: Any = redis
        self._configured = configured
        self._clock = clock
        self._keys: tuple[bytes, Seal] | None = None
        self._left_alone_until: float | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Kept).decode

    async def find(self, tenant_id: str, asked: bytes) -> Kept | None:
        started = self._clock.monotonic()
        outcome, kept = await self._found(tenant_id, asked)
        metrics.CACHE_LOOKUPS.labels("exact", outcome).inc()
        metrics.CACHE_SECONDS.labels("exact").observe(self._clock.monotonic() - started)
        return kept

    async def keep(self, tenant_id: str, asked: bytes, answer: Kept, ttl_s: int) -> None:
        if self._is_left_alone():
            return
        try:
            async with asyncio.timeout(_LONGEST_S):
                key, seal = await self._opened()
                place = _place(key, tenant_id, asked)
                await self._redis.set(place, seal.seal(place, self._encode(answer)), ex=ttl_s)
        except (*_AWAY, Transient) as error:
            self._leave_alone(error)

    async def _found(self, tenant_id: str, asked: bytes) -> tuple[str, Kept | None]:
        if self._is_left_alone():
            return "unavailable", None
        try:
            async with asyncio.timeout(_LONGEST_S):
                key, seal = await self._opened()
                place = _place(key, tenant_id, asked)
                sealed = await self._redis.get(place)
        except (*_AWAY, Transient) as error:
            self._leave_alone(error)
            return "unavailable", None
        if self._left_alone_until is not None:
            self._left_alone_until = None
            log.info("answers are looked up again")
        if sealed is None:
            return "miss", None
        try:
            return "hit", self._decode(seal.open(place, sealed))
        except (Unsealable, msgspec.DecodeError) as error:
            log.error("a kept answer cannot be read, the model is called", place=place, reason=str(error))
            return "unreadable", None

    async def _opened(self) -> tuple[bytes, Seal]:
        """The key of the hashes and the seal; the secret is asked for once."""
        if self._keys is None:
            secret = await shared_secret(self._redis, _SECRET, self._configured)
            keyed = derived_key(secret, "penstock inference cache key v1")
            self._keys = keyed, Seal(secret, "inference", "INFERENCE_CACHE_KEY")
        return self._keys

    def _is_left_alone(self) -> bool:
        return self._left_alone_until is not None and self._clock.monotonic() < self._left_alone_until

    def _leave_alone(self, error: Exception) -> None:
        if self._left_alone_until is None:
            log.warning(
                "answers cannot be looked up or kept, models are called", reason=str(error) or "no answer in time"
            )
        self._left_alone_until = self._clock.monotonic() + _LEFT_ALONE_S


class MemoryAnswers:
    """The same in a dictionary, for tests and for one process without Redis."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.entries: dict[tuple[str, bytes], tuple[float, Kept]] = {}

    async def find(self, tenant_id: str, asked: bytes) -> Kept | None:
        until, kept = self.entries.get((tenant_id, asked), (0.0, None))
        return kept if self._clock.monotonic() < until else None

    async def keep(self, tenant_id: str, asked: bytes, answer: Kept, ttl_s: int) -> None:
        self.entries[tenant_id, asked] = self._clock.monotonic() + ttl_s, answer


def _place(key: bytes, tenant_id: str, asked: bytes) -> str:
    return f"penstock:{{{tenant_id}}}:answer:{hmac.new(key, asked, hashlib.sha256).hexdigest()}"

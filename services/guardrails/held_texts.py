"""What guardrails keep for a while in Redis, sealed: what pseudonyms stand for, and texts that wait for a person."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, cast

from penstock.bus import Emit, Transient
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import Review, ReviewDecision
from penstock.sealing import Seal, Unsealable
from penstock.telemetry import get_logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.guardrails.reviews import Held

__all__ = ["MemoryReviews", "MemoryVault", "RedisReviews", "RedisVault", "Reviews", "Vault"]

log = get_logger(__name__)

_AWAY = (RedisError, OSError)
_DUE = "penstock:guardrails:reviews-due"
_KEPT_AFTER_DUE_S = 8 * 24 * 3600
"""A held text outlives the time it is due by this: however long guardrails are away, its request still ends."""
_KEPT_AFTER_END_S = 24 * 3600
"""Once it has ended it is kept for what is read again after a crash."""


class Vault(Protocol):
    """What the pseudonyms of a request stand for."""

    async def put(self, tenant_id: str, request_id: str, pseudonyms: Mapping[str, str]) -> None:
        """Keep them until they expire.

        Raises:
            Transient: the store is away.
        """
        ...

    async def open(self, tenant_id: str, request_id: str) -> Mapping[str, str]:
        """Return them; nothing where there are none or they have expired.

        Raises:
            Transient: the store is away.
            Unsealable: they were sealed with another key.
        """
        ...


class Reviews(Protocol):
    """Texts that wait for a person."""

    async def hold(self, held: Held) -> None:
        """Keep ``held`` until it is decided or overdue; one that has ended is not held again."""
        ...

    async def take(self, decision: ReviewDecision) -> Held | None:
        """Return what the decision is about; None where nothing is held, or where something else ended it first.

        The same decision again gets it again.
        """
        ...

    async def end(self, review: Review, event_id: str) -> bool:
        """Return whether the event ``event_id`` is the one that ends ``review``: the first that asks, and that again."""
        ...

    async def overdue(self, now: datetime) -> Sequence[Held]:
        """Return some of what nobody decided on in time."""
        ...

    async def close(self, review: Review) -> None:
        """``review`` has ended: it is not overdue any more."""
        ...


class RedisVault:
    """One sealed entry a request, gone after ``ttl_s`` seconds."""

    def __init__(self, redis: Redis, seal: Seal, ttl_s: int) -> None:
        self._redis: Any = redis
        self._seal = seal
        self._ttl_s = ttl_s

    async def put(self, tenant_id: str, request_id: str, pseudonyms: Mapping[str, str]) -> None:
        key = _vault_key(tenant_id, request_id)
        sealed = self._seal.seal(key, json.dumps(dict(pseudonyms)).encode())
        try:
            await self._redis.set(key, sealed, ex=self._ttl_s)
        except _AWAY as error:
            raise _transient(error) from error

    async def open(self, tenant_id: str, request_id: str) -> Mapping[str, str]:
        key = _vault_key(tenant_id, request_id)
        try:
            sealed = await self._redis.get(key)
        except _AWAY as error:
            raise _transient(error) from error
        return {} if sealed is None else cast("dict[str, str]", json.loads(self._seal.open(key, sealed)))


class RedisReviews:
    """One sealed entry a review, an index by the instant it is due, and the decision that was first."""

    def __init__(self, redis: Redis, seal: Seal, codec: Codec) -> None:
        self._redis: Any = redis
        self._seal = seal
        self._codec = codec

    async def hold(self, held: Held) -> None:
        review, onward = held.review, held.onward
        key = _review_key(review.tenant_id, review.event_id)
        try:
            if await self._redis.exists(_ended_key(key)):
                return
        except _AWAY as error:
            raise _transient(error) from error
        entry = {
            "review": _text(self._codec.encode("reviews", review)),
            "topic": onward.topic,
            "key": onward.key,
            "record": _text(self._codec.encode(onward.topic, onward.record)),
        }
        until = int(review.due_at.timestamp()) + _KEPT_AFTER_DUE_S
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(key, self._seal.seal(key, json.dumps(entry).encode()), exat=until)
        pipeline.zadd(_DUE, {key: review.due_at.timestamp()})
        try:
            await pipeline.execute()
        except _AWAY as error:
            raise _transient(error) from error

    async def take(self, decision: ReviewDecision) -> Held | None:
        key = _review_key(decision.tenant_id, decision.review_id)
        try:
            sealed = await self._redis.get(key)
        except _AWAY as error:
            raise _transient(error) from error
        if sealed is None:
            return None
        held = self._held(key, sealed)
        return held if await self._ends(key, decision.event_id) else None

    async def end(self, review: Review, event_id: str) -> bool:
        return await self._ends(_review_key(review.tenant_id, review.event_id), event_id)

    async def _ends(self, key: str, event_id: str) -> bool:
        try:
            await self._redis.set(_ended_key(key), event_id, nx=True, ex=_KEPT_AFTER_DUE_S)
            first: bytes | None = await self._redis.get(_ended_key(key))
        except _AWAY as error:
            raise _transient(error) from error
        return first is None or first.decode() == event_id

    async def overdue(self, now: datetime) -> Sequence[Held]:
        try:
            keys = await self._redis.zrangebyscore(_DUE, "-inf", now.timestamp(), start=0, num=100)
            pipeline = self._redis.pipeline(transaction=False)
            for key in keys:
                pipeline.get(key)
            entries = await pipeline.execute() if keys else []
            due, gone = [], []
            for key, sealed in zip(keys, entries, strict=True):
                if (held := self._readable(key.decode(), sealed)) is None:
                    gone.append(key)
                else:
                    due.append(held)
            if gone:
                await self._redis.zrem(_DUE, *gone)
        except _AWAY as error:
            raise _transient(error) from error
        return due

    async def close(self, review: Review) -> None:
        key = _review_key(review.tenant_id, review.event_id)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.zrem(_DUE, key)
        pipeline.expire(key, _KEPT_AFTER_END_S)
        try:
            await pipeline.execute()
        except _AWAY as error:
            raise _transient(error) from error

    def _readable(self, key: str, sealed: bytes | None) -> Held | None:
        """What is held; one that is gone or cannot be read any more must not keep the others from ending."""
        if sealed is None:
            return None
        try:
            return self._held(key, sealed)
        except (Unsealable, Undecodable, ValueError, KeyError) as error:
            log.error("held text cannot be read: its request does not end by itself", place=key, reason=str(error))
            return None

    def _held(self, key: str, sealed: bytes) -> Held:
        entry = json.loads(self._seal.open(key, sealed))
        review = cast("Review", self._codec.decode("reviews", _bytes(entry["review"])))
        record = self._codec.decode(entry["topic"], _bytes(entry["record"]))
        return Held(review, Emit(entry["topic"], entry["key"], record))


class MemoryVault:
    """The same in a dictionary, for tests and for one process without Redis."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Mapping[str, str]] = {}

    async def put(self, tenant_id: str, request_id: str, pseudonyms: Mapping[str, str]) -> None:
        self.entries[tenant_id, request_id] = dict(pseudonyms)

    async def open(self, tenant_id: str, request_id: str) -> Mapping[str, str]:
        return self.entries.get((tenant_id, request_id), {})


class MemoryReviews:
    """The same in dictionaries."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Held] = {}
        self.ended: dict[tuple[str, str], str] = {}
        self.closed: set[tuple[str, str]] = set()

    async def hold(self, held: Held) -> None:
        key = (held.review.tenant_id, held.review.event_id)
        if key not in self.ended:
            self.held[key] = held

    async def take(self, decision: ReviewDecision) -> Held | None:
        key = (decision.tenant_id, decision.review_id)
        if key not in self.held or self.ended.setdefault(key, decision.event_id) != decision.event_id:
            return None
        return self.held[key]

    async def end(self, review: Review, event_id: str) -> bool:
        return self.ended.setdefault((review.tenant_id, review.event_id), event_id) == event_id

    async def overdue(self, now: datetime) -> Sequence[Held]:
        return [held for key, held in self.held.items() if key not in self.closed and held.review.due_at <= now]

    async def close(self, review: Review) -> None:
        self.closed.add((review.tenant_id, review.event_id))


def _vault_key(tenant_id: str, request_id: str) -> str:
    return f"penstock:{{{tenant_id}}}:pseudonyms:{request_id}"


def _review_key(tenant_id: str, review_id: str) -> str:
    return f"penstock:{{{tenant_id}}}:review:{review_id}"


def _ended_key(key: str) -> str:
    return f"{key}:ended"


def _transient(error: Exception) -> Transient:
    return Transient(f"Redis cannot be used: {error}; start it, mend it, or set REDIS_URL")


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)

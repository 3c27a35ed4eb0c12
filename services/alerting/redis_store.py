"""The store on Redis: optimistic transactions of WATCH, MULTI and EXEC."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, TypeVar

from penstock.bus import Transient
from penstock.telemetry import get_logger
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError, WatchError

from services.alerting.store import Body, Emptied, Keys, Transaction, milliseconds, moment

__all__ = ["RedisStore"]

log = get_logger(__name__)
T = TypeVar("T")

_TRIES = 200
_AT_ONCE = 32


class _Watched:
    """Reads that Redis watches."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    async def get(self, *keys: str) -> list[bytes | None]:
        await self._pipe.watch(*keys)
        found: list[bytes | None] = await self._pipe.mget(keys)
        return found

    async def items(self, key: str, most: int, watched: bool) -> list[bytes]:
        if watched:
            await self._pipe.watch(key)
        found: list[bytes] = await self._pipe.lrange(key, 0, most - 1)  # -1: the last
        return found

    async def length(self, key: str) -> int:
        # Not watched: whoever needs the exact length has read the list.
        return int(await self._pipe.llen(key))

    async def values(self, key: str) -> list[bytes]:
        await self._pipe.watch(key)
        found: list[bytes] = await self._pipe.hvals(key)
        return found

    async def scores(self, key: str, first: float) -> list[float]:
        await self._pipe.watch(key)
        found = await self._pipe.zrangebyscore(key, first, "+inf", withscores=True)
        return [score for _, score in found]


class RedisStore:
    """The store on Redis."""

    def __init__(self, redis: Redis) -> None:
        # Its types say of most commands that they may answer anything.
        self._redis: Any = redis
        # Each transaction holds a connection, and a pool that has no more to give refuses.
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def run(self, body: Body[T], *, rebuilding: bool = False) -> T:
        async with self._slots:
            return await self._run(body, rebuilding)

    async def _run(self, body: Body[T], rebuilding: bool) -> T:
        try:
            for attempt in range(_TRIES):
                async with self._redis.pipeline(transaction=True) as pipe:
                    await pipe.watch(Keys.EPOCH)
                    if not rebuilding and not await pipe.get(Keys.EPOCH):
                        raise Emptied("Redis holds nothing of alerting")
                    transaction = Transaction(_Watched(pipe))
                    result = await body(transaction)
                    if not transaction.writes:
                        return result
                    pipe.multi()
                    for write in transaction.writes:
                        pipe.execute_command(*write)
                    try:
                        await pipe.execute()
                    except WatchError:
                        # Not the service's clock: this is the time of the machine's own contention.
                        await asyncio.sleep(random.uniform(0, 0.001 * min(attempt, 20)))
                        continue
                    return result
        except (RedisError, OSError) as error:
            raise _failed(error) from error
        raise Transient(f"a transaction was overtaken {_TRIES} times")

    async def holds(self) -> bool:
        epoch: bytes | None = await _reply(self._redis.get(Keys.EPOCH))
        return epoch == await self._run_id()

    async def forget_if_restarted(self) -> None:
        epoch = await _reply(self._redis.get(Keys.EPOCH))
        if epoch is not None and epoch != await self._run_id():
            log.warning("Redis was restarted: what it came back with may be old, and is rebuilt from the log")
            await _reply(self._redis.delete(Keys.EPOCH))

    async def _run_id(self) -> bytes:
        info = await _reply(self._redis.info("server"))
        return str(info["run_id"]).encode()

    async def lock(self, holder: str, ttl_s: float) -> bool:
        if await _reply(self._redis.set(Keys.REBUILDING, holder, nx=True, ex=int(ttl_s))):
            return True
        if await _reply(self._redis.get(Keys.REBUILDING)) != holder.encode():
            return False
        await _reply(self._redis.expire(Keys.REBUILDING, int(ttl_s)))
        return True

    async def unlock(self, holder: str) -> None:
        if await _reply(self._redis.get(Keys.REBUILDING)) == holder.encode():
            await _reply(self._redis.delete(Keys.REBUILDING))

    async def clear(self) -> None:
        try:
            async for key in self._redis.scan_iter(match=Keys.EVERYTHING, count=1000):
                if key != Keys.REBUILDING.encode():
                    await self._redis.unlink(key)
        except (RedisError, OSError) as error:
            raise _failed(error) from error

    async def open(self) -> None:
        await _reply(self._redis.set(Keys.EPOCH, await self._run_id()))

    async def due(self, key: str, until: datetime, most: int) -> list[str]:
        found = await _reply(self._redis.zrangebyscore(key, "-inf", milliseconds(until), start=0, num=most))
        return [member.decode() for member in found]

    async def standing(self, key: str) -> tuple[int, datetime | None]:
        pipe = self._redis.pipeline(transaction=False)
        pipe.zcard(key)
        pipe.zrange(key, 0, 0, withscores=True)
        count, first = await _reply(pipe.execute())
        return int(count), moment(first[0][1]) if first else None

    async def members(self, key: str) -> set[str]:
        found = await _reply(self._redis.smembers(key))
        return {member.decode() for member in found}

    async def leave(self, key: str, member: str) -> bool:
        return bool(await _reply(self._redis.srem(key, member)))


async def _reply(call: Awaitable[T]) -> T:
    try:
        return await call
    except (RedisError, OSError) as error:
        raise _failed(error) from error


def _failed(error: Exception) -> Transient:
    if isinstance(error, OutOfMemoryError):
        return Transient(
            f"Redis is full: {error}. Give it more memory (maxmemory): alerting keeps some 3 KB of an alert, for 9 days "
            "where it was told"
        )
    return Transient(f"Redis is away: {error}")

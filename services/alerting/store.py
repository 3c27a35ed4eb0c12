"""What alerting keeps in Redis, and how it is changed: in transactions that hold wholly or not at all.

A transaction reads what it needs, decides, and writes at the end; if anything that it read was changed meanwhile, it is run
again. So two replicas, a hop and a dispatcher may work on one incident without a lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import msgspec

__all__ = ["Body", "Emptied", "Keys", "Reads", "Store", "Transaction", "Write", "milliseconds", "moment"]

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

Write = tuple[str | bytes | int, ...]
"""A Redis command that writes."""

_PREFIX = "penstock:{alerts}:"


class Emptied(Exception):
    """Redis does not hold what alerting knew: it was emptied, or restarted. The log does."""


class Keys:
    """Names of what is kept. The braces keep all of it in one slot of a cluster."""

    EPOCH = f"{_PREFIX}epoch"
    """Run of the Redis server that the rest was written to; where it is missing, the rest is not to be trusted."""
    REBUILDING = f"{_PREFIX}rebuilding"
    SILENCES = f"{_PREFIX}silences"
    WAKE = f"{_PREFIX}wake"
    """Incidents by the time at which they are to be looked at, ms."""
    RECEIVERS = f"{_PREFIX}receivers"
    """Receivers that messages were ever queued for: entry/name."""
    MISCONFIGURED = f"{_PREFIX}misconfigured"
    EVERYTHING = "penstock:{alerts}:*"

    @staticmethod
    def incident(fingerprint: str) -> str:
        return f"{_PREFIX}incident:{fingerprint}"

    @staticmethod
    def alert(event_id: str) -> str:
        return f"{_PREFIX}alert:{event_id}"

    @staticmethod
    def group(group_id: str) -> str:
        return f"{_PREFIX}group:{group_id}"

    @staticmethod
    def entries(group_id: str) -> str:
        return f"{_PREFIX}entries:{group_id}"

    @staticmethod
    def progress(group_id: str) -> str:
        """How many of the alerts of a group's job have been settled."""
        return f"{_PREFIX}progress:{group_id}"

    @staticmethod
    def due(receiver: str) -> str:
        """Groups of a receiver by the time at which something is to be done, ms."""
        return f"{_PREFIX}due:{receiver}"

    @staticmethod
    def waiting(receiver: str) -> str:
        """Groups of a receiver by the time since which their oldest message waits, ms."""
        return f"{_PREFIX}waiting:{receiver}"

    @staticmethod
    def rate(receiver: str) -> str:
        """Messages to a receiver by the time at which they were made, ms."""
        return f"{_PREFIX}rate:{receiver}"

    @staticmethod
    def silenced(silence_id: str) -> str:
        """Incidents that a silence holds back."""
        return f"{_PREFIX}silenced:{silence_id}"


def milliseconds(at: datetime) -> int:
    """Return Unix time in ms."""
    return int(at.timestamp() * 1000)


def moment(ms: float) -> datetime:
    """Return the instant of a Unix time in ms."""
    return datetime.fromtimestamp(ms / 1000, UTC)


class Reads(Protocol):
    """What a transaction can read. Whatever was read and changes before the end makes it run again."""

    async def get(self, *keys: str) -> list[bytes | None]: ...
    async def items(self, key: str, most: int, watched: bool) -> list[bytes]: ...
    async def length(self, key: str) -> int: ...
    async def values(self, key: str) -> list[bytes]: ...
    async def scores(self, key: str, first: float) -> list[float]:
        """Return the scores of a sorted set from ``first`` on, in order."""
        ...


class Transaction:
    """Reads at once, writes at the end."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self.writes: list[Write] = []

    async def load(self, kind: type[S], key: str) -> S | None:
        """Return what stands under a key."""
        (value,) = await self._reads.get(key)
        return None if value is None else msgspec.msgpack.decode(value, type=kind)

    async def load_many(self, kind: type[S], keys: Sequence[str]) -> list[S | None]:
        """Return what stands under several keys, in their order."""
        values = await self._reads.get(*keys) if keys else []
        return [None if value is None else msgspec.msgpack.decode(value, type=kind) for value in values]

    async def listed(self, kind: type[S], key: str, most: int, *, watched: bool = True) -> list[S]:
        """Return the first items of a list, all of them where ``most`` is 0. Unwatched, a change of the list does not make
        the transaction run again."""
        return [msgspec.msgpack.decode(item, type=kind) for item in await self._reads.items(key, most, watched)]

    async def length(self, key: str) -> int:
        """Return the length of a list."""
        return await self._reads.length(key)

    async def mapped(self, kind: type[S], key: str) -> list[S]:
        """Return the values of a mapping."""
        return [msgspec.msgpack.decode(value, type=kind) for value in await self._reads.values(key)]

    async def scores(self, key: str, first: float) -> list[float]:
        """Return the scores of a sorted set from ``first`` on, in order."""
        return await self._reads.scores(key, first)

    def put(self, key: str, value: msgspec.Struct, ttl_s: float) -> None:
        """Set a key for a time."""
        self.writes.append(("SET", key, msgspec.msgpack.encode(value), "EX", max(1, int(ttl_s))))

    def delete(self, *keys: str) -> None:
        self.writes.append(("DEL", *keys))

    def push(self, key: str, values: Sequence[msgspec.Struct]) -> None:
        """Append to a list."""
        if values:
            self.writes.append(("RPUSH", key, *(msgspec.msgpack.encode(value) for value in values)))

    def skip(self, key: str, count: int) -> None:
        """Remove the first items of a list."""
        self.writes.append(("LTRIM", key, count, -1))

    def map(self, key: str, name: str, value: msgspec.Struct) -> None:
        """Set a value of a mapping."""
        self.writes.append(("HSET", key, name, msgspec.msgpack.encode(value)))

    def unmap(self, key: str, name: str) -> None:
        self.writes.append(("HDEL", key, name))

    def schedule(self, key: str, member: str, at: datetime) -> None:
        """Set a member of a sorted set to a time."""
        self.writes.append(("ZADD", key, milliseconds(at), member))

    def unschedule(self, key: str, member: str) -> None:
        self.writes.append(("ZREM", key, member))

    def forget_before(self, key: str, at: datetime) -> None:
        """Remove what is older from a sorted set."""
        self.writes.append(("ZREMRANGEBYSCORE", key, "-inf", f"({milliseconds(at)}"))

    def join(self, key: str, member: str) -> None:
        """Add to a set."""
        self.writes.append(("SADD", key, member))


Body = Callable[[Transaction], Awaitable[T]]


class Store(Protocol):
    """Where alerting keeps what it knows, common to all replicas."""

    async def run(self, body: Body[T], *, rebuilding: bool = False) -> T:
        """Run a transaction; ``body`` may be called several times.

        Args:
            rebuilding: whether it writes what :meth:`open` declares whole.

        Raises:
            Emptied: what was kept is gone.
            Transient: Redis is away.
        """
        ...

    async def holds(self) -> bool:
        """Return whether what alerting knows stands here."""
        ...

    async def forget_if_restarted(self) -> None:
        """Make :meth:`holds` false if the server is not the run that all was written to."""
        ...

    async def lock(self, holder: str, ttl_s: float) -> bool:
        """Take or keep, for a time, the right to rebuild; return whether ``holder`` has it."""
        ...

    async def unlock(self, holder: str) -> None:
        """Give the right to rebuild back."""
        ...

    async def clear(self) -> None:
        """Remove all of it, but for the right to rebuild."""
        ...

    async def open(self) -> None:
        """Declare what stands here whole."""
        ...

    async def due(self, key: str, until: datetime, most: int) -> list[str]:
        """Return the members of a sorted set whose time has come, the earliest first."""
        ...

    async def standing(self, key: str) -> tuple[int, datetime | None]:
        """Return how many members a sorted set has, and the earliest's time."""
        ...

    async def members(self, key: str) -> set[str]:
        """Return the members of a set."""
        ...

    async def leave(self, key: str, member: str) -> bool:
        """Remove a member of a set; return whether it was one."""
        ...

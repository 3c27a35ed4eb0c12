"""The store of alerting in memory, for tests of what stands on it; a test on Redis holds the two equal."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime
from typing import TypeVar

from services.alerting.store import Body, Emptied, Keys, Transaction, Write, milliseconds, moment

T = TypeVar("T")


class MemoryStore:
    """The store in memory. Transactions conflict as they do in Redis: what was read and has changed makes them run again."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.lists: defaultdict[str, list[bytes]] = defaultdict(list)
        self.maps: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self.sorted: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self.sets: defaultdict[str, set[str]] = defaultdict(set)
        self.versions: defaultdict[str, int] = defaultdict(int)
        self.whole = True
        self.conflicts = 0

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        for part in (self.data, self.lists, self.maps, self.sorted, self.sets):
            for key in list(part):
                self.versions[key] += 1
            part.clear()  # type: ignore[attr-defined]
        self.whole = False

    async def run(self, body: Body[T], *, rebuilding: bool = False) -> T:
        while True:
            if not self.whole and not rebuilding:
                raise Emptied("flushed")
            reads = _Reads(self)
            transaction = Transaction(reads)
            result = await body(transaction)
            if not self.whole and not rebuilding:
                raise Emptied("flushed")
            if transaction.writes and any(self.versions[key] != seen for key, seen in reads.seen.items()):
                self.conflicts += 1
                continue
            for write in transaction.writes:
                self._apply(write)
            return result

    def _apply(self, write: Write) -> None:
        command, key, *rest = write
        assert isinstance(key, str)
        self.versions[key] += 1
        match command:
            case "SET":
                self.data[key] = rest[0]  # type: ignore[assignment]
            case "DEL":
                for name in (key, *rest):
                    for part in (self.data, self.lists, self.maps, self.sorted, self.sets):
                        part.pop(name, None)  # type: ignore[attr-defined]
            case "RPUSH":
                self.lists[key] += rest  # type: ignore[arg-type]
            case "LTRIM":
                self.lists[key] = self.lists[key][int(rest[0]) :]
            case "HSET":
                self.maps[key][str(rest[0])] = rest[1]  # type: ignore[assignment]
            case "HDEL":
                self.maps[key].pop(str(rest[0]), None)
            case "ZADD":
                self.sorted[key][str(rest[1])] = float(rest[0])
            case "ZREM":
                self.sorted[key].pop(str(rest[0]), None)
            case "ZREMRANGEBYSCORE":
                bound = float(str(rest[1]).removeprefix("("))
                self.sorted[key] = {m: score for m, score in self.sorted[key].items() if score >= bound}
            case "SADD":
                self.sets[key].add(str(rest[0]))
            case _:
                raise AssertionError(write)

    async def holds(self) -> bool:
        return self.whole

    async def forget_if_restarted(self) -> None:
        return

    async def lock(self, holder: str, ttl_s: float) -> bool:
        return self.data.setdefault(Keys.REBUILDING, holder.encode()) == holder.encode()

    async def unlock(self, holder: str) -> None:
        if self.data.get(Keys.REBUILDING) == holder.encode():
            del self.data[Keys.REBUILDING]

    async def clear(self) -> None:
        held = self.data.get(Keys.REBUILDING)
        self.flush()
        if held is not None:
            self.data[Keys.REBUILDING] = held

    async def open(self) -> None:
        self.whole = True

    async def due(self, key: str, until: datetime, most: int) -> list[str]:
        if not self.whole:
            raise Emptied("flushed")
        ordered = sorted(self.sorted[key].items(), key=lambda item: item[1])
        return [member for member, score in ordered if score <= milliseconds(until)][:most]

    async def standing(self, key: str) -> tuple[int, datetime | None]:
        scores = self.sorted[key].values()
        return len(scores), moment(min(scores)) if scores else None

    async def members(self, key: str) -> set[str]:
        return set(self.sets[key])

    async def leave(self, key: str, member: str) -> bool:
        if member in self.sets[key]:
            self.sets[key].discard(member)
            return True
        return False


class _Reads:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.seen: dict[str, int] = {}

    async def _see(self, key: str) -> None:
        self.seen.setdefault(key, self._store.versions[key])
        # Others run between a read and the end of its transaction, as they do over a network.
        await asyncio.sleep(0)

    async def get(self, *keys: str) -> list[bytes | None]:
        for key in keys:
            await self._see(key)
        return [self._store.data.get(key) for key in keys]

    async def items(self, key: str, most: int, watched: bool) -> list[bytes]:
        if watched:
            await self._see(key)
        return list(self._store.lists[key][: most or None])

    async def length(self, key: str) -> int:
        return len(self._store.lists[key])

    async def values(self, key: str) -> list[bytes]:
        await self._see(key)
        return list(self._store.maps[key].values())

    async def scores(self, key: str, first: float) -> list[float]:
        await self._see(key)
        return sorted(score for score in self._store.sorted[key].values() if score >= first)

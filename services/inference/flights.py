"""Calls in flight as other processes can see them: in Redis, a hash for each process, and whether the process lives."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from penstock.bus import Transient
from penstock.config.kinds import Target
from penstock.contracts.records import Usage
from penstock.telemetry import get_logger
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.inference.journal import Wasted

__all__ = ["LEASE_S", "Flights", "Left", "MemoryFlights", "Place", "RedisFlights", "read_entry", "written"]

log = get_logger(__name__)

LEASE_S = 3.0
"""A process that has not written for so long counts as dead: some ten times the interval of its writing. A consumer
group takes longer than this to notice."""
_KEPT_S = 3 * 24 * 3600
"""What a dead process left is kept no longer: as long as requests-grounded keeps its request."""
_LONGEST_S = 2.0

Place = tuple[str, str]
"""A process, and the event_id of the request."""


class _Call(msgspec.Struct, frozen=True, array_like=True):
    target: str
    usage: Usage
    counted: bool


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Call]).decode


def written(calls: Sequence[Wasted]) -> bytes:
    """Return the entry of a flight with these calls."""
    return _encode([_Call(call.target.model_dump_json(), call.usage, call.counted) for call in calls])


def read_entry(entry: bytes) -> tuple[Wasted, ...]:
    """Return the calls of an entry; none where another version wrote what this one cannot read."""
    try:
        calls = _decode(entry)
        return tuple(Wasted(Target.model_validate_json(call.target), call.usage, call.counted) for call in calls)
    except (msgspec.DecodeError, ValidationError) as error:
        log.error("what a process left cannot be read, it is not accounted for", reason=str(error))
        return ()


@dataclass(frozen=True, slots=True)
class Left:
    """What a process has written of a request.

    Attributes:
        alive: the process is still at it.
    """

    process: str
    calls: tuple[Wasted, ...]
    alive: bool


class Flights(Protocol):
    """Where processes write what they are at. Every method is one round trip, and raises Transient where it fails."""

    async def write(self, process: str, entries: Mapping[str, bytes], ended: Collection[Place]) -> None:
        """Remove what ``ended``, write ``entries`` by event_id, all at once, and prove that ``process`` lives."""
        ...

    async def died(self, process: str, entries: Mapping[str, bytes], ended: Collection[Place]) -> None:
        """The same, and say that ``process`` is gone."""
        ...

    async def others(self, process: str) -> dict[str, list[Left]]:
        """Return what processes other than ``process`` have written, by event_id."""
        ...

    async def known(self, places: Sequence[Place]) -> list[Left | None]:
        """Return what stands under each place now; None where nothing does."""
        ...


class RedisFlights:
    """All keys have one hash tag, so that what belongs together is written at once in a cluster, too."""

    _PREFIX = "penstock:{inference-flights}:"
    _PROCESSES = _PREFIX + "processes"

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def write(self, process: str, entries: Mapping[str, bytes], ended: Collection[Place]) -> None:
        pipe = self._changes(process, entries, ended)
        pipe.set(self._alive(process), 1, px=int(LEASE_S * 1000))
        await self._done(pipe)

    async def died(self, process: str, entries: Mapping[str, bytes], ended: Collection[Place]) -> None:
        pipe = self._changes(process, entries, ended)
        pipe.delete(self._alive(process))
        await self._done(pipe)

    def _changes(self, process: str, entries: Mapping[str, bytes], ended: Collection[Place]) -> Any:
        pipe = self._redis.pipeline(transaction=True)
        for owner, event_id in ended:
            pipe.hdel(self._of(owner), event_id)
        if entries:
            pipe.sadd(self._PROCESSES, process)
            pipe.hset(self._of(process), mapping=dict(entries))
        pipe.expire(self._of(process), _KEPT_S)
        return pipe

    async def others(self, process: str) -> dict[str, list[Left]]:
        pipe = self._redis.pipeline(transaction=False)
        pipe.smembers(self._PROCESSES)
        (members,) = await self._done(pipe)
        processes = sorted(name for name in (raw.decode() for raw in members) if name != process)
        pipe = self._redis.pipeline(transaction=False)
        for name in processes:
            pipe.hgetall(self._of(name))
            pipe.exists(self._alive(name))
        answers = await self._done(pipe) if processes else []
        found: dict[str, list[Left]] = {}
        empty = []
        for name, entries, alive in zip(processes, answers[::2], answers[1::2], strict=True):
            if not entries and not alive:
                empty.append(name)
            for event_id, entry in entries.items():
                found.setdefault(event_id.decode(), []).append(Left(name, read_entry(entry), bool(alive)))
        if empty:
            pipe = self._redis.pipeline(transaction=False)
            pipe.srem(self._PROCESSES, *empty)
            await self._done(pipe)
        return found

    async def known(self, places: Sequence[Place]) -> list[Left | None]:
        pipe = self._redis.pipeline(transaction=False)
        for process, event_id in places:
            pipe.hget(self._of(process), event_id)
            pipe.exists(self._alive(process))
        answers = await self._done(pipe)
        return [
            None if entry is None else Left(process, read_entry(entry), bool(alive))
            for (process, _), entry, alive in zip(places, answers[::2], answers[1::2], strict=True)
        ]

    def _of(self, process: str) -> str:
        return f"{self._PREFIX}of:{process}"

    def _alive(self, process: str) -> str:
        return f"{self._PREFIX}alive:{process}"

    async def _done(self, pipe: Any) -> Any:
        try:
            async with asyncio.timeout(_LONGEST_S):
                return await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise Transient(f"Redis has no part of what is in flight: {error or 'no answer in time'}") from error


@dataclass(slots=True)
class MemoryFlights:
    """The same for processes that are none, in tests: ``alive`` are those that live, ``away`` makes it fail."""

    entries: dict[Place, bytes] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    away: bool = False

    async def write(self, process: str, entries: Mapping[str, bytes], ended: Collection[Place]) -> None:
        self._check()
        self.alive.add(process)
        for place in ended:
            self.entries.pop(place, None)
        self.entries.update({(process, event_id): entry for event_id, entry in entries.items()})

    async def died(self, process: str, entries: Mapping[str, bytes], ended: Collection[Place]) -> None:
        await self.write(process, entries, ended)
        self.alive.discard(process)

    async def others(self, process: str) -> dict[str, list[Left]]:
        self._check()
        found: dict[str, list[Left]] = {}
        for (owner, event_id), entry in self.entries.items():
            if owner != process:
                found.setdefault(event_id, []).append(Left(owner, read_entry(entry), owner in self.alive))
        return found

    async def known(self, places: Sequence[Place]) -> list[Left | None]:
        self._check()
        return [
            Left(place[0], read_entry(self.entries[place]), place[0] in self.alive) if place in self.entries else None
            for place in places
        ]

    def _check(self) -> None:
        if self.away:
            raise Transient("the flights are away")

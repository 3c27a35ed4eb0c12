"""A log in memory with Kafka's semantics, for fast and exact tests of the real loop."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from penstock.bus.types import Backlog, Event, Message, Partition, RawConsumer, RawProducer, RawReader, Sent
from penstock.clock import Clock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Record

__all__ = ["MemoryBus"]


class MemoryBus:
    """Topics as lists, groups with committed offsets, rebalances when a member joins or leaves.

    One process, one event loop. ``fail_sends`` makes the next sends fail, as a broker that is away does.
    """

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self.catalogue = catalogue
        self.codec = Codec.offline(catalogue)
        self.fail_sends = 0
        self._clock = clock
        self._log: dict[Partition, list[Message]] = {
            Partition(topic.name, number): []
            for topic in catalogue.topics.values()
            for number in range(topic.partitions)
        }
        self._arrivals: dict[str, list[Message]] = {name: [] for name in catalogue.topics}
        self._committed: dict[str, dict[Partition, int]] = {}
        self._members: dict[str, list[_MemoryConsumer]] = {}
        self._changed = asyncio.Condition()

    # -- what tests use ----------------------------------------------------------------------------------------------

    async def publish(self, topic: str, key: str, record: Record, headers: Sequence[tuple[str, bytes]] = ()) -> Sent:
        """Encode and append one record."""
        return await self.append(topic, key.encode(), self.codec.encode(topic, record), headers)

    async def append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Sent:
        """Append raw bytes, decodable or not."""
        number = zlib.crc32(key or b"") % self.catalogue.topic(topic).partitions if partition is None else partition
        place = Partition(topic, number)
        log = self._log[place]
        timestamp_ms = int(self._clock.now().timestamp() * 1000)
        message = Message(topic, number, len(log), timestamp_ms, key, value, tuple(headers))
        log.append(message)
        self._arrivals[topic].append(message)
        async with self._changed:
            self._changed.notify_all()
        return Sent(topic, number, len(log) - 1)

    async def collect(self, topic: str, count: int, timeout_s: float = 5.0) -> list[Event[Any]]:
        """Wait until ``topic`` holds at least ``count`` messages and return all of them, decoded, in order of arrival.

        Raises:
            TimeoutError: fewer came within ``timeout_s``; the message says how many.
        """
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: len(self.messages(topic)) >= count)
        except TimeoutError:
            raise TimeoutError(f"{topic} holds {len(self.messages(topic))} messages, not {count}") from None
        return [Event(m, self.codec.decode(topic, m.value)) for m in self.messages(topic)]

    def messages(self, topic: str) -> list[Message]:
        """Return what ``topic`` holds, in order of arrival over its partitions."""
        return list(self._arrivals[topic])

    def committed(self, group: str) -> Mapping[Partition, int]:
        """Return the offsets that ``group`` has committed."""
        return dict(self._committed.get(group, {}))

    async def settled(self, group: str, topics: Sequence[str], timeout_s: float = 5.0) -> None:
        """Wait until ``group`` has committed everything that stands in ``topics``."""

        def done() -> bool:
            offsets = self._committed.get(group, {})
            return all(offsets.get(place, 0) >= len(log) for place, log in self._log.items() if place.topic in topics)

        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(done)

    # -- transport ---------------------------------------------------------------------------------------------------

    def producer(self) -> RawProducer:
        return _MemoryProducer(self)

    async def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        on_revoke: Callable[[], Awaitable[None]],
        on_assign: Callable[[], None],
        gather_ms: int = 0,
    ) -> RawConsumer:
        consumer = _MemoryConsumer(self, group, topics, on_revoke, on_assign)
        await self._rebalance(group, [*self._members.get(group, []), consumer])
        return consumer

    async def read(
        self,
        topics: Sequence[str],
        *,
        from_end: bool = False,
        since_ms: int | None = None,
        partitions: Collection[int] | None = None,
    ) -> RawReader:
        return _MemoryReader(self, topics, from_end, since_ms or 0, partitions)

    async def _rebalance(self, group: str, members: list[_MemoryConsumer]) -> None:
        for member in self._members.get(group, []):
            await member.on_revoke()
        self._members[group] = members
        for index, member in enumerate(members):
            places = [place for place in self._log if place.topic in member.topics]
            member.positions = {
                place: self._committed.get(group, {}).get(place, 0)
                for place in places
                if place.partition % len(members) == index
            }
            member.on_assign()


class _MemoryProducer:
    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Awaitable[Sent]:
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        if self._bus.fail_sends > 0:
            self._bus.fail_sends -= 1
            future.set_exception(ConnectionError("the broker is away"))
        else:
            future.set_result(await self._bus.append(topic, key, value, headers, partition))
        return future


class _MemoryConsumer:
    def __init__(
        self,
        bus: MemoryBus,
        group: str,
        topics: Sequence[str],
        on_revoke: Callable[[], Awaitable[None]],
        on_assign: Callable[[], None],
    ) -> None:
        self.topics = frozenset(topics)
        self.positions: dict[Partition, int] = {}
        self.on_revoke = on_revoke
        self.on_assign = on_assign
        self._bus = bus
        self._group = group
        self._paused = False

    def _take(self, max_messages: int) -> list[Message]:
        taken: list[Message] = []
        for place, position in self.positions.items():
            new = self._bus._log[place][position : position + max_messages - len(taken)]
            taken += new
            self.positions[place] = position + len(new)
        return taken

    async def poll(self, timeout_s: float, max_messages: int) -> Sequence[Message]:
        if self._paused:
            await asyncio.sleep(0)
            return []
        if taken := self._take(max_messages):
            return taken
        try:
            # A real wait, not the injected clock's: it ends when something is appended.
            async with asyncio.timeout(timeout_s), self._bus._changed:
                await self._bus._changed.wait()
        except TimeoutError:
            return []
        return self._take(max_messages)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        mine = {place: offset for place, offset in offsets.items() if place in self.positions}
        self._bus._committed.setdefault(self._group, {}).update(mine)
        async with self._bus._changed:
            self._bus._changed.notify_all()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    async def backlog(self) -> Mapping[Partition, Backlog]:
        backlog: dict[Partition, Backlog] = {}
        for place, position in self.positions.items():
            log = self._bus._log[place]
            since_ms = log[position].timestamp_ms if position < len(log) else None
            backlog[place] = Backlog(position, len(log), since_ms)
        return backlog

    async def close(self) -> None:
        members = self._bus._members.get(self._group, [])
        if self in members:
            self.positions = {}
            remaining = [member for member in members if member is not self]
            self._bus._members[self._group] = remaining
            await self._bus._rebalance(self._group, remaining)


class _MemoryReader:
    def __init__(
        self,
        bus: MemoryBus,
        topics: Sequence[str],
        from_end: bool,
        since_ms: int,
        partitions: Collection[int] | None,
    ) -> None:
        self._bus = bus
        self._positions = {
            place: len(log)
            if from_end
            else next((i for i, message in enumerate(log) if message.timestamp_ms >= since_ms), len(log))
            for place, log in bus._log.items()
            if place.topic in topics and (partitions is None or place.partition in partitions)
        }

    async def poll(self, timeout_s: float) -> Sequence[Message]:
        taken = self._take()
        if not taken:
            try:
                async with asyncio.timeout(timeout_s), self._bus._changed:
                    await self._bus._changed.wait()
            except TimeoutError:
                return []
            taken = self._take()
        return taken

    def _take(self) -> list[Message]:
        taken: list[Message] = []
        for place, position in self._positions.items():
            new = self._bus._log[place][position:]
            taken += new
            self._positions[place] = position + len(new)
        return taken

    async def at_end(self) -> bool:
        return all(position >= len(self._bus._log[place]) for place, position in self._positions.items())

    async def close(self) -> None:
        return

"""What a hop has read and not begun: bounded, and given out in turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from penstock.bus.types import Event, Hop, Message
from penstock.bus.waiting import Urgency, Waiting
from penstock.clock import Clock
from penstock.contracts.codec import Undecodable

__all__ = ["WAITING_BYTES", "Taken", "Window", "Work"]

WAITING_BYTES = 64 * 1024 * 1024
"""What waits holds no more of the memory than this, unless it is a single poll's messages."""

Taken = tuple[Message, Event[Any] | Undecodable]
"""A message and what it is: an event, or one that cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one call of a hop's handler gets; ``keys`` are those that wait for its end."""

    taken: list[Taken]
    keys: tuple[bytes | None, ...] = ()


class Window:
    """The messages of ``hop`` that wait for a call of its handler (see :class:`penstock.bus.waiting.Waiting`).

    A call is given one of them where several run at once, and its key is busy until :meth:`done`. Where one runs after
    another each gets a batch, in which all of a key stand in their order, so that no key is ever busy.
    """

    def __init__(self, hop: Hop, clock: Clock) -> None:
        self._hop = hop
        self._clock = clock
        self._batched = hop.concurrency == 1
        self._waiting: Waiting[Taken] = Waiting()
        self._most = hop.waiting if hop.waiting is not None else hop.max_batch if self._batched else hop.concurrency
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def room(self) -> int:
        """How many more messages are to be read; 0 where none, until :meth:`wait_for_room` says so."""
        return max(0, self._most - len(self._waiting)) if self._has_room.is_set() else 0

    def put(self, message: Message, decoded: Event[Any] | Undecodable) -> None:
        """Take in ``message``, which is read as ``decoded``."""
        urgency, flow = Urgency(), ""
        if isinstance(decoded, Event):
            urgency = self._hop.urgency(decoded) if self._hop.urgency is not None else urgency
            flow = self._hop.flow(decoded) if self._hop.flow is not None else flow
        size = len(message.value or b"")
        self._waiting.put(message.key, (message, decoded), urgency, self._clock.monotonic(), size, flow)
        if len(self._waiting) >= self._most or self._waiting.size >= WAITING_BYTES:
            self._has_room.clear()

    def next(self) -> Work | None:
        """Return what the next call gets; None where nothing can go."""
        now, work = self._clock.monotonic(), None
        if self._batched:
            taken: list[Taken] = []
            while len(taken) < self._hop.max_batch and (following := self._waiting.next(now)) is not None:
                taken.append(following[1])
                self._waiting.done(following[0])
            work = Work(taken) if taken else None
        elif (following := self._waiting.next(now)) is not None:
            work = Work([following[1]], (following[0],))
        self._look()
        return work

    def done(self, work: Work) -> None:
        """The call that was given ``work`` has ended."""
        for key in work.keys:
            self._waiting.done(key)

    def clear(self) -> int:
        """Forget what waits, and return how many messages these were; what was given out stays out."""
        forgotten = len(self._waiting.clear())
        self._look()
        return forgotten

    async def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until there is room, for ``timeout_s`` at most; return whether there is."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._has_room.wait()
        except TimeoutError:
            return False

    def _look(self) -> None:
        # Read on while three quarters still wait: no call waits for messages, and none are fetched one by one.
        if 4 * (self._most - len(self._waiting)) >= self._most and 4 * self._waiting.size <= 3 * WAITING_BYTES:
            self._has_room.set()

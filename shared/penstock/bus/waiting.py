"""What waits for a slot of a hop's window, and which of it is next. Pure."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Container
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = ["AGED_EVERY", "PATIENCE_S", "Urgency", "Waiting"]

T = TypeVar("T")

PATIENCE_S = 30.0
"""What has waited longer is aged: its turn comes whatever else is urgent."""
AGED_EVERY = 4
"""Every so many starts the one that has waited longest goes first, if it is aged."""
_REMEMBERED_FLOWS = 1024


class Urgency(NamedTuple):
    """Smaller goes first.

    Attributes:
        rank: class of service, 0 the first.
        deadline: Unix time in seconds; infinite where there is none. Within a class the earliest goes first.
    """

    rank: int = 0
    deadline: float = math.inf


@dataclass(slots=True)
class _Entry(Generic[T]):
    key: bytes | None
    item: T
    urgency: Urgency
    since: float
    size: int
    flow: str


class _Turns:
    """Whose turn it is among flows of one class: start-time fair queueing (Goyal, Vin and Cheng, 1996), every item and every
    flow of the same weight. Virtual time is the start of what went last; a flow that was idle begins there and saves nothing
    up. Within a flow the earliest deadline goes first, then the first that came.
    """

    def __init__(self) -> None:
        self._lines: dict[str, list[tuple[float, int]]] = {}
        self._order: list[tuple[float, int, str]] = []
        """Heap of the flows that have a line, by the start of their next item."""
        self._ends: dict[str, float] = {}
        """Where flows ended that have none: one that comes back at once does not go before its turn."""
        self._time = 0.0

    def put(self, flow: str, deadline: float, number: int) -> None:
        line = self._lines.get(flow)
        if line is None:
            line = self._lines[flow] = []
            heapq.heappush(self._order, (max(self._time, self._ends.pop(flow, 0.0)), number, flow))
        heapq.heappush(line, (deadline, number))

    def next(self, waiting: Container[int]) -> int | None:
        """Return the next one of those that are still ``waiting``."""
        while self._order:
            start, _, flow = heapq.heappop(self._order)
            line = self._lines[flow]
            number = None
            while line and number is None:
                number = heapq.heappop(line)[1]
                if number not in waiting:
                    number = None
            if number is not None:
                self._time = start
                start += 1.0
            if line:
                heapq.heappush(self._order, (start, line[0][1], flow))
            else:
                del self._lines[flow]
                self._ends[flow] = start
            if number is not None:
                self._forget()
                return number
        return None

    def _forget(self) -> None:
        if len(self._ends) > _REMEMBERED_FLOWS:
            self._ends = {flow: end for flow, end in self._ends.items() if end > self._time}


class Waiting(Generic[T]):
    """A queue by urgency that keeps the order within each key and starves nobody.

    Of one key one item is out at a time, and the next one may go once it is done. Among the first ones of the keys that
    are free the best class goes first. Within a class flows take turns, so that however much of one waits another's next
    item waits for one of each at most; within a flow the earliest deadline goes first, and of equal ones the one that came
    first. Once something has waited longer than ``patience_s`` every :data:`AGED_EVERY`-th start is that of the one that has
    waited longest: what is aged, and has m others before it in the order of arrival, is started within ``AGED_EVERY * (m +
    1)`` starts.

    Attributes:
        size: sum of the sizes of what waits.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.size = 0
        self._patience_s = patience_s
        self._entries: dict[int, _Entry[T]] = {}
        self._lines: dict[bytes | None, deque[int]] = {}
        """Of each key that has an item out or waiting: what waits, in order of arrival."""
        self._out: set[bytes | None] = set()
        self._classes: dict[int, _Turns] = {}
        """The first ones of the keys that are free, by rank. What was started by its age is passed over when met."""
        self._oldest: list[int] = []
        """The same as a heap in order of arrival."""
        self._arrivals = 0
        self._since_aged = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: bytes | None, item: T, urgency: Urgency, now: float, size: int = 0, flow: str = "") -> None:
        """Take in ``item`` of ``flow``; ``now`` is in seconds of any clock that never goes back, ``size`` counts in
        :attr:`size`.
        """
        number = self._arrivals
        self._arrivals += 1
        self._entries[number] = _Entry(key, item, urgency, now, size, flow)
        self.size += size
        line = self._lines.setdefault(key, deque())
        line.append(number)
        if len(line) == 1 and key not in self._out:
            self._free(number)

    def next(self, now: float) -> tuple[bytes | None, T] | None:
        """Return what goes next and its key, which is busy until :meth:`done`; None where nothing can go."""
        number = self._aged(now) if self._since_aged >= AGED_EVERY - 1 else None
        if number is None:
            number = self._most_urgent()
            if number is None:
                return None
            self._since_aged += 1
        else:
            self._since_aged = 0
        entry = self._entries.pop(number)
        self.size -= entry.size
        self._lines[entry.key].popleft()
        self._out.add(entry.key)
        return entry.key, entry.item

    def done(self, key: bytes | None) -> None:
        """What is out of ``key`` has ended: the next one may go."""
        self._out.discard(key)
        line = self._lines.get(key)
        if line:
            self._free(line[0])
        else:
            self._lines.pop(key, None)

    def clear(self) -> list[T]:
        """Return all that waits, in order of arrival, and forget it; what is out stays out."""
        items = [self._entries[number].item for number in sorted(self._entries)]
        self._entries.clear()
        self._lines.clear()
        self._classes.clear()
        self._oldest.clear()
        self.size = 0
        return items

    def _free(self, number: int) -> None:
        entry = self._entries[number]
        self._classes.setdefault(entry.urgency.rank, _Turns()).put(entry.flow, entry.urgency.deadline, number)
        heapq.heappush(self._oldest, number)

    def _most_urgent(self) -> int | None:
        for rank in sorted(self._classes):
            number = self._classes[rank].next(self._entries)
            if number is not None:
                return number
        return None

    def _aged(self, now: float) -> int | None:
        while self._oldest and self._oldest[0] not in self._entries:
            heapq.heappop(self._oldest)
        if self._oldest and now - self._entries[self._oldest[0]].since > self._patience_s:
            return heapq.heappop(self._oldest)
        return None

"""Which offsets may be committed when messages finish out of order."""

from __future__ import annotations

import heapq

from penstock.bus.types import Partition

__all__ = ["OffsetTracker"]


class _Progress:
    __slots__ = ("committed", "finished", "next", "pending", "taken")

    def __init__(self, first: int) -> None:
        self.next = first  # every offset below is finished
        self.committed = first
        self.taken = first  # every offset from here on has not been taken
        self.pending: list[int] = []  # heap of offsets taken and perhaps finished
        self.finished: set[int] = set()


class OffsetTracker:
    """Follows the messages taken from each partition; only a prefix that is finished without a gap is committable.

    Offsets may have holes (compaction, transaction markers): order of taking is what counts, not consecutive numbers.
    """

    def __init__(self) -> None:
        self._partitions: dict[Partition, _Progress] = {}
        self.in_flight = 0

    def taken(self, partition: Partition, offset: int) -> None:
        """A message was read."""
        progress = self._partitions.setdefault(partition, _Progress(offset))
        heapq.heappush(progress.pending, offset)
        progress.taken = max(progress.taken, offset + 1)
        self.in_flight += 1

    def finished(self, partition: Partition, offset: int) -> None:
        """Everything the message led to has been acknowledged.

        Messages of forgotten partitions are ignored, also where the partition came back and is not as far yet: it comes
        to them again.
        """
        progress = self._partitions.get(partition)
        if progress is None or not progress.next <= offset < progress.taken or offset in progress.finished:
            return
        progress.finished.add(offset)
        self.in_flight -= 1
        while progress.pending and progress.pending[0] in progress.finished:
            done = heapq.heappop(progress.pending)
            progress.finished.discard(done)
            progress.next = done + 1

    def left(self, messages: int) -> None:
        """So many of the messages taken will not be worked on: they, and what follows them, are not committable."""
        self.in_flight -= messages

    def committable(self) -> dict[Partition, int]:
        """Return the offsets to commit (each the next one to read) that were not committed yet."""
        return {tp: p.next for tp, p in self._partitions.items() if p.next > p.committed}

    def committed(self, offsets: dict[Partition, int]) -> None:
        """The broker took ``offsets``."""
        for partition, offset in offsets.items():
            if (progress := self._partitions.get(partition)) is not None:
                progress.committed = max(progress.committed, offset)

    def forget(self) -> None:
        """Partitions moved: what is in flight will be read again by whoever has them now."""
        self._partitions.clear()
        self.in_flight = 0

"""The shell's view of one Faust table: what is durable, what is newer than that, and what may be forgotten."""

from __future__ import annotations

import heapq
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from penstock.stateful.entries import EntryCodec, RecentIds, expiry_of, partition_of, state_key

__all__ = ["KeyState", "Overlay", "UnreadableState", "Writes"]

Writes = dict[bytes, bytes | None]
"""Table key to entry; ``None`` deletes it."""

_EPOCH_US = 1_000_000


class UnreadableState(RuntimeError):
    """A state was written by another version of the service. No event is to blame, so none is put aside."""


@dataclass(slots=True)
class KeyState:
    """The newest state of a key and the offsets it has applied, by source topic."""

    key: str
    table_key: bytes
    state: Any = None
    applied: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IdLimits:
    """Bounds of the set of recent event ids of one source partition."""

    capacity: int = 32_768
    ttl_s: float = 900.0
    segment_size: int = 512


class Overlay:
    """States as the next event sees them, over the table's contents, which stand at the last checkpoint.

    Not thread-safe and without a single ``await``: the processor decides when it is called.
    """

    def __init__(
        self,
        data: MutableMapping[bytes, bytes],
        state_type: Any,
        expires_at: Callable[[str, Any], datetime | None] | None,
        ids: IdLimits,
        max_clean: int,
    ) -> None:
        self._data = data
        self._codec = EntryCodec(state_type)
        self._expires_at = expires_at
        self._ids = ids
        self._max_clean = max_clean
        self._live: dict[bytes, KeyState] = {}
        # In the order in which they changed first.
        self._dirty: dict[bytes, None] = {}
        self._recent: dict[tuple[str, int], RecentIds] = {}
        self._watermark: dict[int, int] = {}
        self._expiring: dict[int, list[tuple[int, bytes]]] = {}
        self._scheduled: set[bytes] = set()
        self.reset()

    def reset(self) -> None:
        """Drop all that no checkpoint made durable, and begin from the table's contents."""
        self._live.clear()
        self._dirty.clear()
        self._recent.clear()
        self._expiring.clear()
        self._scheduled.clear()
        for key, entry in self._data.items():
            self._schedule(key, expiry_of(entry))

    def load(self, partition: int, key: str) -> KeyState:
        """Return the newest state of a key.

        Raises:
            UnreadableState: it does not fit the state's type.
        """
        table_key = state_key(partition, key)
        live = self._live.get(table_key)
        if live is None:
            entry = self._data.get(table_key)
            if entry is None:
                live = KeyState(key, table_key)
            else:
                try:
                    applied, state, _ = self._codec.unpack(entry)
                except ValueError as error:  # msgspec.ValidationError and DecodeError are
                    raise UnreadableState(
                        f"the state of {key!r} cannot be read ({error}): another version of the service wrote it. Run that "
                        "version, or delete the changelog topic and set the group back to the offsets to rebuild it from"
                    ) from error
                live = KeyState(key, table_key, state, applied)
            self._live[table_key] = live
        return live

    def read(self, partition: int, key: str) -> Any:
        """Return the newest state of a key, ``None`` where it has none. For reading only."""
        table_key = state_key(partition, key)
        return self.load(partition, key).state if table_key in self._live or table_key in self._data else None

    def store(self, live: KeyState, state: Any, topic: str, offset: int) -> None:
        """Make ``state`` the newest of its key, with ``offset`` applied. Durable at the next checkpoint."""
        live.state = state
        live.applied[topic] = offset
        self._live[live.table_key] = live
        self._dirty[live.table_key] = None

    def recent(self, topic: str, partition: int) -> RecentIds:
        """Return the recent ids of a source partition."""
        recent = self._recent.get((topic, partition))
        if recent is None:
            recent = RecentIds(
                topic, partition, self._ids.capacity, int(self._ids.ttl_s * _EPOCH_US), self._ids.segment_size
            )
            recent.load(self._data)
            self._recent[topic, partition] = recent
        return recent

    def observe(self, partition: int, timestamp_us: int) -> None:
        """Advance a partition's event time."""
        if timestamp_us > self._watermark.get(partition, 0):
            self._watermark[partition] = timestamp_us

    def cut(self) -> Writes:
        """Return what must be written for a checkpoint at this instant, in this order, and start the next one.

        Keys that are new come first, the newest before all: what a new key was made of in view of others is then never
        made again in view of what those became later, however far a crash lets the writes come.
        """
        writes: Writes = {}
        newest_first = list(self._dirty)[::-1]
        for table_key in sorted(newest_first, key=self._data.__contains__):
            live = self._live[table_key]
            writes[table_key] = None if live.state is None else self._pack(live)
        self._dirty = {}
        for (_, partition), recent in self._recent.items():
            recent.expire(self._watermark.get(partition, 0))
            writes.update(recent.take_dirty())
        self._sweep(writes)
        return writes

    def install(self, writes: Writes) -> None:
        """Take over what a checkpoint made durable, and keep the number of decoded states bounded."""
        for key, entry in writes.items():
            if entry is None:
                self._data.pop(key, None)
                if key not in self._dirty:
                    self._live.pop(key, None)
            else:
                self._data[key] = entry
                self._schedule(key, expiry_of(entry))
        surplus = len(self._live) - len(self._dirty) - self._max_clean
        if surplus > 0:
            for key in [key for key in self._live if key not in self._dirty][:surplus]:
                del self._live[key]

    def __len__(self) -> int:
        return len(self._data)

    def _pack(self, live: KeyState) -> bytes:
        expires_at = self._expires_at(live.key, live.state) if self._expires_at else None
        moment = int(expires_at.timestamp() * _EPOCH_US) if expires_at else 0
        return self._codec.pack(live.applied, live.state, moment)

    def _schedule(self, key: bytes, expires_at: int) -> None:
        if expires_at and key not in self._scheduled:
            self._scheduled.add(key)
            heapq.heappush(self._expiring.setdefault(partition_of(key), []), (expires_at, key))

    def _sweep(self, writes: Writes) -> None:
        """Add the deletion of every entry whose time has come and which this checkpoint does not write."""
        for partition, heap in self._expiring.items():
            watermark = self._watermark.get(partition, 0)
            while heap and heap[0][0] < watermark:
                _, key = heapq.heappop(heap)
                self._scheduled.discard(key)
                entry = self._data.get(key)
                if entry is None or key in writes:
                    continue
                expires_at = expiry_of(entry)
                if expires_at >= watermark:
                    self._schedule(key, expires_at)
                else:
                    writes[key] = None

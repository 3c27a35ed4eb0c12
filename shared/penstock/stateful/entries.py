"""The table's entries as bytes: states with what was applied to them, and the ids that were seen."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, MutableMapping
from hashlib import blake2b
from typing import Any

import msgspec

__all__ = ["EntryCodec", "RecentIds", "expiry_of", "partition_of", "state_key"]

# Every entry starts with its format and the moment (epoch, microseconds) from which it may be forgotten; 0 is never.
# The moment stands outside the packed rest so that a scan for expired entries decodes nothing.
_HEAD = struct.Struct(">BQ")
_FORMAT = 1
_SEQUENCE = struct.Struct(">Q")
_SEEN = struct.Struct(">QQ")


def state_key(partition: int, key: str) -> bytes:
    """Return the table key of a service's key. The partition is part of it: a producer with another partitioner may put
    one key into two partitions, and their states must not overwrite each other in memory."""
    return b"%d/k/%b" % (partition, key.encode())


def _ids_key(partition: int, topic: str, slot: int) -> bytes:
    return b"%d/i/%b/%d" % (partition, topic.encode(), slot)


def partition_of(key: bytes) -> int:
    """Return the partition that a table key belongs to."""
    return int(key[: key.index(b"/")])


def expiry_of(entry: bytes) -> int:
    """Return the moment from which an entry may be forgotten, epoch microseconds; 0 is never.

    Raises:
        ValueError: the entry was written by a newer version of this library.
    """
    version, expires_at = _HEAD.unpack_from(entry)
    if version != _FORMAT:
        raise ValueError(
            f"table entry has format {version}, this version reads {_FORMAT}; do not run older code on newer state"
        )
    return int(expires_at)


class EntryCodec:
    """Packs the state of a key with the offset applied per source topic (the partition is the key's own)."""

    def __init__(self, state_type: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(tuple[dict[str, int], state_type])

    def pack(self, applied: dict[str, int], state: Any, expires_at: int) -> bytes:
        """Return the entry's bytes."""
        return _HEAD.pack(_FORMAT, expires_at) + self._encoder.encode((applied, state))

    def unpack(self, entry: bytes) -> tuple[dict[str, int], Any, int]:
        """Return offsets applied by topic, state, expiry (epoch microseconds, 0 is never)."""
        expires_at = expiry_of(entry)
        applied, state = self._decoder.decode(memoryview(entry)[_HEAD.size :])
        return applied, state, expires_at


class RecentIds:
    """The event ids seen lately in one source partition, each with the offset of its first sight.

    A repeated id at another offset is an upstream duplicate; at the same offset it is our own replay. Bounded in
    number and in time. Kept in segments so that a checkpoint writes only the segment that is being filled, however hot
    the partition.

    Ids are kept as 8 bytes of BLAKE2b: with 2**15 ids a false match has a chance of about 2e-15 per event.
    """

    def __init__(self, topic: str, partition: int, capacity: int, ttl_us: int, segment_size: int) -> None:
        self._topic = topic
        self._partition = partition
        self._segment_size = segment_size
        self._slots = max(2, -(-capacity // segment_size) + 1)
        self._ttl_us = ttl_us
        self._first_offset: dict[int, int] = {}
        # (sequence, newest timestamp, ids), oldest first; the last one is being filled.
        self._segments: deque[tuple[int, int, list[int]]] = deque()
        self._dirty: set[int] = set()

    def load(self, data: MutableMapping[bytes, bytes]) -> None:
        """Read the segments back from the table's contents."""
        loaded: list[tuple[int, int, list[int]]] = []
        for slot in range(self._slots):
            entry = data.get(_ids_key(self._partition, self._topic, slot))
            if entry is None:
                continue
            newest = expiry_of(entry) - self._ttl_us
            (sequence,) = _SEQUENCE.unpack_from(entry, _HEAD.size)
            ids = []
            for identity, offset in _SEEN.iter_unpack(entry[_HEAD.size + _SEQUENCE.size :]):
                ids.append(identity)
                self._first_offset.setdefault(identity, offset)
            loaded.append((sequence, newest, ids))
        self._segments = deque(sorted(loaded, key=lambda segment: segment[0]))

    def seen_elsewhere(self, event_id: str, offset: int) -> bool:
        """Tell whether the id was seen at another offset than this one."""
        first = self._first_offset.get(_fold(event_id))
        return first is not None and first != offset

    def add(self, event_id: str, offset: int, timestamp_us: int) -> None:
        """Remember an id; nothing happens where it is known."""
        identity = _fold(event_id)
        if identity in self._first_offset:
            return
        if not self._segments or len(self._segments[-1][2]) >= self._segment_size:
            sequence = self._segments[-1][0] + 1 if self._segments else 0
            self._segments.append((sequence, timestamp_us, []))
            while len(self._segments) > self._slots - 1:
                self._forget()
        sequence, newest, ids = self._segments[-1]
        ids.append(identity)
        self._segments[-1] = (sequence, max(newest, timestamp_us), ids)
        self._first_offset[identity] = offset
        self._dirty.add(sequence)

    def expire(self, now_us: int) -> None:
        """Forget the segments whose newest id is older than the time limit. Their slots are overwritten in time."""
        while len(self._segments) > 1 and self._segments[0][1] + self._ttl_us < now_us:
            self._forget()

    def take_dirty(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and entry of every segment changed since the last call."""
        for sequence, newest, ids in self._segments:
            if sequence in self._dirty:
                packed = b"".join(_SEEN.pack(identity, self._first_offset[identity]) for identity in ids)
                entry = _HEAD.pack(_FORMAT, newest + self._ttl_us) + _SEQUENCE.pack(sequence) + packed
                yield _ids_key(self._partition, self._topic, sequence % self._slots), entry
        self._dirty.clear()

    def _forget(self) -> None:
        _, _, ids = self._segments.popleft()
        for identity in ids:
            self._first_offset.pop(identity, None)


def _fold(event_id: str) -> int:
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big")

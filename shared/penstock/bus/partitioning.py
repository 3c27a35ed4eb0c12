"""Which partition a key falls to: as every producer of this library, and Java's, decide."""

from __future__ import annotations

from itertools import count

from aiokafka.partitioner import murmur2

__all__ = ["key_in", "partition_of"]


def partition_of(key: str, partitions: int) -> int:
    """Return the partition that ``key`` falls to of a topic with so many: murmur2 of its bytes, as Kafka's default."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def key_in(partition: int, prefix: str, partitions: int) -> str:
    """Return a key that begins with ``prefix`` and falls to ``partition``: always the same one.

    It takes as many tries as there are partitions, on average.

    Raises:
        ValueError: there is no such partition.
    """
    if not 0 <= partition < partitions:
        raise ValueError(f"partition {partition} is none of {partitions}")
    return next(key for n in count() if partition_of(key := f"{prefix}-{n}", partitions) == partition)

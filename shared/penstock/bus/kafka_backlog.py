"""What stands in a group member's partitions that nobody has committed: how much, and since when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from penstock.bus.types import Backlog, Partition, Transient

__all__ = ["backlog_of"]

_POLL_MS = 500
_TIMEOUT_S = 15.0


async def backlog_of(consumer: AIOKafkaConsumer, options: Mapping[str, Any]) -> dict[Partition, Backlog]:
    """Return the backlog of each partition that ``consumer`` has; ``options`` are those of a client that connects.

    Raises:
        Transient: partitions are moving, or the broker is away.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            places = sorted(consumer.assignment())
            nexts = {place: await consumer.position(place) for place in places}
            ends = await consumer.end_offsets(places) if places else {}
            waiting = {place: (nexts[place], ends[place]) for place in places if nexts[place] < ends[place]}
            begun = await _log_times(waiting, options)
    except TimeoutError as error:
        raise Transient(f"what stands in the partitions was not known within {_TIMEOUT_S:.0f} s") from error
    except (IllegalStateError, KafkaError) as error:
        raise Transient(f"what stands in the partitions cannot be known now: {error}") from error
    return {
        Partition(place.topic, place.partition): Backlog(nexts[place], ends[place], begun.get(place))
        for place in places
    }


async def _log_times(
    ranges: Mapping[TopicPartition, tuple[int, int]], options: Mapping[str, Any]
) -> dict[TopicPartition, int]:
    """Return the log time, ms since the epoch, of the first message of each range of offsets that still has one."""
    if not ranges:
        return {}
    # The smallest fetch there is gives one batch of messages: no more is wanted than the first.
    reader = AIOKafkaConsumer(
        **options, enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=1
    )
    try:
        await reader.start()
        reader.assign(list(ranges))
        for place, (start, _) in ranges.items():
            reader.seek(place, start)
        times: dict[TopicPartition, int] = {}
        unknown = set(ranges)
        while unknown:
            for place, records in (await reader.getmany(*unknown, timeout_ms=_POLL_MS)).items():
                times[place] = records[0].timestamp
                unknown.discard(place)
            # What stood there was deleted meanwhile.
            unknown -= {place for place in unknown if await reader.position(place) >= ranges[place][1]}
    finally:
        await reader.stop()
    return times

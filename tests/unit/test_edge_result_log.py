"""Single results are looked for in the log: no further than they can stand, and no longer than somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import pytest
from penstock.bus import Message, Transient
from penstock.contracts.codec import Codec
from penstock.contracts.records import LlmResult

from services.edge.redis_store import Place
from services.edge.result_log import ResultLog
from tests.unit.edge_results import AT, result

_TOPIC = "llm-results"


class EndlessLog:
    """A log that is written faster than it is read, from its offset 5 on: one result, told again and again.

    Args:
        held: polls wait while it is cleared.
    """

    def __init__(self, codec: Codec, told: LlmResult, held: asyncio.Event) -> None:
        self._value = codec.encode(_TOPIC, told)
        self._held = held
        self._next = 5
        self.readers = 0

    async def read(
        self,
        topics: Sequence[str],
        *,
        from_end: bool = False,
        since_ms: int | None = None,
        partitions: Collection[int] | None = None,
    ) -> EndlessLog:
        self.readers += 1
        return self

    async def poll(self, timeout_s: float) -> list[Message]:
        await asyncio.sleep(0)
        await self._held.wait()
        self._next += 1
        return [Message(_TOPIC, 0, self._next - 1, 0, None, self._value)]

    async def at_end(self) -> bool:
        return False

    async def close(self) -> None:
        self.readers -= 1


def log_of(codec: Codec, timeout_s: float, *, held: bool = False) -> tuple[Any, ResultLog, LlmResult]:
    event = asyncio.Event()
    if not held:
        event.set()
    told = result()
    log: Any = EndlessLog(codec, told, event)
    return log, ResultLog(log, codec, timeout_s), told


async def test_a_result_stands_at_its_place_or_nowhere(codec: Codec) -> None:
    log, results, told = log_of(codec, 5)
    key = (told.tenant_id, told.request_id)
    assert await results.at(key, Place(0, 4, 0)) is None  # the log holds it no longer
    assert await results.at(key, Place(0, 9, 0)) == told
    assert log.readers == 0


async def test_who_waits_for_a_place_is_told_in_time_and_not_kept_by_long_searches(codec: Codec) -> None:
    log, results, told = log_of(codec, 0.05, held=True)
    key = (told.tenant_id, told.request_id)
    patient = ResultLog(log, codec, 30)
    searches = [asyncio.create_task(patient.since(key, AT - timedelta(days=1))) for _ in range(3)]
    while log.readers < 2:
        await asyncio.sleep(0)
    waits = [asyncio.create_task(results.at(key, Place(0, 5, 0))) for _ in range(8)]
    async with asyncio.timeout(5):
        for outcome in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(outcome, Transient)
    place = asyncio.create_task(patient.at(key, Place(0, 5, 0)))
    while log.readers < 3:
        await asyncio.sleep(0)
    for task in [*searches, place]:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await place

"""What waits for room in the flow: the end of its waiting, and how much waits where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from penstock.bus import Event, Transient
from penstock.clock import Clock
from penstock.contracts.records import LlmRequest
from penstock.telemetry import get_logger, metrics

from services.intake.queues import Queues

__all__ = ["WaitingRoom", "watch_queues"]

log = get_logger(__name__)

_PAUSE_S = 0.05
"""What is decided meanwhile is told to Redis together."""
_WATCH_S = 1.0


class Room(Protocol):
    """Remembers who waits for room in the flow."""

    async def leave_room(self, left: Sequence[tuple[str, str, str]]) -> None: ...


class WaitingRoom:
    """Tells the ledger which requests wait no more, once what came of them is on the log: not before, or what comes after
    them of the same conversation could overtake them.
    """

    def __init__(self, ledger: Room, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._left: list[tuple[str, str, str]] = []

    def decided(self, event: Event[Any]) -> None:
        """What came of ``event`` is on the log."""
        request: LlmRequest = event.record
        self._left.append((request.tenant_id, request.priority, request.request_id))

    async def run(self, stopping: asyncio.Event) -> None:
        """Tell the ledger, until ``stopping`` is set."""
        while not stopping.is_set():
            await self._clock.sleep(_PAUSE_S)
            await self.tell()

    async def tell(self) -> None:
        """Tell the ledger of those that were decided about. What it is not told is told with the next one of its team."""
        left, self._left = self._left, []
        if not left:
            return
        try:
            await self._ledger.leave_room(left)
        except Transient as error:
            log.warning("what waits no more is told later", requests=len(left), reason=str(error))
            self._left = left + self._left


async def watch_queues(
    queues: Queues, routes: Callable[[], Iterable[str]], clock: Clock, stopping: asyncio.Event
) -> None:
    """Keep the gauge of how many stand in the queue of each route, until ``stopping`` is set."""
    while not stopping.is_set():
        try:
            for route, length in (await queues.lengths(routes())).items():
                metrics.QUEUE_REQUESTS.labels(route).set(length)
        except Transient as error:
            log.warning("the queues cannot be read", reason=str(error))
        await clock.sleep(_WATCH_S)

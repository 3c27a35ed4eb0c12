"""Replicas of the edge's desk around one log in memory, on a real Redis, and the flow behind them as tests play it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import SystemClock
from penstock.contracts.envelope import derive, new_id
from penstock.contracts.records import Context, LlmRequest, LlmResult, Message, ResultChunk, Status
from penstock.settings import ServiceSettings
from redis.asyncio import Redis

from services.edge.desk import LogDesk
from services.edge.redis_store import CHANNEL, EdgeStore
from services.edge.result_log import ResultLog
from services.edge.results_hop import results_hop

CLOCK = SystemClock()
FOREVER_S = 60.0
"""Nobody looks without being told to: what arrives came by a notice."""


class Edge:
    """Replicas of the edge's desk around one log, and the flow behind them as the tests play it."""

    def __init__(self, bus: MemoryBus, url: str, replicas: AsyncExitStack) -> None:
        self.bus = bus
        self.redis = Redis.from_url(url)
        self.team = f"team-{uuid.uuid4().hex[:8]}"
        self._url = url
        self._replicas = replicas

    async def replica(self, look_again_s: float = FOREVER_S, *, listening: bool = True, hop: bool = True) -> LogDesk:
        """Start one more."""
        return await self._replicas.enter_async_context(self._running(look_again_s, listening, hop))

    @asynccontextmanager
    async def _running(self, look_again_s: float, listening: bool, hop: bool) -> AsyncIterator[LogDesk]:
        async with Redis.from_url(self._url) as redis:
            store = EdgeStore(redis, request_ttl_s=600)
            codec = self.bus.codec
            producer = Producer(self.bus.producer(), codec, "edge", CLOCK)
            desk = LogDesk(store, ResultLog(self.bus, codec), producer, codec, CLOCK, look_again_s)
            stopping = asyncio.Event()
            jobs = [desk.run(stopping)] if listening else []
            if hop:
                jobs.append(run_hops([results_hop(store)], self.bus, codec, CLOCK, ServiceSettings(), stopping))
            heard = await self._listeners()
            tasks = [asyncio.create_task(job) for job in jobs]
            if listening:
                await self.listening(heard + 1)
            yield desk
            stopping.set()
            await asyncio.gather(*tasks)

    async def listening(self, count: int) -> None:
        """Wait until so many replicas listen to news."""
        async with asyncio.timeout(10):
            while await self._listeners() < count:
                await asyncio.sleep(0.005)

    async def _listeners(self) -> int:
        [(_, count)] = await self.redis.pubsub_numsub(CHANNEL)
        return int(count)

    def request(self, text: str = "How do I reset it?", request_id: str | None = None, **fields: object) -> LlmRequest:
        return LlmRequest(
            event_id=new_id(),
            request_id=request_id or new_id(),
            tenant_id=self.team,
            occurred_at=CLOCK.now(),
            causation_id="",
            messages=[Message(role="user", content=text)],
            **fields,  # type: ignore[arg-type]
        )

    async def sent(self, count: int = 1) -> list[LlmRequest]:
        """What the log has of requests, once it has ``count``."""
        return [event.record for event in await self.bus.collect("llm-requests", count)]

    async def answer(self, request: LlmRequest, content: str = "Press it.", **fields: object) -> LlmResult:
        result = LlmResult(
            **derive(request, "test.result", 0, CLOCK.now()),
            context=Context(requested_at=request.occurred_at),
            status=fields.pop("status", Status.COMPLETED),  # type: ignore[arg-type]
            content=content,
            **fields,  # type: ignore[arg-type]
        )
        await self.bus.publish("llm-results", request.request_id, result)
        return result

    async def piece(self, request: LlmRequest, number: int, content: str, finish_reason: str | None = None) -> None:
        chunk = ResultChunk(
            **derive(request, "test.piece", number, CLOCK.now()),
            context=Context(requested_at=request.occurred_at),
            sequence=number,
            content=content,
            finish_reason=finish_reason,
        )
        await self.bus.publish("result-chunks", request.request_id, chunk)

    async def settled(self) -> None:
        """The hop has read everything."""
        await self.bus.settled("edge", ["llm-results", "result-chunks", "request-conflicts"])


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)

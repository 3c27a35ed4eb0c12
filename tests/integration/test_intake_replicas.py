"""Concurrent requests of a team through the log: over replicas of intake and rebalances, as many as there are places."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from penstock.bus import KafkaBus, Producer, run_hops
from penstock.clock import SystemClock
from penstock.config.kinds import Policy, Retrieval, Route, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import derive, new_id
from penstock.contracts.records import AdmittedRequest, LlmRequest, LlmResult, Message, Refusal
from penstock.demo.observe import Observer
from penstock.money.counters import running_key
from penstock.settings import KafkaSettings, ServiceSettings
from redis.asyncio import Redis

from services.intake.adapters import RedisClaims
from services.intake.app import admission_hop, settlement_hop
from services.intake.core import Limits

CLOCK = SystemClock()
CLIENTS, PLACES, SENDS = 50, 7, 3
_PATIENCE_S = 60.0

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]


@dataclass
class Log:
    """The topics of intake, replicas of it that come and go, and what they decided for one team."""

    team: Team
    bus: KafkaBus
    codec: Codec
    plane: ConfigPlane
    producer: Producer
    observer: Observer
    redis_url: str

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[None]:
        """A member of intake's groups for as long as the context is open."""
        async with Redis.from_url(self.redis_url) as redis:
            claims, stop, assigned = RedisClaims(redis, 600), asyncio.Event(), asyncio.Event()
            hops = [admission_hop(self.plane, claims, Limits(), CLOCK), settlement_hop(self.plane, claims, CLOCK)]
            task = asyncio.create_task(
                run_hops(
                    hops, self.bus, self.codec, CLOCK, ServiceSettings(), stop, on_assigned=lambda group: assigned.set()
                )
            )
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await assigned.wait()
                yield
            finally:
                stop.set()
                await task

    async def send(self, request_ids: Sequence[str]) -> None:
        """Send each from a client of its own, all at once, three times: the same event twice, and once as another."""

        async def client(request_id: str) -> None:
            event_id = new_id()
            for event in (event_id, event_id, new_id()):
                request = LlmRequest(
                    event_id=event, request_id=request_id, tenant_id=self.team.name, occurred_at=CLOCK.now(),
                    causation_id="", messages=[Message(role="user", content=f"What is said of {request_id}?")],
                )  # fmt: skip
                await (await self.producer.send("llm-requests", request_id, request))

        await asyncio.gather(*(client(request_id) for request_id in request_ids))

    def admitted(self) -> dict[str, AdmittedRequest]:
        found = self.observer.records("requests-admitted", AdmittedRequest)
        return {each.request_id: each for each in found if each.tenant_id == self.team.name}

    def refused(self) -> list[Refusal]:
        return [each for each in self.observer.records("refusals", Refusal) if each.tenant_id == self.team.name]

    async def until(self, condition: Callable[[], bool]) -> None:
        assert await self.observer.until(condition, _PATIENCE_S)


@pytest.fixture
async def log(deployed: Mapping[str, str], kafka_settings: KafkaSettings, bus: KafkaBus) -> AsyncIterator[Log]:
    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    team = Team(name=f"team-{uuid.uuid4().hex[:8]}", max_concurrent=PLACES)
    target = Target(backend="openai", model="m", base_url="http://127.0.0.1:1/v1")
    route = Route(name="default", targets=(target,), retrieval=Retrieval(enabled=False))
    plane = ConfigPlane.of([team, route, Policy(name="default")])
    async with Observer(bus, codec) as observer:
        producer = Producer(bus.producer(), codec, "tests", CLOCK)
        yield Log(team, bus, codec, plane, producer, observer, deployed["REDIS_URL"])


async def test_fifty_clients_at_once_get_as_many_places_as_there_are_over_replicas_and_rebalances(log: Log) -> None:
    first = [f"a{number:02}" for number in range(CLIENTS)]
    async with AsyncExitStack() as others, Redis.from_url(log.redis_url) as redis:
        async with log.replica():
            for _ in range(2):
                await others.enter_async_context(log.replica())
            sending = asyncio.create_task(log.send(first))
            await log.until(lambda: bool(log.admitted()))
        # One of them has left, in the middle of it; now another one comes.
        await others.enter_async_context(log.replica())
        await sending
        await log.until(lambda: len(log.refused()) >= (CLIENTS - PLACES) * SENDS)
        admitted, refused = log.admitted(), log.refused()
        assert len(admitted) == PLACES
        assert not admitted.keys() & {refusal.request_id for refusal in refused}
        # Each send is told for itself.
        assert len(refused) == (CLIENTS - PLACES) * SENDS
        assert {refusal.code for refusal in refused} == {"too_many_concurrent"}
        assert all(refusal.retry_after_ms == 1000 for refusal in refused)
        assert await redis.zcard(running_key(log.team.name)) == PLACES

        for request in [*admitted.values()] * 2:
            result = LlmResult(
                **derive(request, "tests.result", 0, CLOCK.now()), context=request.context, status="completed", calls=1
            )
            await (await log.producer.send("llm-results", request.request_id, result))
        async with asyncio.timeout(_PATIENCE_S):
            while await redis.zcard(running_key(log.team.name)):
                await asyncio.sleep(0.05)
        # Those that had to wait are sent again, under their request_ids.
        await log.send([request_id for request_id in first if request_id not in admitted])
        left = CLIENTS - 2 * PLACES
        await log.until(lambda: len(log.refused()) >= len(refused) + left * SENDS)
        assert len(log.admitted()) == 2 * PLACES
        assert len(log.refused()) == len(refused) + left * SENDS
        assert await redis.zcard(running_key(log.team.name)) == PLACES

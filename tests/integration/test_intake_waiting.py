"""A team sends thirty times as much as it may have in the flow: all of it is admitted in its order, though intake is killed
meanwhile, and another team is let in at once."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from penstock.bus import KafkaBus, Producer
from penstock.clock import SystemClock
from penstock.config.kinds import Policy, Retrieval, Route, Target, Team
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import derive, new_id
from penstock.contracts.records import AdmittedRequest, LlmRequest, LlmResult, Message, Refusal
from penstock.demo.observe import Observer
from penstock.money.counters import running_key, waiting_key
from penstock.settings import KafkaSettings
from penstock.stack import Stack
from penstock.stack.member import RestartPolicy
from penstock.stack.supervisor import Supervisor, service_specs
from redis.asyncio import Redis

CLOCK = SystemClock()
ROOM, FLOOD, CONVERSATIONS, FEW = 50, 1500, 100, 5
_PATIENCE_S = 120.0

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


class Flow:
    """What comes after intake: it ends every request as soon as it is admitted."""

    def __init__(self, producer: Producer, observer: Observer, run: str) -> None:
        self._producer, self._observer, self._run = producer, observer, run
        self.admitted: list[AdmittedRequest] = []
        """Those of this run, in order of arrival."""

    async def run(self) -> None:
        while True:
            found = self._observer.records("requests-admitted", AdmittedRequest)
            mine = [each for each in found if each.tenant_id.endswith(self._run)]
            for each in mine[len(self.admitted) :]:
                envelope = derive(each, "tests.result", 0, CLOCK.now())
                result = LlmResult(**envelope, context=each.context, status="completed", calls=1)
                await self._producer.send("llm-results", each.request_id, result)
            self.admitted = mine
            await asyncio.sleep(0.05)


async def test_a_flood_waits_in_order_through_a_kill_and_another_team_does_not_notice(
    stack: Stack, deployed: Mapping[str, str], kafka_settings: KafkaSettings, project: Path
) -> None:
    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    run = uuid.uuid4().hex[:8]
    flooding, calm = Team(name=f"flooding-{run}"), Team(name=f"calm-{run}")
    target = Target(backend="openai", model="m", base_url="http://127.0.0.1:1/v1")
    route = Route(name=f"route-{run}", targets=(target,), retrieval=Retrieval(enabled=False), policy=f"policy-{run}")
    entries = (route, Policy(name=f"policy-{run}"), flooding, calm)
    supervisor = Supervisor(
        service_specs(("intake",), project),
        {
            **os.environ, **deployed, "PENSTOCK_STACK": stack.name, "SESSION_TIMEOUT_MS": "6000",
            "TEAM_REQUESTS_IN_FLOW": str(ROOM),
        },
        stack.folder, cwd=project, policy=RestartPolicy(max_crashes=20, max_delay_s=0.2),
    )  # fmt: skip

    def a_request(team: Team, number: int) -> LlmRequest:
        return LlmRequest(
            event_id=new_id(), request_id=f"{number:04}-{team.name}", tenant_id=team.name, occurred_at=CLOCK.now(),
            causation_id="", route=route.name, conversation_id=f"{number % CONVERSATIONS}-{team.name}",
            messages=[Message(role="user", content=f"What is {number}?")],
        )  # fmt: skip

    async with AsyncExitStack() as stack_of:
        redis = await stack_of.enter_async_context(Redis.from_url(deployed["REDIS_URL"]))
        bus = await stack_of.enter_async_context(KafkaBus(kafka_settings, client_id="penstock-tests"))
        producer = Producer(bus.producer(), codec, "tests", CLOCK)
        await publish_changes([Change(e.KIND, e.key, "new", None, e) for e in entries], producer, CLOCK.now())
        stack_of.push_async_callback(
            publish_changes, [Change(e.KIND, e.key, "withdrawn", e, None) for e in entries], producer, CLOCK.now()
        )
        stack_of.push_async_callback(supervisor.close)
        await supervisor.start("intake")
        await supervisor.wait_ready("intake", timeout_s=_PATIENCE_S)
        observer = await stack_of.enter_async_context(Observer(bus, codec))
        flow = Flow(producer, observer, run)
        ending = asyncio.create_task(flow.run())
        stack_of.callback(ending.cancel)

        async def send(team: Team, count: int) -> None:
            for number in range(count):
                request = a_request(team, number)
                await producer.send("llm-requests", request.conversation_id or "", request)

        def count(team: Team) -> int:
            return sum(each.tenant_id == team.name for each in flow.admitted)

        await send(flooding, FLOOD)
        assert await observer.until(lambda: count(flooding) > 2 * ROOM, _PATIENCE_S)
        most = await redis.zcard(running_key(flooding.name))
        await send(calm, FEW)
        assert await observer.until(lambda: count(calm) == FEW, _PATIENCE_S)
        assert count(flooding) < FLOOD / 2
        await supervisor.kill("intake", signal.SIGKILL)
        async with asyncio.timeout(_PATIENCE_S):
            while count(flooding) < FLOOD or await redis.zcard(waiting_key(flooding.name, "standard")):
                most = max(most, await redis.zcard(running_key(flooding.name)))
                await asyncio.sleep(0.05)
        assert ROOM / 2 < most <= ROOM

        ends = flow.admitted
        assert len({each.request_id for each in ends}) == len(ends) == FLOOD + FEW
        refused = [each for each in observer.records("refusals", Refusal) if each.tenant_id.endswith(run)]
        assert refused == []
        by_conversation: defaultdict[str | None, list[str]] = defaultdict(list)
        for each in ends:
            by_conversation[each.context.conversation_id].append(each.request_id)
        assert all(each == sorted(each) for each in by_conversation.values())
        async with asyncio.timeout(_PATIENCE_S):
            while await redis.zcard(running_key(flooding.name)):
                await asyncio.sleep(0.05)

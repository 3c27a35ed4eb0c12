"""Processes that crash, join, leave and end in mid-stream: no request is lost, none is answered or charged twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections import Counter
from decimal import Decimal
from typing import TypeVar

import pytest
from penstock.bus import Producer
from penstock.clock import SystemClock
from penstock.contracts.envelope import new_id
from penstock.contracts.records import Alert, AlertDelivery, Completion, Cost, LlmResult, Record, ResultChunk, TeamSpend
from penstock.money.counters import read_counters
from penstock.stack.supervisor import FLOW
from redis.asyncio import Redis

from tests.e2e.conftest import IN_THE_WAY, TEAM, Flow

R = TypeVar("R", bound=Record)

pytestmark = [pytest.mark.stack, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]


@pytest.mark.parametrize("service", IN_THE_WAY)
async def test_a_service_killed_in_mid_stream_loses_nothing(flow: Flow, service: str) -> None:
    async with flow.stream() as stream:
        await stream.answered(15)
        await flow.supervisor.kill(service, signal.SIGKILL)
        await stream.answered(30)
    assert any(name == service and "killed by SIGKILL" in text for name, text in flow.happened)
    await flow.settled(stream.sent)


async def test_money_is_exact_when_evaluation_and_intake_are_killed_in_mid_stream(flow: Flow) -> None:
    async with flow.stream() as stream:
        for service in ("evaluation", "intake", "evaluation"):
            await stream.answered(15)
            await flow.supervisor.kill(service, signal.SIGKILL)
        await stream.answered(15)
    await flow.settled(stream.sent)
    await _priced(flow)
    # All that the team was ever charged on this stack, each call once.
    costs = {cost.event_id: cost for cost in await _read(flow, "costs", Cost) if cost.tenant_id == TEAM}
    assert set(stream.sent) <= {cost.request_id for cost in costs.values()}
    charged = sum((cost.amount or Decimal() for cost in costs.values()), Decimal())
    # What team-spend tells, and what admission decides by.
    spent = (Decimal(), Decimal())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(120):
            while spent != (charged, charged):
                await asyncio.sleep(0.2)
                spent = (await _spent(flow), await _settled_in_redis(flow))
    assert spent == (charged, charged)


async def test_streamed_answers_are_whole_though_guardrails_and_inference_are_killed(flow: Flow) -> None:
    ended: list[tuple[str, LlmResult]] = []

    async def read(number: int) -> None:
        pieces, result = "", None
        async for event in flow.client.stream(
            f"What is said of town {number}?", tenant=TEAM, timeout_s=150, late_pieces_s=60
        ):
            if isinstance(event, ResultChunk):
                assert event.finish_reason in (None, "stop")
                pieces += event.content
            else:
                result = event
        assert result is not None
        ended.append((pieces, result))

    async def reads(first: int) -> None:
        for number in range(first, first + 15):
            await read(number)

    async with asyncio.TaskGroup() as group:
        for reader in range(4):
            group.create_task(reads(reader * 15))
        for service in ("guardrails", "inference"):
            # Waits for more to end than had at the last kill.
            before = len(ended)
            async with asyncio.timeout(150):
                while len(ended) < before + 5:
                    await asyncio.sleep(0.05)
            await flow.supervisor.kill(service, signal.SIGKILL)
    assert len(ended) == 60
    assert {result.status for _, result in ended} == {"completed"}
    assert [pieces for pieces, result in ended if pieces != result.content] == []


async def test_alerts_are_delivered_though_alerting_is_killed(flow: Flow) -> None:
    producer = Producer(flow.bus.producer(), flow.codec, "e2e", SystemClock())
    run = uuid.uuid4().hex[:8]
    alerts = [_alert(f"{run}-{number}") for number in range(60)]
    wanted = {alert.fingerprint for alert in alerts}

    async def publish(some: list[Alert]) -> None:
        for alert in some:
            await (await producer.send("alerts", alert.fingerprint, alert))

    await publish(alerts[:30])
    async with asyncio.timeout(60):
        while not wanted & flow.receiver.received().keys():
            await asyncio.sleep(0.02)
    await flow.supervisor.kill("alerting", signal.SIGKILL)
    await publish(alerts[30:])

    def deliveries() -> list[AlertDelivery]:
        return [d for d in flow.observer.records("alert-deliveries", AlertDelivery) if d.fingerprint in wanted]

    await flow.observer.until(lambda: {d.fingerprint for d in deliveries()} == wanted, timeout_s=120)
    assert Counter(d.fingerprint for d in deliveries()) == Counter(wanted)
    assert {d.outcome for d in deliveries()} == {"delivered"}
    assert wanted <= flow.receiver.received().keys()
    assert all(flow.receiver.received().values()), "a delivery was signed wrongly"


async def test_requests_flow_while_replicas_join_and_leave(flow: Flow) -> None:
    async with flow.stream() as stream:
        await stream.answered(10)
        await flow.supervisor.start("guardrails-2", "inference-2")
        async with asyncio.timeout(150):
            while not (await flow.consumed("guardrails-2") and await flow.consumed("inference-2")):
                await asyncio.sleep(0.2)
        # One leaves in order, the other without a word.
        await flow.supervisor.stop("guardrails-2")
        await flow.supervisor.kill("inference-2", signal.SIGKILL)
        await flow.supervisor.stop("inference-2")
        await stream.answered(30)
    await flow.settled(stream.sent)


async def test_every_service_ends_in_order_on_sigterm_in_mid_stream(flow: Flow) -> None:
    begun = len(flow.happened)
    async with flow.stream() as stream:
        await stream.answered(15)
        await asyncio.gather(*(flow.supervisor.kill(service, signal.SIGTERM) for service in FLOW))
        await stream.answered(30)
    ended = {name: text for name, text in flow.happened[begun:] if "ended with exit code" in text or "killed" in text}
    assert {name: text.split(" after ")[0] for name, text in ended.items()} == dict.fromkeys(
        FLOW, "ended with exit code 0"
    )
    await flow.settled(stream.sent)
    await flow.supervisor.wait_ready(*FLOW, timeout_s=150)


def _alert(fingerprint: str) -> Alert:
    return Alert(
        event_id=new_id(), request_id="", tenant_id=TEAM, occurred_at=SystemClock().now(), causation_id="",
        kind="health", name="test", severity="warning", title="A test", description="Of delivery.",
        fingerprint=fingerprint,
    )  # fmt: skip


async def _priced(flow: Flow) -> None:
    """Wait until every completion has its one cost, and one more where its question was embedded for it."""

    def called() -> Counter[tuple[str, bool]]:
        completions = flow.observer.records("completions", Completion)
        calls = Counter((completion.request_id, False) for completion in completions)
        return calls + Counter((one.request_id, True) for one in completions if one.embedding_tokens)

    def priced() -> Counter[tuple[str, bool]]:
        requests = {completion.request_id for completion in flow.observer.records("completions", Completion)}
        costs = [cost for cost in flow.observer.records("costs", Cost) if cost.request_id in requests]
        return Counter((cost.request_id, cost.kind == "embedding") for cost in costs)

    await flow.observer.until(lambda: called().keys() <= priced().keys(), timeout_s=150)
    assert priced() == called()


async def _spent(flow: Flow) -> Decimal:
    """What the team has spent this month, by the newest event on team-spend."""
    told = [
        spend
        for spend in await _read(flow, "team-spend", TeamSpend)
        if spend.tenant_id == TEAM and spend.window == "month" and spend.budget_name is None
    ]
    return told[-1].amount if told else Decimal()


async def _settled_in_redis(flow: Flow) -> Decimal:
    """What the team has spent of its hard budget of the month, by Redis."""
    async with Redis.from_url(flow.stack.environment()["REDIS_URL"]) as redis:
        counters = await read_counters(redis, TEAM)
    return sum((counter.spent for counter in counters if counter.budget == "monthly"), Decimal())


async def _read(flow: Flow, topic: str, record_class: type[R]) -> list[R]:
    """Everything on ``topic``, in order within its partitions."""
    reader = await flow.bus.read([topic])
    found = []
    try:
        while not await reader.at_end():
            for message in await reader.poll(0.5):
                record = flow.codec.decode(message.topic, message.value)
                if isinstance(record, record_class):
                    found.append(record)
    finally:
        await reader.close()
    return found

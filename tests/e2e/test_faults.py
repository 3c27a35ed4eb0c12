"""What must not lose a request, nor answer one twice: crashes, rebalances, poison, redelivery, a broker that restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from penstock.bus import Producer
from penstock.clock import SystemClock
from penstock.contracts.envelope import Envelope, new_id
from penstock.contracts.records import (
    Alert,
    AlertDelivery,
    Completion,
    Context,
    Cost,
    DeadLetter,
    LlmRequest,
    LlmResult,
    Message,
    Record,
    Refusal,
    ResultChunk,
    ScreenedRequest,
    TeamSpend,
)  # fmt: skip
from penstock.money.counters import read_counters
from penstock.settings import KafkaSettings
from penstock.stack.supervisor import FLOW
from redis.asyncio import Redis

from tests.e2e.conftest import GROUPS, TEAM, Flow

R = TypeVar("R", bound=Record)

pytestmark = [pytest.mark.stack, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

_IN_THE_WAY = ("intake", "guardrails", "retrieval", "inference")
"""The services that a request passes."""


@pytest.mark.parametrize("service", _IN_THE_WAY)
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


@pytest.mark.parametrize(("topic", "service"), [("llm-requests", "intake"), ("requests-screened", "retrieval")])
async def test_a_poison_message_is_put_aside_and_harms_no_other(flow: Flow, topic: str, service: str) -> None:
    conversation = f"poisoned-{uuid.uuid4().hex[:8]}"
    poison = {
        "wrong_magic_byte": b"\x01\x00\x00\x00\x01 not ours",
        "unknown_schema_id": b"\x00\x7f\xff\xff\xff then anything",
        "truncated": b"\x00\x00",
        "malformed_avro": flow.codec.encode(topic, _for(topic))[:12],
        "wrong_schema": flow.codec.encode("refusals", _for("refusals")),
    }
    producer = flow.bus.producer()
    first = await flow.client.submit("What came before?", tenant=TEAM, conversation_id=conversation)
    places = {}
    for code, value in poison.items():
        sent = await (await producer.send(topic, conversation.encode(), value))
        places[code] = (sent.topic, sent.partition, sent.offset)
    second = await flow.client.submit("What comes after?", tenant=TEAM, conversation_id=conversation)

    assert await flow.observer.until(lambda: len(flow.results([first, second])) == 2, timeout_s=120)

    def letters() -> dict[tuple[str, int, int], DeadLetter]:
        found = flow.observer.records(f"dlq-{service}", DeadLetter)
        return {(letter.origin_topic, letter.origin_partition, letter.origin_offset): letter for letter in found}

    await flow.observer.until(lambda: set(places.values()) <= letters().keys(), timeout_s=60)
    assert {code: letters()[place].code for code, place in places.items()} == {code: code for code in poison}
    for code, place in places.items():
        letter = letters()[place]
        assert letter.origin_value == poison[code]
        assert letter.origin_key == conversation.encode()
        assert letter.reason
    assert service in flow.supervisor.pids()


async def test_a_message_over_the_limit_is_refused_where_it_is_sent(flow: Flow) -> None:
    with pytest.raises(ValueError, match="over the limit"):
        await flow.bus.producer().send("llm-requests", b"key", b"\x00" * (20 * 1024 * 1024))
    assert await flow.client.ask("And afterwards?", tenant=TEAM, timeout_s=120)


async def test_a_producer_and_a_consumer_of_another_make_are_served(flow: Flow, kafka_settings: KafkaSettings) -> None:
    """Nothing of Penstock: confluent-kafka, the registry, and the fields that have no default."""
    request_id = new_id()

    def ask_and_wait() -> dict[str, Any]:
        registry = SchemaRegistryClient({"url": kafka_settings.schema_registry_url})
        serialize = AvroSerializer(
            registry,
            registry.get_latest_version("llm-requests-value").schema.schema_str,
            conf={"auto.register.schemas": False},
        )
        deserialize = AvroDeserializer(registry)
        consumer = ConfluentConsumer({
            "bootstrap.servers": kafka_settings.kafka_bootstrap, "group.id": f"test-{request_id}",
            "auto.offset.reset": "earliest", "enable.auto.commit": False,
        })  # fmt: skip
        consumer.subscribe(["llm-results"])
        request = {
            "event_id": new_id(), "request_id": request_id, "tenant_id": TEAM, "causation_id": "",
            "occurred_at": datetime.now(UTC), "messages": [{"role": "user", "content": "What is a consumer group?"}],
        }  # fmt: skip
        producer = ConfluentProducer({"bootstrap.servers": kafka_settings.kafka_bootstrap, "acks": "all"})
        value = serialize(request, SerializationContext("llm-requests", MessageField.VALUE))
        producer.produce("llm-requests", key=request_id.encode(), value=value)
        assert producer.flush(30) == 0
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                message = consumer.poll(0.5)
                if message is None or message.error() is not None:
                    continue
                result: dict[str, Any] = deserialize(
                    message.value(), SerializationContext("llm-results", MessageField.VALUE)
                )
                if result["request_id"] == request_id:
                    return result
        finally:
            consumer.close()
        raise AssertionError("no result came")

    result = await asyncio.to_thread(ask_and_wait)
    assert (result["status"], result["tenant_id"], result["calls"]) == ("completed", TEAM, 1)
    assert result["content"]
    assert result["context"]["priority"] == "standard"
    await flow.settled([request_id])


async def test_a_request_sent_twice_is_answered_once(flow: Flow) -> None:
    request = _request(f"twice-{uuid.uuid4().hex[:8]}")
    again = _request(request.request_id)
    value = flow.codec.encode("llm-requests", request)
    producer = flow.bus.producer()
    key = request.request_id.encode()
    for copy in (value, value, flow.codec.encode("llm-requests", again), value):
        await (await producer.send("llm-requests", key, copy))
    await flow.drained()
    assert {len(events) for events in flow.results([request.request_id]).values()} == {1}
    for topic in ("requests-admitted", "completions", "llm-results"):
        held = [r for r in flow.observer.records(topic, Record) if r.request_id == request.request_id]
        assert len(held) == 1, topic


async def test_offsets_set_back_repeat_work_but_no_result(flow: Flow) -> None:
    async with flow.stream() as stream:
        await stream.answered(40)
    await flow.settled(stream.sent)
    before = flow.results(stream.sent)
    await flow.supervisor.stop(*_IN_THE_WAY)
    repeated = 0
    for group, topics in GROUPS.items():
        committed = await flow.bus.committed(group, topics)
        back = {place: max(0, offset - 10) for place, offset in committed.items()}
        repeated += sum(committed[place] - offset for place, offset in back.items())
        await flow.bus.commit(group, back)
    assert repeated > 40
    await flow.supervisor.start(*_IN_THE_WAY)
    await flow.supervisor.wait_ready(*_IN_THE_WAY, timeout_s=150)
    await flow.settled(stream.sent)
    assert flow.results(stream.sent) == before


@pytest.mark.skipif(bool(os.environ.get("KAFKA_BOOTSTRAP")), reason="Kafka is given: it is not ours to restart")
@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGKILL,
        pytest.param(
            signal.SIGTERM,
            marks=pytest.mark.skipif("SOAK" not in os.environ, reason="the milder one: make soak runs it"),
        ),
    ],
    ids=lambda signum: signum.name,
)
async def test_kafka_restarts_under_the_services(flow: Flow, signum: signal.Signals) -> None:
    pids = flow.supervisor.pids()
    async with flow.stream() as stream:
        await stream.answered(20)
        await asyncio.to_thread(flow.stack.kill, "kafka", signum)
        await asyncio.to_thread(flow.stack.start, "kafka")
        await stream.answered(30)
    await flow.settled(stream.sent)
    assert flow.supervisor.pids() == pids, "a service did not live through it"


def _request(request_id: str) -> LlmRequest:
    return LlmRequest(
        **_envelope(request_id), messages=[Message(role="user", content="What is said once?")]
    )  # fmt: skip


def _alert(fingerprint: str) -> Alert:
    return Alert(
        **_envelope(""), kind="health", name="test", severity="warning", title="A test", description="Of delivery.",
        fingerprint=fingerprint,
    )  # fmt: skip


def _for(topic: str) -> Record:
    """A record that is right for ``topic``."""
    context = Context(requested_at=_now())
    if topic == "requests-screened":
        return ScreenedRequest(**_envelope("any"), context=context, messages=[Message(role="user", content="Any")])
    if topic == "refusals":
        return Refusal(**_envelope("any"), context=context, stage="intake", status="failed", code="any", reason="any")
    return _request("any")


def _envelope(request_id: str) -> Envelope:
    return Envelope(event_id=new_id(), request_id=request_id, tenant_id=TEAM, occurred_at=_now(), causation_id="")


def _now() -> datetime:
    return SystemClock().now()


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

"""What the SDK sends twice is one event, what is turned away is told, and traces of callers go on: on the in-memory log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiokafka.errors import NotLeaderForPartitionError, TopicAuthorizationFailedError
from opentelemetry.sdk.trace import TracerProvider
from penstock import Client, SyncClient
from penstock.bus import MemoryBus
from penstock.client import IdempotencyConflict, RequestNotSent
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Context, LlmResult, RequestConflict

CLOCK = ManualClock()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(Catalogue.load(), CLOCK)


@asynccontextmanager
async def connected(bus: MemoryBus, **options: Any) -> AsyncIterator[Client]:
    options = {"tenant": "support"} | options
    async with Client(transport=bus, codec=bus.codec, **options) as client:
        yield client


def a_result(request_id: str, tenant: str = "support", **fields: Any) -> LlmResult:
    return LlmResult(
        event_id=event_id(f"{tenant}/{request_id}", "gate", 0),
        request_id=request_id,
        tenant_id=tenant,
        occurred_at=CLOCK.now(),
        causation_id="",
        context=Context(requested_at=CLOCK.now()),
        **({"status": "completed", "content": f"answer to {tenant}'s {request_id}"} | fields),
    )


def a_conflict(request_id: str, turned_away: str, tenant: str = "support") -> RequestConflict:
    return RequestConflict(
        event_id=event_id(f"{tenant}/{turned_away}", "intake.conflict", 0),
        request_id=request_id,
        tenant_id=tenant,
        occurred_at=CLOCK.now(),
        causation_id=turned_away,
        code="conflict",
        reason="this request_id stands for another request; send it under one of its own",
    )


async def test_a_send_that_fails_for_the_moment_is_repeated_as_the_same_event(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        bus.fail_sends = 3
        await client.submit("hello", request_id="r")
        bus.fail_sends = 1
        await client.feedback("r", rating=1.0)
    assert len(bus.messages("llm-requests")) == 1
    assert len(bus.messages("feedback")) == 1


class TakesAndFails:
    """A log that takes an event and then fails to say so, as a broker that dies before its acknowledgement."""

    def __init__(self, bus: MemoryBus, errors: list[Exception]) -> None:
        self._raw = bus.producer()
        self._errors = errors

    async def send(self, *message: Any, **options: Any) -> Any:
        sent = await self._raw.send(*message, **options)
        if not self._errors:
            return sent
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failed.set_exception(self._errors.pop(0))
        return failed


class Unacknowledged:
    """The in-memory log with such a producer."""

    def __init__(self, bus: MemoryBus, errors: list[Exception]) -> None:
        self._bus = bus
        self._producer = TakesAndFails(bus, errors)

    def producer(self) -> Any:
        return self._producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


async def test_an_event_that_the_log_took_without_saying_so_stands_there_twice_as_itself(bus: MemoryBus) -> None:
    transport: Any = Unacknowledged(bus, [NotLeaderForPartitionError("moved"), ConnectionError("reset")])
    async with Client(tenant="support", transport=transport, codec=bus.codec) as client:
        await client.document("d", "text")
    copies = [event.record.event_id for event in await bus.collect("documents", 3)]
    assert len(set(copies)) == 1


async def test_what_no_repetition_helps_is_told_at_once(bus: MemoryBus) -> None:
    transport: Any = Unacknowledged(bus, [TopicAuthorizationFailedError("llm-requests")])
    async with Client(tenant="support", transport=transport, codec=bus.codec) as client:
        with pytest.raises(RequestNotSent, match="llm-requests"):
            await client.submit("hello")
        assert len(bus.messages("llm-requests")) == 1
        unfit: Any = {"x": object()}
        with pytest.raises(RequestNotSent, match="surrogate"):
            await client.submit("half a \ud83d")
        with pytest.raises(RequestNotSent, match="object"):
            await client.submit("hello", variables=unfit)
    assert len(bus.messages("llm-requests")) == 1


async def test_callers_own_identities_make_the_same_events(bus: MemoryBus) -> None:
    # Two clients, as two processes of a producer that was restarted between its tries.
    for _ in range(2):
        async with connected(bus) as client:
            await client.submit("hello", request_id="r", deadline_s=5, variables={"a": "1", "b": "2"})
            assert await client.feedback("r", feedback_id="f", rating=1.0) == "f"
            assert await client.document("d", "text", upload_id="u") == "u"
            await client.cancel("r")
        CLOCK.advance(1)
    async with connected(bus) as client:
        await client.submit("hello", request_id="r", deadline_s=9, variables={"b": "2", "a": "1"})
        await client.submit("other", request_id="r")
        await client.submit("hello", request_id="r", tenant="acme")
        await client.feedback("r", feedback_id="g", rating=1.0)
        await client.document("d", "text")
    requests, feedback, documents, cancelled = [
        [event.record.event_id for event in await bus.collect(topic, count)]
        for topic, count in (("llm-requests", 5), ("feedback", 3), ("documents", 3), ("cancellations", 2))
    ]
    # Each of these is a send of its own, which intake knows by its content: a refusal that waiting helps is of one send.
    assert len(set(requests)) == 5
    assert feedback[0] == feedback[1] != feedback[2]
    assert documents[0] == documents[1] != documents[2]
    assert cancelled[0] == cancelled[1]


async def test_a_conflict_is_raised_for_what_was_turned_away_and_for_nothing_else(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        await client.submit("first", request_id="r")
        first = asyncio.create_task(client.result("r", timeout_s=5))
        await asyncio.sleep(0)
        await client.submit("second", request_id="r")
        second = asyncio.create_task(client.result("r", timeout_s=5))
        sent = await bus.collect("llm-requests", 2)
        # Of another team, and of an event of another process.
        await bus.publish("request-conflicts", "r", a_conflict("r", sent[1].record.event_id, tenant="acme"))
        await bus.publish("request-conflicts", "r", a_conflict("r", "of somebody else"))
        await bus.publish("llm-results", "r", a_result("r"))
        assert (await first).content == "answer to support's r"
        assert not second.done()
        await bus.publish("request-conflicts", "r", a_conflict("r", sent[1].record.event_id))
        with pytest.raises(IdempotencyConflict, match=r"request r of support: .* under one of its own") as told:
            await second
        assert told.value.request_id == "r"
        # Sent again as it was, the first is a duplicate: nothing is told of it anew, and its result is known.
        await client.submit("first", request_id="r")
        assert (await client.result("r", timeout_s=5)).content == "answer to support's r"


async def test_where_the_later_one_was_there_first_the_earlier_is_turned_away(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        await client.submit("one", request_id="r", conversation_id="slow")
        one = asyncio.create_task(client.result("r", timeout_s=5))
        await asyncio.sleep(0)
        await client.submit("two", request_id="r", conversation_id="quick")
        two = asyncio.create_task(client.result("r", timeout_s=5))
        sent = {event.record.messages[0].content: event.record for event in await bus.collect("llm-requests", 2)}
        await bus.publish("request-conflicts", "slow", a_conflict("r", sent["one"].event_id))
        await bus.publish("llm-results", "quick", a_result("r"))
        assert (await two).status == "completed"
        with pytest.raises(IdempotencyConflict):
            await one


async def test_a_result_that_was_there_before_is_handed_out_only_where_no_conflict_follows(bus: MemoryBus) -> None:
    """What another process asked under the same request_id, and of which this one knows the result alone."""
    async with connected(bus) as client:
        await bus.publish("llm-results", "same", a_result("same"))
        await bus.publish("llm-results", "other", a_result("other"))
        assert (await client.result("other", timeout_s=5)).status == "completed"
        assert (await client.result("same", timeout_s=5)).status == "completed"
        await client.submit("what was asked there", request_id="same")
        await client.submit("something else", request_id="other")
        answers = [asyncio.create_task(client.result(name, timeout_s=5)) for name in ("same", "other")]
        sent = await bus.collect("llm-requests", 2)
        (other,) = (event.record.event_id for event in sent if event.record.request_id == "other")
        await bus.publish("request-conflicts", "other", a_conflict("other", other))
        same, turned_away = await asyncio.gather(*answers, return_exceptions=True)
        assert isinstance(same, LlmResult)
        assert isinstance(turned_away, IdempotencyConflict)
        with pytest.raises(IdempotencyConflict):
            await client.result("other", timeout_s=5)


async def test_a_stream_of_another_content_is_turned_away(bus: MemoryBus) -> None:
    async def read(client: Client) -> list[Any]:
        return [event async for event in client.stream("hello", request_id="r", timeout_s=5)]

    async with connected(bus) as client:
        reading = asyncio.create_task(read(client))
        (asked,) = await bus.collect("llm-requests", 1)
        await bus.publish("request-conflicts", "r", a_conflict("r", asked.record.event_id))
        with pytest.raises(IdempotencyConflict):
            await reading


async def test_one_request_id_of_two_teams_is_two_requests(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        await bus.publish("llm-results", "r", a_result("r", "acme"))
        await bus.publish("llm-results", "r", a_result("r", "support"))
        assert (await client.result("r", timeout_s=5)).content == "answer to support's r"
        assert (await client.result("r", timeout_s=5, tenant="acme")).content == "answer to acme's r"
        with pytest.raises(TimeoutError, match="request r"):
            await client.result("r", timeout_s=0.01, tenant="a third")


async def test_after_a_refusal_that_waiting_helps_the_request_is_open_again(bus: MemoryBus) -> None:
    def refused(number: int) -> LlmResult:
        fields: dict[str, Any] = {
            "status": "rejected",
            "content": "",
            "code": f"rate_limited {number}",
            "retry_after_ms": 1500,
        }
        return msgspec.structs.replace(a_result("r", **fields), event_id=event_id("r", "refusal", number))

    async with connected(bus) as client:
        await client.submit("hello", request_id="r")
        await bus.publish("llm-results", "r", refused(1))
        assert (await client.result("r", timeout_s=5)).retry_after_ms == 1500
        await client.submit("hello", request_id="r")
        again = asyncio.create_task(client.result("r", timeout_s=5))
        await asyncio.sleep(0)
        assert not again.done()
        # The first is told once more, as after a crash; then that it is too early.
        await bus.publish("llm-results", "r", refused(1))
        await bus.publish("llm-results", "r", refused(2))
        assert (await again).code == "rate_limited 2"
        await client.submit("hello", request_id="r")
        admitted = msgspec.structs.replace(a_result("r"), event_id=event_id("r", "another", 0))
        await bus.publish("llm-results", "r", admitted)
        assert (await client.result("r", timeout_s=5)).status == "completed"


async def test_a_trace_goes_on_from_what_is_handed_over_else_from_the_current_span(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        await client.submit("hello")
        await client.submit("hello", traceparent=PARENT, tracestate="vendor=1")
        with TracerProvider().get_tracer("tests").start_as_current_span("caller") as span:
            await client.feedback("r", rating=1.0)
            await client.document("d", "text", traceparent=PARENT)
        with pytest.raises(ValueError, match="32 hex digits"):
            await client.submit("hello", traceparent="00-0-0-00")
        with pytest.raises(ValueError, match="hand over both"):
            await client.cancel("r", tracestate="vendor=1")
    none, handed = (dict(message.headers) for message in bus.messages("llm-requests"))
    assert none == {}
    assert handed == {"traceparent": PARENT.encode(), "tracestate": b"vendor=1"}
    (given,) = (dict(message.headers) for message in bus.messages("feedback"))
    context = span.get_span_context()
    assert (
        given["traceparent"] == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()
    )
    (document,) = (dict(message.headers) for message in bus.messages("documents"))
    assert document["traceparent"] == PARENT.encode()


async def test_the_blocking_client_works_under_a_loop_that_runs_as_a_notebook_has_one(bus: MemoryBus) -> None:
    """A cell of a notebook is run by a loop of its kernel, which the blocking client must neither need nor stop."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0)
    with (
        TracerProvider().get_tracer("tests").start_as_current_span("cell") as span,
        SyncClient(tenant="support", transport=bus, codec=bus.codec) as client,
    ):
        request_id = client.submit("hello")
        client._wait(bus.publish("llm-results", request_id, a_result(request_id)))
        assert client.result(request_id, timeout_s=5).status == "completed"
        assert client.feedback(request_id, feedback_id="f") == "f"
    (message,) = bus.messages("llm-requests")
    # The thread of its own continues the caller's trace.
    assert f"{span.get_span_context().trace_id:032x}".encode() in dict(message.headers)["traceparent"]
    before = beats
    await asyncio.sleep(0)
    assert beats > before
    beating.cancel()

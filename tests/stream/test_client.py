"""The SDK on the in-memory log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from penstock import Client
from penstock.bus import MemoryBus
from penstock.client import RequestNotSent
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Cancellation, Context, Document, Feedback, LlmRequest, LlmResult, ResultChunk

CLOCK = ManualClock()


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(Catalogue.load(), CLOCK)


@asynccontextmanager
async def connected(bus: MemoryBus) -> AsyncIterator[Client]:
    async with Client(tenant="support", transport=bus, codec=bus.codec, clock=CLOCK) as client:
        yield client


def a_result(request_id: str, tenant: str = "support") -> LlmResult:
    return LlmResult(
        event_id=event_id(request_id, "gate", 0),
        request_id=request_id,
        tenant_id=tenant,
        occurred_at=CLOCK.now(),
        causation_id="",
        context=Context(requested_at=CLOCK.now()),
        status="completed",
        content=f"answer to {request_id}",
    )


async def test_a_request_travels_under_its_conversation(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        request_id = await client.submit("hello", conversation_id="c", deadline_s=5, variables={"a": "b"})
    (event,) = await bus.collect("llm-requests", 1)
    record: LlmRequest = event.record
    assert event.message.key == b"c"
    assert (record.request_id, record.tenant_id, record.messages[0].content) == (request_id, "support", "hello")
    assert record.deadline_at is not None
    assert (record.deadline_at - record.occurred_at).total_seconds() == 5


async def test_a_cancellation_travels_as_its_request_does(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        request_id = await client.submit("hello", conversation_id="c", priority="interactive")
        await client.cancel(request_id, conversation_id="c", reason="the page was left")
        await client.cancel("alone", tenant="acme")
    (request,) = await bus.collect("llm-requests", 1)
    assert request.record.priority == "interactive"
    first, second = (event for event in await bus.collect("cancellations", 2))
    assert (first.message.key, first.partition) == (b"c", request.partition)
    record: Cancellation = first.record
    assert (record.request_id, record.tenant_id, record.reason) == (request_id, "support", "the page was left")
    assert (second.message.key, second.record.tenant_id) == (b"alone", "acme")


async def test_a_result_is_found_whether_it_comes_before_or_after_it_is_asked_for(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        await bus.publish("llm-results", "1", a_result("1"))
        waiting = asyncio.create_task(client.result("2", timeout_s=5))
        await bus.publish("llm-results", "2", a_result("2"))
        assert (await waiting).content == "answer to 2"
        assert (await client.result("1", timeout_s=5)).content == "answer to 1"


async def test_a_result_that_does_not_come_is_named(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        with pytest.raises(TimeoutError, match="request never"):
            await client.result("never", timeout_s=0.05)


async def test_results_are_read_once_each_and_the_rest_after_a_restart(bus: MemoryBus) -> None:
    for number in ("1", "1", "2", "3"):
        await bus.publish("llm-results", "same-key", a_result(number))
    await bus.publish("llm-results", "same-key", a_result("other team", tenant="acme"))
    async with connected(bus) as client:
        read = []
        results = client.results("app", tenant="support")
        async for result in results:
            read.append(result.request_id)
            if len(read) == 2:
                break
        await results.aclose()
        # The second was handed out and never followed by a request for a third: it counts as unread.
        again = []
        results = client.results("app", tenant="support")
        async for result in results:
            again.append(result.request_id)
            if len(again) == 2:
                break
        await results.aclose()
    assert read == ["1", "2"]
    assert again == ["2", "3"]


async def test_feedback_and_documents_are_published(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        await client.feedback("r", rating=1.0, labels={"prompt.toxicity": "clean"})
        await client.document("d", "text", title="T")
    (feedback,) = await bus.collect("feedback", 1)
    (document,) = await bus.collect("documents", 1)
    assert isinstance(feedback.record, Feedback)
    assert isinstance(document.record, Document)
    assert (feedback.message.key, document.message.key) == (b"r", b"d")


async def test_no_team_and_a_log_that_is_away_are_told(bus: MemoryBus) -> None:
    async with Client(transport=bus, codec=bus.codec, clock=CLOCK, retry_timeout_s=0) as client:
        with pytest.raises(RequestNotSent, match="pass tenant="):
            await client.submit("hello")
        bus.fail_sends = 1
        with pytest.raises(RequestNotSent, match="broker is away"):
            await client.submit("hello", tenant="support")


def a_piece(request_id: str, sequence: int, content: str, finish_reason: str | None = None) -> ResultChunk:
    return ResultChunk(
        event_id=event_id(request_id, "piece", sequence),
        request_id=request_id,
        tenant_id="support",
        occurred_at=CLOCK.now(),
        causation_id="",
        context=Context(requested_at=CLOCK.now()),
        sequence=sequence,
        content=content,
        finish_reason=finish_reason,
    )


async def read(client: Client, **options: Any) -> list[str]:
    """What a stream gives, in short."""
    return [
        event.content if isinstance(event, LlmResult) else f"{event.content}|{event.finish_reason or ''}"
        async for event in client.stream("hello", request_id="r", **options)
    ]


async def test_pieces_come_in_order_and_once_and_the_result_last(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        reading = asyncio.create_task(read(client, timeout_s=5))
        (asked,) = await bus.collect("llm-requests", 1)
        assert asked.record.stream
        pieces = [a_piece("r", 0, "one "), a_piece("r", 1, "two "), a_piece("r", 2, "three", "stop")]
        # The result may overtake the pieces, and after a crash pieces stand in the log again.
        for record in (pieces[0], a_piece("other", 0, "not ours"), pieces[1], pieces[0], pieces[1]):
            await bus.publish("result-chunks", "r", record)
        await bus.publish("llm-results", "r", a_result("r"))
        await bus.publish("result-chunks", "r", pieces[2])
        assert await reading == ["one |", "two |", "three|stop", "answer to r"]


async def test_a_cut_is_told_and_what_would_follow_it_is_not_given(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        reading = asyncio.create_task(read(client, timeout_s=5))
        await bus.collect("llm-requests", 1)
        for record in (a_piece("r", 0, "one "), a_piece("r", 5, "", "error"), a_piece("r", 6, "more")):
            await bus.publish("result-chunks", "r", record)
        await bus.publish("llm-results", "r", a_result("r"))
        assert await reading == ["one |", "|error", "answer to r"]


async def test_a_request_that_is_not_answered_gives_its_result_at_once(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        reading = asyncio.create_task(read(client, timeout_s=5))
        await bus.collect("llm-requests", 1)
        await bus.publish("llm-results", "r", msgspec.structs.replace(a_result("r"), status="blocked", content=""))
        assert await asyncio.wait_for(reading, 1) == [""]


async def test_a_stream_that_does_not_come_is_named(bus: MemoryBus) -> None:
    async with connected(bus) as client:
        with pytest.raises(TimeoutError, match="request r"):
            await read(client, timeout_s=0.05)

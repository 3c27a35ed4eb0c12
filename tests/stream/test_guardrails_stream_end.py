"""A stream that ends early, through both hops of the gate: what was not released by then is public nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Policy
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    Completion,
    Context,
    GroundedRequest,
    LlmResult,
    Message,
    ResultChunk,
    Status,
    Usage,
)
from penstock.settings import ServiceSettings
from penstock.telemetry import metrics

from services.guardrails.adapters import MemoryReleases
from services.guardrails.app import release_hop
from services.guardrails.held_texts import MemoryReviews, MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.guardrails.stream_state import MemoryStreams
from services.guardrails.streaming_app import stream_hop
from services.inference.core import Answered, Streamed, completion, piece

CATALOGUE = Catalogue.load()
SETTINGS = ServiceSettings(dlq_min_messages=1000)
PROSE = "The cat sat on the mat and looked at the moon. It was a quiet night in the small town by the river. "
SECRET = "AKIAIOSFODNN7EXAMPLQ"
TEXT = PROSE * 3 + f"the key is {SECRET} and the vault is in Reykjavik. " + PROSE * 3
CONFIG = ConfigPlane.of([Policy.model_validate({"name": "default", "output": {"secrets": {"action": "block"}}})])


@asynccontextmanager
async def gate(clock: ManualClock) -> AsyncIterator[MemoryBus]:
    bus = MemoryBus(CATALOGUE, clock)
    judge, vault, limits = Judge(CONFIG, shipped_scanners(), b"key", clock), MemoryVault(), Limits()
    producer = Producer(bus.producer(), bus.codec, "guardrails", clock)
    hops = [
        stream_hop(judge, MemoryStreams(), vault, producer, limits, clock, 16),
        release_hop(judge, MemoryReleases(), vault, MemoryReviews(), limits, clock, 16),
    ]
    stop = asyncio.Event()
    task = asyncio.create_task(run_hops(hops, bus, bus.codec, SystemClock(), SETTINGS, stop))
    try:
        yield bus
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


def a_request(clock: ManualClock) -> GroundedRequest:
    return GroundedRequest(
        event_id="grounded", request_id="r", tenant_id="support", occurred_at=clock.now(), causation_id="",
        context=Context(requested_at=clock.now()), stream=True, messages=[Message(role="user", content="Which key?")],
    )  # fmt: skip


async def said(bus: MemoryBus, request: GroundedRequest, clock: ManualClock, text: str, finish: str) -> None:
    """Stream ``text`` as inference does, and end it."""
    streamed = Streamed()
    for start in range(0, len(text), 24):
        streamed, emit = piece(request, streamed, text[start : start + 24], None, clock.now())
        await bus.publish(emit.topic, emit.key, emit.record)
    _, emit = piece(request, streamed, "", finish, clock.now())
    await bus.publish(emit.topic, emit.key, emit.record)


async def public(bus: MemoryBus) -> tuple[list[ResultChunk], LlmResult]:
    await bus.settled("guardrails-stream", ["completion-chunks"], timeout_s=20)
    [result] = await bus.collect("llm-results", 1)
    return [event.record for event in await bus.collect("result-chunks", 0)], result.record


def completed(request: GroundedRequest, clock: ManualClock, answered: Answered, **changes: Any) -> Completion:
    [emit] = completion(request, answered, clock.now(), clock.now(), streamed=True, **changes)
    record = emit.record
    assert isinstance(record, Completion)
    return record


def everything_public(bus: MemoryBus) -> bytes:
    topics = ("result-chunks", "llm-results", "verdicts")
    return b"".join(message.value or b"" for topic in topics for message in bus.messages(topic))


def first_released() -> tuple[float, float]:
    """Count and sum of the times to the first released piece, s."""
    samples = {
        sample.name: sample.value for metric in metrics.FIRST_RELEASED_SECONDS.collect() for sample in metric.samples
    }
    name = "penstock_first_released_piece_seconds"
    return samples[f"{name}_count"], samples[f"{name}_sum"]


async def test_a_stream_that_is_blocked_in_the_middle_ends_with_a_refusal() -> None:
    clock = ManualClock()
    request = a_request(clock)
    count, waited = first_released()
    async with gate(clock) as bus:
        clock.advance(1.5)
        await said(bus, request, clock, TEXT, "stop")
        answered = Answered("m", "openai", TEXT, "stop", Usage(), 10)
        await bus.publish("completions", "r", completed(request, clock, answered))
        chunks, result = await public(bus)
        out = everything_public(bus)
    assert chunks[0].content
    assert chunks[-1].finish_reason == "content_filter"
    assert all(chunk.finish_reason is None for chunk in chunks[:-1])
    assert TEXT[: TEXT.index(SECRET)].startswith("".join(chunk.content for chunk in chunks))
    assert (result.status, result.content, result.stage) == (Status.BLOCKED, "", "guardrails")
    assert result.reason
    assert SECRET.encode() not in out
    assert b"Reykjavik" not in out
    # From the producer's request, not from the model's first piece.
    after, waited_then = first_released()
    assert (after - count, round(waited_then - waited, 6)) == (1, 1.5)


async def test_a_stream_that_is_cancelled_ends_so_and_is_one_cancelled_result() -> None:
    clock = ManualClock()
    request = a_request(clock)
    begun = PROSE * 2 + "The vault is in Reykjavik"
    async with gate(clock) as bus:
        await said(bus, request, clock, begun, "cancelled")
        answered = Answered(
            "m", "openai", "", "cancelled", Usage(input_tokens=9, output_tokens=5), 10, error="they left"
        )
        await bus.publish("completions", "r", completed(request, clock, answered, ends_as=Status.CANCELLED))
        chunks, result = await public(bus)
        out = everything_public(bus)
    assert (chunks[-1].finish_reason, chunks[-1].content) == ("cancelled", "")
    assert begun.startswith("".join(chunk.content for chunk in chunks))
    assert (result.status, result.code, result.reason) == (Status.CANCELLED, "cancelled", "they left")
    assert (result.content, result.usage.output_tokens) == ("", 5)
    assert b"Reykjavik" not in out

"""Inference streams on the in-memory log: what the pieces add up to, and how a stream ends that cannot go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import SystemClock
from penstock.config.kinds import Retrieval, Route, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.digest import extended_digest
from penstock.contracts.records import (
    Completion,
    CompletionChunk,
    Context,
    GroundedRequest,
    Message,
    Passage,
    Refusal,
    Sampling,
)
from penstock.settings import ServiceSettings

from services.inference.adapters import ExtractiveBackend
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.pieces import PIECE_CHARS
from tests.model_endpoint import DONE, Reply, endpoint, openai
from tests.stream.test_inference import EXTRACTIVE

CLOCK = SystemClock()
WORDS = [f"word{number} " for number in range(120)]
PASSAGE = Passage(
    passage_id="p", document_id="d", score=0.9,
    text="Tuples are immutable sequences in Python. Immutable sequences such as tuples can be hashed when their items can.",
)  # fmt: skip


def a_request(request_id: str = "r", **changes: Any) -> GroundedRequest:
    fields: dict[str, Any] = {
        "event_id": f"e-{request_id}", "request_id": request_id, "tenant_id": "t", "occurred_at": CLOCK.now(),
        "causation_id": "c", "context": Context(requested_at=CLOCK.now()), "stream": True,
        "messages": [Message(role="user", content="Are tuples immutable sequences?")],
    }  # fmt: skip
    return GroundedRequest(**fields | changes)


def event(delta: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {} if delta is None else {"content": delta}, "finish_reason": None}
    return b"data: " + json.dumps({"model": "mock-1", "choices": [choice]} | fields).encode() + b"\n\n"


END = (
    event(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}]),
    event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 120}),
    DONE,
)


def streaming(
    events: Sequence[bytes], pause_s: float = 0.0, asked: list[Any] | None = None, stay_s: float = 0.0
) -> Reply:
    """An endpoint that sends ``events`` as they are, then stays open for ``stay_s``."""

    async def reply(request: web.Request) -> web.StreamResponse:
        if asked is not None:
            asked.append(await request.json())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for data in events:
            await response.write(data)
            await asyncio.sleep(pause_s)
        await asyncio.sleep(stay_s)
        return response

    return reply


async def through(
    bus: MemoryBus, request: GroundedRequest, *targets: Target, topic: str = "requests-grounded"
) -> tuple[list[CompletionChunk], Completion | Refusal]:
    """Send one request through inference; return the pieces and what ended it."""
    routes = ConfigPlane.of([Route(name="default", targets=targets, retrieval=Retrieval(enabled=False))])
    async with aiohttp.ClientSession() as session:
        backends = {"extractive": ExtractiveBackend(), "openai": OpenAIBackend(session, {})}
        await bus.publish(topic, request.request_id, request)
        stop = asyncio.Event()
        hop = inference_hop(
            routes, backends, MemoryAnswers(CLOCK), CLOCK, 8, Producer(bus.producer(), bus.codec, "inference", CLOCK)
        )
        task = asyncio.create_task(run_hops([hop], bus, bus.codec, CLOCK, ServiceSettings(), stop))
        await bus.settled("inference", [topic], timeout_s=20)
        stop.set()
        await task
    completions = [each for each in await bus.collect("completions", 0) if each.record.kind != "abandoned"]
    (ended,) = [*completions, *await bus.collect("refusals", 0)]
    return [e.record for e in await bus.collect("completion-chunks", 0)], ended.record


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(Catalogue.load(), CLOCK)


def hold_together(chunks: Sequence[CompletionChunk]) -> str:
    """The text of the pieces, held to their numbers, places and digests."""
    text = ""
    for number, chunk in enumerate(chunks):
        assert (chunk.sequence, chunk.offset) == (number, len(text))
        assert chunk.preceding == (extended_digest("", text) if number else "")
        assert bool(chunk.messages) == (number == 0)
        assert (chunk.finish_reason is None) == (number < len(chunks) - 1)
        text += chunk.content
    assert len({chunk.event_id for chunk in chunks}) == len(chunks)
    return text


async def test_an_endpoint_s_deltas_are_gathered_and_add_up_to_the_completion(bus: MemoryBus) -> None:
    asked: list[Any] = []
    deltas = [event(word) for word in WORDS]
    async with endpoint(streaming([b": a comment\n\n", *deltas, *END], asked=asked)) as url:
        chunks, ended = await through(bus, a_request(passages=[PASSAGE]), openai(url))
    assert isinstance(ended, Completion)
    assert hold_together(chunks) == ended.content == "".join(WORDS)
    assert (ended.finish_reason, ended.usage.output_tokens, ended.stream) == ("length", 120, True)
    assert chunks[-1].finish_reason == "length"
    assert chunks[0].passages == [PASSAGE]
    assert ended.timings.first_token_us is not None
    assert 0 < ended.timings.first_token_us <= ended.timings.model_us
    assert len(chunks) < len(WORDS) / 2
    assert max(len(chunk.content) for chunk in chunks) < PIECE_CHARS + len(WORDS[-1])
    assert (asked[0]["stream"], asked[0]["stream_options"]) == (True, {"include_usage": True})


async def test_a_slow_endpoint_s_deltas_are_not_waited_for(bus: MemoryBus) -> None:
    async with endpoint(streaming([*(event(word) for word in WORDS[:5]), *END], pause_s=0.06)) as url:
        chunks, _ = await through(bus, a_request(), openai(url))
    assert [chunk.content for chunk in chunks[:5]] == WORDS[:5]


async def test_extractive_streams_sentence_by_sentence(bus: MemoryBus) -> None:
    chunks, ended = await through(bus, a_request(passages=[PASSAGE]), EXTRACTIVE)
    assert isinstance(ended, Completion)
    assert hold_together(chunks) == ended.content
    assert ended.stream
    assert chunks[-1].finish_reason == "stop"


async def test_an_endpoint_that_does_not_stream_is_one_piece(bus: MemoryBus) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        message = {"role": "assistant", "content": "".join(WORDS)}
        return web.json_response({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})

    async with endpoint(reply) as url:
        chunks, ended = await through(bus, a_request(), openai(url))
    assert isinstance(ended, Completion)
    assert hold_together(chunks) == ended.content


@pytest.mark.parametrize(
    "broken",
    [
        [event(word) for word in WORDS],
        [*(event(word) for word in WORDS), b'data: {"error": {"message": "out of memory"}}\n\n'],
        [*(event(word) for word in WORDS), b"data: {half\n\n"],
        [*(event(word) for word in WORDS), b"data: " + b"x" * 1_000_000 + b"\n\n"],
    ],
    ids=["ends early", "error event", "garbage", "endless line"],
)
async def test_an_answer_that_breaks_off_ends_its_stream_and_the_request(bus: MemoryBus, broken: list[bytes]) -> None:
    async with endpoint(streaming(broken)) as url:
        chunks, ended = await through(bus, a_request(), openai(url))
    # The model was at work, so the call has a completion, and a cost.
    assert isinstance(ended, Completion)
    assert (ended.error or "").startswith("no target answered")
    assert (ended.content, ended.finish_reason, ended.usage.output_tokens) == ("", "error", len("".join(WORDS)))
    assert ended.usage.input_tokens == len("Are tuples immutable sequences?")
    assert "".join(WORDS).startswith(hold_together(chunks))
    assert (chunks[-1].finish_reason, chunks[-1].content) == ("error", "")


@pytest.mark.parametrize(
    ("events", "paid"), [([event()], True), ([], False), ([b'data: {"error": "busy"}\n\n'], False)]
)
async def test_a_model_that_breaks_off_before_its_first_word_is_paid_for(
    bus: MemoryBus, events: list[bytes], paid: bool
) -> None:
    async with endpoint(streaming(events)) as url:
        chunks, ended = await through(bus, a_request(), openai(url))
    assert isinstance(ended, Completion if paid else Refusal)
    assert "".join(chunk.content for chunk in chunks) == ""


async def test_another_target_answers_without_a_second_stream(bus: MemoryBus) -> None:
    async with endpoint(streaming([event(word) for word in WORDS])) as url:
        chunks, ended = await through(bus, a_request(passages=[PASSAGE]), openai(url, weight=10**6), EXTRACTIVE)
    assert isinstance(ended, Completion)
    assert (ended.backend, ended.stream) == ("extractive", False)
    assert chunks[-1].finish_reason == "error"
    hold_together(chunks)


async def test_a_target_that_refuses_before_its_first_word_leaves_the_stream_to_the_next(bus: MemoryBus) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "no"}, status=400)

    async with endpoint(refuse) as url:
        chunks, ended = await through(bus, a_request(passages=[PASSAGE]), openai(url, weight=10**6), EXTRACTIVE)
    assert isinstance(ended, Completion)
    assert ended.stream
    assert hold_together(chunks) == ended.content


async def test_the_deadline_ends_a_stream(bus: MemoryBus) -> None:
    context = Context(requested_at=CLOCK.now(), deadline_at=CLOCK.now() + timedelta(seconds=0.5))
    async with endpoint(streaming([event(word) for word in WORDS], stay_s=30)) as url:
        chunks, ended = await through(bus, a_request(context=context), openai(url, timeout_s=20))
    assert isinstance(ended, Completion)
    assert "deadline passed" in (ended.error or "")
    assert ended.finish_reason == "cancelled"
    assert context.deadline_at is not None
    assert ended.occurred_at >= context.deadline_at
    assert (ended.usage.output_tokens, ended.request_model) == (len("".join(WORDS)), "m")
    assert ended.timings.model_us > 100_000
    assert chunks[-1].finish_reason == "error"


async def test_a_repeated_request_is_answered_and_never_streamed(bus: MemoryBus) -> None:
    request = a_request(passages=[PASSAGE], attempt=1, sampling=Sampling(temperature=0.5))
    chunks, ended = await through(bus, request, EXTRACTIVE, topic="requests-repeated")
    assert isinstance(ended, Completion)
    assert (chunks, ended.stream, ended.attempt, ended.sampling.temperature) == ([], False, 1, 0.5)


async def test_nobody_s_pieces_are_asked_for_nor_sent(bus: MemoryBus) -> None:
    asked: list[Any] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        message = {"role": "assistant", "content": "x"}
        return web.json_response({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})

    async with endpoint(reply) as url:
        chunks, ended = await through(bus, a_request(stream=False), openai(url))
    assert isinstance(ended, Completion)
    assert (chunks, ended.stream, "stream" in asked[0]) == ([], False, False)

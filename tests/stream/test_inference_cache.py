"""Answers that are given again: once paid for, never to another team, and never a way around guardrails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from penstock.bus import Hop, MemoryBus, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Cache, Policy, Retrieval, Route, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import derive
from penstock.contracts.records import (
    AdmittedRequest,
    CachedAnswer,
    Completion,
    Context,
    GroundedRequest,
    LlmResult,
    Message,
    Passage,
    Sampling,
    ScreenedRequest,
    Usage,
)
from penstock.settings import ServiceSettings
from penstock.telemetry import metrics
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.guardrails.adapters import MemoryReleases
from services.guardrails.app import release_hop, request_hop
from services.guardrails.held_texts import MemoryReviews, MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.inference.adapters import ExtractiveBackend
from services.inference.answers import Answers, MemoryAnswers, RedisAnswers
from services.inference.app import inference_hop
from services.inference.openai_endpoint import OpenAIBackend
from tests.model_endpoint import OK, endpoint, openai
from tests.stream.test_inference import EXTRACTIVE

SETTINGS = ServiceSettings()
COLD = Sampling(temperature=0.0)
PASSAGE = Passage(passage_id="p", document_id="d", text="Tuples are immutable sequences in Python.", score=0.9)


class Service:
    """Inference on a log in memory, before an endpoint that counts its calls."""

    def __init__(self, answers: Answers | None = None) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(Catalogue.load(), self.clock)
        self.answers = MemoryAnswers(self.clock) if answers is None else answers
        self.asked: list[Any] = []
        self.finish_reason = "stop"

    async def reply(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        content = f"Answer {len(self.asked)} to {self.asked[-1]['messages'][-1]['content']}"
        choice = {"index": 0, "finish_reason": self.finish_reason, "message": {"role": "assistant", "content": content}}
        return web.json_response(OK | {"choices": [choice]})

    @asynccontextmanager
    async def running(self, *hops: Hop, cache: Cache | None = None) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with endpoint(self.reply) as url, aiohttp.ClientSession() as session:
            rules = Cache(exact=True) if cache is None else cache
            off = Retrieval(enabled=False)
            config = ConfigPlane.of(
                [
                    Route(name="default", targets=(openai(url),), retrieval=off, cache=rules),
                    Route(name="embedded", targets=(EXTRACTIVE,), retrieval=off, cache=rules),
                ]
            )
            backends = {"openai": OpenAIBackend(session, {}), "extractive": ExtractiveBackend()}
            producer = Producer(self.bus.producer(), self.bus.codec, "inference", self.clock)
            own = inference_hop(config, backends, self.answers, self.clock, 8, producer)
            task = asyncio.create_task(run_hops([own, *hops], self.bus, self.bus.codec, SystemClock(), SETTINGS, stop))
            try:
                yield
            finally:
                stop.set()
                await task

    async def answer(self, request: GroundedRequest) -> Completion:
        before = len(self.bus.messages("completions"))
        topic = "requests-repeated" if request.attempt else "requests-grounded"
        await self.bus.publish(topic, request.request_id, request)
        events = await self.bus.collect("completions", before + 1, 20)
        record = events[-1].record
        assert isinstance(record, Completion)
        return record

    def a_request(self, request_id: str, question: str = "Why?", **changes: Any) -> GroundedRequest:
        fields: dict[str, Any] = {
            "event_id": f"e-{request_id}", "request_id": request_id, "tenant_id": "t", "occurred_at": self.clock.now(),
            "causation_id": "c", "context": Context(requested_at=self.clock.now()), "sampling": COLD,
            "messages": [Message(role="user", content=question)],
        }  # fmt: skip
        return GroundedRequest(**fields | changes)


async def test_the_same_question_is_answered_again_without_a_call() -> None:
    own = Service()
    async with own.running():
        first = await own.answer(own.a_request("r1"))
        own.clock.advance(5)
        again = await own.answer(own.a_request("r2", passages=[], embedder="e", embedding_tokens=4))
        other = await own.answer(own.a_request("r3", "Why not?"))
    assert len(own.asked) == 2
    assert (first.kind, first.cached_by, first.cached_from) == ("completion", None, None)
    assert (again.kind, again.cached_by, again.cached_from) == ("cached", "exact", first.event_id)
    assert (again.content, again.model, again.backend, again.finish_reason) == (
        first.content, first.model, first.backend, "stop",
    )  # fmt: skip
    # What the call would have used and whom it would have asked: evaluation makes the saving of it.
    assert (again.usage, again.request_model) == (Usage(input_tokens=7, output_tokens=2, cached_input_tokens=3), "m")
    assert (again.timings.first_token_us, again.timings.compute_us) == (None, None)
    assert (again.embedding_tokens, again.attempt, again.request_id) == (4, 0, "r2")
    assert other.cached_by is None


async def test_citations_are_those_of_the_first_answer() -> None:
    own = Service()
    async with own.running():
        asked = [Message(role="user", content="Are tuples immutable sequences?")]
        context = Context(requested_at=own.clock.now(), route="embedded")
        first, again = [
            await own.answer(own.a_request(name, context=context, passages=[PASSAGE], messages=asked))
            for name in ("r1", "r2")
        ]
    assert again.cached_from == first.event_id
    assert (again.citations, again.passages) == (["p"], [PASSAGE])


async def test_no_team_gets_the_answer_of_another() -> None:
    own = Service()
    async with own.running():
        first = await own.answer(own.a_request("r1", tenant_id="t"))
        other = await own.answer(own.a_request("r2", tenant_id="u"))
    assert (other.cached_by, len(own.asked)) == (None, 2)
    assert other.content != first.content


async def test_an_answer_is_forgotten_after_its_time() -> None:
    own = Service()
    async with own.running(cache=Cache(exact=True, ttl_s=60)):
        await own.answer(own.a_request("r1"))
        own.clock.advance(59)
        assert (await own.answer(own.a_request("r2"))).cached_by == "exact"
        own.clock.advance(2)
        assert (await own.answer(own.a_request("r3"))).cached_by is None


@pytest.mark.parametrize(
    ("cache", "changes", "finish_reason"),
    [
        (Cache(), {}, "stop"),
        (Cache(exact=True), {"sampling": Sampling(temperature=0.7)}, "stop"),
        (Cache(exact=True), {"sampling": Sampling()}, "stop"),
        (Cache(exact=True), {"attempt": 1}, "stop"),
        (Cache(exact=True), {}, "length"),
        (Cache(exact=True), {}, "content_filter"),
    ],
)
async def test_what_is_not_to_be_repeated_is_asked_each_time(
    cache: Cache, changes: dict[str, Any], finish_reason: str
) -> None:
    own = Service()
    own.finish_reason = finish_reason
    async with own.running(cache=cache):
        made = [await own.answer(own.a_request(name, **changes)) for name in ("r1", "r2")]
    assert [completion.kind for completion in made] == ["completion", "completion"]
    assert len(own.asked) == 2


async def test_a_request_that_is_read_again_gets_its_own_answer_as_the_call_it_was() -> None:
    own = Service()
    async with own.running():
        first = await own.answer(own.a_request("r1"))
        again = await own.answer(own.a_request("r1"))
    assert len(own.asked) == 1
    assert msgspec.structs.replace(again, occurred_at=first.occurred_at, timings=first.timings) == first
    assert again.timings.model_us == first.timings.model_us


async def test_a_streamed_request_gets_the_answer_in_pieces() -> None:
    own = Service()
    long = "w" * 1500
    async with own.running():
        first = await own.answer(own.a_request("r1", long))
        again = await own.answer(own.a_request("r2", long, stream=True))
        pieces = [event.record for event in await own.bus.collect("completion-chunks", 3, 20)]
    assert (again.cached_from, again.stream) == (first.event_id, True)
    assert "".join(piece.content for piece in pieces) == first.content
    assert [piece.offset for piece in pieces[:3]] == [0, 512, 1024]
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]


def lookups(outcome: str) -> float:
    return metrics.CACHE_LOOKUPS.labels("exact", outcome)._value.get()


async def test_without_redis_the_model_is_called() -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:1/0", retry=Retry(NoBackoff(), 0))
    clock = ManualClock()
    own = Service(RedisAnswers(nowhere, "secret", clock))
    before = lookups("unavailable")
    async with own.running():
        made = [await own.answer(own.a_request(f"r{number}")) for number in range(3)]
    await nowhere.aclose()
    assert [completion.kind for completion in made] == ["completion"] * 3
    assert (len(own.asked), lookups("unavailable") - before) == (3, 3)


async def test_the_answer_to_one_persons_question_has_the_next_persons_data() -> None:
    policy = {
        "name": "default",
        "input": {"pii": {"action": "pseudonymise"}},
        "output": {"canary": {"action": "block"}},
    }
    own = Service()
    rules = ConfigPlane.of([Policy.model_validate(policy), Team(name="t")])
    judge, vault, reviews = Judge(rules, shipped_scanners(), b"key", own.clock), MemoryVault(), MemoryReviews()
    gates = [
        request_hop(judge, vault, reviews, Limits(), own.clock, 64),
        release_hop(judge, MemoryReleases(), vault, reviews, Limits(), own.clock, 64),
    ]

    async def ask(request_id: str, address: str) -> tuple[Completion, LlmResult]:
        admitted = AdmittedRequest(
            **derive(own.a_request(request_id), "test.admitted", 0, own.clock.now()),
            context=Context(requested_at=own.clock.now()), sampling=COLD,
            messages=[
                Message(role="system", content="You write letters."),
                Message(role="user", content=f"Write to {address} about the order, please."),
            ],
        )  # fmt: skip
        await own.bus.publish("requests-admitted", request_id, admitted)
        screened = await newest(own.bus, "requests-screened", request_id)
        assert isinstance(screened, ScreenedRequest)
        grounded = GroundedRequest(
            **derive(screened, "test.grounded", 0, own.clock.now()),
            context=screened.context, messages=screened.messages, sampling=screened.sampling,
        )  # fmt: skip
        completion = await own.answer(grounded)
        return completion, await newest(own.bus, "llm-results", request_id)

    async with own.running(*gates):
        first, to_ann = await ask("r1", "ann@example.org")
        again, to_bob = await ask("r2", "bob@example.org")
    assert again.cached_from == first.event_id
    # The marker of the system prompt is each request's own.
    assert first.messages[0] != again.messages[0]
    assert "<EMAIL_ADDRESS_1>" in first.content == again.content
    assert "Write to ann@example.org about" in to_ann.content
    assert to_bob.content == to_ann.content.replace("ann@", "bob@")
    assert (to_ann.calls, to_bob.calls) == (1, 1)


async def newest(bus: MemoryBus, topic: str, request_id: str) -> Any:
    """The event of one request on ``topic``, once it is there."""

    def of_request(events: Sequence[Any]) -> list[Any]:
        return [event.record for event in events if event.record.request_id == request_id]

    async with asyncio.timeout(20):
        count = 1
        while not (found := of_request(await bus.collect(topic, count, 20))):
            count += 1
    return found[0]


EARLIER = CachedAnswer(
    event_id="completion-of-r0", request_id="r0", similarity=0.97, content="Immutable sequences.", citations=["p"],
    model="m-2024", backend="openai", request_model="m", usage=Usage(input_tokens=9, output_tokens=3),
)  # fmt: skip


async def test_the_answer_to_a_question_that_means_the_same_is_given_without_a_call() -> None:
    service = Service()
    async with service.running(cache=Cache(semantic="on")):
        request = service.a_request("r1", cached=EARLIER, passages=[PASSAGE], sampling=Sampling(), stream=True)
        given = await service.answer(request)
        pieces = await service.bus.collect("completion-chunks", 2, 20)
    assert service.asked == []
    assert (given.kind, given.cached_by, given.cached_from) == ("cached", "semantic", "completion-of-r0")
    assert (given.cached_request_id, given.cache_similarity, given.usage) == ("r0", 0.97, EARLIER.usage)
    assert (given.content, given.citations, given.model, given.request_model) == (EARLIER.content, ["p"], "m-2024", "m")
    assert "".join(event.record.content for event in pieces) == EARLIER.content


@pytest.mark.parametrize(
    ("cache", "changes"),
    [
        (Cache(), {}),
        (Cache(semantic="shadow"), {}),
        (Cache(semantic="on"), {"attempt": 1}),
        (Cache(semantic="on"), {"passages": []}),
        (Cache(semantic="on"), {"sampling": Sampling(n=2)}),
        (Cache(semantic="on"), {"cached": msgspec.structs.replace(EARLIER, request_model="another")}),
        (Cache(semantic="on"), {"context": Context(requested_at=ManualClock().now(), purpose="evaluation")}),
    ],
    ids=["off", "shadow", "asked again", "evidence gone", "several answers", "another model", "no traffic"],
)
async def test_the_model_is_called_where_an_earlier_answer_is_not_this_ones(
    cache: Cache, changes: dict[str, Any]
) -> None:
    service = Service()
    async with service.running(cache=cache):
        answered = await service.answer(
            service.a_request("r1", **{"cached": EARLIER, "passages": [PASSAGE], **changes})
        )
    assert (len(service.asked), answered.cached_by, answered.kind) == (1, None, "completion")

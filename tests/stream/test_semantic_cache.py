"""The semantic cache in the flow: retrieval, inference and the release gate on a log in memory, before an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Cache, Policy, Retrieval, Route
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    Completion,
    Context,
    GroundedRequest,
    LlmResult,
    Message,
    ScreenedDocument,
    ScreenedRequest,
)
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.settings import ServiceSettings
from penstock.telemetry import metrics

from services.guardrails.adapters import MemoryReleases
from services.guardrails.app import release_hop
from services.guardrails.held_texts import MemoryReviews, MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.openai_endpoint import OpenAIBackend
from services.retrieval.adapters import StoreUnavailable
from services.retrieval.answer_store import AnswerStore, Erasure
from services.retrieval.answering_again import SemanticCache, keep_hop
from services.retrieval.app import IndexLimits, ground_hop, index_hop
from services.retrieval.embedded_answers import EmbeddedAnswers
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.semantic_cache import Candidate
from services.retrieval.serving import Engine, Serving
from tests.model_endpoint import OK, endpoint, openai

EMBEDDER = MiniLmEmbedder()
ON, SHADOW = Cache(semantic="on", similarity=0.9, ttl_s=600), Cache(semantic="shadow", similarity=0.9)
HANDBOOK = "# Passwords\n\nA forgotten password is reset at the desk in the hall, on weekdays from 9 to 17.\n"
QUESTION, AGAIN = "How do I reset a forgotten password?", "Please tell me how I can reset my forgotten password."
NOT = "Where is a forgotten password not reset?"


class AwayAnswers(EmbeddedAnswers):
    """Answers in a folder, which are away while ``away`` is set."""

    away = False

    async def near(self, lookups: Any, limit: int, now_s: float) -> list[list[Candidate]]:
        if self.away:
            raise StoreUnavailable("Qdrant does not answer")
        return await super().near(lookups, limit, now_s)


class Flow:
    """From screened requests to results."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.bus = MemoryBus(Catalogue.load(), self.clock)
        self.calls = 0
        self.said: Callable[[int], str] = "Ask at the desk ({}).".format
        self.while_asked: Callable[[], Awaitable[None]] | None = None
        self.answers: AwayAnswers
        self.cache: SemanticCache

    async def reply(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        if self.while_asked is not None:
            await self.while_asked()
        message = {"role": "assistant", "content": self.said(self.calls)}
        return web.json_response(OK | {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop, engine, folder = asyncio.Event(), Engine(EMBEDDER), await EmbeddedFolder.open(self.path)
        serving = Serving.of(engine, await folder.store("penstock-chunks", EMBEDDER.dimension))
        self.answers = await AwayAnswers.open(folder, "answers", EMBEDDER.dimension)  # type: ignore[assignment]

        async def opened(_: Any) -> AnswerStore:
            return self.answers

        async with endpoint(self.reply) as url, aiohttp.ClientSession() as session:
            targets = (openai(url),)
            config = ConfigPlane.of(
                [
                    Policy(name="default"),
                    Route(name="default", targets=targets, cache=ON),
                    Route(name="shadow", targets=targets, cache=SHADOW),
                    Route(name="plain", targets=targets, cache=ON, retrieval=Retrieval(enabled=False)),
                    Route(name="off", targets=targets),
                ]
            )
            self.cache = SemanticCache(config, serving, opened, self.clock)
            producer = Producer(self.bus.producer(), self.bus.codec, "inference", self.clock)
            judge = Judge(config, shipped_scanners(), b"key", self.clock)
            hops = [
                ground_hop(config, serving, self.clock, 32, 64, self.cache),
                index_hop(serving, self.clock, IndexLimits(), self.cache),
                keep_hop(self.cache),
                inference_hop(
                    config, {"openai": OpenAIBackend(session, {})}, MemoryAnswers(self.clock), self.clock, 8, producer
                ),
                release_hop(judge, MemoryReleases(), MemoryVault(), MemoryReviews(), Limits(), self.clock, 64),
            ]
            settings = ServiceSettings()
            task = asyncio.create_task(run_hops(hops, self.bus, self.bus.codec, SystemClock(), settings, stop))
            try:
                yield
            finally:
                stop.set()
                await task
                await folder.close()
                await engine.close()

    async def ask(self, request_id: str, question: str = QUESTION, route: str = "default", **changes: Any) -> LlmResult:
        before = len(self.bus.messages("llm-results"))
        fields: dict[str, Any] = {
            "event_id": f"e-{request_id}", "request_id": request_id, "tenant_id": "support",
            "occurred_at": self.clock.now(), "causation_id": "c",
            "context": Context(requested_at=self.clock.now(), route=route, user_id="ada"),
            "messages": [Message(role="user", content=question)],
        }  # fmt: skip
        await self.bus.publish("requests-screened", request_id, ScreenedRequest(**fields | changes))
        result = (await self.bus.collect("llm-results", before + 1, 30))[-1].record
        assert isinstance(result, LlmResult)
        await self.taken_in()
        return result

    async def taken_in(self) -> None:
        """Wait until the hop that keeps answers has read all there is."""
        topics = ("completions", "llm-results")
        async with asyncio.timeout(20):
            while sum(self.bus.committed("retrieval-cache").values()) < sum(len(self.bus.messages(t)) for t in topics):
                await asyncio.sleep(0.005)

    async def index(self, content: str = HANDBOOK, version: int = 1) -> None:
        before = len(self.bus.messages("documents-indexed"))
        document = ScreenedDocument(
            event_id=f"handbook-{version}", request_id="upload", tenant_id="support", occurred_at=self.clock.now(),
            causation_id="c", document_id="handbook", content_type="text/markdown", content=content, deleted=not content,
        )  # fmt: skip
        await self.bus.publish("documents-screened", "handbook", document)
        await self.bus.collect("documents-indexed", before + 1, 30)

    async def record(self, topic: str, request_id: str) -> Any:
        found = [event.record for event in await self.bus.collect(topic, len(self.bus.messages(topic)), 5)]
        return next(record for record in found if record.request_id == request_id)


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(tmp_path)


async def test_a_question_that_means_the_same_is_answered_without_the_model(flow: Flow) -> None:
    async with flow.running():
        await flow.index()
        first = await flow.ask("r1")
        again = await flow.ask("r2", AGAIN)
        negated = await flow.ask("r3", NOT)
        other_team = await flow.ask("r4", AGAIN, tenant_id="sales")
        off = await flow.ask("r5", AGAIN, route="off")
        grounded: GroundedRequest = await flow.record("requests-grounded", "r2")
        completion: Completion = await flow.record("completions", "r2")
    assert first.cached_by is None
    assert (again.content, again.cached_by, again.cached_request_id) == (first.content, "semantic", "r1")
    assert again.cached_from == first.causation_id
    assert again.cache_similarity is not None
    assert 0.9 <= again.cache_similarity <= 1
    assert again.usage == first.usage
    assert grounded.grounding == "grounded"
    assert (completion.kind, completion.request_model, completion.embedding_tokens > 0) == ("cached", "m", True)
    assert [negated.cached_by, other_team.cached_by, off.cached_by] == [None, None, None]
    assert flow.calls == 4


async def test_an_answer_ends_with_its_time_its_document_and_its_person(flow: Flow) -> None:
    async with flow.running():
        await flow.index()
        await flow.ask("r1")
        assert (await flow.ask("r2", AGAIN)).cached_by == "semantic"
        flow.clock.advance(601)
        assert (await flow.ask("r3", AGAIN)).cached_by is None
        assert (await flow.ask("r4")).cached_request_id == "r3"
        await flow.index(HANDBOOK + "\n# Keys\n\nKeys are handed out by the porter.\n", version=2)
        assert (await flow.ask("r5")).cached_by is None
        assert (await flow.ask("r6", AGAIN)).cached_request_id == "r5"
        await flow.index("", version=3)
        assert (await flow.ask("r7")).cached_by is None
        assert (await flow.ask("r8", AGAIN)).cached_request_id == "r7"
        await flow.cache.erase(Erasure("support", user_id="ada"))
        assert (await flow.ask("r9", AGAIN)).cached_by is None
    assert flow.calls == 5


async def test_a_route_without_passages_has_its_questions_embedded_for_it(flow: Flow) -> None:
    async with flow.running():
        first = await flow.ask("r1", route="plain")
        again = await flow.ask("r2", AGAIN, route="plain")
        turned = await flow.ask("r3", AGAIN, route="plain", messages=[
            Message(role="user", content="I am at home."), Message(role="assistant", content="Yes?"),
            Message(role="user", content=AGAIN),
        ])  # fmt: skip
        grounded: GroundedRequest = await flow.record("requests-grounded", "r2")
    assert (again.content, again.cached_by, turned.cached_by) == (first.content, "semantic", None)
    assert (grounded.grounding, grounded.embedder, grounded.embedding_tokens > 0) == ("off", EMBEDDER.name, True)


async def test_in_shadow_the_model_is_asked_and_the_earlier_answer_compared(flow: Flow) -> None:
    def counted() -> dict[str, float]:
        metric = metrics.SEMANTIC_CACHE_SIMILARITY
        return {
            "lookups": metrics.SEMANTIC_CACHE_LOOKUPS.labels("shadow", "shadow")._value.get(),
            "hits": metrics.SEMANTIC_CACHE_HITS.labels("shadow", "shadow")._value.get(),
            "false": metrics.SEMANTIC_CACHE_FALSE_HITS.labels("shadow", "shadow")._value.get(),
            "same": sum(bucket.get() for bucket in metric.labels("shadow", "same")._buckets),
            "different": sum(bucket.get() for bucket in metric.labels("shadow", "different")._buckets),
        }

    before = counted()
    async with flow.running():
        flow.said = lambda call: "Ask at the desk." if call < 3 else f"Ask at gate {call}."
        for number, question in enumerate((QUESTION, AGAIN, AGAIN)):
            assert (await flow.ask(f"r{number}", question, route="shadow")).cached_by is None
    assert flow.calls == 3
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {
        "lookups": 3, "hits": 2, "false": 1, "same": 1, "different": 1,
    }  # fmt: skip


async def test_in_shadow_an_answer_that_is_erased_stands_nowhere_else_and_is_not_compared(flow: Flow) -> None:
    metric, held = metrics.SEMANTIC_CACHE_SIMILARITY, []
    compared = [
        sum(bucket.get() for bucket in metric.labels("shadow", verdict)._buckets) for verdict in ("same", "different")
    ]

    async def erase() -> None:
        held.append(repr(await flow.answers.get("support", "r2")))
        await flow.cache.erase(Erasure("support", request_id="r1"))

    async with flow.running():
        first = await flow.ask("r1", route="shadow")
        flow.while_asked = erase
        await flow.ask("r2", AGAIN, route="shadow")
    assert "'r1'" in held[0], "it is to be compared"
    assert first.content not in held[0]
    after = [
        sum(bucket.get() for bucket in metric.labels("shadow", verdict)._buckets) for verdict in ("same", "different")
    ]
    assert after == compared


async def test_an_answer_that_inference_does_not_give_is_counted_as_passed_over(flow: Flow) -> None:
    def counted() -> float:
        return float(metrics.CACHE_LOOKUPS.labels("semantic", "passed_over")._value.get())

    async with flow.running():
        await flow.ask("r1", route="plain")
        before = counted()
        assert (await flow.ask("r2", AGAIN, route="plain")).cached_by == "semantic"
        assert counted() == before
        grounded: GroundedRequest = await flow.record("requests-grounded", "r2")
        assert grounded.cached is not None
        other = msgspec.structs.replace(grounded.cached, request_model="another")
        results = len(flow.bus.messages("llm-results"))
        again = msgspec.structs.replace(grounded, event_id="e-r3", request_id="r3", cached=other)
        await flow.bus.publish("requests-grounded", "r3", again)
        result = (await flow.bus.collect("llm-results", results + 1, 30))[-1].record
        assert isinstance(result, LlmResult)
        assert result.cached_by is None
        assert counted() == before + 1


async def test_without_its_store_models_are_called_and_nobody_waits_for_it(flow: Flow) -> None:
    async with flow.running():
        await flow.ask("r1", route="plain")
        flow.answers.away = True
        assert (await flow.ask("r2", AGAIN, route="plain")).cached_by is None
        flow.answers.away = False
        assert (await flow.ask("r3", AGAIN, route="plain")).cached_by is None, "left alone for a while"
        flow.clock.advance(6)
        assert (await flow.ask("r4", AGAIN, route="plain")).cached_request_id == "r1"


async def test_an_answer_that_guardrails_changed_is_not_given_again(flow: Flow) -> None:
    async with flow.running():
        await flow.ask("r1", route="plain")
        entry = await flow.answers.get("support", "r1")
        assert entry is not None
        assert entry.given is not None
        masked: LlmResult = await flow.record("llm-results", "r1")
        await flow.cache.keep(msgspec.structs.replace(masked, action="mask"))
        assert await flow.answers.get("support", "r1") is None

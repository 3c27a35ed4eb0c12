"""Requests for vectors from admission to their result, on the in-memory log, beside questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Policy, Price, Retrieval, Route, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import derive
from penstock.contracts.records import (
    AdmittedRequest,
    Cancellation,
    Completion,
    Context,
    Cost,
    Message,
    ScreenedRequest,
)
from penstock.embedding import Embedded, EmbedderUnavailable, unpack_vector
from penstock.ledger.recomputation import calls_of, is_derived
from penstock.settings import ServiceSettings

from services.evaluation.core.pricing import Calls, pricing
from services.guardrails.adapters import MemoryReleases
from services.guardrails.app import release_hop, request_hop
from services.guardrails.held_texts import MemoryReviews, MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.inference.adapters import ExtractiveBackend
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.cancellations import FollowedCancellations
from services.intake.settlement import charge_of
from services.retrieval.app import ground_hop
from services.retrieval.embedding_requests import LARGEST_VECTORS, embedding_hop, slices_of
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.serving import Engine, Serving

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SCANNERS = shipped_scanners()
SETTINGS = ServiceSettings(dlq_min_messages=1000)
PLANE = ConfigPlane.of(
    [
        Team(name="support", tokens_per_minute=1000),
        # Of an answer it wants JSON: vectors are none.
        Policy.model_validate(
            {
                "name": "default",
                "input": {"pii": {"action": "mask"}, "secrets": {"action": "block"}},
                "output": {"format": {"action": "block", "json_schema": {"type": "object"}}, "pii": {"action": "mask"}},
            }
        ),
        Policy(name="plain"),
        Route(name="default", targets=(Target(backend="extractive", model="penstock-extractive-1"),)),
        Route(
            name="plain", policy="plain", retrieval=Retrieval(enabled=False),
            targets=(Target(backend="extractive", model="penstock-extractive-1"),),
        ),
    ]
)  # fmt: skip
PRICE = Price(model="letters", mode="embedding", input_cost_per_token=Decimal("1e-9"))


class Letters:
    """Counts letters; a token is a character that is no space. ``before`` is called with the texts of each call."""

    name = "letters"
    dimension = 26

    def __init__(self, before: Callable[[Sequence[str]], None] = lambda texts: None) -> None:
        self._before = before

    def embed(self, texts: Sequence[str]) -> Any:
        return self.embed_counted(texts).vectors

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        self._before(texts)
        counts = np.array([[text.lower().count(chr(97 + n)) + 0.01 for n in range(26)] for text in texts], np.float32)
        vectors = counts / np.linalg.norm(counts, axis=1, keepdims=True)
        return Embedded(vectors.astype(np.float32), tokens_of(texts))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [(n, n + 1) for n in range(len(text))]


def tokens_of(texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(len(text.replace(" ", "")) for text in texts)


@dataclass
class Flow:
    """What the flow made of some requests."""

    bus: MemoryBus
    clock: ManualClock

    async def results(self, count: int) -> dict[str, Any]:
        return {event.record.request_id: event.record for event in await self.bus.collect("llm-results", count, 20)}

    async def of(self, topic: str) -> list[Any]:
        return [event.record for event in await self.bus.collect(topic, 0)]


async def through(
    requests: Sequence[AdmittedRequest], embedder: Letters, folder: Path, clock: ManualClock, cancelled: str = ""
) -> Flow:
    """Send ``requests`` through guardrails, retrieval and inference to the release gate; ``cancelled`` is nobody's want."""
    flow = Flow(MemoryBus(Catalogue.load(), clock), clock)
    bus = flow.bus
    for request in requests:
        await bus.publish("requests-admitted", request.request_id, request)
        if request.request_id == cancelled:
            cancellation = Cancellation(**derive(request, "test.cancel", 0, clock.now()), reason="the page was left")
            await bus.publish("cancellations", cancelled, cancellation)
    cancellations = FollowedCancellations(bus.codec, clock, 900)
    await cancellations.open(bus, 5)
    engine, store = Engine(embedder), await EmbeddedStore.open(folder, "chunks", embedder.dimension)
    serving, judge = Serving.of(engine, store), Judge(PLANE, SCANNERS, b"key", clock)
    vault, reviews, limits = MemoryVault(), MemoryReviews(), Limits()
    hops = [
        request_hop(judge, vault, reviews, limits, clock, 64),
        ground_hop(PLANE, serving, clock, candidates=32, max_batch=64),
        embedding_hop(serving, clock),
        inference_hop(
            PLANE, {"extractive": ExtractiveBackend()}, MemoryAnswers(clock), clock, 8,
            Producer(bus.producer(), bus.codec, "inference", clock), cancellations=cancellations,
        ),
        release_hop(judge, MemoryReleases(), vault, reviews, limits, clock, 64),
    ]  # fmt: skip
    stop = asyncio.Event()
    running = asyncio.create_task(run_hops(hops, bus, bus.codec, SystemClock(), SETTINGS, stop))
    try:
        async with asyncio.timeout(20):
            while len(bus.messages("llm-results")) < len(requests):
                clock.advance(0.1)  # who waits to try again
                await asyncio.sleep(0)
        await bus.settled("retrieval-ground", ["requests-screened"], timeout_s=20)
        await bus.settled("retrieval-embed", ["requests-screened"], timeout_s=20)
    finally:
        stop.set()
        await running
        await store.close()
        await engine.close()
        await cancellations.close()
    return flow


def admitted(request_id: str, *texts: str, purpose: str = "embed", **context: Any) -> AdmittedRequest:
    return AdmittedRequest(
        event_id=f"e-{request_id}", request_id=request_id, tenant_id="support", occurred_at=START, causation_id="c",
        context=Context(requested_at=START, admitted_at=START, purpose=purpose, **context),
        messages=[Message(role="user", content=text) for text in texts],
    )  # fmt: skip


def costs_of(completion: Completion) -> list[Cost]:
    """What evaluation books of it, which is what the ledger works out again from the contract."""
    logic = pricing(lambda model, at: PRICE if model == "letters" else None)
    [message] = [object()]
    booked: list[Cost] = []
    for key, event in logic.route(completion, message, lambda key: None):  # type: ignore[arg-type]
        if isinstance(event, Calls) and key is not None:
            booked += event.costs
    again = [call.priced(PRICE) for call in calls_of(completion, 0)]
    assert booked == again
    assert all(is_derived(cost) for cost in booked)
    return booked


async def test_texts_come_back_as_vectors_screened_priced_and_unsearched(tmp_path: Path) -> None:
    clock = ManualClock(START)
    requests = [
        admitted("vectors", "abba", "write to ann@example.org", "caddy"),
        admitted("blank", " "),
        admitted("secret", "AKIAIOSFODNN7EXAMPLE is my key AKIAIOSFODNN7QRSTUVW"),
        admitted("question", "what is this?", purpose="serve", route="plain", policy_name="plain"),
    ]
    flow = await through(requests, Letters(), tmp_path, clock)
    results = await flow.results(4)
    embedded = results["vectors"]
    assert (embedded.status, embedded.model, embedded.content) == ("completed", "letters", "")
    # What guardrails masked never reached the embedder.
    texts = ["abba", "write to <EMAIL_ADDRESS_1>", "caddy"]
    wanted = Letters().embed(texts)
    assert np.array_equal([unpack_vector(each, 26) for each in embedded.embeddings], wanted)
    assert (embedded.usage.input_tokens, embedded.usage.output_tokens) == (sum(tokens_of(texts)), 0)
    assert (results["secret"].status, results["secret"].embeddings) == ("blocked", [])
    assert (results["question"].status, results["question"].embeddings) == ("completed", [])

    # One of the two hops has each request, and no model is called for vectors.
    grounded = await flow.of("requests-grounded")
    assert sorted(record.request_id for record in grounded) == ["blank", "question", "vectors"]
    [completion] = [each for each in await flow.of("completions") if each.request_id == "vectors"]
    assert (completion.backend, completion.target, completion.passages) == ("embedding", None, [])
    [cost] = costs_of(completion)
    assert (cost.kind, cost.model, cost.usage.input_tokens) == ("embedding", "letters", sum(tokens_of(texts)))
    assert cost.amount == sum(tokens_of(texts)) * Decimal("1e-9")
    # The released result stands on a verdict of its own, as any does.
    verdicts = [each for each in await flow.of("verdicts") if each.request_id == "vectors"]
    assert {(each.stage, each.action) for each in verdicts} == {("input", "mask"), ("output", "allow")}
    budgeted = Team.model_validate({"name": "support", "budgets": [{"name": "day", "limit": 1}]})
    # Where there is no token there is no cost, and nothing that a reservation could wait for.
    assert (results["vectors"].calls, results["blank"].calls, len(results["blank"].embeddings)) == (1, 0, 1)
    charge = charge_of(cost, budgeted)
    assert charge is not None
    assert (charge.slot, charge.part) == ("embedding", False)


async def test_what_was_embedded_before_the_embedder_went_away_is_paid_for(tmp_path: Path) -> None:
    calls: list[Sequence[str]] = []

    def away_for_b(texts: Sequence[str]) -> None:
        calls.append(texts)
        if "b" in texts[0]:
            raise EmbedderUnavailable("the endpoint answers 503")

    requests = [admitted("some", "a" * 8000, "b"), admitted("none", "b")]
    flow = await through(requests, Letters(away_for_b), tmp_path, ManualClock(START))
    results = await flow.results(2)
    assert (results["none"].status, results["none"].code) == ("failed", "model_unavailable")
    assert "503" in results["none"].reason
    assert (results["some"].status, results["some"].code) == ("failed", "model_error")
    assert results["some"].reason.startswith("1 of 2 texts were embedded when the embedder gave no more")
    assert results["some"].embeddings == []
    [completion] = await flow.of("completions")
    [cost] = costs_of(completion)
    assert cost.usage.input_tokens == 8000
    # Each slice is tried three times, and one that was embedded is not embedded again.
    assert [len(texts[0]) for texts in calls].count(8000) == 1
    assert [texts[0] for texts in calls].count("b") == 6


async def test_vectors_that_nobody_wants_any_more_are_paid_for_and_not_given(tmp_path: Path) -> None:
    requests = [admitted("left", "abc", "de"), admitted("wanted", "f")]
    flow = await through(requests, Letters(), tmp_path, ManualClock(START), cancelled="left")
    results = await flow.results(2)
    assert {name: result.status for name, result in results.items()} == {"left": "cancelled", "wanted": "completed"}
    left = results["left"]
    assert (left.code, left.reason, left.embeddings) == (
        "cancelled",
        "cancelled by its producer: the page was left",
        [],
    )
    costs = {each.request_id: costs_of(each)[0].usage.input_tokens for each in await flow.of("completions")}
    assert costs == {"left": 5, "wanted": 1}


async def test_a_deadline_in_the_middle_ends_it_and_one_before_embeds_nothing(tmp_path: Path) -> None:
    clock = ManualClock(START)
    requests = [admitted("late", "a" * 8000, "b" * 8000, deadline_at=START.replace(hour=10))]
    flow = await through(requests, Letters(lambda texts: clock.advance(3600)), tmp_path, clock)
    [late] = (await flow.results(1)).values()
    assert (late.status, late.code) == ("expired", "expired")
    assert "1 of 2 texts were embedded when the deadline passed" in late.reason
    [completion] = await flow.of("completions")
    assert costs_of(completion)[0].usage.input_tokens == 8000


async def test_more_vectors_than_an_event_holds_are_refused_before_they_are_made(tmp_path: Path) -> None:
    class Wide(Letters):
        dimension = LARGEST_VECTORS // 4

    def never(texts: Sequence[str]) -> None:
        raise AssertionError("nothing is to be embedded")

    serving = Serving.of(Engine(Wide(never)), None)  # type: ignore[arg-type]
    clock = ManualClock(START)
    bus = MemoryBus(Catalogue.load(), clock)
    request = admitted("wide", "a", "b")
    screened = ScreenedRequest(
        event_id="s", request_id="wide", tenant_id="support", occurred_at=START, causation_id="e",
        context=request.context, messages=request.messages,
    )  # fmt: skip
    await bus.publish("requests-screened", "wide", screened)
    stop = asyncio.Event()
    hops = [embedding_hop(serving, clock)]
    running = asyncio.create_task(run_hops(hops, bus, bus.codec, SystemClock(), SETTINGS, stop))
    [refused] = await bus.collect("refusals", 1, 10)
    stop.set()
    await running
    await serving.current.engine.close()
    assert (refused.record.status, refused.record.code) == ("rejected", "too_many_inputs")


@given(st.lists(st.text(alphabet="ab", max_size=60).map(lambda text: text * 200), max_size=80))
def test_slices_are_all_texts_in_order_and_none_is_large(texts: list[str]) -> None:
    slices = [list(each) for each in slices_of(texts)]
    assert [text for each in slices for text in each] == texts
    for each in slices:
        assert 1 <= len(each) <= 32
        assert len(each) == 1 or sum(map(len, each)) <= 8_000

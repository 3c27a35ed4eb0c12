"""Retrieval's two hops on the in-memory log, with the packaged embedder and the embedded store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from penstock.bus import Hop, MemoryBus, Transient, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Retrieval, Route, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Context, Message, RetrievalFilter, ScreenedDocument, ScreenedRequest
from penstock.embedding import Embedded, EmbedderError, EmbedderUnavailable, unpack_vector
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.settings import ServiceSettings

from services.retrieval.adapters import PassageStore, Point, Query, StoreUnavailable
from services.retrieval.app import IndexLimits, ground_hop, index_hop
from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.reranking import rerankers
from services.retrieval.serving import Engine, Serving

CLOCK = ManualClock()
EXTRACTIVE = (Target(backend="extractive", model="extractive"),)
PLANE = ConfigPlane.of(
    [
        Route(name="default", targets=EXTRACTIVE),
        Route(name="plain", targets=EXTRACTIVE, retrieval=Retrieval(enabled=False)),
        Route(name="patient", targets=EXTRACTIVE, retrieval=Retrieval(on_unavailable="wait")),
        Route(name="faq", targets=EXTRACTIVE, retrieval=Retrieval(collection="faq")),
        Route(name="manuals", targets=EXTRACTIVE, retrieval=Retrieval(tags={"kind": "manual"}, top_k=9, score_floor=0)),
        Route(name="all", targets=EXTRACTIVE, retrieval=Retrieval(top_k=9, score_floor=0)),
        Route(name="varied", targets=EXTRACTIVE, retrieval=Retrieval(top_k=2, diversity=0.5)),
        Route(
            name="closer",
            targets=EXTRACTIVE,
            retrieval=Retrieval(reranker="late-interaction", top_k=1, score_floor=0, dense_share=0),
        ),
    ]
)
GUIDE = """# The mill

The weir raises the water level by two metres so that it can be led to the wheel.

## The sluice

Error E4012 means that the sluice gate is stuck. Clear the grating and turn the crank by hand.

## The flour

Wheat is ground between two stones of French burr; the finest flour is sieved through silk.
"""


class CountingEmbedder(MiniLmEmbedder):
    """The packaged embedder, which notes what it was asked and fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.failures = 0
        self.refused: str | None = None
        self.refused_part: str | None = None

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        part = self.refused_part
        if self.refused in texts or (part is not None and any(part in text for text in texts)):
            raise EmbedderError("the embedder answers 413")
        if self.failures:
            self.failures -= 1
            raise EmbedderUnavailable("the embedder is away")
        self.calls.append(list(texts))
        return super().embed_counted(texts)


class FailingStore:
    """A store that is away for the next ``failures`` calls."""

    def __init__(self, store: PassageStore) -> None:
        self.store = store
        self.failures = 0

    def _check(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("Qdrant does not answer")

    async def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        self._check()
        return await self.store.search(queries, limit)

    async def digests(self, team: str, document_id: str) -> Mapping[str, str]:
        self._check()
        return await self.store.digests(team, document_id)

    async def write(self, put: Sequence[Point], rewrite: Sequence[ChunkRecord], remove: Sequence[str]) -> None:
        self._check()
        await self.store.write(put, rewrite, remove)

    async def close(self) -> None:
        await self.store.close()


class Service:
    """The service on a log in memory."""

    def __init__(self, bus: MemoryBus, embedder: CountingEmbedder, store: FailingStore, hops: Sequence[Hop]) -> None:
        self.bus = bus
        self.embedder = embedder
        self.store = store
        self.hops = hops

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        stop = asyncio.Event()
        settings = ServiceSettings(retry_timeout_s=20)
        task = asyncio.create_task(run_hops(self.hops, self.bus, self.bus.codec, SystemClock(), settings, stop))
        try:
            yield task
        finally:
            stop.set()
            await task

    async def index(self, *documents: ScreenedDocument) -> list[Any]:
        for document in documents:
            await self.bus.publish("documents-screened", document.document_id, document)
        count = len(self.bus.messages("documents-screened"))
        return [event.record for event in await self.bus.collect("documents-indexed", count, 30)]

    async def ground(self, *requests: ScreenedRequest) -> dict[str, Any]:
        before = len(self.bus.messages("requests-grounded"))
        for request in requests:
            await self.bus.publish("requests-screened", request.request_id, request)
        events = await self.bus.collect("requests-grounded", before + len(requests), 30)
        return {event.record.request_id: event.record for event in events}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    embedder = CountingEmbedder()
    engine = Engine(embedder)
    store = FailingStore(await EmbeddedStore.open(tmp_path, "chunks", embedder.dimension))
    serving = Serving.of(engine, store)
    hops = [
        ground_hop(PLANE, serving, CLOCK, candidates=32, max_batch=64, known=rerankers()),
        index_hop(serving, CLOCK, IndexLimits(document_characters=100_000)),
    ]
    yield Service(MemoryBus(Catalogue.load(), CLOCK), embedder, store, hops)
    await store.close()
    await engine.close()


def a_document(document_id: str = "guide", content: str = GUIDE, version: int = 1, **changes: Any) -> ScreenedDocument:
    fields: dict[str, Any] = {
        "event_id": f"{document_id}-{version}", "request_id": "upload", "tenant_id": "support", "occurred_at": CLOCK.now(),
        "causation_id": "c", "document_id": document_id, "source": f"{document_id}.md", "content_type": "text/markdown",
        "content": content,
    }  # fmt: skip
    return ScreenedDocument(**fields | changes)


def a_request(request_id: str, question: str = "What does error E4012 mean?", **changes: Any) -> ScreenedRequest:
    context = Context(
        requested_at=CLOCK.now(), route=changes.pop("route", "default"), deadline_at=changes.pop("deadline_at", None)
    )
    fields: dict[str, Any] = {
        "event_id": f"e-{request_id}", "request_id": request_id, "tenant_id": "support", "occurred_at": CLOCK.now(),
        "causation_id": "c", "context": context, "messages": [Message(role="user", content=question)],
    }  # fmt: skip
    return ScreenedRequest(**fields | changes)


async def test_a_document_becomes_the_passage_that_answers(service: Service) -> None:
    async with service.running():
        (indexed,) = await service.index(a_document())
        assert (indexed.status, indexed.reason, indexed.embedder) == ("indexed", None, "all-MiniLM-L6-v2")
        assert indexed.chunks == indexed.chunks_embedded > 0
        found = await service.ground(a_request("r1"), a_request("r2", "Who was the king of France in 1515?"))
    grounded = found["r1"]
    assert grounded.grounding == "grounded"
    assert "sluice gate is stuck" in grounded.passages[0].text
    assert grounded.passages[0].source == "guide.md"
    assert grounded.passages[0].title.startswith("The mill")
    vector = unpack_vector(grounded.embedding, 384)
    assert abs(float(vector @ vector) - 1) < 1e-4
    assert grounded.embedder == "all-MiniLM-L6-v2"
    counted = service.embedder.token_spans
    assert grounded.embedding_tokens == len(counted("What does error E4012 mean?")) > 0
    assert found["r2"].embedding_tokens == len(counted("Who was the king of France in 1515?"))
    assert indexed.embedded_tokens == sum(len(counted(text)) for text in service.embedder.calls[0]) > 0
    assert (found["r2"].grounding, found["r2"].passages) == ("empty", [])
    assert found["r2"].embedding is not None


async def test_a_batch_of_questions_is_embedded_in_one_call_and_a_route_without_retrieval_in_none(
    service: Service,
) -> None:
    questions = [a_request(f"r{n}", f"question number {n}") for n in range(6)]
    for request in [*questions, a_request("off", route="plain"), a_request("mute", "  ")]:
        await service.bus.publish("requests-screened", "one-key", request)
    async with service.running():
        events = await service.bus.collect("requests-grounded", 8, 30)
    states = {event.record.request_id: (event.record.grounding, event.record.embedding is None) for event in events}
    assert states["off"] == ("off", True)
    assert states["mute"] == ("empty", True)
    assert {e.record.request_id for e in events if e.record.embedding_tokens} == {f"r{n}" for n in range(6)}
    assert states["r0"] == ("empty", False)
    assert service.embedder.calls == [[f"question number {n}" for n in range(6)]]
    assert [event.record.request_id for event in events] == [*(f"r{n}" for n in range(6)), "off", "mute"]


async def test_teams_and_collections_see_their_own_documents_only(service: Service) -> None:
    async with service.running():
        await service.index(
            a_document("mine"),
            a_document("theirs", tenant_id="sales"),
            a_document("questions", tags={"collection": "faq"}),
        )
        found = await service.ground(
            a_request("mine"), a_request("theirs", tenant_id="sales"), a_request("questions", route="faq"),
            a_request("nobody", tenant_id="strangers"),
        )  # fmt: skip
    for name in ("mine", "theirs", "questions"):
        assert {passage.document_id for passage in found[name].passages} == {name}
    assert found["nobody"].passages == []


async def test_a_request_sees_what_both_its_route_and_it_allow_at_the_instant_it_names(service: Service) -> None:
    day = timedelta(days=1)
    text = "Error E4012 means that the sluice gate is stuck."
    odd = {'a "name" in.a[path]': "*", "kind": "manual"}
    documents = [
        a_document("plain", text), a_document("manual", text, tags={"kind": "manual"}, language="en"),
        a_document("odd", text, tags=odd, language="de"),
        a_document("past", text, tags=odd, valid_to=CLOCK.now()),
        a_document("future", text, tags=odd, valid_from=CLOCK.now() + day),
        a_document("elsewhere", text, tags=odd | {"collection": "archive"}),
        a_document("theirs", text, tags=odd, tenant_id="sales"),
    ]  # fmt: skip
    cases: dict[str, tuple[str, RetrievalFilter | None, set[str]]] = {
        "nothing asked": ("all", None, {"plain", "manual", "odd"}),
        "the route's tag": ("manuals", None, {"manual", "odd"}),
        "both tags": ("manuals", RetrievalFilter(tags={'a "name" in.a[path]': "*"}), {"odd"}),
        "against the route": ("manuals", RetrievalFilter(tags={"kind": "letter"}), set()),
        "a language": ("all", RetrievalFilter(language="de"), {"odd"}),
        "yesterday": ("manuals", RetrievalFilter(as_of=CLOCK.now() - day), {"manual", "odd", "past"}),
        "tomorrow": ("manuals", RetrievalFilter(as_of=CLOCK.now() + day), {"manual", "odd", "future"}),
        "another collection": ("manuals", RetrievalFilter(collection="archive"), {"elsewhere"}),
    }
    async with service.running():
        await service.index(*documents)
        found = await service.ground(
            *(a_request(name, route=route, retrieval=wanted) for name, (route, wanted, _) in cases.items())
        )
        for name, (_, _, expected) in cases.items():
            assert {passage.document_id for passage in found[name].passages} == expected, name
        embedded = len(service.embedder.calls)
        await service.index(a_document("plain", text, version=2, valid_to=CLOCK.now()))
        assert len(service.embedder.calls) == embedded, "the same text is not embedded again for new conditions"
        again = (await service.ground(a_request("again", route="all")))["again"]
        assert {passage.document_id for passage in again.passages} == {"manual", "odd"}


async def test_a_route_may_ask_for_passages_that_differ_and_for_a_closer_look(service: Service) -> None:
    gate = "The sluice gate lets the water of the weir through."
    async with service.running():
        await service.index(
            a_document("gate", gate), a_document("same", gate + " Yes."),
            a_document("crank", "A crank opens the sluice gate by hand."),
            a_document("cures", "The doctor heals the sick. A gate is sold."),
            a_document("sells", "The farmer sells the wheat. A gate is sick."),
        )  # fmt: skip
        question = "What does the sluice gate let through?"
        found = await service.ground(
            a_request("usual", question), a_request("varied", question, route="varied"),
            a_request("closer", "Which physician cures at the gate?", route="closer"),
        )  # fmt: skip
    usual = [passage.document_id for passage in found["usual"].passages]
    assert set(usual[:2]) == {"gate", "same"}
    assert [passage.document_id for passage in found["varied"].passages] == [usual[0], "crank"]
    assert [passage.document_id for passage in found["closer"].passages] == ["cures"]


async def test_a_new_version_replaces_the_old_one_and_embeds_only_what_changed(service: Service) -> None:
    async with service.running():
        await service.index(a_document())
        embedded = sum(map(len, service.embedder.calls))
        changed = GUIDE.replace("E4012", "E9999") + "\n## The bakery\n\n" + "Bread rises overnight in the cellar. " * 20
        first, second = await service.index(a_document(content=changed, version=2))
        assert second.status == "indexed"
        assert second.chunks_removed >= 1
        assert sum(map(len, service.embedder.calls)) - embedded == second.chunks_embedded < second.chunks + 1
        found = await service.ground(a_request("r1", "sluice gate error"))
        assert all("E4012" not in passage.text for passage in found["r1"].passages)
        assert any("E9999" in passage.text for passage in found["r1"].passages)
        again = (await service.index(a_document(content=changed, version=3)))[-1]
        assert (again.status, again.chunks, again.chunks_embedded) == ("unchanged", second.chunks, 0)
        assert (again.embedded_tokens, second.embedded_tokens > 0) == (0, True)
    assert first.chunks_embedded == embedded


async def test_a_deleted_document_is_gone(service: Service) -> None:
    async with service.running():
        (indexed,) = await service.index(a_document())
        deleted = (await service.index(a_document(content="", deleted=True, version=2)))[-1]
        assert (deleted.status, deleted.chunks, deleted.chunks_removed) == ("deleted", 0, indexed.chunks)
        assert (await service.ground(a_request("r1")))["r1"].grounding == "empty"


async def test_what_cannot_be_indexed_is_reported_and_stops_nothing(service: Service) -> None:
    async with service.running():
        await service.index(a_document())
        *_, pdf, long, good = await service.index(
            a_document("pdf", content_type="application/pdf"), a_document("long", "x" * 100_001), a_document("good")
        )
        by_name = {record.document_id: record for record in (pdf, long, good)}
        assert by_name["pdf"].status == by_name["long"].status == "failed"
        assert "text/markdown" in by_name["pdf"].reason
        assert "RETRIEVAL_MAX_DOCUMENT_CHARACTERS" in by_name["long"].reason
        assert by_name["good"].status == "indexed"
        ligatures = (await service.index(a_document("ligatures", "\ufdfa" * 10_000, content_type="text/plain")))[-1]
        assert (ligatures.status, "180000 characters" in ligatures.reason) == ("failed", True), "each is 18 letters"
        failed = (await service.index(a_document(content_type="image/png", version=2)))[-1]
        assert failed.status == "failed"
        assert (await service.ground(a_request("r1")))["r1"].grounding == "grounded", "the version before stays"


async def test_what_is_stored_with_each_chunk_and_what_a_request_filters_by_is_bounded(service: Service) -> None:
    tags = {f"tag-{n}": "x" * 100 for n in range(1_000)}
    async with service.running():
        indexed = {
            each.document_id: each for each in await service.index(a_document(), a_document("labelled", tags=tags))
        }
        assert (indexed["guide"].status, indexed["labelled"].status) == ("indexed", "failed")
        assert "tags" in indexed["labelled"].reason
        service.store.failures = 1
        found = await service.ground(a_request("r1", retrieval=RetrievalFilter(tags=tags), route="patient"))
        assert found["r1"].grounding == "empty"
        assert service.store.failures == 1, "no store is asked for what no document has"


async def test_of_a_version_that_the_embedder_refuses_midway_nothing_stays(service: Service) -> None:
    sections = [f"## Part {n}\n\n{f'Machine {n} has a sluice of oak. ' * 12}" for n in range(40)]
    async with service.running():
        await service.index(a_document())
        before = dict(await service.store.digests("support", "guide"))
        service.embedder.calls.clear()
        service.embedder.refused_part = "Machine 39"
        failed = (await service.index(a_document(content="\n\n".join(sections), version=2)))[-1]
        assert (failed.status, failed.chunks) == ("failed", 0)
        assert len(service.embedder.calls) == 1, "the first chunks were embedded"
        assert failed.embedded_tokens > 0
        assert await service.store.digests("support", "guide") == before


async def test_without_the_store_a_route_goes_on_and_says_so(service: Service) -> None:
    async with service.running():
        await service.index(a_document())
        service.store.failures = 1
        found = await service.ground(a_request("r1"))
        assert (found["r1"].grounding, found["r1"].passages) == ("unavailable", [])
        assert found["r1"].embedding is not None, "the question was embedded all the same"
        assert found["r1"].embedding_tokens > 0
        service.embedder.failures = 1
        found = await service.ground(a_request("r2"))
        assert (found["r2"].grounding, found["r2"].embedding, found["r2"].embedding_tokens) == ("unavailable", None, 0)
        assert (await service.ground(a_request("r3")))["r3"].grounding == "grounded"


@pytest.mark.parametrize("part", ["store", "embedder"])
async def test_without_the_store_or_the_embedder_a_patient_route_waits(service: Service, part: str) -> None:
    async with service.running():
        await service.index(a_document())
        getattr(service, part).failures = 3
        found = await service.ground(a_request("r1", route="patient"))
        assert found["r1"].grounding == "grounded"
        assert getattr(service, part).failures == 0


@pytest.mark.parametrize("route", ["default", "patient"])
async def test_a_question_that_the_embedder_refuses_holds_up_no_other_and_takes_no_passages_from_it(
    service: Service, route: str
) -> None:
    service.embedder.refused = "\N{FACE WITH TEARS OF JOY}" * 300
    requests = [a_request("r1", route=route), a_request("r2", service.embedder.refused, route=route)]
    async with service.running():
        await service.index(a_document())
        found = await service.ground(*requests, a_request("r3", route=route))
    assert {name: each.grounding for name, each in found.items()} == {
        "r1": "grounded", "r2": "unavailable", "r3": "grounded",
    }  # fmt: skip
    assert found["r2"].embedding is None
    assert found["r2"].embedding_tokens == 0 < found["r1"].embedding_tokens


async def test_documents_wait_for_the_store_and_the_embedder(service: Service) -> None:
    service.store.failures = 2
    service.embedder.failures = 1
    async with service.running():
        (indexed,) = await service.index(a_document())
        assert indexed.status == "indexed"


async def test_a_store_that_stays_away_stops_the_hop_instead_of_losing_a_document(service: Service) -> None:
    service.store.failures = 10**9
    await service.bus.publish("documents-screened", "guide", a_document())
    stop = asyncio.Event()
    settings = ServiceSettings(retry_timeout_s=0.2)
    with pytest.raises(Transient, match="Qdrant does not answer"):
        await run_hops(service.hops, service.bus, service.bus.codec, SystemClock(), settings, stop)
    assert not any(service.bus.committed("retrieval-index").values())
    assert service.bus.messages("dlq-retrieval") == []


async def test_an_expired_request_ends_without_being_embedded(service: Service) -> None:
    async with service.running():
        await service.bus.publish(
            "requests-screened", "r1", a_request("r1", deadline_at=CLOCK.now() - timedelta(seconds=1))
        )
        (refusal,) = await service.bus.collect("refusals", 1)
    assert (refusal.record.status, refusal.record.stage, refusal.record.code) == ("expired", "retrieval", "expired")
    assert service.embedder.calls == []


async def test_a_replay_gives_the_same_event_again(service: Service) -> None:
    async with service.running():
        await service.index(a_document())
        await service.ground(a_request("r1"))
        await service.bus.publish("requests-screened", "r1", a_request("r1"))
        first, second = await service.bus.collect("requests-grounded", 2, 30)
    assert first.record == second.record


async def test_every_language_of_a_document_is_found(service: Service) -> None:
    async with service.running():
        await service.index(
            a_document("arabic", "تقع الطاحونة على ضفة النهر وتطحن القمح كل صباح."),
            a_document("japanese", "水車は川の水で回り、毎朝小麦を挽きます。"),
            a_document("german", "Die Mühle steht am Fluß und mahlt jeden Morgen Weizen."),
        )
        found = await service.ground(
            a_request("arabic", "أين تقع الطاحونة؟"), a_request("japanese", "水車は何で回りますか"),
            a_request("german", "Wo steht die Mühle?"),
        )  # fmt: skip
    for name in ("arabic", "japanese", "german"):
        assert found[name].passages[0].document_id == name

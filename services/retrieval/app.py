"""The shell of retrieval: two hops over one embedder and one store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from penstock.bus import Emit, Event, Hop, Outcome, Transient
from penstock.clock import Clock
from penstock.config.kinds import Retrieval, Route
from penstock.contracts.records import Passage, ScreenedDocument, ScreenedRequest, Status
from penstock.embedding import Embedded, Embedder, EmbedderError, EmbedderUnavailable, pack_vector
from penstock.telemetry import get_logger, metrics

from services.retrieval.adapters import PassageStore, Point, Query, StoreMisfit, StoreUnavailable
from services.retrieval.chunking import ChunkLimits, chunk_document
from services.retrieval.cleaning import UnsupportedType, clean_document
from services.retrieval.core import (
    ChunkRecord,
    Grounding,
    chunk_records,
    expired,
    grounded,
    indexed,
    indexing_failed,
    plan_index,
    question_of,
    refusal,
    select,
)
from services.retrieval.sparse import chunk_vector, query_vector

__all__ = ["Engine", "IndexLimits", "Routes", "ground_hop", "index_hop"]

log = get_logger(__name__)
_T = TypeVar("_T")
# Chunks embedded in one go: about a second of work, so that a stop is not held up by a long document.
_EMBED_SLICE = 32


class Routes(Protocol):
    """The part of the config plane that retrieval reads."""

    def route(self, name: str) -> Route | None: ...


@dataclass(frozen=True, slots=True)
class IndexLimits:
    """Sizes of chunks and of documents."""

    chunks: ChunkLimits = field(default_factory=ChunkLimits)
    document_characters: int = 2_000_000


class Engine:
    """The embedder on threads of its own, so that the event loop stays free while it computes.

    Args:
        workers: threads; one for each hop lets requests pass while a long document is embedded.
    """

    def __init__(self, embedder: Embedder, workers: int = 2) -> None:
        self.embedder = embedder
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="embedder")

    async def run(self, call: Callable[..., _T], *args: Any) -> _T:
        """Run ``call`` on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors and the tokens of ``texts``; see :meth:`Embedder.embed_counted`."""
        return await self.run(self.embedder.embed_counted, texts)

    async def close(self) -> None:
        """Let the call under way finish, and end the threads."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)


def ground_hop(
    routes: Routes, engine: Engine, store: PassageStore, clock: Clock, candidates: int, max_batch: int
) -> Hop:
    """Return the hop requests-screened -> requests-grounded, refusals.

    Args:
        candidates: chunks that each search gives to the ranking; raised to the route's top_k where that is more.
        max_batch: most requests embedded and searched for together.
    """

    async def handle(events: Sequence[Event[ScreenedRequest]]) -> Sequence[Outcome]:
        now = clock.now()
        rules = [_rules(routes, event.record) for event in events]
        wanted = [n for n, event in enumerate(events) if rules[n] is not None and not expired(event.record, now)]
        found = dict(
            zip(wanted, await ground([events[n].record for n in wanted], [rules[n] for n in wanted]), strict=True)
        )
        outcomes: list[Outcome] = []
        for n, event in enumerate(events):
            request, done = event.record, clock.now()
            if expired(request, now):
                metrics.REFUSED.labels("retrieval", "expired").inc()
                reason = "the deadline passed before passages were looked for"
                outcomes.append(refusal(request, Status.EXPIRED, "expired", reason, done))
            else:
                grounding = found.get(n, Grounding("off"))
                metrics.GROUNDED.labels(grounding.state).inc()
                outcomes.append(grounded(request, grounding, done))
        return outcomes

    async def ground(requests: Sequence[ScreenedRequest], rules: Sequence[Retrieval | None]) -> list[Grounding]:
        """Return what was found for each request; all of them ask for it."""
        asked = [rule for rule in rules if rule is not None]
        questions = [question_of(request.messages) for request in requests]
        searched = [n for n, question in enumerate(questions) if question]
        results = [Grounding("empty")] * len(requests)
        if not searched:
            return results
        embedded: Embedded | None = None
        try:
            embedded = await engine.embed([questions[n] for n in searched])
            queries = [
                Query(requests[n].tenant_id, asked[n].collection, vector, query_vector(questions[n]))
                for n, vector in zip(searched, embedded.vectors, strict=True)
            ]
            hits = await store.search(queries, max(candidates, *(rule.top_k for rule in asked)))
        except (StoreUnavailable, StoreMisfit, EmbedderError) as error:
            if any(asked[n].on_unavailable == "wait" for n in searched):
                raise Transient(f"requests wait for their passages, as their route says: {error}") from error
            log.warning("requests go on without passages", requests=len(searched), reason=str(error))
            for row, n in enumerate(searched):
                results[n] = _grounding("unavailable", embedded, row)
            return results
        for row, n in enumerate(searched):
            passages = select(hits[row], asked[n])
            results[n] = _grounding("grounded" if passages else "empty", embedded, row, passages)
        return results

    def _grounding(state: str, embedded: Embedded | None, row: int, passages: Sequence[Passage] = ()) -> Grounding:
        if embedded is None:
            return Grounding(state)
        vector = pack_vector(embedded.vectors[row])
        return Grounding(state, tuple(passages), vector, engine.embedder.name, embedded.tokens[row])

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        metrics.REFUSED.labels("retrieval", "internal_error").inc()
        reason = "retrieval could not process the request; it is among the dead letters of retrieval"
        return refusal(event.record, Status.FAILED, "internal_error", reason, clock.now())

    return Hop(
        service="retrieval",
        group="retrieval-ground",
        topics=("requests-screened",),
        handler=handle,
        max_batch=max_batch,
        failed=failed,
    )


def _rules(routes: Routes, request: ScreenedRequest) -> Retrieval | None:
    """Return how to ground ``request``; None where its route asks for nothing, or was withdrawn (inference refuses it)."""
    route = routes.route(request.context.route)
    return route.retrieval if route is not None and route.retrieval.enabled else None


def index_hop(engine: Engine, store: PassageStore, clock: Clock, limits: IndexLimits) -> Hop:
    """Return the hop documents-screened -> documents-indexed."""
    embedder = engine.embedder

    async def handle(events: Sequence[Event[ScreenedDocument]]) -> Sequence[Outcome]:
        try:
            return [await index(event.record) for event in events]
        except (StoreUnavailable, StoreMisfit, EmbedderUnavailable) as error:
            raise Transient(f"documents wait: {error}") from error

    async def index(document: ScreenedDocument) -> Outcome:
        tokens = 0
        try:
            wanted = await engine.run(_chunks, document, embedder, limits)
            plan = plan_index(wanted, await store.digests(document.tenant_id, document.document_id))
            for start in range(0, len(plan.embed), _EMBED_SLICE):
                points, used = await engine.run(_points, plan.embed[start : start + _EMBED_SLICE], embedder)
                tokens += used
                await store.write(points, (), ())
            if plan.rewrite or plan.remove:
                await store.write((), plan.rewrite, plan.remove)
        except (UnsupportedType, _TooLong) as error:
            return failure(document, str(error))
        except EmbedderUnavailable:
            raise
        except EmbedderError as error:
            return failure(document, f"the embedder refuses it: {error}", tokens)
        metrics.INDEXED_CHUNKS.labels("embedded").inc(len(plan.embed))
        metrics.INDEXED_CHUNKS.labels("removed").inc(len(plan.remove))
        return indexed(document, plan, embedder.name, clock.now(), tokens)

    def failure(document: ScreenedDocument, reason: str, tokens: int = 0) -> list[Emit]:
        log.warning("document not indexed", document_id=document.document_id, reason=reason)
        return indexing_failed(document, reason, embedder.name, clock.now(), tokens)

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        return failure(event.record, "it could not be read; it is among the dead letters of retrieval")

    return Hop(
        service="retrieval",
        group="retrieval-index",
        topics=("documents-screened",),
        handler=handle,
        max_batch=8,
        failed=failed,
    )


class _TooLong(Exception):
    """The document has more characters than are indexed."""


def _chunks(document: ScreenedDocument, embedder: Embedder, limits: IndexLimits) -> list[ChunkRecord]:
    if document.deleted:
        return []
    if len(document.content) > limits.document_characters:
        raise _TooLong(
            f"the document has {len(document.content)} characters, at most {limits.document_characters} are indexed: "
            "split it, or raise RETRIEVAL_MAX_DOCUMENT_CHARACTERS"
        )
    clean = clean_document(document.content, document.content_type)
    return chunk_records(document, clean.title, chunk_document(clean, embedder.token_spans, limits.chunks))


def _points(chunks: Sequence[ChunkRecord], embedder: Embedder) -> tuple[list[Point], int]:
    """Return the chunks with their vectors, and the tokens that were embedded."""
    texts = [chunk.embedded_text for chunk in chunks]
    embedded = embedder.embed_counted(texts)
    return [
        Point(chunk, vector, chunk_vector(text))
        for chunk, vector, text in zip(chunks, embedded.vectors, texts, strict=True)
    ], sum(embedded.tokens)

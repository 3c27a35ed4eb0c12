"""The shell of retrieval: two hops over one embedder and one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from penstock.bus import READ_AHEAD, Emit, Event, Hop, Outcome, Transient, by_priority, by_team
from penstock.clock import Clock
from penstock.config.kinds import Retrieval, Route
from penstock.contracts.records import Passage, ScreenedDocument, ScreenedRequest, Status
from penstock.embedding import Embedded, Embedder, EmbedderError, EmbedderUnavailable, pack_vector
from penstock.telemetry import get_logger, metrics

from services.retrieval.adapters import Point, Query, StoreMisfit, StoreUnavailable
from services.retrieval.answering_again import SemanticCache
from services.retrieval.chunking import ChunkLimits, chunk_document
from services.retrieval.cleaning import UnsupportedType, clean_document, language_found
from services.retrieval.core import (
    ChunkRecord,
    Grounding,
    IndexPlan,
    chunk_records,
    expired,
    grounded,
    indexed,
    indexing_failed,
    plan_index,
    question_of,
    refusal,
)
from services.retrieval.embedding_requests import is_for_vectors
from services.retrieval.filters import LARGEST_LABELS, bytes_of, can_be_met, conditions_of
from services.retrieval.reranking import Reranker, attached
from services.retrieval.serving import Index, Serving
from services.retrieval.sparse import chunk_vector, query_vector

__all__ = ["IndexLimits", "Routes", "embedded_points", "ground_hop", "index_hop"]

log = get_logger(__name__)
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


def ground_hop(
    routes: Routes,
    serving: Serving,
    clock: Clock,
    candidates: int,
    max_batch: int,
    cache: SemanticCache | None = None,
    known: Mapping[str, Reranker] = MappingProxyType({}),
) -> Hop:
    """Return the hop requests-screened -> requests-grounded, refusals; requests for vectors have another one.

    Args:
        candidates: chunks that each search gives to the ranking; raised to the route's top_k where that is more.
        max_batch: most requests embedded and searched for together.
        cache: answers to earlier questions that mean the same; None: none are kept.
        known: rerankers by the name that routes use.
    """

    async def handle(events: Sequence[Event[ScreenedRequest]]) -> Sequence[Outcome]:
        now = clock.now()
        rules = [_rules(routes, event.record) for event in events]
        wanted = [n for n, event in enumerate(events) if rules[n] is not None and not expired(event.record, now)]
        found = dict(
            zip(wanted, await ground([events[n].record for n in wanted], [rules[n] for n in wanted]), strict=True)
        )
        if cache is not None:
            live = [n for n, event in enumerate(events) if not expired(event.record, now)]
            groundings = [found.get(n, Grounding("off")) for n in live]
            found |= zip(live, await cache.answered([events[n].record for n in live], groundings), strict=True)
        outcomes: list[Outcome] = []
        for n, event in enumerate(events):
            request, done = event.record, clock.now()
            if is_for_vectors(request):
                outcomes.append(())
            elif expired(request, now):
                metrics.REFUSED.labels("retrieval", "expired").inc()
                reason = "the deadline passed before passages were looked for"
                outcomes.append(refusal(request, Status.EXPIRED, "expired", reason, done))
            else:
                grounding = found.get(n, Grounding("off"))
                metrics.GROUNDED.labels(grounding.state).inc()
                _counted(request.context.route, grounding)
                outcomes.append(grounded(request, grounding, done))
        return outcomes

    async def ground(requests: Sequence[ScreenedRequest], rules: Sequence[Retrieval | None]) -> list[Grounding]:
        """Return what was found for each request; all of them ask for it."""
        asked = [rule for rule in rules if rule is not None]
        questions = [question_of(request.messages) for request in requests]
        searched = [n for n, question in enumerate(questions) if question and can_be_met(requests[n].retrieval)]
        results = [Grounding("empty")] * len(requests)
        if not searched:
            return results
        embedded: Embedded | None = None
        index = serving.current  # to the end of the step, whatever is switched meanwhile
        model = index.engine.embedder.name
        now = clock.now()
        try:
            taken, embedded = await index.engine.embed_able([questions[n] for n in searched])
            for n in set(searched) - {searched[row] for row in taken}:
                results[n] = Grounding("unavailable")
            searched = [searched[row] for row in taken]
            if not searched:
                return results
            queries = [
                Query(
                    conditions_of(requests[n].tenant_id, asked[n], requests[n].retrieval, now),
                    vector,
                    query_vector(questions[n]),
                )
                for n, vector in zip(searched, embedded.vectors, strict=True)
            ]
            hits = await index.store.search(queries, max(candidates, *(rule.top_k for rule in asked)))
        except (StoreUnavailable, StoreMisfit, EmbedderError) as error:
            if any(asked[n].on_unavailable == "wait" for n in searched):
                raise Transient(f"requests wait for their passages, as their route says: {error}") from error
            log.warning("requests go on without passages", requests=len(searched), reason=str(error))
            for row, n in enumerate(searched):
                results[n] = _grounding("unavailable", model, embedded, row)
            return results

        def chosen() -> list[list[Passage]]:
            return [attached(questions[n], hits[row], asked[n], known) for row, n in enumerate(searched)]

        # On a thread: each question is held against many sentences.
        for row, passages in enumerate(await asyncio.to_thread(chosen)):
            state = "grounded" if passages else "empty"
            results[searched[row]] = _grounding(state, model, embedded, row, passages)
        return results

    def _grounding(
        state: str, model: str, embedded: Embedded | None, row: int, passages: Sequence[Passage] = ()
    ) -> Grounding:
        if embedded is None:
            return Grounding(state)
        vector = pack_vector(embedded.vectors[row])
        return Grounding(state, tuple(passages), vector, model, embedded.tokens[row])

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
        urgency=by_priority,
        flow=by_team,
        waiting=READ_AHEAD,
        failed=failed,
    )


def _counted(route: str, grounding: Grounding) -> None:
    if grounding.state in ("grounded", "empty"):
        metrics.RETRIEVED_PASSAGES.labels(route).observe(len(grounding.passages))
    if grounding.passages:
        metrics.RETRIEVAL_BEST_SCORE.labels(route).observe(max(passage.score for passage in grounding.passages))


def _rules(routes: Routes, request: ScreenedRequest) -> Retrieval | None:
    """Return how to ground ``request``; None where its route asks for nothing, or was withdrawn (inference refuses it), and
    where no answer is wanted."""
    route = None if is_for_vectors(request) else routes.route(request.context.route)
    return route.retrieval if route is not None and route.retrieval.enabled else None


def index_hop(serving: Serving, clock: Clock, limits: IndexLimits, cache: SemanticCache | None = None) -> Hop:
    """Return the hop documents-screened -> documents-indexed.

    Args:
        cache: what is told which documents have changed; None: nobody.
    """

    async def handle(events: Sequence[Event[ScreenedDocument]]) -> Sequence[Outcome]:
        try:
            return [await index(event.record) for event in events]
        except (StoreUnavailable, StoreMisfit, EmbedderUnavailable) as error:
            raise Transient(f"documents wait: {error}") from error

    async def index(document: ScreenedDocument) -> Outcome:
        async with serving.indexing:
            current, tokens = serving.current, 0
            embedder, plan = current.engine.embedder, IndexPlan((), (), (), 0)
            try:
                wanted = await current.engine.run(_chunks, document, embedder, limits)
                for each in serving.written:
                    steps = await planned(each, document, wanted)
                    if each is current:
                        plan = steps
                        await forget(document, plan)  # before it is written: who ends in between does it again
                    try:
                        async for used in written(each, steps):
                            if each is current:  # the one that the event names, whose price they have
                                tokens += used
                    except EmbedderError as error:
                        if each is current:
                            raise
                        # It answers no request; before it does, what it lacks is copied into it.
                        serving.is_behind = True
                        log.warning("document not in both collections", lacking=each.collection, reason=str(error))
            except (UnsupportedType, _TooLong) as error:
                return failure(document, str(error))
            except EmbedderUnavailable:
                raise
            except EmbedderError as error:
                return failure(document, f"the embedder refuses it: {error}", tokens)
        await forget(document, plan)  # and after it: what was found in between stands on what was before
        metrics.INDEXED_CHUNKS.labels("embedded").inc(len(plan.embed))
        metrics.INDEXED_CHUNKS.labels("removed").inc(len(plan.remove))
        return indexed(document, plan, embedder.name, clock.now(), tokens)

    async def forget(document: ScreenedDocument, plan: IndexPlan) -> None:
        """Forget the answers that stand on what ``plan`` changes."""
        if cache is not None and not plan.unchanged:
            await cache.forget_document(document.tenant_id, document.document_id)

    async def planned(index: Index, document: ScreenedDocument, wanted: Sequence[ChunkRecord]) -> IndexPlan:
        # On a thread: a long document has thousands of digests to compute.
        stored = await index.store.digests(document.tenant_id, document.document_id)
        return await asyncio.to_thread(plan_index, wanted, stored)

    async def written(index: Index, plan: IndexPlan) -> AsyncIterator[int]:
        """Bring ``index`` to where ``plan`` leads, and yield the tokens embedded for each slice of it.

        Raises:
            EmbedderError: it refuses a chunk. What this has written is gone then, so that the version before stays alone.
        """
        for start in range(0, len(plan.embed), _EMBED_SLICE):
            chunks = plan.embed[start : start + _EMBED_SLICE]
            try:
                points, used = await index.engine.run(embedded_points, chunks, index.engine.embedder)
            except EmbedderUnavailable:
                raise
            except EmbedderError:
                await index.store.write((), (), [chunk.id for chunk in plan.embed[:start]])
                raise
            yield used
            await index.store.write(points, (), ())
        if plan.rewrite or plan.remove:
            await index.store.write((), plan.rewrite, plan.remove)

    def failure(document: ScreenedDocument, reason: str, tokens: int = 0) -> list[Emit]:
        log.warning("document not indexed", document_id=document.document_id, reason=reason)
        return indexing_failed(document, reason, serving.current.engine.embedder.name, clock.now(), tokens)

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
    """The document has more characters, or more bytes of labels, than are indexed."""


def _chunks(document: ScreenedDocument, embedder: Embedder, limits: IndexLimits) -> list[ChunkRecord]:
    if document.deleted:
        return []
    _check_length(document.content, limits)
    labels = bytes_of([document.document_id, document.source, *document.tags, *document.tags.values()])
    if labels > LARGEST_LABELS:
        raise _TooLong(
            f"the document's id, source and tags have {labels:,} bytes, at most {LARGEST_LABELS:,} are stored with each of "
            "its chunks: send fewer or shorter tags"
        )
    clean = clean_document(document.content, document.content_type)
    _check_length(clean.text, limits)  # one character of a printed page may be 18 letters
    chunks = chunk_document(clean, embedder.token_spans, limits.chunks)
    return chunk_records(document, clean.title, chunks, None if document.language else language_found(clean))


def _check_length(text: str, limits: IndexLimits) -> None:
    if len(text) > limits.document_characters:
        raise _TooLong(
            f"the document has {len(text)} characters, at most {limits.document_characters} are indexed: "
            "split it, or raise RETRIEVAL_MAX_DOCUMENT_CHARACTERS"
        )


def embedded_points(chunks: Sequence[ChunkRecord], embedder: Embedder) -> tuple[list[Point], int]:
    """Return the chunks with their vectors, and the tokens that were embedded."""
    texts = [chunk.embedded_text for chunk in chunks]
    embedded = embedder.embed_counted(texts)
    return [
        Point(chunk, vector, chunk_vector(text))
        for chunk, vector, text in zip(chunks, embedded.vectors, texts, strict=True)
    ], sum(embedded.tokens)

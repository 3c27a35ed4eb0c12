"""Rankings of a question set: by the service's own hops over a store of its own, or by the library bm25s."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from penstock.bus import Event, Hop, Message, Outcome, Reject
from penstock.clock import SystemClock
from penstock.config.kinds import Retrieval, Route, Target
from penstock.contracts.envelope import Envelope
from penstock.contracts.records import (
    Context,
    DocumentIndexed,
    GroundedRequest,
    Record,
    RetrievalFilter,
    ScreenedDocument,
    ScreenedRequest,
)
from penstock.contracts.records import Message as Said
from penstock.contracts.records import Passage as Attached
from penstock.embedding import Embedder

from services.retrieval.adapters import collection_name
from services.retrieval.app import IndexLimits, ground_hop, index_hop
from services.retrieval.chunking import ChunkLimits
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.quality.question_sets import Passage, Question
from services.retrieval.ranking import Ranked as Candidate
from services.retrieval.reranking import Reranker, RerankerUnavailable, rerankers
from services.retrieval.serving import Engine, Serving

__all__ = ["Advance", "Index", "Indexed", "NotRanked", "Ranked", "open_index", "rank_by_bm25", "searched"]

_R = TypeVar("_R", bound=Record)
_TEAM, _ROUTE = "evaluation", "evaluation"
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_DOCUMENTS, _QUESTIONS = 32, 64
_DEPTH = 100
"""Most passages of a ranking: more no route may attach."""
_ANY_SCORE, _ANY_LENGTH = 1e-9, 1_000_000_000

Advance = Callable[[int], None]
"""Is told how many more documents or questions are done."""


class NotRanked(Exception):
    """The service did not do its work on this set; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What was found for one question.

    Attributes:
        documents: ids, best first, each at the place of its best passage.
        scores: of those passages.
    """

    documents: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Indexed:
    """What indexing did: documents, their chunks, how many of those were embedded now, and the seconds it took."""

    documents: int
    chunks: int
    embedded: int
    seconds: float


class Index:
    """A corpus in a store, searched as the service searches. Made by :func:`open_index`."""

    def __init__(self, serving: Serving, indexed: Indexed) -> None:
        self._serving = serving
        self.indexed = indexed

    async def rank(
        self, questions: Sequence[Question], rules: Retrieval, candidates: int, advance: Advance
    ) -> list[Ranked]:
        """Return everything that a search finds for each question, whatever it scores and however long it is.

        The first ``top_k`` passages are those of a request. How many candidates are read closely may depend on it; so what
        comes behind them is taken from a second search that asks for more.
        """
        whole = rules.model_copy(
            update={"score_floor": _ANY_SCORE, "token_budget": _ANY_LENGTH, "on_unavailable": "wait"}
        )
        # Not deeper than the searches are for a request: each gives at least top_k.
        depth = max(min(candidates, _DEPTH), rules.top_k)
        hops = [self._hop(whole, candidates)]
        if depth > rules.top_k:
            hops.append(self._hop(whole.model_copy(update={"top_k": depth}), candidates))
        found: list[Ranked] = []
        for start in range(0, len(questions), _QUESTIONS):
            some = questions[start : start + _QUESTIONS]
            answers = [await _asked(hop, some) for hop in hops]
            found += [_ranked([passage for each in one for passage in each]) for one in zip(*answers, strict=True)]
            advance(len(some))
        return found

    async def attach(
        self, questions: Sequence[Question], rules: Retrieval, candidates: int, advance: Advance
    ) -> tuple[list[Ranked], list[float]]:
        """Return what the route would attach to each question, and the milliseconds that each took, one at a time."""
        hop = self._hop(rules.model_copy(update={"on_unavailable": "wait"}), candidates)
        found: list[Ranked] = []
        took: list[float] = []
        for question in questions:
            started = time.perf_counter()
            (passages,) = await _asked(hop, [question])
            took.append((time.perf_counter() - started) * 1000)
            found.append(_ranked(passages))
            advance(1)
        return found, took

    def _hop(self, rules: Retrieval, candidates: int) -> Hop:
        return _ground_hop(self._serving, rules, candidates, _QUESTIONS)


@asynccontextmanager
async def open_index(
    folder: Path, corpus: Sequence[Passage], embedder: Embedder, chunks: ChunkLimits, advance: Advance
) -> AsyncIterator[Index]:
    """Index ``corpus`` into a store in ``folder`` as the service does; what stands there is not embedded again, and what is
    not of this corpus goes.

    Raises:
        NotRanked: a document was not indexed.
        StoreMisfit: the folder cannot be used.
        Transient: the embedder is away.
    """
    engine = Engine(embedder)
    try:
        await engine.embed(["warm"])
        store = await EmbeddedStore.open(folder, collection_name(embedder), embedder.dimension)
        try:
            serving = Serving.of(engine, store)
            await _without_others(serving, corpus, await store.documents(_TEAM))
            yield Index(serving, await _indexed(serving, corpus, chunks, advance))
        finally:
            await store.close()
    finally:
        await engine.close()


async def _without_others(serving: Serving, corpus: Sequence[Passage], stored: Sequence[str]) -> None:
    """Remove the documents of an earlier run that are not of ``corpus``: they would be found, too."""
    hop, wanted = index_hop(serving, SystemClock(), IndexLimits()), {passage.id for passage in corpus}
    gone = [name for name in stored if name not in wanted]
    for start in range(0, len(gone), _DOCUMENTS):
        removals = [
            ScreenedDocument(**_envelope(name), document_id=name, deleted=True)
            for name in gone[start : start + _DOCUMENTS]
        ]
        await hop.handler([_event("documents-screened", removal) for removal in removals])


async def _indexed(serving: Serving, corpus: Sequence[Passage], chunks: ChunkLimits, advance: Advance) -> Indexed:
    hop = index_hop(serving, SystemClock(), IndexLimits(chunks))
    started = time.perf_counter()
    total = embedded = 0
    for start in range(0, len(corpus), _DOCUMENTS):
        some = corpus[start : start + _DOCUMENTS]
        events = [_event("documents-screened", _document(passage)) for passage in some]
        for outcome in await hop.handler(events):
            record = _record(outcome, DocumentIndexed)
            if record.status == "failed":
                raise NotRanked(f"the document {record.document_id!r} was not indexed: {record.reason}")
            total += record.chunks
            embedded += record.chunks_embedded
        advance(len(some))
    return Indexed(len(corpus), total, embedded, time.perf_counter() - started)


def _ground_hop(serving: Serving, rules: Retrieval, candidates: int, batch: int) -> Hop:
    """Return the service's hop on one route, with the reranker that it names."""
    known: dict[str, Reranker] = {}
    if rules.reranker is not None:
        loaded = rerankers()
        if rules.reranker not in loaded:
            raise NotRanked(f"there is no reranker {rules.reranker!r}; there are {', '.join(sorted(loaded))}")
        known[rules.reranker] = _Needed(loaded[rules.reranker])
    return ground_hop(_OneRoute(rules), serving, SystemClock(), candidates, batch, known=known)


class _Needed:
    """A reranker without which nothing is measured: the service goes on with the order that it has."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker

    def scores(self, question: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        try:
            return self._reranker.scores(question, candidates)
        except RerankerUnavailable as error:
            raise NotRanked(f"the reranker is away: {error}") from error


class _OneRoute:
    """A configuration with one route, of which only retrieval is asked."""

    def __init__(self, rules: Retrieval) -> None:
        self._route = Route(name=_ROUTE, targets=(Target(backend="extractive", model="none"),), retrieval=rules)

    def route(self, name: str) -> Route | None:
        return self._route if name == _ROUTE else None


async def searched(
    serving: Serving, team: str, question: str, rules: Retrieval, wanted: RetrievalFilter | None, candidates: int
) -> GroundedRequest:
    """Return what a request of ``team`` would be given on a route that says ``rules``.

    Raises:
        Transient: the store or the embedder is away.
    """
    hop = _ground_hop(serving, rules.model_copy(update={"on_unavailable": "wait"}), candidates, 1)
    request = _request(Question("search", question, {}), team, wanted)
    (outcome,) = await hop.handler([_event("requests-screened", request)])
    return _record(outcome, GroundedRequest)


async def _asked(hop: Hop, questions: Sequence[Question]) -> list[Sequence[Attached]]:
    events = [_event("requests-screened", _request(question)) for question in questions]
    return [_record(outcome, GroundedRequest).passages for outcome in await hop.handler(events)]


def _document(passage: Passage) -> ScreenedDocument:
    return ScreenedDocument(
        **_envelope(passage.id), document_id=passage.id, title=passage.title, content=passage.text,
        content_type=passage.content_type, language=passage.language,
    )  # fmt: skip


def _request(question: Question, team: str = _TEAM, wanted: RetrievalFilter | None = None) -> ScreenedRequest:
    context = Context(route=_ROUTE, requested_at=_EPOCH, purpose="evaluation")
    said = [Said(role="user", content=question.text)]
    return ScreenedRequest(**_envelope(question.id, team), context=context, messages=said, retrieval=wanted)


def _envelope(identity: str, team: str = _TEAM) -> Envelope:
    return {
        "event_id": identity, "request_id": identity, "tenant_id": team, "occurred_at": _EPOCH, "causation_id": "",
    }  # fmt: skip


def _event(topic: str, record: _R) -> Event[_R]:
    return Event(Message(topic, 0, 0, 0, None, None), record)


def _record(outcome: Outcome, kind: type[_R]) -> _R:
    """Return the one event of that kind that a step made."""
    if isinstance(outcome, Reject):
        raise NotRanked(f"the service rejects an event ({outcome.code}): {outcome.reason}")
    found = [emit.record for emit in outcome if isinstance(emit.record, kind)]
    if len(found) != 1:
        raise NotRanked(f"the service made no {kind.__name__}, but {[type(emit.record).__name__ for emit in outcome]}")
    return found[0]


def _ranked(passages: Sequence[Attached]) -> Ranked:
    """Return the documents of passages in their order, each once."""
    best = {passage.document_id: passage.score for passage in reversed(passages)}
    order = tuple(dict.fromkeys(passage.document_id for passage in passages))
    return Ranked(order, tuple(best[document] for document in order))


def rank_by_bm25(corpus: Sequence[Passage], questions: Sequence[Question]) -> tuple[list[Ranked], list[float]]:
    """Return what bm25s (Lù 2024) finds for each question, and the milliseconds that each took.

    Whole documents with their titles, Snowball's English stems, the library's English stop words and defaults (Lucene's
    variant, k1 1.5, b 0.75).

    Raises:
        NotRanked: the library, or that of the stems, is not installed.
    """
    try:
        import bm25s  # type: ignore[import-untyped]
        import Stemmer  # type: ignore[import-not-found]
    except ImportError as error:
        raise NotRanked(f"the method bm25 needs the package {error.name}: `pip install bm25s PyStemmer`") from error
    stemmer = Stemmer.Stemmer("english")
    library = bm25s.BM25()
    texts = [f"{passage.title}\n{passage.text}" for passage in corpus]
    library.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)
    found: list[Ranked] = []
    took: list[float] = []
    for question in questions:
        started = time.perf_counter()
        words = bm25s.tokenize([question.text], stopwords="en", stemmer=stemmer, show_progress=False)
        places, scores = library.retrieve(words, k=min(_DEPTH, len(corpus)), show_progress=False)
        took.append((time.perf_counter() - started) * 1000)
        # Documents without any of the words fill the list up.
        hits = [
            (corpus[int(place)].id, float(score))
            for place, score in zip(places[0], scores[0], strict=True)
            if score > 0
        ]
        found.append(Ranked(tuple(document for document, _ in hits), tuple(score for _, score in hits)))
    return found, took

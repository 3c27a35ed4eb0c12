"""Quality and speed of retrieval on ../shared/data/retrieval: python tests/bench/bench_retrieval.py [--distractors N]

Prints recall@1, recall@5 and mean reciprocal rank of the passage that holds the answer: for the embeddings alone, for the
words alone, for reciprocal rank fusion of both, for the service's ranking, for that with each reranker, and for the BM25 of
the library bm25s over the same chunks. Then what each step costs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import bm25s  # type: ignore[import-untyped]
import numpy as np
import Stemmer  # type: ignore[import-not-found]
from numpy.typing import NDArray
from penstock.config.kinds import Retrieval
from penstock.contracts.records import ScreenedDocument
from penstock.embedding import Embedder, EmbeddingSettings, embedder_from_settings
from penstock.embedding.protocol import Vectors

from services.retrieval.adapters import Query
from services.retrieval.chunking import ChunkLimits, chunk_document
from services.retrieval.cleaning import clean_document
from services.retrieval.core import ChunkRecord, Hit, chunk_records
from services.retrieval.exact_index import ExactIndex
from services.retrieval.filters import Conditions
from services.retrieval.ranking import ranked
from services.retrieval.reranking import Reranker, reranked, rerankers
from services.retrieval.sparse import chunk_vector, query_vector
from tests.bench.retrieval_distractors import distractors, lines

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CANDIDATES = 32
RULES = Retrieval()


def document(identity: str, title: str, text: str) -> ScreenedDocument:
    return ScreenedDocument(
        event_id=identity, request_id=identity, tenant_id="bench", occurred_at=EPOCH, causation_id="",
        document_id=identity, title=title.replace("_", " "), content=text,
    )  # fmt: skip


def by(hits: Sequence[Hit], key: Callable[[Hit], float]) -> list[str]:
    """Return document ids, best first, each once."""
    return list(dict.fromkeys(hit.chunk.document_id for hit in sorted(hits, key=key, reverse=True)))


def reciprocal_rank_fusion(hits: Sequence[Hit]) -> list[str]:
    """Cormack et al. 2009, k = 60."""
    score: dict[str, float] = {}
    for key in (lambda hit: hit.cosine, lambda hit: hit.lexical):
        for rank, identity in enumerate(by(hits, key), start=1):
            score[identity] = score.get(identity, 0.0) + 1 / (60 + rank)
    return sorted(score, key=score.__getitem__, reverse=True)


def by_service(question: str, hits: Sequence[Hit], reranker: Reranker | None = None) -> list[str]:
    found = ranked(question, hits, RULES)
    if reranker is not None:
        found = reranked(reranker, question, found)
    return list(dict.fromkeys(each.hit.chunk.document_id for each in found))


RANKINGS: dict[str, Callable[[str, Sequence[Hit]], list[str]]] = {
    "embeddings": lambda _, hits: by(hits, lambda hit: hit.cosine),
    "words": lambda _, hits: by(hits, lambda hit: hit.lexical),
    "rank fusion": lambda _, hits: reciprocal_rank_fusion(hits),
    "service": by_service,
    **{f"+ {name}": partial(by_service, reranker=reranker) for name, reranker in rerankers().items()},
}


@dataclass(frozen=True)
class Measured:
    """Ranks by ranking, best scores of the questions and of unrelated requests, and the CPU seconds of each part."""

    chunks: int
    ranks: dict[str, NDArray[np.float64]]
    best: NDArray[np.float64]
    unrelated: NDArray[np.float64]
    indexing_s: float
    embedding_s: float
    searching_s: float
    ranking_s: float


def chunks_of(documents: Sequence[ScreenedDocument], embedder: Embedder) -> list[ChunkRecord]:
    """Return the chunks that the service makes of ``documents``."""
    chunks: list[ChunkRecord] = []
    for item in documents:
        clean = clean_document(item.content, item.content_type)
        chunks += chunk_records(item, clean.title, chunk_document(clean, embedder.token_spans, ChunkLimits()))
    return chunks


def measure(data: Path, distracting: int = 0) -> Measured:
    """Index the passages as the service does, ``distracting`` others beside them, and ask every question."""
    questions = lines(data / "retrieval" / "questions.jsonl")
    documents = [document(p["id"], p["title"], p["text"]) for p in lines(data / "retrieval" / "corpus.jsonl")]
    others = distractors(data, distracting)
    documents += [document(f"other-{n}", title, text) for n, (title, text) in enumerate(others)]
    embedder = embedder_from_settings(EmbeddingSettings())
    embedder.embed(["warm"])
    started = time.process_time()
    chunks = chunks_of(documents, embedder)
    texts = [chunk.embedded_text for chunk in chunks]
    index = ExactIndex(embedder.dimension)
    for chunk, vector, text in zip(chunks, embedder.embed(texts), texts, strict=True):
        index.put(chunk, vector, chunk_vector(text))
    indexed = time.process_time()
    asked = [question["question"] for question in questions]
    queries = _queries(asked, embedder.embed(asked))
    embedded = time.process_time()
    found = _search(index, queries)
    searched = time.process_time()
    best = _best(asked, found)
    ranked_at = time.process_time()
    unrelated = [row["text"] for row in lines(data / "topics" / "train.jsonl")[::40]]
    stray = _search(index, _queries(unrelated, embedder.embed(unrelated)))
    relevant = [question["relevant"] for question in questions]
    orders = {
        name: [ranking(text, hits) for text, hits in zip(asked, found, strict=True)]
        for name, ranking in RANKINGS.items()
    }
    orders["bm25s"] = _bm25s([chunk.document_id for chunk in chunks], texts, asked)
    ranks = {
        name: np.array([_rank(order, names) for order, names in zip(lists, relevant, strict=True)])
        for name, lists in orders.items()
    }
    return Measured(
        len(chunks), ranks, best, _best(unrelated, stray), indexed - started, embedded - indexed, searched - embedded,
        ranked_at - searched,
    )  # fmt: skip


def _queries(texts: Sequence[str], vectors: Vectors) -> list[Query]:
    conditions = Conditions("bench", "default", as_of=EPOCH)
    return [Query(conditions, v, query_vector(t)) for t, v in zip(texts, vectors, strict=True)]


def _search(index: ExactIndex, queries: Sequence[Query]) -> list[list[Hit]]:
    return [index.search(query.conditions, query.dense, query.sparse, CANDIDATES) for query in queries]


def _bm25s(identities: Sequence[str], texts: Sequence[str], questions: Sequence[str]) -> list[list[str]]:
    """Return the documents that bm25s finds, as its documentation sets it up for English."""
    stemmer = Stemmer.Stemmer("english")
    retriever = bm25s.BM25()
    retriever.index(
        bm25s.tokenize(list(texts), stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
    )
    tokens = bm25s.tokenize(list(questions), stopwords="en", stemmer=stemmer, show_progress=False)
    found, _ = retriever.retrieve(tokens, k=CANDIDATES, show_progress=False)
    return [list(dict.fromkeys(identities[place] for place in row)) for row in found]


def _rank(order: list[str], relevant: Sequence[str]) -> float:
    """Return the place of the first relevant document, from 1; infinity where there is none."""
    return min((order.index(name) + 1.0 for name in relevant if name in order), default=np.inf)


def _best(questions: Sequence[str], found: Sequence[Sequence[Hit]]) -> NDArray[np.float64]:
    scores = [ranked(question, hits, RULES)[:1] for question, hits in zip(questions, found, strict=True)]
    return np.array([best[0].score if best else 0.0 for best in scores])


def main(distracting: int) -> None:
    """Print the figures."""
    if not (DATA / "retrieval").is_dir():
        print(f"retrieval quality is not measured: {DATA}, the development data, is not there")
        return
    found = measure(DATA, distracting)
    count = len(found.best)
    print(f"{count} questions, {found.chunks} chunks")
    for name, r in found.ranks.items():
        print(f"{name:18} R@1 {np.mean(r == 1):.4f}  R@5 {np.mean(r <= 5):.4f}  MRR {np.mean(1 / r):.4f}")
    for name, scores in (("a question", found.best), ("an unrelated request", found.unrelated)):
        low, median, high = np.percentile(scores, [5, 50, 95])
        above = np.mean(scores >= RULES.score_floor)
        print(f"best score of {name}: p5 {low:.3f}, median {median:.3f}, p95 {high:.3f}; {above:.1%} reach the floor")
    print(
        f"CPU time: {found.indexing_s / found.chunks * 1e3:.1f} ms to index a chunk; of a question "
        f"{found.embedding_s / count * 1e3:.2f} ms to embed it, {found.searching_s / count * 1e3:.2f} ms to search, "
        f"{found.ranking_s / count * 1e3:.2f} ms to rank"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distractors", type=int, default=0, help="other passages indexed beside them")
    main(parser.parse_args().distractors)

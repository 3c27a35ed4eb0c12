"""Quality and speed of retrieval on ../shared/data/retrieval: python tests/bench/bench_retrieval.py [--distractors N]

Prints recall@1, recall@5 and mean reciprocal rank of the passage that holds the answer, for the embeddings alone, BM25
alone, reciprocal rank fusion and the service's own score; then chunks indexed and questions answered a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock.config.kinds import Retrieval
from penstock.contracts.records import ScreenedDocument
from penstock.embedding import EmbeddingSettings, embedder_from_settings
from penstock.embedding.protocol import Vectors

from services.retrieval.adapters import Point, Query
from services.retrieval.chunking import ChunkLimits, chunk_document
from services.retrieval.cleaning import clean_document
from services.retrieval.core import Hit, chunk_records, relevance
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.sparse import chunk_vector, query_vector

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def document(identity: str, title: str, text: str) -> ScreenedDocument:
    return ScreenedDocument(
        event_id=identity, request_id=identity, tenant_id="bench", occurred_at=EPOCH, causation_id="",
        document_id=identity, title=title.replace("_", " "), content=text,
    )  # fmt: skip


def ranked(hits: Sequence[Hit], key: Callable[[Hit], float]) -> list[str]:
    """Return document ids, best first, each once."""
    return list(dict.fromkeys(hit.chunk.document_id for hit in sorted(hits, key=key, reverse=True)))


def reciprocal_rank_fusion(hits: Sequence[Hit]) -> list[str]:
    """Cormack et al. 2009, k = 60."""
    score: dict[str, float] = {}
    for key in (lambda hit: hit.cosine, lambda hit: hit.lexical):
        for rank, identity in enumerate(ranked(hits, key), start=1):
            score[identity] = score.get(identity, 0.0) + 1 / (60 + rank)
    return sorted(score, key=score.__getitem__, reverse=True)


RANKINGS: dict[str, Callable[[Sequence[Hit]], list[str]]] = {
    "embeddings": lambda hits: ranked(hits, lambda hit: hit.cosine),
    "BM25": lambda hits: ranked(hits, lambda hit: hit.lexical),
    "rank fusion": reciprocal_rank_fusion,
    "service": lambda hits: ranked(hits, relevance),
}


@dataclass(frozen=True)
class Measured:
    """Ranks by ranking, best scores of the questions and of unrelated requests, and the seconds each part took."""

    chunks: int
    ranks: dict[str, NDArray[np.float64]]
    best: NDArray[np.float64]
    unrelated: NDArray[np.float64]
    indexing_s: float
    embedding_s: float
    searching_s: float


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def measure(data: Path, folder: Path, distractors: int = 0) -> Measured:
    """Index the passages into a store in ``folder`` as the service does, and ask every question."""
    questions = lines(data / "retrieval" / "questions.jsonl")
    documents = [document(p["id"], p["title"], p["text"]) for p in lines(data / "retrieval" / "corpus.jsonl")]
    others = lines(data / "toxicity" / "train.jsonl")[:distractors] if distractors else []
    documents += [document(f"other-{n}", "", row["text"]) for n, row in enumerate(others)]
    embedder = embedder_from_settings(EmbeddingSettings())
    embedder.embed(["warm"])
    started = time.perf_counter()
    records = []
    for item in documents:
        clean = clean_document(item.content, item.content_type)
        records += chunk_records(item, clean.title, chunk_document(clean, embedder.token_spans, ChunkLimits()))
    texts = [record.embedded_text for record in records]
    vectors = embedder.embed(texts)
    store = await EmbeddedStore.open(folder, "bench", embedder.dimension)
    points = [Point(r, v, chunk_vector(t)) for r, v, t in zip(records, vectors, texts, strict=True)]
    await store.write(points, (), ())
    indexed = time.perf_counter()
    asked = [question["question"] for question in questions]
    embedded_questions = embedder.embed(asked)
    embedded = time.perf_counter()
    found = await store.search(_queries(asked, embedded_questions), 32)
    searched = time.perf_counter()
    unrelated = [row["text"] for row in lines(data / "topics" / "train.jsonl")[::40]]
    stray = await store.search(_queries(unrelated, embedder.embed(unrelated)), 32)
    await store.close()
    ranks = {
        name: np.array([_rank(ranking(hits), q["relevant"]) for q, hits in zip(questions, found, strict=True)])
        for name, ranking in RANKINGS.items()
    }
    return Measured(
        len(records), ranks, _best(found), _best(stray), indexed - started, embedded - indexed, searched - embedded
    )


def _queries(texts: Sequence[str], vectors: Vectors) -> list[Query]:
    return [Query("bench", "default", v, query_vector(t)) for t, v in zip(texts, vectors, strict=True)]


def _rank(order: list[str], relevant: Sequence[str]) -> float:
    """Return the place of the first relevant document, from 1; infinity where there is none."""
    return min((order.index(name) + 1.0 for name in relevant if name in order), default=np.inf)


def _best(found: Sequence[Sequence[Hit]]) -> NDArray[np.float64]:
    return np.array([max((relevance(hit) for hit in hits), default=0.0) for hits in found])


def main(distractors: int) -> None:
    """Print the figures."""
    if not (DATA / "retrieval").is_dir():
        print(f"retrieval quality is not measured: {DATA}, the development data, is not there")
        return
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(DATA, Path(folder), distractors))
    count = len(found.best)
    print(f"{count} questions, {found.chunks} chunks")
    for name, r in found.ranks.items():
        print(f"{name:12} R@1 {np.mean(r == 1):.4f}  R@5 {np.mean(r <= 5):.4f}  MRR {np.mean(1 / r):.4f}")
    for name, scores in (("a question", found.best), ("an unrelated request", found.unrelated)):
        low, median, high = np.percentile(scores, [5, 50, 95])
        above = np.mean(scores >= Retrieval().score_floor)
        print(f"best score of {name}: p5 {low:.3f}, median {median:.3f}, p95 {high:.3f}; {above:.1%} reach the floor")
    print(
        f"indexed {found.chunks / found.indexing_s:.0f} chunks/s, embedded {count / found.embedding_s:.0f} questions/s, "
        f"searched {found.searching_s / count * 1e3:.2f} ms a question"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distractors", type=int, default=0, help="short messages indexed beside the passages")
    main(parser.parse_args().distractors)

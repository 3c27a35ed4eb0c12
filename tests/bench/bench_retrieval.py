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
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from penstock.config.kinds import Retrieval
from penstock.contracts.records import ScreenedDocument
from penstock.embedding import EmbeddingSettings, embedder_from_settings

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


async def main(distractors: int) -> None:
    folder = DATA / "retrieval"
    if not folder.is_dir():
        print(f"retrieval quality is not measured: {folder}, the development data, is not there")
        return
    passages = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    questions = [json.loads(line) for line in (folder / "questions.jsonl").open(encoding="utf-8")]
    documents = [document(p["id"], p["title"], p["text"]) for p in passages]
    if distractors:
        lines = (DATA / "toxicity" / "train.jsonl").open(encoding="utf-8")
        documents += [document(f"d{n}", "", json.loads(line)["text"]) for n, line in zip(range(distractors), lines)]  # noqa: B905
    embedder = embedder_from_settings(EmbeddingSettings())
    embedder.embed(["warm"])
    started = time.perf_counter()
    records = []
    for item in documents:
        clean = clean_document(item.content, item.content_type)
        records += chunk_records(item, clean.title, chunk_document(clean, embedder.token_spans, ChunkLimits()))
    texts = [record.embedded_text for record in records]
    vectors = embedder.embed(texts)
    with tempfile.TemporaryDirectory() as path:
        store = await EmbeddedStore.open(Path(path), "bench", embedder.dimension)
        points = [Point(r, v, chunk_vector(t)) for r, v, t in zip(records, vectors, texts, strict=True)]
        await store.write(points, (), ())
        indexing = time.perf_counter() - started
        started = time.perf_counter()
        dense = embedder.embed([q["question"] for q in questions])
        embedding = time.perf_counter() - started
        queries = [
            Query("bench", "default", v, query_vector(q["question"])) for q, v in zip(questions, dense, strict=True)
        ]
        started = time.perf_counter()
        found = await store.search(queries, 32)
        searching = time.perf_counter() - started
        lines = (DATA / "topics" / "train.jsonl").read_text(encoding="utf-8").splitlines()[::40]
        unrelated = [json.loads(line)["text"] for line in lines]
        others = [
            Query("bench", "default", v, query_vector(t))
            for t, v in zip(unrelated, embedder.embed(unrelated), strict=True)
        ]
        stray = np.array(
            [max((relevance(hit) for hit in hits), default=0.0) for hits in await store.search(others, 32)]
        )
        await store.close()
    rankings: dict[str, Callable[[Sequence[Hit]], list[str]]] = {
        "embeddings": lambda hits: ranked(hits, lambda hit: hit.cosine),
        "BM25": lambda hits: ranked(hits, lambda hit: hit.lexical),
        "rank fusion": reciprocal_rank_fusion,
        "service": lambda hits: ranked(hits, relevance),
    }
    print(f"{len(questions)} questions, {len(documents)} documents, {len(records)} chunks")
    for name, ranking in rankings.items():
        ranks = []
        for question, hits in zip(questions, found, strict=True):
            order = ranking(hits)
            places = [order.index(wanted) + 1 for wanted in question["relevant"] if wanted in order]
            ranks.append(min(places, default=10**9))
        r = np.array(ranks)
        print(f"{name:12} R@1 {np.mean(r == 1):.4f}  R@5 {np.mean(r <= 5):.4f}  MRR {np.mean(1 / r):.4f}")
    best = np.array([max((relevance(hit) for hit in hits), default=0.0) for hits in found])
    print(
        f"best score of a question: p1 {np.percentile(best, 1):.3f}  p5 {np.percentile(best, 5):.3f}  "
        f"median {np.median(best):.3f}"
    )
    print(f"best score of an unrelated request: median {np.median(stray):.3f}  p95 {np.percentile(stray, 95):.3f}  "
          f"at or above the default floor {np.mean(stray >= Retrieval().score_floor):.3f}")  # fmt: skip
    print(f"indexed {len(records) / indexing:.0f} chunks/s, embedded {len(questions) / embedding:.0f} questions/s, "
          f"searched {searching / len(questions) * 1e3:.2f} ms a question")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distractors", type=int, default=0, help="short messages indexed beside the passages")
    asyncio.run(main(parser.parse_args().distractors))

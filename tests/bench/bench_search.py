"""What search and ingestion cost: `python -m tests.bench.bench_search [--sizes 1000,10000,100000]`.

Search: p50 and p99 of one question among chunks of one team, with conditions on a tag, the language and the day, for the
index of the embedded store; with QDRANT_URL also for that server. Vectors are random, words follow Zipf's law over 20,000
terms, 40 in a chunk, 8 in a question: neither cost depends on what they mean. The index runs in this thread, and its time is
the thread's CPU time, so that what else runs on the machine does not count; a server's is what a caller waits.

Ingestion: chunks of 150 words a second, embedded by the packaged model on one thread and written to an embedded store in a
temporary folder, with the parts of both, in CPU time and as waited for (each chunk is on the disk before it counts).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from pydoc_data import topics

import numpy as np
import psutil
from penstock.embedding import EmbeddingSettings, embedder_from_settings
from penstock.embedding.protocol import Vectors
from qdrant_client import AsyncQdrantClient

from services.retrieval.adapters import Point, Query
from services.retrieval.app import embedded_points
from services.retrieval.core import ChunkRecord
from services.retrieval.exact_index import ExactIndex
from services.retrieval.filters import Conditions
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.qdrant_options import CollectionOptions
from services.retrieval.qdrant_server import QdrantStore
from services.retrieval.sparse import SparseVector

DIMENSION = 384
TERMS, TERMS_A_CHUNK, TERMS_A_QUESTION = 20_000, 40, 8
CANDIDATES = 32
QUESTIONS = 300
CONDITIONS = Conditions(
    "bench", "default", frozenset({("product", "weir")}), frozenset({"en"}), datetime(2026, 1, 5, tzinfo=UTC)
)


class Corpus:
    """Chunks and questions, the same in every run."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(11)
        shares = 1 / np.arange(1, TERMS + 1)
        self._cumulated = np.cumsum(shares / shares.sum())

    def points(self, count: int) -> Iterator[Point]:
        """Yield ``count`` chunks, of which nine tenths fulfil the conditions."""
        for n in range(count):
            chunk = ChunkRecord(
                id=str(uuid.UUID(int=n + 1)), team="bench", collection="default", document_id=f"d{n // 8}", ordinal=n % 8,
                start=0, end=1, tokens=200, title="", source="", heading=(), text="", language="en",
                tags={"product": "weir" if n % 10 else "lock"},
            )  # fmt: skip
            yield Point(chunk, self._direction(), self._words(TERMS_A_CHUNK))

    def queries(self, count: int) -> list[Query]:
        return [Query(CONDITIONS, self._direction(), self._words(TERMS_A_QUESTION, 1.0)) for _ in range(count)]

    def _direction(self) -> Vectors:
        vector = self._rng.normal(size=DIMENSION).astype(np.float32)
        unit: Vectors = vector / np.linalg.norm(vector)
        return unit

    def _words(self, count: int, weight: float | None = None) -> SparseVector:
        found = np.unique(np.searchsorted(self._cumulated, self._rng.random(count))).tolist()
        values = self._rng.uniform(0.4, 1.8, len(found)).tolist() if weight is None else [weight] * len(found)
        return SparseVector(tuple(found), tuple(values))


def told(name: str, seconds: Sequence[float], more: str = "") -> None:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    print(f"{name:34} p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  {more}", flush=True)


def search_in_memory(size: int) -> None:
    corpus, index = Corpus(), ExactIndex(DIMENSION)
    process = psutil.Process()
    before = process.memory_info().rss
    for point in corpus.points(size):
        index.put(point.chunk, point.dense, point.sparse)
    taken = []
    queries = corpus.queries(QUESTIONS + 20)
    for n, query in enumerate(queries):
        began = time.thread_time()
        index.search(query.conditions, query.dense, query.sparse, CANDIDATES)
        if n >= 20:  # the first ones bring lists of terms into the form that is searched
            taken.append(time.thread_time() - began)
    told(f"embedded, {size} chunks", taken, f"{(process.memory_info().rss - before) / 2**20:.0f} MB")


async def search_on_server(url: str, size: int, options: CollectionOptions) -> None:
    corpus = Corpus()
    client = AsyncQdrantClient(url=url, prefer_grpc=True, timeout=60)
    name = f"bench-{uuid.uuid4().hex[:8]}"
    store = QdrantStore(client, name, DIMENSION, options)
    await store.prepare()
    try:
        page: list[Point] = []
        began = time.perf_counter()
        for point in corpus.points(size):
            page.append(point)
            if len(page) == 256:
                await store.write(page, (), ())
                page = []
        await store.write(page, (), ())
        rate = size / (time.perf_counter() - began)
        while (await client.get_collection(name)).status != "green":  # its own index is being built
            await asyncio.sleep(0.5)
        taken = []
        for query in corpus.queries(QUESTIONS):
            began = time.perf_counter()
            await store.search([query], CANDIDATES)
            taken.append(time.perf_counter() - began)
        told(f"server, {options.quantization}, {size} chunks", taken, f"written at {rate:.0f} chunks/s")
    finally:
        await client.delete_collection(name)
        await client.close()


async def ingestion(count: int) -> None:
    words = " ".join(" ".join(topics.topics[name].split()) for name in sorted(topics.topics)).split()
    texts = [" ".join(words[n * 150 : n * 150 + 150]) for n in range(count)]
    chunks = [
        ChunkRecord(
            id=str(uuid.UUID(int=n + 1)), team="bench", collection="default", document_id="topics", ordinal=n, start=0,
            end=len(text), tokens=200, title="Topics", source="", heading=(), text=text, language="en",
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip
    embedder = embedder_from_settings(EmbeddingSettings())
    embedder.embed(["warm"])
    with tempfile.TemporaryDirectory() as path:
        folder = await EmbeddedFolder.open(Path(path))
        store = await folder.store("bench", embedder.dimension)
        wall, cpu = [0.0, 0.0], [0.0, 0.0]
        for start in range(0, count, 32):
            marks = [(time.perf_counter(), time.process_time())]
            points, _ = embedded_points(chunks[start : start + 32], embedder)
            marks.append((time.perf_counter(), time.process_time()))
            await store.write(points, (), ())
            marks.append((time.perf_counter(), time.process_time()))
            for part in (0, 1):
                wall[part] += marks[part + 1][0] - marks[part][0]
                cpu[part] += marks[part + 1][1] - marks[part][1]
        await folder.close()
    for name, waited, used in (
        ("embedded", wall[0], cpu[0]),
        ("written", wall[1], cpu[1]),
        ("both", sum(wall), sum(cpu)),
    ):
        print(f"ingestion, {name:10} {count / waited:7.0f} chunks/s waited for  {count / used:7.0f} chunks/s of CPU")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1000,10000,100000", help="chunks, separated by commas")
    parser.add_argument("--chunks", type=int, default=256, help="chunks of the measured ingestion")
    arguments = parser.parse_args()
    sizes = [int(each) for each in arguments.sizes.split(",")]
    for size in sizes:
        search_in_memory(size)
    if url := os.environ.get("QDRANT_URL"):
        for size in sizes:
            for options in (CollectionOptions(), CollectionOptions("int8")):
                asyncio.run(search_on_server(url, size, options))
    asyncio.run(ingestion(arguments.chunks))


if __name__ == "__main__":
    main()

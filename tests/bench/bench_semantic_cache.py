"""python -m tests.bench.bench_semantic_cache: how often the semantic cache hits, how often wrongly, what a look-up costs.

Over the made-up pairs of tests/bench/question_pairs.py, with the packaged embedder: of the questions that ask for the same
the share that hits, of those that ask for something else the share that hits wrongly, by threshold; by the embeddings
alone, and with the guard that the cache has (services/retrieval/question_form.py). Where ../shared/data has question sets,
every pair of two different questions of one set is looked at, too: how many are as near as the threshold, and how many of
these the guard lets through (they are printed).
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.embedding.protocol import Vectors

from services.retrieval.answer_store import Lookup
from services.retrieval.embedded_answers import EmbeddedAnswers
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.question_form import difference
from services.retrieval.semantic_cache import Asked, Given, released_digest, same_question
from tests.bench.question_pairs import PAIRS

THRESHOLDS = (0.8, 0.85, 0.9, 0.95, 0.98)
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def main() -> None:
    embedder = MiniLmEmbedder()
    same = [(each.question, other) for each in PAIRS for other in each.same]
    other = [(each.question, close) for each in PAIRS for close in each.other]
    print(f"{len(PAIRS)} questions: {len(same)} pairs that ask for the same, {len(other)} that do not")
    print("threshold   same: cosine alone   with guard    other: cosine alone   with guard")
    for threshold in THRESHOLDS:
        rates = [rate for pairs in (same, other) for rate in hit_rates(embedder, pairs, threshold)]
        print(f"{threshold:9.2f}{rates[0]:22.3f}{rates[1]:13.3f}{rates[2]:23.3f}{rates[3]:13.3f}")
    for question, close in other:
        if difference(question, close) is None:
            print(f"  wrongly one: {question!r} and {close!r}")
    question_sets(embedder)
    asyncio.run(look_ups(embedder))


def hit_rates(embedder: MiniLmEmbedder, pairs: list[tuple[str, str]], threshold: float) -> tuple[float, float]:
    """Return the share of ``pairs`` as near as ``threshold``, and that of those that the guard takes for one, too."""
    near = [cosine >= threshold for cosine in cosines(embedder, pairs)]
    one = [difference(*pair) is None for pair in pairs]
    return float(np.mean(near)), float(np.mean(np.logical_and(near, one)))


def cosines(embedder: MiniLmEmbedder, pairs: list[tuple[str, str]]) -> Vectors:
    vectors = embedder.embed([question for pair in pairs for question in pair])
    product: Vectors = (vectors[::2] * vectors[1::2]).sum(axis=1)
    return product


def question_sets(embedder: MiniLmEmbedder) -> None:
    """Print what the guard makes of the near questions of each set in ../shared/data."""
    for path in sorted(DATA.glob("**/*question*.json*")):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.startswith("{")]
        questions = sorted({str(row["question"]) for row in rows if "question" in row})
        if len(questions) < 2:
            continue
        vectors = embedder.embed(questions)
        product = np.triu(vectors @ vectors.T, 1)
        for threshold in THRESHOLDS:
            near = [(questions[a], questions[b]) for a, b in np.argwhere(product >= threshold)]
            passed = [pair for pair in near if difference(*pair) is None]
            total = len(questions) * (len(questions) - 1) // 2
            print(
                f"{path.name}: {total} pairs, {len(near)} at {threshold} or above, {len(passed)} of them taken for one"
            )
            for pair in passed if threshold == THRESHOLDS[0] else ():
                print(f"  {pair[0]!r} and {pair[1]!r}")


async def look_ups(embedder: MiniLmEmbedder) -> None:
    """Print the time of one look-up, and of keeping an answer, among many of one scope."""
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as path:
        folder = await EmbeddedFolder.open(Path(path))
        store = await EmbeddedAnswers.open(folder, "answers", embedder.dimension)
        for count in (100, 1000, 5000):
            kept = []
            for number in range(len(store), count):
                started = time.perf_counter()
                asked = Asked("t", f"r{number}", "s", f"Question {number}?", "default", None, (), (), 2e9)
                drawn = rng.normal(size=embedder.dimension)
                await store.put([Lookup(asked, (drawn / np.linalg.norm(drawn)).astype(np.float32))])
                entry = await store.get("t", f"r{number}")
                assert entry is not None
                await store.answer(entry, Given("e", f"Answer {number}.", (), "m", "openai", "m"))
                await store.release(entry, released_digest(f"Answer {number}."), 2e9)
                kept.append(time.perf_counter() - started)
            now = Asked("t", "now", "s", "How do I reset it?", "default", None, (), (), 2e9)
            vector = embedder.embed([now.question])[0]
            await store.near([Lookup(now, vector)], 8, 0.0)
            times = []
            for _ in range(100):
                started = time.perf_counter()
                (found,) = await store.near([Lookup(now, vector)], 8, 0.0)
                same_question(now, found, 0.0, 0.0, lambda _: None)
                times.append(time.perf_counter() - started)
            print(
                f"{count} answers of one scope: {np.median(times) * 1e3:.2f} ms a look-up, "
                f"{np.median(kept) * 1e3:.2f} ms an answer kept"
            )
        await folder.close()


if __name__ == "__main__":
    main()

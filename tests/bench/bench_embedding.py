"""What embedding costs: `python tests/bench/bench_embedding.py`.

One thread; times are the thread's CPU time, so that what else runs on the machine does not count. Prints texts a second
of the packaged embedder beside its onnxruntime session called directly on the same texts, tokenised and padded
beforehand in batches of 16 of like length, in the same run; the time of the first call; and resident memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pydoc_data import topics

import numpy as np
import psutil
from penstock.embedding.bert_graph import BertConfig, BertEncoder, SafetensorsFile
from penstock.embedding.minilm import MiniLmEmbedder, packaged_model
from tokenizers import Tokenizer

_BATCH = 16
_REPEATS = 3


def resident() -> float:
    """Return the resident memory of this process in MB."""
    return float(psutil.Process().memory_info().rss / 2**20)


def fastest(call: Callable[[], object]) -> float:
    """Return the seconds of CPU of the fastest of three calls."""
    times = []
    for _ in range(_REPEATS):
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    return min(times)


def direct(texts: list[str]) -> Callable[[], object]:
    """Return a call of the bare session on ``texts``, prepared beforehand."""
    folder = packaged_model()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    encoder = BertEncoder(BertConfig.load(folder / "config.json"), SafetensorsFile(folder / "model.safetensors"), 1)
    rows = sorted((encoding.ids for encoding in tokenizer.encode_batch(texts)), key=len)
    batches = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        lengths = np.array([len(row) for row in part], np.int32)
        ids = np.zeros((len(part), lengths.max()), np.int32)
        for n, row in enumerate(part):
            ids[n, : len(row)] = row
        batches.append((ids, lengths))
    return lambda: [encoder(ids, lengths) for ids, lengths in batches]


def main() -> None:
    """Print the figures."""
    paragraphs = [
        " ".join(paragraph.split())
        for name in sorted(topics.topics)
        for paragraph in topics.topics[name].split("\n\n")
        if len(paragraph.split()) > 40
    ]
    sets = {
        "questions (9 words)": [" ".join(paragraph.split()[:9]) + "?" for paragraph in paragraphs[:600]],
        "paragraphs (60 words)": [" ".join(paragraph.split()[:60]) for paragraph in paragraphs[:200]],
        "chunks (150 words)": [" ".join(" ".join(paragraphs[n : n + 4]).split()[:150]) for n in range(0, 240, 4)],
    }
    before = resident()
    embedder = MiniLmEmbedder(threads=1)
    started = time.perf_counter()
    embedder.embed(["first"])
    print(f"first call {time.perf_counter() - started:.2f} s, loaded {resident() - before:.0f} MB more than before")
    for name, texts in sets.items():
        ours, bare = fastest(lambda t=texts: embedder.embed(t)), fastest(direct(texts))  # type: ignore[misc]
        print(
            f"{name:22} {len(texts) / ours:6.0f} texts/s  bare session {len(texts) / bare:6.0f} texts/s  "
            f"ratio {bare / ours:.2f}"
        )
    one = sets["questions (9 words)"][0]
    print(f"one question alone {fastest(lambda: [embedder.embed([one]) for _ in range(50)]) / 50 * 1e3:.1f} ms")
    print(f"resident at the end {resident():.0f} MB")


if __name__ == "__main__":
    main()

"""Distil the table of word-piece vectors: `python -m services.guardrails.models.train_static_embedding --data DATA`.

Every text of the corpus is embedded by all-MiniLM-L6-v2 and reduced to `--dimension` principal components. The table
starts as the same reduction of each word piece embedded alone, scaled by how rare it is (smooth inverse frequency, Arora
et al. 2017), and is then moved by ridge regression, so that the mean of a text's rows is its reduced vector; rows that
the corpus does not hold stay where they began. Rows are rounded to 8 bits.
"""

import argparse
import csv
import inspect
import json
import random
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from penstock.embedding.minilm import MiniLmEmbedder, packaged_model
from penstock.embedding.static import MODEL, StaticEmbedding, words
from penstock.text.normalise import canonical
from scipy.sparse.linalg import LinearOperator, cg

from services.guardrails.scanners.segments import sentences

Array = npt.NDArray[np.float32]
SEED = 5
_SMOOTH = 1e-3
"""Arora's a: a piece of relative frequency f weighs a / (a + f)."""
_MAX_CHARS = 600


def corpus(data: Path) -> list[str]:
    """Sentences of every kind that the data have, and of the docstrings of Python's standard library; each once."""
    texts: list[str] = []
    for name, field in (
        ("topics/train.jsonl", "text"), ("injection/train.jsonl", "text"), ("toxicity/train.jsonl", "text"),
        ("groundedness/train.jsonl", "response"), ("groundedness/train.jsonl", "question"),
        ("retrieval/corpus.jsonl", "text"), ("retrieval/questions.jsonl", "question"),
    ):  # fmt: skip
        lines = (data / name).read_text("utf-8").split("\n")
        texts += [value for line in lines if line and isinstance(value := json.loads(line)[field], str)]
    with (data / "toxicity/identity_templates.csv").open(newline="", encoding="utf-8") as file:
        phrases = [row["phrase"] for row in csv.DictReader(file)]
    texts += random.Random(SEED).sample(phrases, 3000)
    for name in sorted(sys.stdlib_module_names):
        module = sys.modules.get(name)
        texts += [inspect.getdoc(value) or "" for value in vars(module).values()] if module else []
    found: dict[str, None] = {}
    for text in texts:
        for start, end in sentences(text, _MAX_CHARS):
            folded = canonical(text[start:end])
            if len(folded) >= 8:
                found.setdefault(folded, None)
    return list(found)


def fit(start: Array, counts: sp.csr_matrix, targets: Array, ridge: float) -> Array:
    """The table E with the least |counts E - targets|^2 + ridge |E - start|^2, one dimension at a time (conjugate
    gradients). `counts` has rows that sum to 1.
    """
    transposed = counts.T.tocsr()
    normal = LinearOperator(
        (start.shape[0],) * 2, matvec=lambda x: transposed @ (counts @ x) + ridge * x, dtype=np.float64
    )
    moved = start.copy()
    for axis in range(start.shape[1]):
        wanted = transposed @ (targets[:, axis] - counts @ start[:, axis])
        change, _ = cg(normal, wanted, rtol=1e-4, maxiter=100)
        moved[:, axis] += change.astype(np.float32)
    return moved


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _agreement(table: Array, counts: sp.csr_matrix, targets: Array, full: Array) -> tuple[float, float]:
    """Over random pairs of held-out texts: the mean cosine of each text's two vectors, and the correlation of the
    static similarities with the transformer's.
    """
    found = _unit(np.asarray(counts @ table, dtype=np.float32))
    rng = np.random.default_rng(SEED)
    left, right = rng.integers(0, len(found), (2, 20_000))
    ours, theirs = (found[left] * found[right]).sum(1), (full[left] * full[right]).sum(1)
    return float((found * _unit(targets)).sum(1).mean()), float(np.corrcoef(ours, theirs)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of toxicity/, topics/, injection/, ...")
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--ridge", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    embedder = MiniLmEmbedder(threads=options.threads)
    vocabulary = (packaged_model() / "vocab.txt").read_text("utf-8").split("\n")
    pieces = [p for p in vocabulary if p and not (p.startswith("[") and p.endswith("]") and len(p) > 2)]
    texts = corpus(options.data)
    random.Random(SEED).shuffle(texts)
    print(f"{len(texts)} texts, {len(pieces)} word pieces", flush=True)
    full = embedder.embed(texts)
    alone = embedder.embed([piece.removeprefix("##") for piece in pieces])
    mean = full.mean(axis=0)
    _, _, axes = np.linalg.svd(full[:20_000] - mean, full_matrices=False)
    basis = axes[: options.dimension].T
    targets, begin = (full - mean) @ basis, (alone - mean) @ basis

    cutter = StaticEmbedding(pieces, np.zeros((len(pieces), 1), np.float32))
    rows = [cutter.rows(words(text)) for text in texts]
    pointers = np.cumsum([0, *map(len, rows)])
    flat = np.concatenate([np.array(row, dtype=np.int64) for row in rows])
    shares = np.concatenate([np.full(len(row), 1 / max(1, len(row)), np.float32) for row in rows])
    counts = sp.csr_matrix((shares, flat, pointers), shape=(len(texts), len(pieces)))
    frequency = np.bincount(flat, minlength=len(pieces)) / len(flat)
    begin = (_unit(begin) * (_SMOOTH / (_SMOOTH + frequency))[:, None]).astype(np.float32)
    # The regression looks for a mean of unit length; the start must be of the same size.
    begin *= np.float32(np.linalg.norm(targets, axis=1).mean() / np.linalg.norm(counts @ begin, axis=1).mean())

    held = len(texts) // 10
    trial = fit(begin, counts[held:], targets[held:], options.ridge)
    for name, table in (("start", begin), ("fitted", trial)):
        cosine, correlation = _agreement(table, counts[:held], targets[:held], full[:held])
        print(f"{name}: held-out cosine {cosine:.3f}, correlation of similarities {correlation:.3f}", flush=True)
    table = fit(begin, counts, targets, options.ridge)
    scales = (np.abs(table).max(axis=1) / 127).astype(np.float16)
    codes = np.round(table / np.maximum(scales.astype(np.float32), 1e-6)[:, None]).clip(-127, 127).astype(np.int8)
    np.savez_compressed(
        options.out, pieces=np.frombuffer("\n".join(pieces).encode(), np.uint8), codes=codes, scales=scales
    )
    print(f"wrote {options.out}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

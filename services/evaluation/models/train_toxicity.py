"""Trains the toxicity classifier that is shipped, and prints how well it does on texts it has not seen.

    PYTHONPATH=shared python -m services.evaluation.models.train_toxicity DATA [--vectors CACHE.npz]

DATA is the folder of the development data. Embedding takes most of the time; CACHE keeps the vectors for the next run.
Deterministic: the same data give the same weights. Figures are of three folds, in which a family of own sentences and a
source of prompts stand wholly in one fold, and of a run that has seen no talk page at all.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from penstock.embedding.minilm import MiniLmEmbedder
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from services.evaluation.models.toxicity_corpus import FOLDS, Row, rows
from services.evaluation.toxicity.features import SLOTS, dequantised, hashed, quantised
from services.evaluation.toxicity.heads import CATEGORIES, Experts, Head
from services.evaluation.toxicity.lexicon import MODELS, Lexicon

Array = NDArray[Any]
VERSION = "2026.11.1"
_MASS = {"tweets": 4_000, "talk pages": 3_000, "identities": 1_500, "prompts": 4_000, "answers": 800}
_OWN_MASS = 7_000
"""What a source weighs in the expert of all writing, in texts; classes of a source weigh alike."""
_STRENGTH = {"general": 3.0, "tweets": 3.0, "gate": 1.0, "category": 1.0}
"""Inverse strength of the regularisation."""
_EMBEDDING = 1.5
"""The embedding counts so many times: it is regularised less than the rare words."""
_CASCADE_LOSS = 0.005
"""AUC on tweets and talk pages that a cascade may lose."""
_THRESHOLD = 0.5


@dataclass(slots=True)
class Corpus:
    """All rows as arrays: features of shape (rows, SLOTS + 384), and what each row is."""

    features: sp.csr_matrix
    plain: sp.csr_matrix
    toxic: Array
    source: Array
    text: Array
    pieces: Array
    fold: Array
    categories: list[dict[str, bool]]

    @property
    def tweets(self) -> Array:
        return np.asarray(self.source == "tweets")


def corpus(found: list[Row], vectors: Array) -> Corpus:
    """Return the rows with their features."""
    blocks = []
    for first in range(0, len(found), 2_000):
        h = hashed([row.piece for row in found[first : first + 2_000]])
        blocks.append(sp.csr_matrix((h.values, (h.owners, h.slots)), shape=(h.count, SLOTS)))
    sparse = sp.vstack(blocks).tocsr()
    dense = sp.csr_matrix(vectors * np.float32(_EMBEDDING))
    nothing = sp.csr_matrix(dense.shape, dtype=np.float32)
    return Corpus(
        sp.hstack([sparse, dense]).tocsr(),
        sp.hstack([sparse, nothing]).tocsr(),
        np.array([row.toxic for row in found], dtype=np.int64),
        np.array([row.source for row in found]),
        np.array([row.text for row in found]),
        np.array([row.pieces for row in found]),
        np.array([row.fold for row in found]),
        [row.categories for row in found],
    )


def embedded(found: list[Row], cache: Path | None) -> Array:
    """Return the vectors of all rows as the classifier reads them, shape (rows, 384)."""
    texts = [" ".join(word.text for word in row.piece) for row in found]
    known: dict[str, Array] = {}
    if cache is not None and cache.exists():
        with np.load(cache, allow_pickle=False) as arrays:
            known = dict(zip(arrays["texts"].tobytes().decode().split("\n"), arrays["codes"], strict=True))
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    embedder = MiniLmEmbedder()
    for first in range(0, len(missing), 512):
        some = missing[first : first + 512]
        known.update(zip(some, quantised(embedder.embed(some)), strict=True))
    if cache is not None and missing:
        np.savez(cache, texts=np.frombuffer("\n".join(known).encode(), np.uint8), codes=np.stack(list(known.values())))
    return dequantised(np.stack([known[text] for text in texts]))


def fit(features: sp.csr_matrix, labels: Array, strength: float, weights: Array | None = None) -> Head:
    """Return a logistic regression."""
    model = LogisticRegression(C=strength, max_iter=300)
    model.fit(features, labels, sample_weight=weights)
    column = model.coef_[0].astype(np.float32)
    return Head(column[:SLOTS], column[SLOTS:] * np.float32(_EMBEDDING), float(model.intercept_[0]))


def margins(head: Head, features: sp.csr_matrix) -> Array:
    """Return the log-odds of rows."""
    found: Array = features @ np.concatenate([head.sparse, head.dense / np.float32(_EMBEDDING)]) + head.bias
    return found


def general(data: Corpus, features: sp.csr_matrix, chosen: Array) -> Head:
    """Return the expert of all writing. A long toxic text stands for its worst piece: the others may be harmless."""
    long = chosen & (data.toxic == 1) & (data.pieces > 1)
    first = chosen & ~long
    head = fit(features[first], data.toxic[first], _STRENGTH["general"], _weights(data, first))
    if long.any():
        worst: dict[int, tuple[float, int]] = {}
        for place, margin in zip(np.flatnonzero(long), margins(head, features[long]), strict=True):
            worst[data.text[place]] = max(worst.get(data.text[place], (-np.inf, -1)), (float(margin), int(place)))
        first[[place for _, place in worst.values()]] = True
        head = fit(features[first], data.toxic[first], _STRENGTH["general"], _weights(data, first))
    return head


def _weights(data: Corpus, chosen: Array) -> Array:
    found = np.zeros(len(chosen))
    own = {source for source in data.source if source.startswith("own")}
    for source in sorted(set(data.source[chosen])):
        mine = chosen & (data.source == source)
        mass = _MASS.get(source, _OWN_MASS / len(own))
        labels = sorted(set(data.toxic[mine]))
        for label in labels:
            some = mine & (data.toxic == label)
            found[some] = 1 / data.pieces[some]
            found[some] *= mass / len(labels) / found[some].sum()
    return np.asarray(found[chosen])


def experts(data: Corpus, features: sp.csr_matrix, chosen: Array) -> Experts:
    """Return the two experts and the gate, not calibrated."""
    tweets = chosen & data.tweets
    return Experts(
        general(data, features, chosen),
        fit(features[tweets], data.toxic[tweets], _STRENGTH["tweets"]),
        fit(features[chosen][::2], data.tweets[chosen][::2].astype(np.int64), _STRENGTH["gate"]),
    )


def mixed(found: Experts, features: sp.csr_matrix) -> Array:
    """Return the log-odds of rows under both experts."""
    share = 1 / (1 + np.exp(-margins(found.gate, features).clip(-60, 60)))
    result: Array = (1 - share) * margins(found.general, features) + share * margins(found.tweets, features)
    return result


def by_text(data: Corpus, chosen: Array, scores: Array) -> tuple[Array, Array, Array]:
    """Return label, source and highest score of each text of the chosen rows; ``scores`` are of these rows."""
    _, first, inverse = np.unique(data.text[chosen], return_index=True, return_inverse=True)
    highest = np.full(len(first), -np.inf)
    np.maximum.at(highest, inverse, scores)
    places = np.flatnonzero(chosen)[first]
    return data.toxic[places], data.source[places], highest


def calibration(labels: Array, sources: Array, scores: Array) -> tuple[float, float]:
    """Return slope and intercept of Platt's scaling; tweets, talk pages and prompts weigh alike, own sentences less."""
    kinds = np.array(["own" if source.startswith("own") else source for source in sources])
    weights = np.zeros(len(kinds))
    for kind, mass in (("tweets", 1.0), ("talk pages", 1.0), ("prompts", 1.0), ("own", 0.3)):
        weights[kinds == kind] = mass / (kinds == kind).sum()
    model = LogisticRegression(C=1e6).fit(scores[:, None], labels, sample_weight=weights * len(kinds))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def calibrated(found: Experts, slope: float, intercept: float) -> Experts:
    """Return experts whose log-odds are scaled."""
    general_, tweets = (
        Head(head.sparse * np.float32(slope), head.dense * np.float32(slope), head.bias * slope + intercept)
        for head in (found.general, found.tweets)
    )
    return Experts(general_, tweets, found.gate)


def expected_calibration_error(labels: Array, scores: Array, bins: int = 10) -> float:
    """Return the mean distance of score and frequency in bins of equal width (Naeini et al. 2015)."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(scores[place == b].sum() - labels[place == b].sum()) for b in range(bins) if (place == b).any()]
    return float(sum(gaps) / len(labels))


def sigmoid(values: Array) -> Array:
    """Return probabilities of log-odds."""
    found: Array = 1 / (1 + np.exp(-values.clip(-60, 60)))
    return found


def figures(labels: Array, sources: Array, margin: Array) -> dict[str, dict[str, float]]:
    """Return by source what is found."""
    kinds = np.array(["own sentences" if source.startswith("own") else source for source in sources])
    result: dict[str, dict[str, float]] = {}
    for kind in sorted(set(kinds)):
        mine = kinds == kind
        y, score = labels[mine], sigmoid(margin[mine])
        result[kind] = {"texts": int(mine.sum())}
        if 0 < y.mean() < 1:
            result[kind]["auc"] = round(float(roc_auc_score(y, margin[mine])), 4)
            result[kind]["found"] = round(float((score[y == 1] >= _THRESHOLD).mean()), 4)
        result[kind]["false_positives"] = round(float((score[y == 0] >= _THRESHOLD).mean()), 4)
        result[kind]["calibration_error"] = round(expected_calibration_error(y, score), 4)
    return result


def cascade(labels: Array, sources: Array, plain: Array, full: Array) -> tuple[tuple[float, float], dict[str, float]]:
    """Return the narrowest band of the plain score outside which nothing is embedded and little is lost, and figures."""
    for edge in (0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002):
        score = sigmoid(plain)
        inside = (score > edge) & (score < 1 - edge)
        both = np.where(inside, full, plain)
        lost = []
        for kind in ("tweets", "talk pages"):
            mine = sources == kind
            aucs = [roc_auc_score(labels[mine], values[mine]) for values in (plain, both, full)]
            lost.append(aucs[2] - aucs[1])
        shares = {kind: round(float(inside[sources == kind].mean()), 3) for kind in ("tweets", "talk pages", "prompts")}
        print("cascade", (edge, 1 - edge), "AUC lost", np.round(lost, 4), "embedded", shares, flush=True)
        if max(lost) <= _CASCADE_LOSS:
            break
    return (edge, 1 - edge), shares


def category_heads(data: Corpus, chosen: Array) -> list[Head]:
    """Return the heads of the categories, of half of the rows; each third of these stands without its embedding."""
    heads = []
    for name in CATEGORIES:
        known = np.flatnonzero(chosen & np.array([name in labels for labels in data.categories]))[::2]
        labels = np.array([data.categories[place][name] for place in known], dtype=np.int64)
        without = np.arange(len(known)) % 3 == 0
        some = sp.vstack([data.features[known[~without]], data.plain[known[without]]]).tocsr()
        both = np.concatenate([labels[~without], labels[without]])
        weights = np.where(both == 1, 0.5 / both.mean(), 0.5 / (1 - both.mean()))
        heads.append(fit(some, both, _STRENGTH["category"], weights))
    return heads


def save(heads: list[Head], band: tuple[float, float], folder: Path) -> None:
    """Write the weights, those of slots as int8."""
    tables = np.stack([head.sparse for head in heads])
    scales = (np.abs(tables).max(axis=1) / 127).astype(np.float32)
    np.savez_compressed(
        folder / "toxicity_model.npz",
        sparse=np.rint(tables / scales[:, None]).astype(np.int8),
        scales=scales,
        dense=np.stack([head.dense for head in heads]).astype(np.float16),
        biases=np.array([head.bias for head in heads]),
    )
    metadata = {"version": VERSION, "embedder": "all-MiniLM-L6-v2", "threshold": _THRESHOLD, "band": band}
    (folder / "toxicity_model.json").write_text(json.dumps(metadata, indent=1) + "\n", "utf-8")


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument(
        "--folds", type=int, default=FOLDS, help="how many of the folds are held out, one after another"
    )
    options = parser.parse_args()
    started = time.perf_counter()
    found = list(rows(options.data, Lexicon.load()))
    data = corpus(found, embedded(found, options.vectors))
    print(f"{len(found)} pieces of {len(set(data.text))} texts, {time.perf_counter() - started:.0f} s", flush=True)
    judged = data.fold < options.folds
    scores: dict[str, Array] = {}
    heads: list[Head] = []
    for mode, features in (("embedded", data.features), ("hashed", data.plain)):
        held = np.zeros(len(found))
        for fold in range(options.folds):
            mine = data.fold == fold
            held[mine] = mixed(experts(data, features, ~mine), features[mine])
        y, source, margin = by_text(data, judged, held[judged])
        slope, intercept = calibration(y, source, margin)
        scores[mode] = slope * margin + intercept
        for kind, values in figures(y, source, scores[mode]).items():
            print(f"{mode:9s} {kind:14s}", values, flush=True)
        final = calibrated(experts(data, features, np.ones(len(found), dtype=bool)), slope, intercept)
        heads += [final.general, final.tweets, final.gate]
    band, _ = cascade(y, source, scores["hashed"], scores["embedded"])
    save(heads + category_heads(data, np.ones(len(found), dtype=bool)), band, options.out)
    size = (options.out / "toxicity_model.npz").stat().st_size
    print(
        f"wrote {options.out / 'toxicity_model.npz'}, {size:,} bytes, {time.perf_counter() - started:.0f} s", flush=True
    )
    report_strange(data)


def report_strange(data: Corpus) -> None:
    """Print how well categories are told on the first fold, and toxicity on talk pages by models that have seen none."""
    mine = data.fold == 0
    for name, head in zip(CATEGORIES, category_heads(data, ~mine), strict=True):
        known = np.flatnonzero(mine & np.array([name in labels for labels in data.categories]))
        labels = [data.categories[place][name] for place in known]
        auc = roc_auc_score(labels, margins(head, data.features[known]))
        print(f"category {name:16s} AUC {auc:.4f} of {len(known)}", flush=True)
    unseen = data.source == "talk pages"
    for mode, features in (("embedded", data.features), ("hashed", data.plain)):
        y, _, margin = by_text(data, unseen, mixed(experts(data, features, ~unseen), features[unseen]))
        print(f"{mode:9s} talk pages, trained on none: AUC {roc_auc_score(y, margin):.4f}", flush=True)


if __name__ == "__main__":
    main()

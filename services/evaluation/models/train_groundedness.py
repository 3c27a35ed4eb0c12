"""Learns how evidence is weighed for groundedness, and prints how well that does on answers it has not seen.

    PYTHONPATH=shared python -m services.evaluation.models.train_groundedness DATA shared/penstock/text/groundedness.json

Learned from labelled answers of dialogue, and from summaries and claims made by rule (groundedness_corpus.py), of equal
weight. Few
features, each held to the sign of what it means, with strong regularisation: what is learned must hold for errors of
kinds that were not made. Deterministic: the same data give the same file.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock.embedding.protocol import Embedder
from penstock.embedding.recent import RecentVectors
from penstock.text.groundedness import Judged, Weights, combined, judged
from penstock.text.groundedness_evidence import FEATURES
from scipy.optimize import minimize

from services.evaluation.models.groundedness_corpus import CLAIM_ERRORS, ERRORS, article, claims, summaries

Array = NDArray[np.float64]
DOMAINS = ("dialogue", "summaries", "claims")
SEED = 7
MADE = 30
"""Faithful summaries of each article, and about as many wrong ones."""
WEAKEST = 0.25
"""Share of the weakest sentence in the logit of an answer; between 0.15 and 0.4 nothing changes by more than 0.005."""
_RIDGE = 3e-2
_RARE = {"numbers": 0.1, "names": 0.1, "denial": 0.1, "remarks": 0.02, "question": 0.02}
"""Seldom seen, so that the ridge would shrink them to nothing: the share of it that holds them."""
_AGAINST = ("invented", *_RARE)


@dataclass(frozen=True)
class Row:
    """One labelled answer: where it is from, the group that folds keep together, its error's kind and its sentences."""

    domain: str
    source: str
    group: str
    grounded: bool
    sentences: tuple[Judged, ...]

    def mean(self) -> Array:
        words = sum(one.evidence.words for one in self.sentences)
        if not words:
            return np.zeros(len(FEATURES) + 1)
        total = sum(one.evidence.words * np.array([*one.evidence.shares, one.similarity]) for one in self.sentences)
        return np.asarray(total / words)


def rows(data: Path, embedder: Embedder | None, with_claims: bool = True) -> list[Row]:
    """Read the dialogues and make the summaries and the claims."""
    found = []
    for line in (data / "groundedness/train.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        source = re.sub(r"^begin_dev_|\.tsv$", "", entry["source"])
        group = re.sub(r"\W", "", entry["context"].lower())[:60]
        sentences = tuple(judged(entry["response"], [entry["context"]], embedder))
        found.append(Row("dialogue", source, group, bool(entry["grounded"]), sentences))
    by_title: dict[str, list[str]] = defaultdict(list)
    titles: dict[str, str] = {}
    for line in (data / "retrieval/corpus.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        by_title[entry["title"]].append(entry["text"])
        titles[entry["id"]] = entry["title"]
    articles = [
        made
        for title, texts in by_title.items()
        for made in (article(f"{title}0", texts[:4], texts[4:]), article(f"{title}1", texts[1:], texts[:1]))
    ]
    chance = random.Random(SEED)
    for one in articles:
        others = [other for other in articles if other.name[:-1] != one.name[:-1]]
        for summary in summaries(one, others, MADE, chance):
            sentences = tuple(judged(summary.text, [one.text], embedder))
            found.append(Row("summaries", summary.kind, one.name[:-1], summary.grounded, sentences))
    if not with_claims:
        return found
    asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in (data / "retrieval/questions.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        asked[titles[entry["relevant"][0]]].append((entry["question"], entry["answers"][0]))
    for title, texts in by_title.items():
        whole = article(title, texts, ())
        elsewhere = [answer for other, pairs in asked.items() if other != title for _, answer in pairs]
        for claim in claims(whole, asked[title], elsewhere, chance):
            sentences = tuple(judged(claim.text, [whole.text], embedder))
            found.append(Row("claims", claim.kind, title, claim.grounded, sentences))
    return found


def fit(given: Sequence[Row], use_similarity: bool) -> Array:
    """Return bias, weights of FEATURES and of similarity: logistic regression with a ridge, each weight of its sign.

    The domains count alike, and in each grounded and ungrounded answers.
    """
    x = np.array([row.mean() for row in given])
    target = np.array([1.0 if row.grounded else -1.0 for row in given])
    cells = [(row.domain, row.grounded) for row in given]
    weight = np.array([1.0 / cells.count(cell) for cell in cells])
    weight /= weight.sum()
    names = (*FEATURES, "similarity")
    ridge = np.array([_RIDGE * _RARE.get(name, 1.0) for name in names])

    def loss(p: Array) -> tuple[float, Array]:
        margin = target * (x @ p[1:] + p[0])
        pull = weight * target / (1 + np.exp(margin))
        value = float((weight * np.logaddexp(0, -margin)).sum() + (ridge * p[1:] ** 2).sum())
        return value, np.concatenate(([-pull.sum()], -(pull @ x) + 2 * ridge * p[1:]))

    bounds: list[tuple[float | None, float | None]] = [(None, None)]
    bounds += [(None, 0.0) if name in _AGAINST else (0.0, None) for name in names[:-1]]
    bounds.append((0.0, None if use_similarity else 0.0))
    found = minimize(loss, np.zeros(len(names) + 1), jac=True, bounds=bounds, method="L-BFGS-B")
    return np.asarray(found.x)


def logits(given: Sequence[Row], p: Array) -> Array:
    """Return the logit of each answer; one without a claim has the bias."""
    out = []
    for row in given:
        each = [
            max(float(p[0] + p[1:] @ np.array([*one.evidence.shares, one.similarity])), float(p[0]))
            for one in row.sentences
        ]
        out.append(combined(row.sentences, each, WEAKEST) if each else float(p[0]))
    return np.array(out)


def calibrated(logit: Array, given: Sequence[Row]) -> tuple[float, float]:
    """Return slope and intercept of a logistic curve over logits (Platt scaling), cells counting alike."""
    target = np.array([1.0 if row.grounded else -1.0 for row in given])
    cells = [(row.domain, row.grounded) for row in given]
    weight = np.array([1.0 / cells.count(cell) for cell in cells])

    def loss(p: Array) -> float:
        return float((weight * np.logaddexp(0, -target * (p[0] * logit + p[1]))).sum())

    found = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def auc(grounded: Sequence[bool], scores: Array) -> float:
    """Share of (grounded, ungrounded) pairs in the right order; a tie counts half."""
    marked = np.array(grounded)
    above = scores[marked][:, None] - scores[~marked][None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def figures(given: Sequence[Row], use_similarity: bool) -> tuple[Array, float, float]:
    """Print cross-validated figures; return the weights learned from all, and their calibration."""
    domains = [domain for domain in DOMAINS if any(row.domain == domain for row in given)]
    groups = sorted({row.group for row in given})
    random.Random(SEED).shuffle(groups)
    fold = {group: number % 5 for number, group in enumerate(groups)}
    scores = np.zeros(len(given))
    for number in range(5):
        learned = fit([row for row in given if fold[row.group] != number], use_similarity)
        held = [at for at, row in enumerate(given) if fold[row.group] == number]
        scores[held] = logits([given[at] for at in held], learned)
    slope, intercept = calibrated(scores, given)
    learned_from_all = fit(given, use_similarity)
    weights = _weights(learned_from_all, slope, intercept)
    sure = np.array([weights.support(float(score)) for score in scores])
    for domain in domains:
        at = [n for n, row in enumerate(given) if row.domain == domain]
        marked = [given[n].grounded for n in at]
        print(f"{domain}: AUC {auc(marked, scores[at]):.3f}, {_calibration(np.array(marked), sure[at])}")
        for name in ("content", "pairs"):
            plain = np.array([given[n].mean()[FEATURES.index(name)] for n in at])
            print(f"  {name} alone: AUC {auc(marked, plain):.3f}")
        for source in sorted({given[n].source for n in at} - {"faithful"}):
            some = [n for n in at if given[n].source in (source, "faithful")]
            print(f"  {source}: AUC {auc([given[n].grounded for n in some], scores[some]):.3f}")
    held_kinds = []
    for kind in (*ERRORS, *CLAIM_ERRORS):
        learned = fit([row for row in given if row.source != kind], use_similarity)
        domain = "claims" if kind in CLAIM_ERRORS else "summaries"
        if domain not in domains:
            continue
        some_rows = [row for row in given if row.domain == domain and row.source in (kind, "faithful")]
        held_kinds.append(auc([row.grounded for row in some_rows], logits(some_rows, learned)))
    print(f"kind of error held out, mean of {len(held_kinds)}: AUC {np.mean(held_kinds):.3f}")
    for domain in domains:
        learned = fit([row for row in given if row.domain != domain], use_similarity)
        unseen = [row for row in given if row.domain == domain]
        print(
            f"learned without {domain}, on {domain}: AUC {auc([r.grounded for r in unseen], logits(unseen, learned)):.3f}"
        )
    return learned_from_all, slope, intercept


def _weights(p: Array, slope: float, intercept: float) -> Weights:
    return Weights(float(p[0]), tuple(float(value) for value in p[1:-1]), float(p[-1]), slope, intercept)


def _calibration(marked: NDArray[np.bool_], sure: Array) -> str:
    bins = np.minimum((sure * 10).astype(int), 9)
    error = sum(
        abs(marked[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean()
        for b in range(10)
        if (bins == b).any()
    )
    recall, false = (sure[marked] >= 0.5).mean(), (sure[~marked] >= 0.5).mean()
    return f"calibration error {error:.3f}, at 0.5 {recall:.3f} of the grounded and {false:.3f} of the ungrounded pass"


def _stored(p: Array, slope: float, intercept: float) -> Mapping[str, Any]:
    return {
        "bias": round(float(p[0]), 4),
        "features": {name: round(float(value), 4) for name, value in zip(FEATURES, p[1:-1], strict=True)},
        "similarity": round(float(p[-1]), 4),
        "slope": round(slope, 4),
        "intercept": round(intercept, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with groundedness/train.jsonl and retrieval/corpus.jsonl")
    parser.add_argument("out", type=Path, help="the file of weights to write")
    parser.add_argument("--version", default="evidence-1", help="raised whenever scores may change")
    parser.add_argument("--embedded", action="store_true", help="learn the weights with embeddings too (10 minutes)")
    options = parser.parse_args()
    stored: dict[str, Any] = {"version": options.version, "weakest": WEAKEST}
    started = time.perf_counter()
    given = rows(options.data, None)
    print(f"{len(given)} answers, {(time.perf_counter() - started) / len(given) * 1e3:.2f} ms each")
    stored["lexical"] = _stored(*figures(given, False))
    if options.embedded:
        from penstock.embedding.minilm import MiniLmEmbedder  # the packaged model is needed for this alone

        # Without claims: they differ from each other in single words, which hardly move the vector of a sentence.
        print("with embeddings")
        stored["embedded"] = _stored(
            *figures(rows(options.data, RecentVectors(MiniLmEmbedder(), capacity=100_000), with_claims=False), True)
        )
    else:
        stored["embedded"] = (
            json.loads(options.out.read_text("utf-8"))["embedded"] if options.out.exists() else stored["lexical"]
        )
    options.out.write_text(json.dumps(stored, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

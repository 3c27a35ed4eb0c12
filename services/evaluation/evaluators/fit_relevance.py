"""Fits the weights of answer relevance: `python -m services.evaluation.evaluators.fit_relevance ../shared/data/retrieval`.

Needs questions.jsonl (question, relevant passages, answers) and corpus.jsonl (id, text). Right answers are the sentence that
holds the answer, the same among other sentences of its passage, and the bare answer; wrong ones another sentence of the
same passage, a sentence of another, and the bare answer to another question. Prints the weights, and the AUC in
cross-validation by question, beside that of the cosine and of the words in common alone. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from penstock.embedding.minilm import MiniLmEmbedder

from services.evaluation.evaluators.relevance import evidence
from services.evaluation.evaluators.text import sentences

_SEED = 1


def labelled(questions: list[dict[str, Any]], passages: dict[str, list[str]]) -> Iterator[tuple[int, str, str, bool]]:
    """Yield (index of the question, question, answer, whether it answers it)."""
    rng = random.Random(_SEED)
    names = sorted(passages)
    for index, row in enumerate(questions):
        question, answer, own = row["question"], row["answers"][0], passages[row["relevant"][0]]
        holding = [sentence for sentence in own if answer in sentence]
        if not holding:
            continue
        yield index, question, holding[0], True
        yield index, question, " ".join([holding[0], *rng.sample(own, min(2, len(own)))]), True
        yield index, question, answer, True
        if others := [sentence for sentence in own if answer not in sentence]:
            yield index, question, rng.choice(others), False
        yield index, question, rng.choice(passages[rng.choice(names)]), False
        yield index, question, rng.choice(questions)["answers"][0], False


def main() -> None:
    """Fit, print, and leave it to a person to change the code."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()]
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").read_text("utf-8").splitlines()]
    rows = list(labelled(questions, {row["id"]: sentences(row["text"]) for row in corpus}))
    embedder = MiniLmEmbedder()
    cosines = np.einsum("ij,ij->i", embedder.embed([row[1] for row in rows]), embedder.embed([row[2] for row in rows]))
    found = [evidence(row[1], row[2], float(cosine)) for row, cosine in zip(rows, cosines, strict=True)]
    features = np.array([(one.cosine, one.cover, one.kind, one.short) for one in found])
    labels = np.array([row[3] for row in rows])
    groups = [row[0] for row in rows]
    model = LogisticRegression(C=10)
    folds = GroupKFold(5)
    chances = cross_val_predict(model, features, labels, groups=groups, cv=folds, method="predict_proba")[:, 1]
    model.fit(features, labels)
    names = ("cosine", "cover", "kind", "short")
    weights = ", ".join(f"{name}={weight:.2f}" for name, weight in zip(names, model.coef_[0], strict=True))
    print(f"Weights({weights}, intercept={model.intercept_[0]:.2f})")
    print(f"{len(rows):,} pairs, AUC {roc_auc_score(labels, chances):.3f}", end="; alone: ")
    print(
        ", ".join(f"{name} {roc_auc_score(labels, features[:, column]):.3f}" for column, name in enumerate(names[:2]))
    )


if __name__ == "__main__":
    main()

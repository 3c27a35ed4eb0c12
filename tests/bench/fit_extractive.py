"""Learns how the extractive model weighs evidence: python -m tests.bench.fit_extractive

Prints services/inference/extractive/weights.py, and how answers do on articles that the weights have not seen. A conditional
logit: the likelihood that the sentence which is chosen holds the answer, or that none is where the passages have none. Every
weight is held to the sign of what it means, and ridge regression holds them small. Deterministic: the same data give the
same weights. Data: ../shared/data/retrieval.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from penstock.embedding.static import shared_static_embedding
from scipy.optimize import minimize

from services.inference.extractive.choice import LEARNED, Choice, chosen, probabilities
from services.inference.extractive.evidence import FEATURES, evidence
from services.inference.extractive.reading import Sentence, question_of, sentences_of
from tests.bench.bench_retrieval import DATA
from tests.bench.extractive_questions import Case, cases, holds, table

FOLDS = 6
_RIDGE = 1.0
_IMPORTANCE = {
    "found": 1.0, "flat": 0.5, "neighbours": 0.5, "strangers": 0.3, "flat strangers": 0.5, "posing": 0.5,
}  # fmt: skip
"""Of a case in the likelihood. Passages without the answer count for about as much as those with it."""


@dataclass(frozen=True)
class Example:
    """A case as the model sees it: evidence, shape (sentences, features), and which sentences hold the answer."""

    case: Case
    sentences: Sequence[Sentence]
    rows: NDArray[np.float64]
    right: NDArray[np.bool_]


def examples(found: Sequence[Case]) -> list[Example]:
    """Return what the model sees of each case that has a question and sentences."""
    embedding = shared_static_embedding()
    made = []
    for case in found:
        question, sentences = question_of(case.question), sentences_of(case.passages)
        able = [place for place, sentence in enumerate(sentences) if not sentence.read.is_heading]
        if question.stems and able:
            rows = evidence(question, case.passages, sentences, embedding)[able]
            sentences = [sentences[place] for place in able]
            right = [
                case.passages[sentence.passage].document_id in case.relevant and holds(sentence.read.text, case.answers)
                for sentence in sentences
            ]
            made.append(Example(case, sentences, rows, np.array(right)))
    return made


def fit(learned: Sequence[Example]) -> Choice:
    """Return the weights of the greatest penalised likelihood."""
    used = [one for one in learned if one.right.any() or not one.case.answers]
    rows, right = np.concatenate([one.rows for one in used]), np.concatenate([one.right for one in used])
    scale = rows.std(axis=0) + 1e-9
    rows = rows / scale
    sizes = np.array([len(one.rows) for one in used])
    starts, owner = np.cumsum([0, *sizes[:-1]]), np.repeat(np.arange(len(used)), sizes)
    importance = np.array([_IMPORTANCE[one.case.scenario] for one in used])
    answered = np.array([one.right.any() for one in used])

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = rows @ parameters[:-1] + parameters[-1]
        highest = np.maximum(np.maximum.reduceat(logits, starts), 0.0)
        weights, none = np.exp(logits - highest[owner]), np.exp(-highest)
        total = np.add.reduceat(weights, starts) + none
        good = np.where(answered, np.add.reduceat(weights * right, starts), none)
        penalty = _RIDGE * float((parameters[:-1] ** 2).sum())
        value = -float((importance * np.log(good / total)).sum()) + penalty
        wanted = np.where(answered[owner], weights * right / good[owner], 0.0)
        slope = (weights / total[owner] - wanted) * importance[owner]
        return value, np.append(rows.T @ slope + 2 * _RIDGE * parameters[:-1], slope.sum())

    bounds = [(0.0, None) if sign > 0 else (None, 0.0) for sign in FEATURES.values()]
    begin = np.zeros(len(FEATURES) + 1)
    best = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)]).x
    return replace(LEARNED, weights=best[:-1] / scale, bias=float(best[-1]))


def unseen(made: Sequence[Example]) -> Iterator[tuple[Case, bool, str]]:
    """Yield each case with whether an answer is given, and which, by weights that were learned from other articles."""
    subjects = sorted({one.case.subject for one in made})
    for fold in range(FOLDS):
        held = set(subjects[fold::FOLDS])
        choice = fit([one for one in made if one.case.subject not in held])
        for one in made:
            if one.case.subject in held:
                found = chosen(probabilities(one.rows, choice), one.sentences, choice)
                yield one.case, bool(found), " ".join(one.sentences[index].read.text for index in found)


def main() -> None:
    """Print the weights, and the figures of articles that were not learned from."""
    if not (DATA / "retrieval").is_dir():
        print(f"nothing is learned: {DATA}, the development data, is not there")
        return
    made = examples(asyncio.run(cases(DATA)))
    learned = fit(made)
    print(f"BIAS = {learned.bias:.3f}\nWEIGHTS = {{")
    for name, weight in zip(FEATURES, learned.weights, strict=True):
        print(f'    "{name}": {weight:.3f},')
    print("}\n\nOn articles that were not learned from:")
    print("\n".join(table(list(unseen(made)))))


if __name__ == "__main__":
    main()

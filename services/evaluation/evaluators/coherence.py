"""Whether the sentences of an answer belong together, and are not the same over and over."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from penstock.embedding.protocol import Embedder, Vectors

from services.evaluation.evaluators.protocol import Exchange, Judged, Subject
from services.evaluation.evaluators.relevance import question_vectors
from services.evaluation.evaluators.text import prose, sentences, words

__all__ = ["Coherence", "flow", "repetition"]

_MOST = 24
"""Sentences that are compared; of a longer answer, evenly spread ones."""
_SHORTEST = 4
"""Words below which a sentence (a list's item, "Sure!") is read with the next."""
_FEWEST_WORDS = 8
_MIDDLE, _STEEPNESS = 0.27, 12.0
"""Of the logistic curve that maps closeness to flow. On encyclopedia paragraphs closeness is 0.48 in the median and 0.24
or more in 98 of 100; with one sentence from elsewhere 0.20, with half of them 0.23, with all 0.03 in the mean."""
_GRAM = 4


class Coherence:
    """From 0 (sentences without anything in common, or a loop) to 1 (each goes with the rest, none comes twice).

    The product of flow, how close each sentence's vector is to that of all the others or of the question (their mean, and
    the farthest), and of the share of the words that are no repetition. The order of sentences, and whether they contradict
    each other, is not seen. Nothing is said of answers of less than eight words outside code.
    """

    name = "coherence"
    subject: Subject = "answer"
    threshold = 0.4
    labels = ("incoherent", "coherent")

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def version(self) -> str:
        return f"flow-1+{self._embedder.name}"

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        texts = [prose(exchange.answer) for exchange in exchanges]
        pieces = [_pieces(text) for text in texts]
        vectors = self._embedder.embed([piece for some in pieces if len(some) > 1 for piece in some])
        questions = question_vectors(self._embedder, exchanges)
        judged: list[Judged | None] = []
        start = 0
        for text, some, question in zip(texts, pieces, questions, strict=True):
            count = len(some) if len(some) > 1 else 0
            found = words(text)
            if len(found) < _FEWEST_WORDS:
                judged.append(None)
            else:
                flowing = flow(vectors[start : start + count], question) if count else 1.0
                repeated = repetition(found)
                features = {"flow": round(flowing, 4), "repetition": round(repeated, 4)}
                judged.append(Judged(round(flowing * (1 - repeated), 4), features=features))
            start += count
        return judged


def flow(vectors: Vectors, question: Vectors) -> float:
    """Return how well sentences go together, from 0 to 1.

    Args:
        vectors: of the sentences, unit length, shape (n, dimension), n at least 2.
        question: its vector, shape (dimension,), zeros where there is none.
    """
    rest = vectors.sum(axis=0, keepdims=True) - vectors
    norms = np.maximum(np.linalg.norm(rest, axis=1), 1e-6)
    close = np.maximum(np.einsum("ij,ij->i", vectors, rest) / norms, vectors @ question)
    closeness = float(close.mean() + close.min()) / 2
    return 1 / (1 + math.exp(-_STEEPNESS * (closeness - _MIDDLE)))


def repetition(found: Sequence[str]) -> float:
    """Return the share of the runs of four words that stood there before, 0 to 1."""
    runs = Counter(tuple(found[start : start + _GRAM]) for start in range(len(found) - _GRAM + 1))
    total = runs.total()
    return (total - len(runs)) / total if total else 0.0


def _pieces(text: str) -> list[str]:
    """Return the sentences of ``text``, short ones joined to the next."""
    joined: list[str] = []
    held = ""
    for sentence in sentences(text):
        held = f"{held} {sentence}".strip()
        if len(words(held)) >= _SHORTEST:
            joined.append(held)
            held = ""
    if held:
        joined[-1:] = [f"{joined[-1]} {held}" if joined else held]
    if len(joined) > _MOST:
        joined = [joined[round(index * (len(joined) - 1) / (_MOST - 1))] for index in range(_MOST)]
    return joined

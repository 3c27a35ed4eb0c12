"""Whether the answer means the same as the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from penstock.embedding.protocol import Embedder

from services.evaluation.evaluators.protocol import Exchange, Judged, Subject

__all__ = ["SemanticSimilarity"]


class SemanticSimilarity:
    """The cosine of the vectors of answer and reference, 0 where it is below; without a reference nothing is said.

    It forgives other words for the same. It hardly sees a denied statement or another number: read it beside exact match.
    """

    name = "semantic_similarity"
    subject: Subject = "answer"
    threshold = 0.7
    labels = ("different", "alike")

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def version(self) -> str:
        return f"cosine-1+{self._embedder.name}"

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        rows = [row for row, one in enumerate(exchanges) if one.reference and one.answer.strip()]
        texts = [text for row in rows for text in (exchanges[row].answer, exchanges[row].reference or "")]
        judged: list[Judged | None] = [None] * len(exchanges)
        if not rows:
            return judged
        vectors = self._embedder.embed(texts)
        cosines = np.einsum("ij,ij->i", vectors[0::2], vectors[1::2])
        for row, cosine in zip(rows, cosines, strict=True):
            judged[row] = Judged(round(min(1.0, max(0.0, float(cosine))), 4))
        return judged

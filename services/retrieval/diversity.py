"""Passages that repeat each other give way to passages that add something: maximal marginal relevance. Pure.

Carbonell and Goldstein 1998, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries": next comes the candidate of the greatest

    (1 - d) relevance - d max(cosine to each one that was taken before)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from penstock.embedding.protocol import Vectors

__all__ = ["MarginalRelevance"]


class MarginalRelevance:
    """The candidates in the order of their marginal relevance, which follows what the caller takes.

    Args:
        scores: relevance of each candidate, 0 to 1.
        vectors: the candidates' embeddings, of unit length, one row each.
        diversity: d, from 0 (relevance alone; equal ones in the order given) to 1 (only what was not there yet).
    """

    def __init__(self, scores: Sequence[float], vectors: Vectors, diversity: float) -> None:
        self._relevance = (1 - diversity) * np.asarray(scores, np.float64)
        self._vectors = vectors
        self._diversity = diversity
        self._redundancy = np.zeros(len(scores))
        self._left = np.ones(len(scores), np.bool_)

    def next(self) -> int | None:
        """Return the best candidate that was not returned before; None where none is left."""
        if not self._left.any():
            return None
        marginal = self._relevance - self._diversity * self._redundancy
        best = int(np.argmax(np.where(self._left, marginal, -np.inf)))
        self._left[best] = False
        return best

    def take(self, candidate: int) -> None:
        """Say that ``candidate`` is attached: what repeats it is worth less from now on."""
        self._redundancy = np.maximum(self._redundancy, self._vectors @ self._vectors[candidate])

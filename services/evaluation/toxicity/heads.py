"""The logistic regressions: of toxicity, by two experts and a gate, and of the categories of abuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.evaluation.toxicity.features import F32, Features, Hashed

__all__ = ["CATEGORIES", "Categories", "Experts", "Head", "sigmoid"]

CATEGORIES = ("insult", "threat", "identity_attack", "obscenity", "harassment")

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Head:
    """Weights of one logistic regression.

    Attributes:
        sparse: shape (SLOTS,).
        dense: of the embedding, shape (384,).
        bias: intercept.
    """

    sparse: F32
    dense: F32
    bias: float

    def margins(self, sparse: Hashed) -> F64:
        """Return the log-odds of pieces without their embedding, shape (pieces,)."""
        return sparse.margins(self.sparse) + self.bias

    def margin(self, features: Features) -> float:
        """Return the log-odds of one piece."""
        total = self.bias
        for slots in features.slots():
            if len(slots):
                total += float(self.sparse[slots].sum(dtype=np.float64)) / float(np.sqrt(len(slots)))
        if features.embedding:
            total += float(features.vector().astype(np.float64) @ self.dense.astype(np.float64))
        return total


@dataclass(frozen=True, slots=True)
class Categories:
    """Weights of one logistic regression a category, a column each.

    Attributes:
        sparse: shape (SLOTS, 5).
        dense: of the embedding, shape (384, 5).
        biases: intercepts, shape (5,).
    """

    sparse: F32
    dense: F32
    biases: F64

    @classmethod
    def of(cls, heads: Sequence[Head]) -> Categories:
        """Return the heads as columns."""
        sparse, dense = (
            np.stack(part, axis=1) for part in zip(*((head.sparse, head.dense) for head in heads), strict=True)
        )
        return cls(sparse, dense, np.array([head.bias for head in heads]))

    def chances(self, features: Features, most: float) -> dict[str, float]:
        """Return the probability of each category, none above ``most``: what is not toxic is no insult."""
        total = self.biases.copy()
        for slots in features.slots():
            if len(slots):
                total += self.sparse[slots].sum(axis=0, dtype=np.float64) / np.sqrt(len(slots))
        if features.embedding:
            total += features.vector().astype(np.float64) @ self.dense.astype(np.float64)
        return {
            name: round(min(most, sigmoid(margin)), 6) for name, margin in zip(CATEGORIES, total.tolist(), strict=True)
        }


@dataclass(frozen=True, slots=True)
class Experts:
    """Two logistic regressions of toxicity, one of all writing and one of tweets, and the gate between them.

    What is abuse in one register is chat in another: a tweet that says "trash" mostly speaks of a ball game. The gate is
    the probability g that a text is written like a tweet; the log-odds are (1 - g) those of ``general`` and g those of
    ``tweets``.
    Given its gate, a text's score is one logistic regression over its features, which :meth:`local` returns.
    """

    general: Head
    tweets: Head
    gate: Head

    def share(self, features: Features) -> float:
        """Return the gate of a piece."""
        return sigmoid(self.gate.margin(features))

    def margin(self, features: Features) -> float:
        """Return the log-odds of one piece."""
        share = self.share(features)
        return (1 - share) * self.general.margin(features) + share * self.tweets.margin(features)

    def margins(self, sparse: Hashed, vectors: F32 | None = None, of: Sequence[int] = ()) -> F64:
        """Return the log-odds of pieces, shape (pieces,); ``vectors`` are the embeddings of the pieces ``of``."""
        found = []
        for head in (self.general, self.tweets, self.gate):
            margins = head.margins(sparse)
            if vectors is not None:
                margins[list(of)] += vectors @ head.dense
            found.append(margins)
        share = 1 / (1 + np.exp(-found[2].clip(-60, 60)))
        mixed: F64 = (1 - share) * found[0] + share * found[1]
        return mixed

    def local(self, features: Features) -> tuple[list[F64], F64, float]:
        """Return the weights that the features of one piece have under its gate: by family, of the embedding, intercept."""
        share = self.share(features)
        families = [
            (1 - share) * self.general.sparse[slots].astype(np.float64) + share * self.tweets.sparse[slots]
            for slots in features.slots()
        ]
        dense = (1 - share) * self.general.dense.astype(np.float64) + share * self.tweets.dense
        return families, dense, (1 - share) * self.general.bias + share * self.tweets.bias


def sigmoid(margin: float) -> float:
    """Return the probability of log-odds."""
    return float(1 / (1 + np.exp(-min(max(margin, -60.0), 60.0))))

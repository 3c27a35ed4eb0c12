"""How good a ranking is beside judgements of relevance. Pure.

Every measure lies between 0 and 1; more is better. They are those of trec_eval where it has them: ``recall`` is ``recall_k``
(with one relevant document a question, the share of the questions that have it among the first k), ``mrr`` is
``recip_rank``, ``ndcg`` is ``ndcg_cut_k``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Ranking", "Relevance", "measured", "ndcg", "recall", "reciprocal_rank"]

Ranking = Sequence[str]
"""Ids of documents, best first, each once."""
Relevance = Mapping[str, float]
"""Grade of each relevant document, above 0; what is not named is not relevant."""


def recall(ranking: Ranking, relevant: Relevance, k: int) -> float:
    """Return the share of the relevant documents that are among the first ``k``."""
    return sum(document in relevant for document in ranking[:k]) / len(relevant)


def reciprocal_rank(ranking: Ranking, relevant: Relevance) -> float:
    """Return 1 over the place of the first relevant document, counted from 1; 0 where there is none.

    Its mean over questions is MRR (Voorhees 1999, "The TREC-8 Question Answering Track Report").
    """
    return next((1 / place for place, document in enumerate(ranking, 1) if document in relevant), 0.0)


def ndcg(ranking: Ranking, relevant: Relevance, k: int) -> float:
    """Return the discounted cumulative gain of the first ``k``, as a share of the best that any ranking could have.

    A document adds its grade over the binary logarithm of its place plus 1 (Järvelin and Kekäläinen 2002, "Cumulated
    Gain-Based Evaluation of IR Techniques", in the form that trec_eval computes).
    """
    best = _discounted(sorted(relevant.values(), reverse=True)[:k])
    return _discounted(relevant.get(document, 0.0) for document in ranking[:k]) / best


def _discounted(gains: Iterable[float]) -> float:
    return math.fsum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))


def measured(ranking: Ranking, relevant: Relevance, cutoffs: Sequence[int]) -> dict[str, float]:
    """Return every measure of one question: ``recall@k`` for each of ``cutoffs``, ``mrr`` and ``ndcg@10``.

    Args:
        relevant: at least one document.
    """
    found = {f"recall@{k}": recall(ranking, relevant, k) for k in cutoffs}
    return {**found, "mrr": reciprocal_rank(ranking, relevant), "ndcg@10": ndcg(ranking, relevant, 10)}

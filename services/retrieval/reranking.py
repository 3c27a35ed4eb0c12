"""Rerankers: what looks closer at the best candidates of a route that names one, before passages are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

import numpy as np
from penstock.config.kinds import Retrieval
from penstock.contracts.records import Passage
from penstock.embedding.static import F32, StaticEmbedding, shared_static_embedding, words
from penstock.telemetry import get_logger, metrics

from services.retrieval.core import Hit
from services.retrieval.ranking import Ranked, ranked, select, sentences

__all__ = [
    "ENTRY_POINTS", "InstalledReranker", "LateInteraction", "Reranker", "RerankerUnavailable", "attached", "reranked",
    "rerankers",
]  # fmt: skip

log = get_logger(__name__)

ENTRY_POINTS = "penstock.rerankers"
"""Group of entry points in which installed packages name rerankers of their own, each a callable without arguments."""

_ROUNDING = 1e-6
"""By how much a score of 32 bits may be above 1."""


class RerankerUnavailable(Exception):
    """The reranker cannot judge now; the candidates stay as they are ranked."""


class Reranker(Protocol):
    """Scores candidates once more. It is called on threads, by several at a time."""

    def scores(self, question: str, candidates: Sequence[Ranked]) -> Sequence[float]:
        """Return a score for each of the first candidates, from 0 to 1, on the scale of those they have.

        Args:
            candidates: best first. Those behind the last score that is returned stay as they are.

        Raises:
            RerankerUnavailable: away for now.
        """
        ...


class LateInteraction:
    """Looks in each sentence for the word that is nearest to each word of the question.

    The similarity is that of ColBERT (Khattab and Zaharia 2020): for each word piece of the question the greatest cosine
    to one of the sentence, here on the packaged static vectors and as a mean weighted by their lengths, which say how much
    a piece counts. So "which firm" meets "this company", and nothing is embedded or paid for. The vectors know English.

    Args:
        table: vectors of word pieces.
        share: weight of the best sentence's similarity in the score.
        looked_at: candidates that are looked at.
    """

    def __init__(self, table: StaticEmbedding, share: float = 0.13, looked_at: int = 16) -> None:
        self._table = table
        self._share = share
        self._looked_at = looked_at

    def scores(self, question: str, candidates: Sequence[Ranked]) -> Sequence[float]:
        """See :class:`Reranker`."""
        asked = self._pieces(question)
        if not asked:
            return []  # in another language than the vectors
        vectors = self._table.vectors(asked)
        weights = np.linalg.norm(self._table.table[asked], axis=1)
        weights = np.asarray(weights / max(float(weights.sum()), 1e-9), np.float32)
        return [
            (1 - self._share) * each.score + self._share * self._best(each.hit.chunk.text, vectors, weights)
            for each in candidates[: self._looked_at]
        ]

    def _best(self, text: str, asked: F32, weights: F32) -> float:
        """Return the similarity of the best sentence of ``text``, 0 to 1."""
        found = [pieces for sentence in sentences(text) if (pieces := self._pieces(sentence))]
        if not found:
            return 0.0
        similar = asked @ self._table.vectors([piece for pieces in found for piece in pieces]).T
        starts = np.cumsum([0, *(len(pieces) for pieces in found[:-1])])
        nearest = np.clip(np.maximum.reduceat(similar, starts, axis=1), 0, 1)
        return min(float((weights @ nearest).max()), 1.0)

    def _pieces(self, text: str) -> list[int]:
        return self._table.rows(words(text.casefold()))


class InstalledReranker:
    """A reranker of an installed package. Whatever it raises, and whatever it returns that is no score, is
    :class:`RerankerUnavailable` here: no request is lost to code that only orders its passages.

    Args:
        name: that routes use.
    """

    def __init__(self, name: str, reranker: Reranker) -> None:
        self._name = name
        self._reranker = reranker

    def scores(self, question: str, candidates: Sequence[Ranked]) -> Sequence[float]:
        """See :class:`Reranker`; the scores are plain floats."""
        try:
            found = [float(score) for score in self._reranker.scores(question, candidates)]
        except RerankerUnavailable:
            raise
        except Exception as error:
            raise RerankerUnavailable(f"{self._name} raised {error!r}") from error
        if len(found) > len(candidates):
            raise RerankerUnavailable(f"{self._name} gave {len(found)} scores for {len(candidates)} candidates")
        wrong = next((score for score in found if not 0 <= score <= 1 + _ROUNDING), None)
        if wrong is not None:
            raise RerankerUnavailable(f"{self._name} gave the score {wrong}: scores are from 0 to 1")
        return [min(score, 1.0) for score in found]


def rerankers(installed: Iterable[EntryPoint] | None = None) -> dict[str, Reranker]:
    """Return every reranker by the name that routes use: ``late-interaction``, and those of installed packages.

    One that cannot be loaded is left out, and the log says why: routes that name it keep the order of the searches.

    Args:
        installed: where to look for the latter; None: in the entry points ``penstock.rerankers``.
    """
    found: dict[str, Reranker] = {"late-interaction": LateInteraction(shared_static_embedding())}
    for entry in entry_points(group=ENTRY_POINTS) if installed is None else installed:
        try:
            make: Callable[[], Reranker] = entry.load()
            found[entry.name] = InstalledReranker(entry.name, make())
        except Exception as error:
            log.error("a reranker cannot be loaded", reranker=entry.name, entry_point=entry.value, reason=repr(error))
    return found


def reranked(reranker: Reranker, question: str, candidates: Sequence[Ranked]) -> list[Ranked]:
    """Return ``candidates`` in the order that ``reranker`` gives them.

    Raises:
        RerankerUnavailable: away for now.
    """
    scores = reranker.scores(question, candidates)
    judged = [Ranked(each.hit, score) for each, score in zip(candidates, scores, strict=False)]
    return sorted((*judged, *candidates[len(judged) :]), key=lambda each: (-each.score, each.hit.chunk.id))


def attached(question: str, hits: Sequence[Hit], rules: Retrieval, known: Mapping[str, Reranker]) -> list[Passage]:
    """Return the passages to attach to ``question``, of what was found for it.

    Where the reranker that the route names is away, or is none of ``known``, the candidates stay as they are ranked.
    """
    candidates = ranked(question, hits, rules)
    if rules.reranker is not None and candidates:
        reranker = known.get(rules.reranker)
        if reranker is None:
            log.warning("no such reranker: passages are not reranked", reranker=rules.reranker, known=sorted(known))
            metrics.RERANKINGS.labels(rules.reranker, "unknown").inc()
            return select(candidates, rules)
        try:
            candidates = reranked(reranker, question, candidates)
            metrics.RERANKINGS.labels(rules.reranker, "reranked").inc()
        except RerankerUnavailable as error:
            log.warning("passages are not reranked", reranker=rules.reranker, reason=str(error))
            metrics.RERANKINGS.labels(rules.reranker, "unavailable").inc()
    return select(candidates, rules)

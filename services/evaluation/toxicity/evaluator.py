"""Toxicity as an evaluator of exchanges."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.embedding import Embedder

from services.evaluation.evaluators.protocol import Exchange, Judged, Subject
from services.evaluation.toxicity.features import Features
from services.evaluation.toxicity.model import Mode, Scored, ToxicityModel
from services.evaluation.toxicity.weights import Weights

__all__ = ["ToxicityEvaluator"]


class ToxicityEvaluator:
    """Scores the prompt or the answer of an exchange; 1 is toxic.

    Args:
        subject: which of the two.
        model: the shipped model.
        embedder: the embedder it was trained on; ``None`` only where ``mode`` is ``hashed``.
        mode: which texts are embedded.
        weights: what was learned, for :meth:`evaluate`; ``None`` is the shipped model.
    """

    labels = ("clean", "toxic")

    def __init__(
        self,
        subject: Subject,
        model: ToxicityModel,
        embedder: Embedder | None,
        *,
        mode: Mode = "embedded",
        weights: Weights | None = None,
    ) -> None:
        self._subject = subject
        self._model = model
        self._embedder = embedder
        self._mode = mode
        self._weights = weights

    @property
    def name(self) -> str:
        return "toxicity"

    @property
    def subject(self) -> Subject:
        return self._subject

    @property
    def version(self) -> str:
        """Version of the shipped model, the mode, and how many labels it has learned from since."""
        return f"{self._model.version}-{self._mode}+{self._weights.updates if self._weights else 0}"

    @property
    def threshold(self) -> float:
        """Score from which a text is toxic."""
        return self._model.threshold

    @property
    def model(self) -> ToxicityModel:
        """The shipped model."""
        return self._model

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        """Return the score of each exchange's text, ``None`` where it is blank."""
        return [judged for judged, _ in self.evaluate_with(exchanges, self._weights)]

    def evaluate_with(
        self, exchanges: Sequence[Exchange], weights: Weights | None
    ) -> list[tuple[Judged | None, Features | None]]:
        """Return scores under ``weights`` and the features that they are of, which labels teach the classifier by."""
        texts = [exchange.question if self._subject == "prompt" else exchange.answer for exchange in exchanges]
        places = [place for place, text in enumerate(texts) if text.strip()]
        found = self._model.featurise([texts[place] for place in places], self._embedder, weights, self._mode)
        result: list[tuple[Judged | None, Features | None]] = [(None, None)] * len(exchanges)
        for place, features, scored in zip(places, found, self._model.scores(found, weights), strict=True):
            result[place] = judged(scored), features
        return result


def judged(scored: Scored) -> Judged:
    """Return a score as evaluators give it."""
    reason = "moved most by: " + ", ".join(scored.features) if scored.features else ""
    return Judged(round(scored.score, 6), scored.label, reason, (), scored.categories, scored.features)

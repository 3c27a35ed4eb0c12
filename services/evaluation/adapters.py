"""The toxicity classifiers in force, and what travels to those that learn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from penstock.embedding import Embedder
from penstock.telemetry import get_logger

from services.evaluation.evaluators.protocol import Evaluator
from services.evaluation.toxicity import (
    FEATURES_VERSION,
    Mode,
    ToxicityEvaluator,
    ToxicityModel,
    Weights,
    pack,
)

__all__ = ["InForce", "ToxicityFeatures", "ToxicityInForce"]

log = get_logger(__name__)

# Versions whose evaluators are kept: a replay may go back and forth across a promotion.
_KEPT = 8


class InForce(Protocol):
    """Says which weights are in force; :class:`services.evaluation.learning.Champions` is one."""

    def at(self, model: str, instant: datetime) -> tuple[str, Weights]:
        """Return version and weights for what occurred at ``instant``."""
        ...


class ToxicityInForce:
    """The classifiers of prompts and answers by the weights in force.

    Args:
        model: the shipped model.
        champions: what has been learned since, and from when it counts.
        embedder: the one that the model was trained with; None leaves the meaning out.
        mode: which texts are embedded.
    """

    def __init__(self, model: ToxicityModel, champions: InForce, embedder: Embedder | None, mode: Mode) -> None:
        if mode != "hashed" and (embedder is None or embedder.name != model.embedder_name):
            log.warning(
                "toxicity is told by words alone",
                reason=f"{model.embedder_name} is not installed",
                remedy="install requirements/embedder.txt, or set TOXICITY_MODE=hashed",
            )
            embedder, mode = None, "hashed"
        self._model, self._champions = model, champions
        self._embedder, self._mode = embedder, mode
        self._made: dict[str, Sequence[Evaluator]] = {}

    @property
    def featuriser(self) -> ToxicityFeatures:
        """What makes of a labelled text what travels to the classifier."""
        return ToxicityFeatures(self._model, self._embedder, self._mode)

    def __call__(self, instant: datetime) -> Sequence[Evaluator]:
        """Return the classifiers for what occurred at ``instant``: the same objects for the same version."""
        version, weights = self._champions.at("toxicity", instant)
        if version not in self._made:
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            self._made[version] = [
                ToxicityEvaluator(subject, self._model, self._embedder, mode=self._mode, weights=weights)
                for subject in ("prompt", "answer")
            ]
        return self._made[version]


class ToxicityFeatures:
    """Packs what the toxicity classifier sees of a text."""

    def __init__(self, model: ToxicityModel, embedder: Embedder | None, mode: Mode) -> None:
        self._model, self._embedder, self._mode = model, embedder, mode

    @property
    def version(self) -> str:
        return str(FEATURES_VERSION)

    def features(self, text: str) -> bytes:
        """Return the packed features of a text, its embedding among them where the classifier reads it.

        Raises:
            penstock.embedding.EmbedderUnavailable: the embedder is away for now.
        """
        return pack(self._model.featurise([text], self._embedder, None, self._mode)[0])

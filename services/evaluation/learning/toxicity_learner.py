"""The toxicity classifier as one that learns here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.evaluation.toxicity.features import FEATURES_VERSION, unpack
from services.evaluation.toxicity.learner import learn, regression, start, values
from services.evaluation.toxicity.model import ToxicityModel
from services.evaluation.toxicity.weights import Weights, pack_weights, unpack_weights

__all__ = ["ToxicityLearner"]


class ToxicityLearner:
    """River's logistic regression over the toxicity model's features.

    It fits :class:`services.evaluation.learning.learner.Learner`; its weights are differences to those of the model.
    """

    def __init__(self, model: ToxicityModel) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """``toxicity``."""
        return "toxicity"

    @property
    def version(self) -> str:
        """Version of the shipped model."""
        return self._model.version

    @property
    def features_version(self) -> str:
        """Version of the packed features."""
        return str(FEATURES_VERSION)

    @property
    def labels(self) -> Mapping[str, bool]:
        """``toxic`` and ``clean``."""
        return {"toxic": True, "clean": False}

    @property
    def reach(self) -> float:
        """Three families of slots and the embedding, each of unit length, and the intercept's fiftieth."""
        return 4.02

    @property
    def format(self) -> str:
        """See :mod:`services.evaluation.toxicity.weights`."""
        return "toxicity-differences-1"

    def shipped(self) -> Weights:
        """Return differences of nothing."""
        return start(self._model)

    def shape(self, weights: Weights) -> Sequence[int]:
        """Return how many slots, embedding dimensions and labels the weights have."""
        return (len(weights.slots) // 4, len(weights.dense) // 4, weights.updates)

    def score(self, features: bytes, weights: Weights) -> float:
        """Return the probability that a text is toxic, from the weights of its own features alone.

        Raises:
            ValueError: the features cannot be read.
        """
        read = unpack(features)
        chances: Mapping[bool, float] = regression(self._model, weights, read).predict_proba_one(values(read))
        return float(chances[True])

    def learn(self, features: bytes, weights: Weights, positive: bool, rate: float) -> Weights:
        """Return the weights after one step of River's regression.

        Raises:
            ValueError: the features cannot be read.
        """
        return learn(self._model, weights, unpack(features), positive, rate=rate)

    def pack(self, weights: Weights) -> bytes:
        """Return the wire form."""
        return pack_weights(weights)

    def unpack(self, packed: bytes) -> Weights:
        """Return the weights in ``packed``.

        Raises:
            ValueError: they are none, or of another shipped model.
        """
        weights = unpack_weights(packed)
        if weights.base != self._model.version:
            raise ValueError(f"they are differences to {weights.base}, the shipped model is {self._model.version}")
        return weights

"""Toxicity of texts: hashed words, letters and patterns and a sentence embedding under River's logistic regression.

A text becomes :class:`Features` (:meth:`ToxicityModel.featurise`), features and what was learned (:class:`Weights`) become a
score (:meth:`ToxicityModel.score`), features and a label become new weights (:func:`learn`). Features and weights travel as
bytes that hold numbers only.
"""

from services.evaluation.toxicity.evaluator import ToxicityEvaluator
from services.evaluation.toxicity.features import FEATURES_VERSION, Features, FeaturesError, pack, unpack
from services.evaluation.toxicity.learner import RATE, learn, start
from services.evaluation.toxicity.model import CATEGORIES, Mode, Scored, ToxicityModel
from services.evaluation.toxicity.weights import Weights, WeightsError, pack_weights, unpack_weights

__all__ = [
    "CATEGORIES", "FEATURES_VERSION", "RATE", "Features", "FeaturesError", "Mode", "Scored", "ToxicityEvaluator",
    "ToxicityModel", "Weights", "WeightsError", "learn", "pack", "pack_weights", "start", "unpack", "unpack_weights",
]  # fmt: skip

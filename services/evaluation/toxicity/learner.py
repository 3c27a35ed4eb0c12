"""One step of River's logistic regression on a labelled text."""

from __future__ import annotations

from typing import Any

import numpy as np
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.utils import VectorDict

from services.evaluation.toxicity.features import DIMENSION, F32, I64, SLOTS, Features
from services.evaluation.toxicity.model import ToxicityModel
from services.evaluation.toxicity.weights import MOST_SLOTS, Weights, WeightsError

__all__ = ["RATE", "learn", "regression", "start", "values"]

RATE = 0.5
"""Learning rate of one label of a source that is trusted fully."""
_LIMIT = 2.0
_INTERCEPT_SHARE = 0.02
"""The intercept moves by this share of the rate: else one kind of text that is labelled often would move all others."""


def start(model: ToxicityModel) -> Weights:
    """Return the weights of a model that has learned nothing since it was shipped."""
    return Weights(model.version)


def values(features: Features) -> dict[int, float]:
    """Return features as River reads them: slots by number, then the embedding's dimensions from :data:`SLOTS` on."""
    found: dict[int, float] = {}
    for slots in features.slots():
        if len(slots):
            found.update(dict.fromkeys(slots.tolist(), 1 / float(np.sqrt(len(slots)))))
    if features.embedding:
        found.update(zip(range(SLOTS, SLOTS + DIMENSION), features.vector().tolist(), strict=True))
    return found


class _Warm(LogisticRegression):
    """River's logistic regression, starting from given weights."""

    def __init__(self, weights: dict[int, float], intercept: float, rate: float) -> None:
        super().__init__(optimizer=SGD(rate), intercept_init=intercept, intercept_lr=rate * _INTERCEPT_SHARE)
        self._weights = VectorDict(weights)


def regression(model: ToxicityModel, weights: Weights, features: Features, *, rate: float = RATE) -> Any:
    """Return River's logistic regression with the weights that these features have; the others are left out.

    A step on these features moves no other weight, so it is the step that the whole model would take.

    Raises:
        WeightsError: the weights are for another shipped model.
    """
    _fits(model, weights)
    before, _, intercept = _before(model, weights, features)
    return _Warm(before, intercept + weights.bias, rate)


def learn(
    model: ToxicityModel,
    weights: Weights,
    features: Features,
    toxic: bool,
    *,
    rate: float = RATE,
    limit: float = _LIMIT,
) -> Weights:
    """Return the weights after one step on a labelled text; ``weights`` stay as they are.

    Args:
        model: the shipped model.
        weights: what was learned before.
        features: of the text, with its embedding where it has one.
        toxic: the label.
        rate: learning rate; less for a source that is trusted less, 0 changes nothing but the count.
        limit: no weight differs from the shipped one by more: no source turns a word around on its own.

    Raises:
        WeightsError: the weights are for another shipped model.
        ValueError: the rate or limit is not a number of at least 0.
    """
    if not (0 <= rate < np.inf and 0 <= limit < np.inf):
        raise ValueError(f"a rate of {rate} and a limit of {limit} are not numbers from 0 on")
    _fits(model, weights)
    before, shipped, intercept = _before(model, weights, features)
    one = _Warm(before, intercept + weights.bias, rate)
    one.learn_one(values(features), toxic)
    after = one.weights
    moved = {key: min(max(after.get(key, 0.0) - base, -limit), limit) for key, base in shipped.items()}
    slots, deltas = _merged(weights, {key: delta for key, delta in moved.items() if key < SLOTS})
    dense = weights.embedding().copy()
    for key, delta in moved.items():
        if key >= SLOTS:
            dense[key - SLOTS] = delta
    return Weights(
        base=weights.base,
        slots=slots.astype("<u4").tobytes(),
        deltas=deltas.astype("<f4").tobytes(),
        dense=dense.astype("<f4").tobytes() if dense.any() else b"",
        bias=float(np.float32(min(max(one.intercept - intercept, -limit), limit))),
        updates=weights.updates + 1,
    )


def _before(
    model: ToxicityModel, weights: Weights, features: Features
) -> tuple[dict[int, float], dict[int, float], float]:
    """Return the weights of the features' keys, the shipped ones, and the shipped intercept."""
    families, embedding, intercept = model.experts(features).local(features)
    slots, deltas = weights.sparse()
    found: dict[int, float] = {}
    shipped: dict[int, float] = {}
    for family, base in zip(features.slots(), families, strict=True):
        places = np.searchsorted(slots, family)
        inside = places < len(slots)
        same = np.zeros(len(family), dtype=bool)
        same[inside] = slots[places[inside]] == family[inside]
        delta = np.zeros(len(family))
        delta[same] = deltas[places[same]]
        keys = family.tolist()
        shipped.update(zip(keys, base.tolist(), strict=True))
        found.update(zip(keys, (base + delta).tolist(), strict=True))
    if features.embedding:
        keys = range(SLOTS, SLOTS + DIMENSION)
        shipped.update(zip(keys, embedding.tolist(), strict=True))
        found.update(zip(keys, (embedding + weights.embedding()).tolist(), strict=True))
    return found, shipped, intercept


def _merged(weights: Weights, moved: dict[int, float]) -> tuple[I64, F32]:
    """Return slots and differences with those of one text in their place; the strongest where they are too many, of equal
    ones the lower slots."""
    slots, deltas = weights.sparse()
    # The first of each slot is kept: those that moved come before those that were there.
    every = np.concatenate([np.fromiter(moved.keys(), np.int64, len(moved)), slots])
    values = np.concatenate([np.fromiter(moved.values(), np.float64, len(moved)), deltas])
    places, first = np.unique(every, return_index=True)
    values = values[first]
    if len(places) > MOST_SLOTS:
        chosen = np.sort(np.argsort(-np.abs(values), kind="stable")[:MOST_SLOTS])
        places, values = places[chosen], values[chosen]
    narrow = values.astype(np.float32)
    return places[narrow != 0], narrow[narrow != 0]


def _fits(model: ToxicityModel, weights: Weights) -> None:
    if weights.base != model.version:
        raise WeightsError(
            f"weights learned on toxicity model {weights.base} do not fit the shipped {model.version}: "
            "start a new challenger, or go back to the release they were learned on"
        )

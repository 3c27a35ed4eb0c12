"""Toxicity of a text: River's hashed n-grams and logistic regression, shipped trained, learning on from labels.

The features of a text are its words and the character 4-grams within them (spelling variants share most of theirs), hashed
into a fixed number of buckets, so memory does not grow with the vocabulary. Each counts once, scaled to unit length. A long
text is scored in pieces of :data:`PIECE_WORDS` words and takes the score of its worst piece: an insult must not be diluted.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import FeatureHasher
from river.utils import VectorDict

__all__ = ["HASH_BITS", "PIECE_WORDS", "Scored", "ToxicityModel", "features", "pieces", "updated"]

HASH_BITS = 17
HASH_SEED = 1
PIECE_WORDS = 120
_GRAM = 4
_TOP_FEATURES = 5

# Addresses, mentions and the marks of one social network would let the model recognise where a text is from.
_NOISE = re.compile(r"https?://\S+|www\.\S+|@\w+|\brt\b")
_STRETCHED = re.compile(r"(.)\1{2,}")
# A word may carry signs inside (f*ck, a$$hole, don't).
_WORD = re.compile(r"[^\W_]+(?:['’*@$#!-]+[^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Scored:
    """The score of a text, from 0 to 1, and the buckets of its worst piece, ascending."""

    score: float
    buckets: tuple[int, ...]
    words: tuple[str, ...]


def pieces(text: str) -> list[list[str]]:
    """Return the normalised words of ``text`` in pieces; one empty piece where it has none."""
    words = _WORD.findall(_STRETCHED.sub(r"\1\1", _NOISE.sub(" ", html.unescape(text).lower())))
    return [words[start : start + PIECE_WORDS] for start in range(0, len(words), PIECE_WORDS)] or [[]]


def features(words: Iterable[str]) -> dict[str, int]:
    """Return each feature of a piece, counted once."""
    found: dict[str, int] = {}
    for word in words:
        found[word] = 1
        bounded = f"<{word}>"
        for start in range(len(bounded) - _GRAM + 1):
            found[bounded[start : start + _GRAM]] = 1
    return found


class ToxicityModel:
    """The shipped classifier; what was learned since is given to each call as differences to its weights."""

    def __init__(self, weights: NDArray[np.float32], intercept: float, threshold: float, version: str) -> None:
        """Take over trained weights.

        Args:
            weights: one weight a bucket, shape (2 ** HASH_BITS,).
            intercept: of the logistic regression.
            threshold: score from which a text counts as toxic.
            version: for the events.

        Raises:
            ValueError: the shape does not fit.
        """
        if weights.shape != (2**HASH_BITS,):
            raise ValueError(f"toxicity weights have shape {weights.shape}, not ({2**HASH_BITS},): train them again")
        self.threshold = threshold
        self.version = version
        self.intercept = intercept
        # River's annotations are incomplete.
        self._hasher: Any = FeatureHasher(n_features=2**HASH_BITS, seed=HASH_SEED, alternate_sign=False)
        self._weights: Any = VectorDict({int(bucket): float(weights[bucket]) for bucket in np.flatnonzero(weights)})

    def buckets(self, words: Sequence[str]) -> dict[int, int]:
        """Return the buckets of a piece."""
        hashed: dict[int, int] = self._hasher.transform_one(features(words))
        return dict.fromkeys(hashed, 1)

    def weight(self, bucket: int) -> float:
        """Return the shipped weight of a bucket."""
        return float(self._weights.get(bucket, 0.0))

    def score(self, text: str, deltas: Mapping[int, float], bias: float) -> Scored:
        """Return the score of ``text`` with ``deltas`` added to the weights and ``bias`` to the intercept."""
        best: tuple[float, dict[int, int], list[str]] | None = None
        for words in pieces(text):
            buckets = self.buckets(words)
            margin = self._margin(buckets, deltas) + bias
            if best is None or margin > best[0]:
                best = margin, buckets, words
        assert best is not None  # pieces is never empty
        margin, buckets, words = best
        return Scored(_sigmoid(margin), tuple(sorted(buckets)), tuple(words))

    def explain(self, scored: Scored, deltas: Mapping[int, float]) -> dict[str, float]:
        """Return the words that moved the score up most, each with its share of the margin (its 4-grams included)."""
        scale = _unit(len(scored.buckets))
        shares = {
            word: scale * sum(self.weight(bucket) + deltas.get(bucket, 0.0) for bucket in self.buckets([word]))
            for word in set(scored.words)
        }
        top = sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:_TOP_FEATURES]
        return {word: round(share, 4) for word, share in top if share > 0}

    def _margin(self, buckets: dict[int, int], deltas: Mapping[int, float]) -> float:
        total = float(self._weights.dot(buckets))
        if deltas:
            total += sum(deltas[bucket] for bucket in buckets if bucket in deltas)
        return total * _unit(len(buckets)) + self.intercept


def updated(
    model: ToxicityModel,
    deltas: Mapping[int, float],
    bias: float,
    buckets: Sequence[int],
    toxic: bool,
    *,
    rate: float,
    limit: float,
) -> tuple[dict[int, float], float]:
    """Return the differences after one step of River's logistic regression on a labelled text.

    Only the weights of the text's own buckets move, so the regression is made of those alone: the step is the one that the
    whole model would take.

    Args:
        model: the shipped weights.
        deltas: differences so far; not changed.
        bias: difference of the intercept so far.
        buckets: the text's, as :meth:`ToxicityModel.score` gave them.
        toxic: the label.
        rate: learning rate of the gradient step.
        limit: no difference grows beyond this, up or down: one source cannot turn a word around on its own.
    """
    before = {bucket: model.weight(bucket) + deltas.get(bucket, 0.0) for bucket in buckets}
    regression = _Warm(before, model.intercept + bias, rate)
    value = _unit(len(buckets))
    regression.learn_one(dict.fromkeys(buckets, value), toxic)
    after = regression.weights
    changed = dict(deltas)
    for bucket in buckets:
        changed[bucket] = _clamp(after.get(bucket, 0.0) - model.weight(bucket), limit)
    return changed, _clamp(regression.intercept - model.intercept, limit)


class _Warm(LogisticRegression):
    """River's logistic regression, starting from given weights."""

    def __init__(self, weights: dict[int, float], intercept: float, rate: float) -> None:
        super().__init__(optimizer=SGD(rate), intercept_init=intercept, intercept_lr=0.01)
        self._weights = VectorDict(weights)


def _unit(count: int) -> float:
    return 1 / math.sqrt(count) if count else 1.0


def _clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


def _sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin)) if margin > -700 else 0.0

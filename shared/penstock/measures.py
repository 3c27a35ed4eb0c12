"""How good a yes or no is beside labels, and the ranking behind it. Pure; every function takes arrays over the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Booleans", "Counts", "Floats", "OperatingPoint", "area_under_roc", "counts", "operating_point"]

Booleans = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counts:
    """True and false positives and negatives. Ratios without rows to count are None."""

    tp: int
    fp: int
    fn: int
    tn: int = 0

    @property
    def precision(self) -> float | None:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def false_positive_rate(self) -> float | None:
        return _ratio(self.fp, self.fp + self.tn)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall, None where there is nothing to find and nothing was found."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The lowest threshold (a score counts from it on) whose false positives stay within a bound."""

    threshold: float
    recall: float
    false_positive_rate: float


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def counts(labels: Booleans, found: Booleans) -> Counts:
    """Count hits and misses."""
    return Counts(
        tp=int(np.sum(labels & found)),
        fp=int(np.sum(~labels & found)),
        fn=int(np.sum(labels & ~found)),
        tn=int(np.sum(~labels & ~found)),
    )


def area_under_roc(labels: Booleans, scores: Floats) -> float | None:
    """The chance that a positive scores above a negative, ties counting half (Mann-Whitney U); None without both."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks = (last - (sizes - 1) / 2)[group]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def operating_point(labels: Booleans, scores: Floats, bound: float) -> OperatingPoint | None:
    """Where the share of negatives at or above the threshold is at most ``bound``; None without both kinds of rows.

    A threshold of infinity, above every score, is the answer where nothing lower keeps the bound.
    """
    negatives = np.sort(scores[~labels])[::-1]
    if not len(negatives) or not labels.any():
        return None
    allowed = int(np.floor(bound * len(negatives) + 1e-9))
    # The first negative that may not count any more: the threshold lies above it, at the next score that occurs.
    if allowed >= len(negatives):
        threshold = float(scores.min())
    else:
        above = scores[scores > negatives[allowed]]
        threshold = float(above.min()) if len(above) else float("inf")
    return OperatingPoint(
        threshold, float(np.mean(scores[labels] >= threshold)), float(np.mean(negatives >= threshold))
    )

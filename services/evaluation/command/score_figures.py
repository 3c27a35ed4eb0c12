"""How good scores are beside labels. Pure; every function takes arrays over the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from penstock.measures import Booleans, Floats, counts, operating_point

__all__ = [
    "AtThreshold",
    "Figures",
    "at_threshold",
    "auc_interval",
    "average_precision",
    "calibration_error",
    "figures",
]

_BINS = 15
_BOUND = 0.01


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """What a verdict from a threshold on is worth; a ratio without rows to count is None."""

    threshold: float
    precision: float | None
    recall: float | None
    false_positive_rate: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """How well scores tell positive rows from negative ones; None where one kind is missing.

    Attributes:
        auc: area under the ROC curve.
        auc_interval: its 95 % interval; None where the rows leave no spread to tell it by, as where every positive is above
            every negative.
        average_precision: area under the precision-recall curve, by steps.
        calibration_error: expected, over 15 bins of equal width.
        brier: mean squared difference of score and label.
        at_threshold: at the evaluator's own threshold, where it has one.
        best: at the threshold with the highest F1 on these very rows: what could be reached, no forecast.
        at_bound: at the lowest threshold with at most 1 % false positives on these rows.
    """

    rows: int
    positives: int
    auc: float | None
    auc_interval: tuple[float, float] | None
    average_precision: float | None
    calibration_error: float | None
    brier: float | None
    at_threshold: AtThreshold | None
    best: AtThreshold | None
    at_bound: AtThreshold | None


def figures(labels: Booleans, scores: Floats, threshold: float | None) -> Figures:
    """Return all figures of ``scores`` (0 to 1) beside ``labels``."""
    rows, positives = len(labels), int(labels.sum())
    own = at_threshold(labels, scores, threshold) if threshold is not None and rows else None
    if not 0 < positives < rows:
        return Figures(rows, positives, None, None, None, None, None, own, None, None)
    auc, interval = auc_interval(labels, scores)
    point = operating_point(labels, scores, _BOUND)
    return Figures(
        rows=rows,
        positives=positives,
        auc=auc,
        auc_interval=interval,
        average_precision=average_precision(labels, scores),
        calibration_error=calibration_error(labels, scores),
        brier=float(np.mean((scores - labels) ** 2)),
        at_threshold=own,
        best=_best(labels, scores),
        at_bound=None if point is None else at_threshold(labels, scores, point.threshold),
    )


def auc_interval(labels: Booleans, scores: Floats) -> tuple[float, tuple[float, float] | None]:
    """Return the chance that a positive scores above a negative, ties counting half, and its 95 % interval.

    The interval is DeLong's (1988), on the logit scale so that it stays within 0 and 1; both kinds of rows must be there.
    Without any spread (all told apart, all equal) there is none: a few rows that happen to be told apart are no certainty.
    """
    positive, negative = scores[labels], scores[~labels]
    above = _placements(positive, negative)
    below = 1 - _placements(negative, positive)
    auc = float(above.mean())
    variance = _variance(above) / len(positive) + _variance(below) / len(negative)
    if not 0 < auc < 1 or variance <= 0:
        return auc, None
    logit, half = math.log(auc / (1 - auc)), 1.96 * math.sqrt(variance) / (auc * (1 - auc))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, logit + sign * half)))) for sign in (-1, 1))
    return auc, (low, high)


def average_precision(labels: Booleans, scores: Floats) -> float:
    """Return the sum of precision times the step in recall over falling thresholds, equal scores as one step."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(labels[order])
    ends = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
    found = hits[ends]
    precision = found / (ends + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / hits[-1])


def calibration_error(labels: Booleans, scores: Floats) -> float:
    """Return the mean distance between mean score and share of positives, over 15 bins of equal width, by their rows.

    Naeini et al. 2015 ("expected calibration error"), for the chance of the positive label.
    """
    bins = np.minimum((scores * _BINS).astype(np.intp), _BINS - 1)
    gaps = np.bincount(bins, weights=scores - labels, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(scores))


def at_threshold(labels: Booleans, scores: Floats, threshold: float) -> AtThreshold:
    """Return what verdicts from ``threshold`` on are worth."""
    told = counts(labels, scores >= threshold)
    return AtThreshold(threshold, told.precision, told.recall, told.false_positive_rate, told.f1)


def _best(labels: Booleans, scores: Floats) -> AtThreshold:
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(labels[order])
    ends = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
    return at_threshold(labels, scores, float(sorted_scores[ends[int(np.argmax(f1))]]))


def _placements(ones: Floats, others: Floats) -> Floats:
    """Return for each of ``ones`` the share of ``others`` below it, equal ones counting half."""
    ordered = np.sort(others)
    left, right = np.searchsorted(ordered, ones, "left"), np.searchsorted(ordered, ones, "right")
    return np.asarray((left + right) / (2 * len(others)), dtype=np.float64)


def _variance(values: Floats) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0

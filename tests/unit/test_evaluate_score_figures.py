"""Figures of scores beside labels: equal to scikit-learn's, and what must hold for any scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from services.evaluation.command.score_figures import (
    at_threshold,
    auc_interval,
    average_precision,
    calibration_error,
    figures,
)

PAIRS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 20).map(lambda tenth: tenth / 20)), min_size=2, max_size=80
).filter(lambda pairs: len({label for label, _ in pairs}) == 2)


def arrays(pairs: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in pairs]), np.array([score for _, score in pairs], np.float64)


@settings(deadline=None)
@given(PAIRS)
def test_auc_and_average_precision_are_those_of_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    labels, scores = arrays(pairs)
    auc, interval = auc_interval(labels, scores)
    assert auc == pytest.approx(roc_auc_score(labels, scores))
    low, high = interval or (auc, auc)
    assert 0 <= low <= auc + 1e-12
    assert auc - 1e-12 <= high <= 1
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_the_best_threshold_has_the_highest_f1(pairs: list[tuple[bool, float]]) -> None:
    labels, scores = arrays(pairs)
    found = figures(labels, scores, 0.5)
    assert found.best is not None
    assert found.best.f1 == pytest.approx(max(f1_score(labels, scores >= one) for one in set(scores.tolist())))
    assert found.at_bound is not None
    assert (found.at_bound.false_positive_rate or 0) <= 0.01


def test_calibration_error_is_counted_by_hand() -> None:
    labels = np.array([True, True, False, False])
    assert calibration_error(labels, np.array([1.0, 1.0, 0.0, 0.0])) == 0
    assert calibration_error(labels, np.array([0.5, 0.5, 0.5, 0.5])) == 0
    assert calibration_error(labels, np.array([0.9, 0.9, 0.9, 0.9])) == pytest.approx(0.4)
    # Two bins: 0.2 below in one, 0.3 above in the other, of two rows each.
    assert calibration_error(labels, np.array([0.8, 0.8, 0.3, 0.3])) == pytest.approx(0.25)


def test_the_interval_of_an_auc_covers_the_truth() -> None:
    """Of normal scores a standard deviation apart the AUC is known; 95 of 100 intervals should hold it."""
    truth = 0.5 * math.erfc(-0.5)
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        labels = np.arange(120) < 50
        _, interval = auc_interval(labels, rng.normal(size=120) + labels)
        covered += interval is not None and interval[0] <= truth <= interval[1]
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(
    ("scores", "auc"), [([0.9, 0.8, 0.2, 0.1], 1.0), ([0.5] * 4, 0.5), ([0.1, 0.2, 0.8, 0.9], 0.0)]
)
def test_an_auc_without_spread_has_no_interval(scores: list[float], auc: float) -> None:
    """Two rows above two others are no certainty that all are."""
    assert auc_interval(np.array([True, True, False, False]), np.array(scores)) == (auc, None)


def test_verdicts_at_a_threshold() -> None:
    labels, scores = np.array([True, True, False, False, False]), np.array([0.9, 0.4, 0.6, 0.2, 0.1])
    found = at_threshold(labels, scores, 0.5)
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    assert found.false_positive_rate == pytest.approx(1 / 3)


def test_one_kind_of_label_has_no_auc() -> None:
    found = figures(np.array([True, True]), np.array([0.2, 0.9]), 0.5)
    assert (found.auc, found.average_precision, found.rows, found.positives) == (None, None, 2, 2)
    assert found.at_threshold is not None
    assert found.at_threshold.recall == 0.5

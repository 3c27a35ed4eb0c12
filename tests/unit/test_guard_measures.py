"""The figures of penstock guard evaluate, beside scikit-learn's and beside plain counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.measures import Counts, area_under_roc, counts, operating_point
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from services.guardrails.command.entities import Comparison, compare, is_lossless, is_structured
from services.guardrails.command.labelled import Entity
from services.guardrails.command.measures import intervals, sweep
from services.guardrails.findings import Span

ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=2, max_size=40)


def arrays(rows: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in rows]), np.array([score for _, score in rows])


@given(ROWS)
def test_ratios_and_area_agree_with_the_reference(rows: list[tuple[bool, float]]) -> None:
    labels, scores = arrays(rows)
    found = scores >= 0.5
    one = counts(labels, found)
    assert one.tp + one.fp + one.fn + one.tn == len(rows)
    if one.precision is not None:
        assert one.precision == pytest.approx(precision_score(labels, found))
    if one.recall is not None:
        assert one.recall == pytest.approx(recall_score(labels, found))
    if one.f1 is not None:
        assert one.f1 == pytest.approx(f1_score(labels, found, zero_division=0))
    if labels.any() and not labels.all():
        assert area_under_roc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    else:
        assert area_under_roc(labels, scores) is None


@given(ROWS, st.sampled_from([0.0, 0.01, 0.2, 0.5, 1.0]))
def test_operating_point_is_the_lowest_threshold_that_keeps_the_bound(
    rows: list[tuple[bool, float]], bound: float
) -> None:
    labels, scores = arrays(rows)
    point = operating_point(labels, scores, bound)
    if not labels.any() or labels.all():
        assert point is None
        return
    assert point is not None
    assert point.false_positive_rate <= bound + 1e-12
    assert point.recall == np.mean(scores[labels] >= point.threshold)
    lower = [score for score in scores if score < point.threshold]
    if lower:
        assert np.mean(scores[~labels] >= max(lower)) > bound


def test_no_threshold_keeps_a_bound_that_the_highest_score_breaks() -> None:
    labels, scores = np.array([True, False]), np.array([1.0, 1.0])
    point = operating_point(labels, scores, 0.0)
    assert point is not None
    assert (point.threshold, point.recall) == (float("inf"), 0.0)


def test_intervals_hold_the_figures_and_narrow_with_rows() -> None:
    rng = np.random.default_rng(3)

    def width(size: int) -> float:
        labels = np.arange(size) % 2 == 0
        scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
        found = scores >= 0.5
        ends = intervals(labels, found, scores, 0.05)
        recall = counts(labels, found).recall
        assert recall is not None
        assert ends["recall"][0] <= recall <= ends["recall"][1]
        auc = area_under_roc(labels, scores)
        assert auc is not None
        assert ends["auc"][0] <= auc <= ends["auc"][1]
        return ends["recall"][1] - ends["recall"][0]

    assert width(1000) < width(40)


def test_sweep_counts_at_each_threshold() -> None:
    labels, scores = np.array([True, True, False]), np.array([0.9, 0.4, 0.4])
    assert sweep(labels, scores, (0.3, 0.5)) == [(0.3, Counts(2, 1, 0, 0)), (0.5, Counts(1, 0, 1, 1))]


def test_entities_are_matched_by_overlap_and_kind_each_find_once() -> None:
    labelled = [Entity("GPE", 0, 6), Entity("PERSON", 10, 20), Entity("PERSON", 30, 40), Entity("DOMAIN_NAME", 50, 60)]
    found = [
        Span("LOCATION", 0, 6, 1), Span("PERSON", 10, 15, 1), Span("PERSON", 34, 60, 1), Span("URL", 50, 60, 1),
        Span("DE_TAX_ID", 70, 80, 1),
    ]  # fmt: skip
    comparison = Comparison()
    missed, excess = compare(labelled, found, ["GPE", "PERSON", "DOMAIN_NAME"], comparison)
    assert missed == [Entity("PERSON", 30, 40)]
    assert [span.kind for span in excess] == ["PERSON", "DE_TAX_ID"]
    assert comparison.by_type == {
        "GPE": Counts(1, 0, 0), "PERSON": Counts(1, 1, 1), "DOMAIN_NAME": Counts(1, 0, 0), "DE_TAX_ID": Counts(0, 1, 0),
    }  # fmt: skip
    assert comparison.total(filter(is_structured, comparison.by_type)) == Counts(1, 1, 0)


def test_one_find_does_not_count_for_two_entities() -> None:
    comparison = Comparison()
    compare([Entity("PERSON", 0, 10), Entity("PERSON", 0, 10)], [Span("PERSON", 0, 10, 1)], ["PERSON"], comparison)
    assert comparison.by_type["PERSON"] == Counts(1, 0, 1)


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=4))
def test_masking_and_restoring_any_stretches_is_lossless(text: str, places: list[tuple[int, int]]) -> None:
    spans = [Span("PERSON", start, min(len(text), start + size), 1.0) for start, size in places if start < len(text)]
    assert is_lossless(text, spans)

"""Evidence of fresh values: exact where it can be, and bounded under no change as Ville's inequality says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from services.drift.detection.evidence import beta_binomial, normal, spend

counts = st.integers(1, 400)
means = st.floats(-5, 5)


@given(before_mean=means, after_mean=means, fresh_mean=means, before=counts, after=counts, fresh=counts)
def test_the_normal_evidence_is_the_ratio_of_the_two_predictive_densities(
    before_mean: float, after_mean: float, fresh_mean: float, before: int, after: int, fresh: int
) -> None:
    found = normal(before_mean, before, after_mean, after, 1.5, fresh_mean, fresh)
    expected = stats.norm.logpdf(fresh_mean, after_mean, 1.5 * math.sqrt(1 / fresh + 1 / after)) - stats.norm.logpdf(
        fresh_mean, before_mean, 1.5 * math.sqrt(1 / fresh + 1 / before)
    )
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(data=st.data(), before=counts, after=counts, fresh=counts)
def test_the_evidence_of_a_rate_is_the_ratio_of_two_beta_binomials(
    data: st.DataObject, before: int, after: int, fresh: int
) -> None:
    ones = [data.draw(st.integers(0, count)) for count in (before, after, fresh)]
    found = beta_binomial(ones[0], before, ones[1], after, ones[2], fresh)
    expected = stats.betabinom.logpmf(ones[2], fresh, ones[1] + 0.5, after - ones[1] + 0.5) - stats.betabinom.logpmf(
        ones[2], fresh, ones[0] + 0.5, before - ones[0] + 0.5
    )
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_without_fresh_values_there_is_no_evidence() -> None:
    assert normal(0, 100, 1, 10, 1, 0, 0) == beta_binomial(1, 100, 5, 10, 0, 0) == 0


def test_dependent_values_weigh_less() -> None:
    alone = normal(0, 100, 1, 10, 1, 1, 20)
    assert alone > 0
    assert normal(0, 100, 1, 10, 1, 1, 20, inflation=2) == pytest.approx(alone / 2)
    assert beta_binomial(1, 100, 5, 10, 10, 20, inflation=2) == pytest.approx(beta_binomial(1, 100, 5, 10, 10, 20) / 2)


def test_under_no_change_the_evidence_reaches_its_threshold_no_more_often_than_alpha() -> None:
    """Looked at after each of 300 values; the reference's mean is drawn as its uncertainty says."""
    rng = np.random.default_rng(5)
    alpha, streams, reference = 0.05, 2000, 200
    crossed = crossed_rate = 0
    for _ in range(streams):
        fresh = np.cumsum(rng.normal(0, 1, 300)) / np.arange(1, 301)
        mean = rng.normal(0, reference**-0.5)
        crossed += any(
            normal(mean, reference, mean + 0.5, 15, 1, fresh[k - 1], k) >= -math.log(alpha) for k in range(1, 301, 3)
        )
        rate = rng.beta(0.5, 0.5) if rng.random() < 0.5 else 0.2
        before = rng.binomial(reference, rate)
        ones = np.cumsum(rng.random(300) < rate)
        crossed_rate += any(
            beta_binomial(before, reference, 8, 20, float(ones[k - 1]), k) >= -math.log(alpha) for k in range(1, 301, 3)
        )
    # The bound, and two standard errors of a count of 100.
    assert 0 < crossed <= alpha * streams + 20
    assert 0 < crossed_rate <= alpha * streams + 20


def test_under_a_change_the_evidence_grows() -> None:
    found = [normal(0, 500, 0.9, 12, 1, 1.0, k) for k in (1, 5, 20, 50)]
    assert found == sorted(found)
    assert found[-1] > 15


def test_what_is_spent_is_taken_from_the_wealth() -> None:
    alpha, left = spend(0.01, 0.8)
    assert alpha == pytest.approx(0.008)
    assert alpha + left == pytest.approx(0.01)

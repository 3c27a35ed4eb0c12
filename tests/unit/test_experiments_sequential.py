"""The tests behind decisions: valid at every look where a usual one is not, and strong enough to be of use."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from services.evaluation.experiments.clusters import BUCKETS, added, difference, empty, estimate
from services.evaluation.experiments.sequential import Bound, ratio_evidence
from services.evaluation.experiments.units import PLACES, first_seen, none_seen, units_seen
from tests.bench.experiment_streams import METRICS, Truth, first_rejections, stream

alphas = st.sampled_from([0.2, 0.05, 0.01, 0.001])
freedoms = st.floats(12, 200)
sizes = st.floats(20, 1e6)


@given(alphas, sizes, freedoms)
def test_the_p_value_is_the_level_at_which_the_interval_touches_zero(alpha: float, size: float, freedom: float) -> None:
    bound = Bound(alpha)
    width = bound.width(size, freedom)
    assert bound.p_value(width, size, freedom) == pytest.approx(alpha, rel=1e-6)
    assert bound.p_value(width * 1.01, size, freedom) < alpha < bound.p_value(width * 0.99, size, freedom)


@given(alphas, sizes, freedoms)
def test_the_bound_is_beyond_that_of_a_single_look(alpha: float, size: float, freedom: float) -> None:
    assert Bound(alpha).width(size, freedom) > stats.t.ppf(1 - alpha / 2, freedom)


@given(st.floats(0.5, 6), freedoms)
def test_the_correction_for_few_clusters_is_that_of_students_t(z: float, freedom: float) -> None:
    """A normal bound z at which the mixture stands becomes the t with the same tail."""
    correction = (8 * freedom + 3) / (8 * freedom + 1)
    t = math.sqrt(freedom * math.expm1(correction**2 * z * z / freedom))
    assert stats.t.logsf(t, freedom) == pytest.approx(stats.norm.logsf(z), rel=0.01, abs=0.002)


def test_the_mixture_is_the_integral_that_it_is_said_to_be() -> None:
    """The p-value is one over the likelihood ratio averaged over a normal prior of the difference."""
    bound, size, statistic = Bound(0.05), 800.0, 2.7
    many = 1e9  # degrees of freedom: normal
    log_odds = -2 * math.log(0.05)
    rate = (log_odds + math.log(log_odds + 1)) / 500.0
    drift = np.linspace(-40, 40, 200_001)  # in standard errors
    prior = stats.norm.pdf(drift, scale=math.sqrt(rate * size))
    ratio = np.trapezoid(prior * np.exp(statistic * drift - drift**2 / 2), drift)
    assert bound.p_value(statistic, size, many) == pytest.approx(1 / ratio, rel=1e-6)


def test_the_variance_of_a_mean_is_that_of_its_clusters() -> None:
    """Against the delta method computed from users one by one, which the buckets stand for."""
    dice = np.random.default_rng(7)
    users = 4_000
    counts = dice.geometric(0.3, users)
    means = np.clip(0.5 + 0.1 * dice.normal(size=users), 0, 1)
    ratio = float((means * counts).sum() / counts.sum())
    exact = float((((means - ratio) * counts) ** 2).sum()) / float(counts.sum()) ** 2
    estimates = []
    for salt in range(40):  # other hashes of the same users
        cells = np.random.default_rng(salt).integers(0, BUCKETS, users)
        sums, of = np.zeros(BUCKETS, dtype="<i8"), np.zeros(BUCKETS, dtype="<i8")
        np.add.at(sums, cells, np.rint(means * counts * 2**40).astype(np.int64))
        np.add.at(of, cells, counts)
        found = estimate(np.stack([sums, of]).tobytes(), 0, 0.0)
        assert found is not None
        assert found.mean == pytest.approx(ratio, rel=1e-9)
        estimates.append(found.variance)
    assert np.mean(estimates) == pytest.approx(exact, rel=0.1)


def test_few_users_are_no_ground_for_a_comparison() -> None:
    block = empty(1)
    for request in range(1_000):
        block = added(block, 0, request % 8, 2**39, 1)
    found = estimate(block, 0, 1.0)
    assert found is not None
    assert found.freedom == pytest.approx(7)
    assert difference(found, found) is None


# -- under repeated looks (tests/bench/bench_experiments.py does this at length) -------------------------------------------


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_looking_all_the_time_finds_no_difference_where_there_is_none(metric: str) -> None:
    truth = Truth(metric, users=400)
    runs = [
        first_rejections(stream(truth, 4_000, np.random.default_rng(seed)), METRICS[metric], 0.05, 80)
        for seed in range(40)
    ]
    wrong = {test: sum(run[test] is not None for run in runs) for test in runs[0]}
    # At 5 % six or more of 40 have a chance of 1.4 %; the usual tests have far more.
    assert wrong["sequential"] <= 5
    assert wrong["t_requests"] >= 12
    assert wrong["t_users"] > wrong["sequential"]


def test_a_difference_is_found_in_about_twice_the_requests_of_a_single_look() -> None:
    truth = Truth("answer.groundedness", effect=0.03, users=20_000)
    fixed, horizon = 1_200, 6_000
    metric = METRICS[truth.metric]
    once = [first_rejections(stream(truth, fixed, np.random.default_rng(seed)), metric, 0.05, 1) for seed in range(30)]
    assert sum(run["t_once"] is not None for run in once) >= 15, "a single look finds it more often than not"
    runs = [
        first_rejections(stream(truth, horizon, np.random.default_rng(seed)), metric, 0.05, 60) for seed in range(30)
    ]
    found = [run["sequential"] for run in runs]
    assert sum(at is not None for at in found) >= 28
    assert np.mean([at or horizon for at in found]) < 2.2 * fixed


# -- the ratio of arms ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 500), min_size=2, max_size=5), st.data())
def test_the_ratios_evidence_is_the_multinomial_bayes_factor(counts: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(counts), max_size=len(counts)))
    shares = np.array(weights) / sum(weights)
    prior = 100 * shares
    log_factor = (
        special.gammaln(100) - special.gammaln(100 + sum(counts))
        + np.sum(special.gammaln(prior + counts) - special.gammaln(prior)) - np.sum(counts * np.log(shares))
    )  # fmt: skip
    assert ratio_evidence(counts, weights) == pytest.approx(min(1.0, math.exp(-log_factor)), rel=1e-6, abs=1e-300)


def test_looking_all_the_time_finds_no_mismatch_where_there_is_none_and_soon_where_there_is() -> None:
    def first_at(share: float, seed: int) -> int | None:
        arms = np.random.default_rng(seed).random(6_000) < share
        second = np.cumsum(arms)
        for number in range(50, 6_000, 10):
            if ratio_evidence([number - int(second[number - 1]), int(second[number - 1])], [1, 1]) <= 0.01:
                return number
        return None

    assert sum(first_at(0.5, seed) is not None for seed in range(200)) <= 6
    delays = [first_at(0.45, seed) for seed in range(40)]
    assert sum(delay is not None for delay in delays) >= 38


@given(st.integers(0, PLACES - 1))
def test_more_places_taken_mean_more_units(counted: int) -> None:
    assert units_seen(counted) >= counted
    assert units_seen(counted + 1) >= units_seen(counted)


def test_a_unit_takes_its_place_once() -> None:
    seen, taken = none_seen(), 0
    for number in (1, 2, 3, 2, 1):
        now = first_seen(seen, f"{number:08x}00000000")
        if now is not None:
            assert bin(int.from_bytes(now, "big")).count("1") == taken + 1
            seen, taken = now, taken + 1
    assert taken == 3
    assert all(a < b for a, b in pairwise([units_seen(n) for n in (1_000, 10_000, 60_000)]))

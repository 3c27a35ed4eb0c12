"""Paired bootstrap, Holm's adjustment, rules, and what counts as a regression."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.paired_bootstrap import adjusted, paired

from services.evaluation.golden.comparison import Comparison, compare, demands
from services.evaluation.golden.metrics import Bound, RuleError, rule_of, rules_of

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("kind", ["normal", "skewed", "binary"])
def test_the_interval_covers_the_true_difference(kind: str) -> None:
    rng = np.random.default_rng(11)
    trials, cases = 300, 25
    covered = 0
    for trial in range(trials):
        hard = rng.normal(0, 1, cases)
        if kind == "normal":
            a, b, true = hard, hard + rng.normal(0.3, 0.5, cases), 0.3
        elif kind == "skewed":
            a, b, true = hard, hard + rng.exponential(0.5, cases), 0.5
        else:
            a, b, true = (rng.random(cases) < 0.8).astype(float), (rng.random(cases) < 0.6).astype(float), -0.2
        found = paired(a, b, seed=trial, resamples=600)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    # 95 %, less two that skewness costs at 25 cases; three standard errors of 300 trials are 4 %.
    assert 0.90 <= covered / trials <= 0.99


def test_the_same_seed_gives_the_same_interval_and_pairing_narrows_it() -> None:
    hard = RNG.normal(0, 5, 60)
    a, b = hard + RNG.normal(0, 0.1, 60), hard + 0.2 + RNG.normal(0, 0.1, 60)
    first, second = paired(a, b, seed=1), paired(a, b, seed=1)
    assert first == second
    assert first is not None
    assert first.low is not None
    assert first.high is not None
    assert 0.1 < first.low < 0.2 < first.high < 0.3
    assert first.p is not None
    assert first.p < 0.001


def test_weights_count_and_shares_are_of_the_baseline() -> None:
    found = paired([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 2.0], [1, 1, 1, 3])
    assert found is not None
    assert found.value == pytest.approx(0.5)
    share = paired([2.0, 2.0, 2.0], [3.0, 3.0, 3.0], relative=True)
    assert share is not None
    assert share.value == pytest.approx(0.5)
    assert share.low == pytest.approx(0.5)
    assert paired([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], relative=True) is None


def test_too_few_cases_have_no_interval_and_equal_ones_no_width() -> None:
    two = paired([1.0, 0.0], [0.0, 0.0])
    assert two is not None
    assert (two.value, two.low, two.p) == (-0.5, None, None)
    assert paired([], []) is None
    equal = paired([0.3, 0.9, 0.5], [0.3, 0.9, 0.5])
    assert equal is not None
    assert (equal.low, equal.high, equal.p) == (0.0, 0.0, 1.0)


def test_few_cases_are_no_strong_evidence_however_much_they_agree() -> None:
    """Signs of three differences fall alike by chance in one of four runs: 0.0002 would be the word of the resamples."""
    for cases, least in ((3, 0.25), (5, 0.0625)):
        same = paired([1.0] * cases, [0.0] * cases)
        alike = paired([1.0] * cases, [0.1 * number / cases for number in range(cases)])
        assert same is not None
        assert alike is not None
        assert (same.p, alike.p) == (least, least)


def test_one_case_that_costs_something_does_not_decide_for_all() -> None:
    """Draws without it are nothing on both sides, which is no difference."""
    share = paired([0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 2.0], relative=True)
    assert share is not None
    assert share.low is not None
    assert share.p is not None
    assert share.value == pytest.approx(1.0)
    assert share.low <= 0
    assert share.p > 0.05


def test_adjusted_p_values_are_those_of_holm() -> None:
    # Holm 1979: 0.01 * 4, 0.013 * 3 (raised to the one before), 0.04 * 2, 0.3.
    assert adjusted([0.04, None, 0.01, 0.013, 0.3]) == pytest.approx([0.08, None, 0.04, 0.04, 0.3])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_adjusted_p_values_are_no_smaller_and_keep_their_order(p_values: list[float]) -> None:
    found = [p for p in adjusted(p_values) if p is not None]
    assert all(after >= before for after, before in zip(found, p_values, strict=True))
    assert all(after <= 1 for after in found)
    order = np.argsort(p_values, kind="stable")
    assert all(found[i] <= found[j] for i, j in itertools.pairwise(order))


def test_rules_are_read_and_bad_ones_show_one_that_can_be() -> None:
    names = ["passed", "cost", "answer.groundedness", "judge.helpfulness"]
    rules = rules_of(["answer.groundedness<-0.05", "cost > +25%"], names)
    assert rules["answer.groundedness"] == Bound("<", -0.05)
    assert rules["cost"] == Bound(">", 0.25, relative=True)
    assert rules["passed"] == Bound("<", 0.0)
    assert rules["judge.helpfulness"] == Bound("<", -0.05)
    assert rules_of(["cost>0.1"], names, only_given=True) == {"cost": Bound(">", 0.1)}
    assert (str(rules["cost"]), str(rules["passed"])) == ("> +25%", "< 0")
    for bad, said in (("groundedness", "is no rule"), ("speed<1", "no metric 'speed'"), ("cost<=1", "write < or >")):
        with pytest.raises(RuleError, match=said):
            rules_of([bad], names)
    assert rule_of("passed>=0.9", names).holds(0.9)
    assert not rule_of("passed>0.9", names).holds(0.9)
    with pytest.raises(RuleError, match="without %"):
        rule_of("passed>=90%", names)


def compared(
    a: list[float], b: list[float], rule: Bound | None, *, metric: str = "answer.groundedness", strict: bool = False
) -> Comparison:
    cases = [f"c{index}" for index in range(len(a))]
    return compare(
        ("a", {metric: dict(zip(cases, a, strict=True))}),
        ("b", {metric: dict(zip(cases, b, strict=True))}),
        dict.fromkeys(cases, 1.0),
        {} if rule is None else {metric: rule},
        resamples=1000,
        strict=strict,
    )


def verdict(a: list[float], b: list[float], rule: Bound | None, **options: object) -> str:
    (row,) = compared(a, b, rule, **options).metrics  # type: ignore[arg-type]
    return row.verdict


def test_a_regression_lies_beyond_the_margin_as_a_whole() -> None:
    base = [0.5 + 0.01 * (index % 7) for index in range(30)]
    noise = [0.002 * (index % 5) for index in range(30)]
    lower = [x - 0.05 + n for x, n in zip(base, noise, strict=True)]
    assert verdict(base, lower, Bound("<", -0.02)) == "regression"
    assert verdict(base, lower, Bound("<", -0.1)) == "worse"
    assert verdict(base, lower, None) == "worse"
    assert verdict(lower, base, Bound("<", -0.02)) == "better"
    assert verdict(base, base, Bound("<", 0.0)) == "same"
    assert verdict(base[:2], lower[:2], Bound("<", -0.02)) == "untested"
    # The interval reaches into the margin: not shown.
    mixed = [x - 0.1 * (index % 3 == 0) for index, x in enumerate(base)]
    assert verdict(base, mixed, Bound("<", -0.02)) == "worse"


def test_less_is_better_where_it_is_and_a_share_is_of_the_mean() -> None:
    base = [0.001 + 0.0001 * (index % 3) for index in range(20)]
    dearer = [x * 1.2 for x in base]
    assert verdict(base, dearer, Bound(">", 0.1, relative=True), metric="cost") == "regression"
    assert verdict(base, dearer, Bound(">", 0.3, relative=True), metric="cost") == "worse"
    assert verdict(dearer, base, Bound(">", 0.1, relative=True), metric="cost") == "better"
    assert verdict([0.0] * 20, base, Bound(">", 0.1, relative=True), metric="cost") == "regression"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=30))
def test_a_variant_never_regresses_against_itself(values: list[float]) -> None:
    assert not compared(values, values, Bound("<", 0.0)).regressions
    assert not compared(values, values, Bound(">", 0.0), metric="cost").regressions


def test_strict_asks_for_significance_after_the_adjustment() -> None:
    cases = [f"c{index}" for index in range(12)]
    rng = np.random.default_rng(3)
    noise = {f"m{number}": dict(zip(cases, rng.normal(0, 1, 12), strict=True)) for number in range(100)}
    other = {f"m{number}": dict(zip(cases, rng.normal(0, 1, 12), strict=True)) for number in range(100)}
    weights = dict.fromkeys(cases, 1.0)
    rules = {name: Bound("<", 0.0) for name in noise}
    plain = compare(("a", noise), ("b", other), weights, rules, resamples=1000)
    strict = compare(("a", noise), ("b", other), weights, rules, resamples=1000, strict=True)
    assert plain.regressions
    assert not strict.regressions


def test_only_cases_of_both_sides_are_compared_and_the_others_are_counted() -> None:
    comparison = compare(
        ("a", {"passed": {"1": 1.0, "2": 1.0, "3": 1.0, "4": 0.0}}),
        ("b", {"passed": {"1": 1.0, "2": 1.0, "3": 0.0, "5": 1.0}}),
        dict.fromkeys("12345", 1.0),
        {},
    )
    (row,) = comparison.metrics
    assert (row.cases, row.left_out) == (3, 2)
    assert (row.baseline, row.candidate) == (1.0, pytest.approx(2 / 3))


def test_a_required_mean_that_nothing_has_is_not_met() -> None:
    wanted = [rule_of("passed>=0.5", ["passed"]), rule_of("cost<=1", ["cost"])]
    found = demands({"a": {"passed": {"1": 1.0, "2": 0.0}}}, {"1": 3.0, "2": 1.0}, wanted)
    assert [(one.mean, one.met) for one in found] == [(0.75, True), (None, False)]

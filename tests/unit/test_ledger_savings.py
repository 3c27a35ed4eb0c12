"""Savings by cause, cheaper models, and the scores that stand beside them."""

from __future__ import annotations

import statistics
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.plane import ConfigPlane
from penstock.config.prices import Price
from penstock.contracts.records import Context, Cost, Evaluation, Feedback, Score, Usage
from penstock.ledger.dimensions import dimensions
from penstock.ledger.savings import Routing, Savings
from penstock.ledger.scores import Moments, ScoreBook, difference, interval, warning
from penstock.money import charge, from_pico
from scipy import stats

from tests.unit.ledger_costs import PRICES, START, costs, priced

USAGE = Usage(input_tokens=1000, output_tokens=100)


@settings(max_examples=60, deadline=None)
@given(st.lists(costs(), max_size=25))
def test_savings_are_exact_by_cause_and_add_up(entries: list[Cost]) -> None:
    savings = Savings(dimensions(["team", "model"]))
    for one in entries:
        savings.add(one)
    total = savings.total
    for cause in ("exact_cache", "prefix_cache"):
        expected = sum((one.saved.get(cause, Decimal(0)) for one in entries), Decimal(0))
        assert from_pico(total.causes.get(cause, 0)) == expected
    assert from_pico(total.paid) == sum((one.amount for one in entries if one.amount is not None), Decimal(0))
    sheet = savings.sheet()
    saved = [column.name for column in sheet.columns].index("saved")
    assert sum((row[saved] or 0 for row in sheet.rows), Decimal(0)) == from_pico(total.saved)


def test_shares_are_of_what_would_have_been_paid() -> None:
    savings = Savings(dimensions(["team"]))
    savings.add(priced("small", USAGE))
    savings.add(priced("small", USAGE, kind="cached"))
    assert savings.sheet().total is not None
    by_name = dict(zip((c.name for c in savings.sheet().columns), savings.sheet().total or (), strict=True))
    assert (by_name["saved_share"], by_name["exact_cache_share"], by_name["semantic_cache_share"]) == (0.5, 0.5, 0.0)


def routing(entries: list[Cost], candidates: list[str], *more: Price) -> Routing:
    made = Routing(ConfigPlane.of([*PRICES.values(), *more]).price, candidates)
    for one in entries:
        made.add(one)
    return made


@settings(max_examples=60, deadline=None)
@given(st.lists(costs(), max_size=25))
def test_a_candidate_is_charged_for_the_same_calls(entries: list[Cost]) -> None:
    made = routing(entries, ["small", "large"])
    for (team, route, model), candidate, one in made.cheaper(frozenset({"small", "large"})):
        same = [
            c for c in entries
            if (c.tenant_id, c.context.route, c.model) == (team, route, model)
            and c.kind in ("completion", "repeat", "cancelled") and c.amount is not None
        ]  # fmt: skip
        assert one.compared_calls == len(same)
        assert from_pico(one.there) == sum((charge(PRICES[candidate], c.usage).total for c in same), Decimal(0))
        assert from_pico(one.actual) == sum((c.amount for c in same if c.amount is not None), Decimal(0))
    assert all(one.saving > 0 for _, _, one in made.cheaper())


def test_dearer_models_are_left_out_unless_they_were_named() -> None:
    entries = [priced("small", USAGE)]
    assert not list(routing(entries, ["large"]).cheaper())
    [(group, model, one)] = routing(entries, ["large"]).cheaper(frozenset({"large"}))
    assert (group, model) == (("support", "default", "small"), "large")
    assert one.saving < 0


def test_calls_that_do_not_fit_a_candidate_are_counted_and_not_compared() -> None:
    narrow = Price(
        model="narrow", input_cost_per_token=Decimal("0"), output_cost_per_token=Decimal("0"), max_input_tokens=500
    )
    entries = [priced("small", USAGE), priced("small", Usage(input_tokens=500))]
    [(_, _, one)] = routing(entries, ["narrow"], narrow).cheaper()
    assert (one.compared_calls, one.too_long) == (1, 1)
    assert from_pico(one.saving) == charge(PRICES["small"], Usage(input_tokens=500)).total


def test_a_candidate_by_the_second_or_without_a_price_is_not_compared() -> None:
    for candidate in ("timed", "unheard-of"):
        [(_, _, one)] = routing([priced("small", USAGE)], [candidate]).cheaper(frozenset({candidate}))
        assert (one.compared_calls, one.unknown, one.saving) == (0, 1, 0)


def moments(values: list[float]) -> Moments:
    made = Moments()
    for value in values:
        made.add(value)
    return made


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_moments_are_those_of_the_whole_series(values: list[float]) -> None:
    made = moments(values)
    assert made.mean == pytest.approx(statistics.fmean(values))
    assert made.deviation == pytest.approx(statistics.stdev(values), abs=1e-9)


def test_intervals_and_differences_are_those_of_scipy_on_the_values() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.beta(8, 2, 60).tolist(), rng.beta(5, 4, 45).tolist()
    low, high = stats.t.interval(0.95, len(a) - 1, loc=np.mean(a), scale=stats.sem(a))
    assert interval(moments(a)) == pytest.approx((low, high))
    test = stats.ttest_ind(a, b, equal_var=False)
    found = difference(moments(a), moments(b))
    assert found is not None
    expected = test.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((test.pvalue, expected.low, expected.high))


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        found = interval(moments(rng.uniform(0, 1, 40).tolist()))
        assert found is not None
        covered += found[0] <= 0.5 <= found[1]
    assert 365 <= covered <= 395


def test_one_score_has_no_interval_and_no_difference() -> None:
    assert interval(moments([0.5])) is None
    assert difference(moments([0.5]), moments([0.5, 0.6])) is None
    assert interval(moments([1.0] * 9)) is None  # nothing is known of how much others would vary
    assert difference(moments([1.0] * 9), moments([0.9] * 9)) is None


GOOD, BAD = moments([0.9, 0.8, 1.0] * 12), moments([0.2, 0.3, 0.1] * 12)


@pytest.mark.parametrize(
    ("name", "candidate", "other", "says"),
    [
        ("groundedness", Moments(), GOOD, "no groundedness scores of the candidate"),
        ("groundedness", moments([0.9] * 5), GOOD, "only 5 groundedness scores of the candidate"),
        ("groundedness", GOOD, moments([0.9] * 5), "only 5 groundedness scores of the model in use"),
        ("groundedness", BAD, GOOD, "significantly worse"),
        ("groundedness", GOOD, BAD, None),
        ("toxicity", GOOD, BAD, "significantly worse"),
        ("toxicity", BAD, GOOD, None),
        ("feedback", GOOD, GOOD, None),
        ("groundedness", moments([0.2, 0.3, 0.1] * 4), GOOD, "candidate, groundedness is significantly worse"),
        ("groundedness", moments([0.5] * 40), moments([0.6] * 40), "differs by -0.100"),
        ("groundedness", moments([0.6] * 40), moments([0.6] * 40), None),
        ("brevity", BAD, GOOD, None),  # which way it is better is not known
    ],
)
def test_warnings(name: str, candidate: Moments, other: Moments, says: str | None) -> None:
    found = warning(name, candidate, other)
    assert found is None if says is None else found is not None and says in found


def call(request_id: str, model: str, route: str = "default", **changes: Any) -> Cost:
    context = Context(requested_at=START, route=route)
    return priced(model, USAGE, request_id=request_id, context=context, **changes)


def evaluation(request_id: str, score: float, status: str = "completed") -> Evaluation:
    scores = [
        Score(name="groundedness", subject="answer", score=score),
        Score(name="toxicity", subject="prompt", score=1),
    ]
    return Evaluation(
        event_id="v", request_id=request_id, tenant_id="support", occurred_at=START, causation_id="",
        context=Context(requested_at=START), model="whatever", status=status, scores=scores,
    )  # fmt: skip


def rating(request_id: str, value: float) -> Feedback:
    return Feedback(
        event_id="f", request_id=request_id, tenant_id="support", occurred_at=START, causation_id="", rating=value
    )


def test_scores_belong_to_the_model_of_the_requests_last_call_and_count_once() -> None:
    book = ScoreBook()
    for one in (
        call("r1", "small"), call("r2", "small", attempt=0), call("r2", "large", kind="repeat", attempt=1),
        call("r3", "small", route="other"), call("r4", "small"), call("r5", "small", kind="cached"),
        call("r6", "small", kind="judge"),
    ):  # fmt: skip
        book.call(one)
    for request_id, score in (
        ("r1", 0.2),
        ("r1", 0.2),
        ("r2", 0.9),
        ("r3", 0.4),
        ("r5", 0.1),
        ("r6", 0.1),
        ("r7", 0.1),
    ):
        book.evaluation(evaluation(request_id, score))
    book.evaluation(evaluation("r4", 0.6, status="blocked"))
    for request_id, value in (("r1", 0.0), ("r1", 1.0), ("r9", 0.0)):
        book.feedback(rating(request_id, value))
    small = book.of(("support", "default", "small"))
    assert {name: (one.n, one.mean) for name, one in small.items()} == {"feedback": (1, 1.0), "groundedness": (1, 0.2)}
    assert book.of(("support", "default", "large"))["groundedness"].mean == 0.9
    wider = book.of((None, None, "small"))["groundedness"]
    assert wider.n == 2
    assert wider.mean == pytest.approx(0.3)
    assert wider.deviation == pytest.approx(statistics.stdev([0.2, 0.4]))
    assert book.of(("support", "default", "unheard-of")) == {}

"""Which target is asked first: the cheapest or fastest that qualifies, by what calls were like lately."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.clock import ManualClock
from penstock.config.kinds import QualityFloor, Route, Target
from penstock.contracts.records import Context, Evaluation, Score

from services.inference.routing.choosing import EXPLORED, Candidate, ranked
from services.inference.routing.observed import HALF_LIFE_S, LEAST_KNOWN, Fading, Latency
from services.inference.routing.quality import LEAST_SCORES, MeasuredQuality
from services.inference.routing.regression import non_negative_fit


def a_target(name: str, **changes: object) -> Target:
    return Target.model_validate({"name": name, "backend": "vllm", "model": f"m-{name}"} | changes)


def a_candidate(
    name: str, cost: str | None = "1", seconds: float | None = 1.0, *, trusted: bool = True, unknown: bool = False
) -> Candidate:
    return Candidate(a_target(name), None if cost is None else Decimal(cost), seconds, trusted, unknown)


def names(
    choice: Literal["cheapest", "fastest"], *candidates: Candidate, left_s: float | None = None, draw: float = 1.0
) -> tuple[list[str], str]:
    ranking = ranked(choice, candidates, left_s, draw)
    return [target.label for target in ranking.targets], ranking.reason


def test_the_cheapest_that_meets_the_deadline_is_first_and_all_stay_in_the_chain() -> None:
    slow, fair, dear = a_candidate("slow", "1", 30.0), a_candidate("fair", "2", 4.0), a_candidate("dear", "9", 1.0)
    assert names("cheapest", dear, slow, fair) == (["slow", "fair", "dear"], "cheapest")
    assert names("cheapest", dear, slow, fair, left_s=5.0) == (["fair", "dear", "slow"], "cheapest")
    assert names("cheapest", dear, slow, fair, left_s=0.5) == (["dear", "slow", "fair"], "none_qualifies")
    # Its own timeout ends a call, too.
    impatient = Candidate(a_target("slow", timeout_s=20), Decimal(1), 30.0, trusted=True)
    assert names("cheapest", dear, impatient, fair, left_s=60.0) == (["fair", "dear", "slow"], "cheapest")


def test_what_is_not_trusted_stands_in_and_what_has_no_price_comes_after_what_has_one() -> None:
    bad, free = a_candidate("bad", "0", trusted=False), a_candidate("free", None)
    good = a_candidate("good", "5")
    assert names("cheapest", bad, free, good) == (["good", "free", "bad"], "cheapest")
    assert names("cheapest", bad, free) == (["free", "bad"], "unpriced")
    assert names("cheapest", bad) == (["bad"], "none_qualifies")


def test_the_fastest_must_be_known_to_be_fast() -> None:
    known, faster, new = (
        a_candidate("known", seconds=2.0),
        a_candidate("faster", seconds=1.0),
        a_candidate("new", seconds=None),
    )
    assert names("fastest", new, known, faster) == (["faster", "known", "new"], "fastest")
    assert names("fastest", new, known, left_s=1.0) == (["new", "known"], "none_qualifies")


def test_a_few_requests_try_what_is_not_known_where_it_might_be_better() -> None:
    known = a_candidate("known", "2", 1.0)
    cheaper, dearer = a_candidate("c", "1", None, unknown=True), a_candidate("d", "3", None, unknown=True)
    little = EXPLORED / 2
    assert names("cheapest", known, cheaper, left_s=9.0, draw=little) == (["c", "known"], "explored")
    assert names("cheapest", known, cheaper, left_s=9.0, draw=EXPLORED) == (["known", "c"], "cheapest")
    assert names("cheapest", known, dearer, left_s=9.0, draw=little) == (["known", "d"], "cheapest")
    assert names("fastest", known, dearer, draw=little) == (["d", "known"], "explored")
    bad = a_candidate("b", "1", None, trusted=False, unknown=True)
    assert names("cheapest", known, bad, left_s=9.0, draw=little) == (["known", "b"], "cheapest")


CANDIDATES = st.lists(
    st.tuples(
        st.none() | st.integers(0, 5),
        st.none() | st.floats(0.001, 100) | st.just(math.inf),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(CANDIDATES, st.sampled_from(["cheapest", "fastest"]), st.none() | st.floats(0.01, 50), st.floats(0, 1))
def test_every_target_is_in_the_chain_once_and_the_first_is_the_best_there_is(
    drawn: list[tuple[int | None, float | None, bool, bool]],
    choice: Literal["cheapest", "fastest"],
    left_s: float | None,
    draw: float,
) -> None:
    candidates = [
        Candidate(a_target(str(n)), None if cost is None else Decimal(cost), seconds, trusted, unknown)
        for n, (cost, seconds, trusted, unknown) in enumerate(drawn)
    ]
    ranking = ranked(choice, candidates, left_s, draw)
    assert ranking == ranked(choice, candidates, left_s, draw)
    assert sorted(target.label for target in ranking.targets) == sorted(c.target.label for c in candidates)
    by_label = {candidate.target.label: candidate for candidate in candidates}
    first = by_label[ranking.targets[0].label]
    if ranking.reason == "explored":
        assert draw < EXPLORED
        assert first.trusted
        assert first.unknown
    elif ranking.reason == "none_qualifies":
        assert [target.label for target in ranking.targets] == [c.target.label for c in candidates]
        assert not any(
            c.trusted and c.meets(left_s) and (choice == "cheapest" or c.seconds is not None) for c in candidates
        )
    else:
        assert first.trusted
        assert first.meets(left_s)
        rivals = [c for c in candidates if c.trusted and c.meets(left_s)]
        if choice == "cheapest":
            priced = [c.cost for c in rivals if c.cost is not None]
            assert first.cost == (min(priced) if priced else None)
        else:
            assert first.seconds == min(c.seconds for c in rivals if c.seconds is not None)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), min_size=1, max_size=30),
    st.tuples(st.floats(0, 5), st.floats(0, 0.01), st.floats(0, 0.1)),
)
def test_a_fit_is_never_negative_and_no_worse_than_none(
    calls: list[tuple[float, float]], true: tuple[float, float, float]
) -> None:
    moments, products = [[0.0] * 3 for _ in range(3)], [0.0] * 3
    for read, written in calls:
        features = (1.0, read, written)
        taken = sum(b * x for b, x in zip(true, features, strict=True))
        for i in range(3):
            products[i] += features[i] * taken
            for j in range(3):
                moments[i][j] += features[i] * features[j]
    fit = non_negative_fit(moments, products)
    assert min(fit) >= 0
    error = sum(
        (sum((b - t) * x for b, t, x in zip(fit, true, (1.0, read, written), strict=True))) ** 2
        for read, written in calls
    )
    unfit = sum(sum(t * x for t, x in zip(true, (1.0, read, written), strict=True)) ** 2 for read, written in calls)
    assert error <= unfit * 0.01 + 1e-9


def a_latency(calls: int, first_s: float, per_token_s: float, *, noise: float = 0.0, at: float = 0.0) -> Latency:
    latency, drawn = Latency(), random.Random(8)
    for _ in range(calls):
        read, written = drawn.randint(10, 2000), drawn.randint(1, 400)
        taken = (first_s + 1e-4 * read + per_token_s * written) * math.exp(noise * drawn.gauss(0, 1))
        latency.answered(read, written, taken, at)
    return latency


def test_a_call_is_foretold_by_its_tokens() -> None:
    latency = a_latency(200, 0.2, 0.01)
    for read, written in ((100, 10), (1000, 300), (50, 2000)):
        taken = 0.2 + 1e-4 * read + 0.01 * written
        foretold = latency.seconds(read, written, 0.9, 0.0)
        assert foretold is not None
        assert taken <= foretold <= taken * 1.25


def test_the_confidence_holds_for_calls_to_come() -> None:
    latency, drawn = a_latency(300, 0.2, 0.01, noise=0.4), random.Random(9)
    within = 0
    for _ in range(500):
        read, written = drawn.randint(10, 2000), drawn.randint(1, 400)
        taken = (0.2 + 1e-4 * read + 0.01 * written) * math.exp(0.4 * drawn.gauss(0, 1))
        foretold = latency.seconds(read, written, 0.9, 0.0)
        assert foretold is not None
        within += taken <= foretold
    assert 0.86 <= within / 500 <= 0.98


def test_little_is_not_foretold_and_what_fails_is_not_expected() -> None:
    assert a_latency(2, 0.1, 0.01).seconds(10, 10, 0.9, 0.0) is None
    latency = a_latency(20, 0.1, 0.01)
    assert latency.seconds(10, 10, 0.9, 0.0) is not None
    # It fades: what was long ago is not known.
    assert latency.seconds(10, 10, 0.9, HALF_LIFE_S * math.log2(20 / LEAST_KNOWN) + 1) is None
    for _ in range(10):
        latency.failed(0.0)
    assert latency.seconds(10, 10, 0.9, 0.0) == math.inf


def test_a_target_that_became_slow_is_known_to_be_in_a_few_half_lives() -> None:
    latency = a_latency(100, 0.1, 0.001)
    at = 3 * HALF_LIFE_S
    drawn = random.Random(1)
    for _ in range(100):
        read, written = drawn.randint(10, 2000), drawn.randint(1, 400)
        latency.answered(read, written, 5.0 + 0.05 * written, at)
    foretold = latency.seconds(100, 100, 0.9, at)
    assert foretold is not None
    assert foretold >= 8


def test_a_wait_is_too_long_only_where_answers_are_known_to_take_far_less() -> None:
    latency = Latency()
    for number in range(40):
        assert (latency.longest_wait(0.0) is None) == (number < 20)
        latency.answered(10, 10, 0.5 + number / 100, 0.0)
    longest = latency.longest_wait(0.0)
    assert longest is not None
    assert 2 * 0.89 <= longest <= 2 * 0.9 * 1.1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1, 1e5), min_size=1, max_size=80), st.floats(0.01, 1))
def test_quantiles_are_right_to_their_precision(values: list[float], share: float) -> None:
    fading = Fading(1.0, 1e6)
    for value in values:
        fading.add(value, 0.0)
    exact = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    found = fading.quantile(share)
    assert found is not None
    assert exact * (1 - 1e-6) <= found <= exact * 1.1 * (1 + 1e-6)
    mean = fading.mean()
    assert mean is not None
    assert math.isclose(mean, sum(values) / len(values), rel_tol=1e-9)


def test_numbers_fade_with_time_and_with_others() -> None:
    fading = Fading(1.0, 1e6)
    for _ in range(100):
        fading.add(1000.0, 0.0)
    for _ in range(100):
        fading.add(10.0, 10 * HALF_LIFE_S)
    mean = fading.mean()
    assert mean is not None
    assert mean < 12
    assert fading.known(20 * HALF_LIFE_S) == pytest.approx(100 / 1024, rel=0.01)


def test_a_target_that_answers_after_weeks_of_silence_teaches_as_ever() -> None:
    """The monotonic clock begins when the machine does, long before the first call."""
    weeks = 21 * 24 * 3600.0
    latency, lengths = Latency(), Fading(1.0, 1e6)
    for at in (weeks, 2 * weeks):
        assert not latency.known(at)
        for number in range(20):
            latency.answered(100, 100, 2.0, at + number)
            lengths.add(100, at + number)
        assert latency.seconds(100, 100, 0.9, at + 20) == pytest.approx(2.0, rel=0.1)
        assert lengths.known(at + 20) == pytest.approx(20, rel=0.05)
    assert lengths.mean() == pytest.approx(100)


CLOCK = ManualClock()
FLOOR = Route(name="r", targets=(a_target("a"),), quality_floor=QualityFloor(score="answer.groundedness", at_least=0.8))
WANTED = {"r": "answer.groundedness"}


def an_evaluation(
    score: float, model: str = "m-a", route: str = "r", name: str = "groundedness", at_s: float = 0
) -> Evaluation:
    return Evaluation(
        event_id="e", request_id="q", tenant_id="t", occurred_at=CLOCK.now() + timedelta(seconds=at_s), causation_id="c",
        context=Context(requested_at=CLOCK.now(), route=route), model=model,
        scores=[Score(name="toxicity", subject="answer", score=1.0), Score(name=name, subject="answer", score=score)],
    )  # fmt: skip


def test_a_floor_goes_by_scores_where_there_are_enough_else_by_the_configuration() -> None:
    now = CLOCK.now().timestamp()
    quality = MeasuredQuality()
    target, good, bad = FLOOR.targets[0], a_target("a", quality=0.9), a_target("a", quality=0.5)
    assert not quality.trusts(FLOOR, target, [], now)
    assert quality.trusts(FLOOR, good, [], now)
    assert not quality.trusts(FLOOR, bad, [], now)
    assert quality.trusts(FLOOR.model_copy(update={"quality_floor": None}), bad, [], now)
    for number in range(int(LEAST_SCORES)):
        assert quality.mean("r", "answer.groundedness", ["m-a"], now) is None, number
        quality.take(an_evaluation(0.7), WANTED)
    assert quality.mean("r", "answer.groundedness", ["m-a"], now) == pytest.approx(0.7)
    assert not quality.trusts(FLOOR, good, [], now)
    for _ in range(60):
        quality.take(an_evaluation(0.95), WANTED)
    assert quality.trusts(FLOOR, bad, [], now)
    # Scores fade; then the configuration says it again.
    assert quality.trusts(FLOOR, good, [], now + 3 * 3600)
    assert not quality.trusts(FLOOR, bad, [], now + 3 * 3600)


def test_scores_of_others_do_not_count_and_builds_of_a_model_do() -> None:
    now = CLOCK.now().timestamp()
    quality = MeasuredQuality()
    for _ in range(40):
        quality.take(an_evaluation(0.9, model="gpt-4o-2024-08-06"), WANTED)
        quality.take(an_evaluation(0.1, model="gpt-4o-mini"), WANTED)
        quality.take(an_evaluation(0.1, model="gpt-4o", route="other"), WANTED)
        quality.take(an_evaluation(0.1, model="gpt-4o", name="relevance"), WANTED)
        quality.take(an_evaluation(0.4, model="served"), WANTED)
        quality.take(an_evaluation(0.8, model="gemini-pro-002"), WANTED)
        quality.take(an_evaluation(0.1, model="support-2"), WANTED)
    score = "answer.groundedness"
    assert quality.mean("r", score, ["gpt-4o"], now) == pytest.approx(0.9)
    assert quality.mean("r", score, ["gpt-4o-mini"], now) == pytest.approx(0.1)
    assert quality.mean("r", score, ["alias", "served"], now) == pytest.approx(0.4)
    assert quality.mean("other", score, ["gpt-4o"], now) is None
    assert quality.mean("r", score, ["gemini-pro"], now) == pytest.approx(0.8)
    assert quality.mean("r", score, ["support"], now) is None  # another adapter
    for number in range(200):
        quality.take(an_evaluation(0.5, model=f"made-up-{number}"), WANTED)
    assert quality.mean("r", score, ["gpt-4o"], now) is None


def test_a_late_score_counts_as_one_of_its_time() -> None:
    quality = MeasuredQuality()
    for _ in range(40):
        quality.take(an_evaluation(1.0, at_s=7200), WANTED)
    for _ in range(40):
        quality.take(an_evaluation(0.0, at_s=0), WANTED)
    assert quality.mean("r", "answer.groundedness", ["m-a"], CLOCK.now().timestamp() + 7200) == pytest.approx(0.8)

"""Running evaluators: sampling, thresholds, and what one that fails costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.evaluators import Evaluator as Entry
from penstock.embedding import EmbedderUnavailable
from penstock.telemetry.metrics import EVALUATOR_FAILURES

from services.evaluation.evaluators.own import FunctionEvaluator, evaluator
from services.evaluation.evaluators.protocol import Exchange, Judged
from services.evaluation.evaluators.runner import InvalidJudgement, by_config, evaluate, takes

IDS = [f"request-{number}" for number in range(4_000)]


@evaluator("length", version="1", threshold=0.5, labels=("short", "long"))
def length(exchange: Exchange) -> float:
    return min(1.0, len(exchange.answer) / 10)


def failing_on(bad: str, error: Exception) -> FunctionEvaluator:
    def judge(exchange: Exchange) -> float:
        if exchange.answer == bad:
            raise error
        return 1.0

    return FunctionEvaluator("fragile", "1", judge)


@given(st.text(), st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_rate_keeps_the_requests_of_a_lower_one(request_id: str, name: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert takes(request_id, name, high) or not takes(request_id, name, low)
    assert takes(request_id, name, 1.0)
    assert not takes(request_id, name, 0.0)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_sampling_takes_its_share(rate: float) -> None:
    taken = sum(takes(each, "groundedness", rate) for each in IDS)
    deviation = math.sqrt(len(IDS) * rate * (1 - rate))
    assert abs(taken - len(IDS) * rate) < 4 * deviation


def test_samples_of_two_evaluators_are_independent() -> None:
    both = sum(takes(each, "toxicity", 0.5) and takes(each, "refusal", 0.5) for each in IDS)
    assert abs(both - len(IDS) / 4) < 4 * math.sqrt(len(IDS) * 3 / 16)


def test_rates_follow_the_route() -> None:
    entry = Entry(name="length", rate=0.0, routes={"checked": 1.0})
    sampled = by_config(lambda name: entry if name == "length" else None)
    exchanges = [
        Exchange(request_id=each, route=route, answer="hi") for each in IDS[:50] for route in ("checked", "other")
    ]
    scores = evaluate([length], exchanges, sampled=sampled)
    assert [bool(found) for found in scores] == [exchange.route == "checked" for exchange in exchanges]


def test_evaluators_without_configuration_score_everything() -> None:
    sampled = by_config(lambda _: None)
    assert all(evaluate([length], [Exchange(request_id=each, answer="hi") for each in IDS[:50]], sampled=sampled))


def test_the_threshold_of_the_configuration_sets_the_label() -> None:
    exchanges = [Exchange(answer="x" * 7)]
    assert evaluate([length], exchanges)[0][0].label == "long"
    entry = Entry(name="length", threshold=0.8)
    assert evaluate([length], exchanges, entry=lambda _: entry)[0][0].label == "short"


def test_the_label_that_an_evaluator_gives_stays() -> None:
    own = FunctionEvaluator("own", "1", lambda _: Judged(0.9, "as it says"), threshold=0.5)
    assert evaluate([own], [Exchange(answer="a")])[0][0].label == "as it says"


def test_a_failure_costs_its_own_score_only() -> None:
    failures: list[tuple[str, str]] = []
    exchanges = [Exchange(answer=text) for text in ("a", "bad", "c")]
    fragile = failing_on("bad", RuntimeError("no"))
    scores = evaluate([fragile, length], exchanges, failed=lambda name, one, error: failures.append((name, one.answer)))
    assert [[one.name for one in found] for found in scores] == [
        ["fragile", "length"],
        ["length"],
        ["fragile", "length"],
    ]
    assert failures == [("fragile", "bad")]


def test_a_failure_is_counted_and_its_message_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    before = EVALUATOR_FAILURES.labels("fragile")._value.get()
    evaluate([failing_on("bad", ValueError("a secret text"))], [Exchange(request_id="r-1", answer="bad")])
    assert EVALUATOR_FAILURES.labels("fragile")._value.get() == before + 1
    logged = capsys.readouterr()
    assert "secret" not in logged.out + logged.err


def test_an_embedder_that_is_away_is_not_a_failure() -> None:
    with pytest.raises(EmbedderUnavailable):
        evaluate([failing_on("bad", EmbedderUnavailable("away"))], [Exchange(answer="bad"), Exchange(answer="c")])


class Returning:
    """Returns what it is given, whatever that is."""

    name, subject, version = "returning", "answer", "1"

    def __init__(self, *said: Any) -> None:
        self._said = said

    def evaluate(self, exchanges: Sequence[Exchange]) -> Any:
        return list(self._said)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ((Judged(1.5),), "from 0 to 1"),
        ((Judged(math.nan),), "from 0 to 1"),
        ((0.5,), "return a Judged"),
        ((Judged(0.5), Judged(0.5)), "2 results for 1"),
        ((Judged(0.5, features={"a": "b"}),), "other types"),  # type: ignore[dict-item]
        ((Judged(0.5, label=3),), "other types"),  # type: ignore[arg-type]
        ((Judged(0.5, sentences=("a",)),), "other types"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_judgement_is_left_out(said: tuple[Any, ...], cause: str) -> None:
    errors: list[Exception] = []
    scores = evaluate([Returning(*said)], [Exchange(answer="a")], failed=lambda *one: errors.append(one[2]))  # type: ignore[list-item]
    assert scores == [[]]
    assert isinstance(errors[0], InvalidJudgement)
    assert cause in str(errors[0])


def test_latency_is_shared_in_equal_parts() -> None:
    ticks = iter([1.0, 1.003])
    scores = evaluate([length], [Exchange(answer="a")] * 3, clock=lambda: next(ticks))
    assert [found[0].latency_us for found in scores] == [1000] * 3


def test_empty_texts_are_not_judged() -> None:
    assert evaluate([length], [Exchange(answer=" \n"), Exchange()]) == [[], []]


def test_scores_say_who_gave_them() -> None:
    found = evaluate([length], [Exchange(answer="abc")])[0]
    assert (found[0].subject, found[0].version, found[0].score) == ("answer", "1", 0.3)

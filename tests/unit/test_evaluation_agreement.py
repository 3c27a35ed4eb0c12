"""Judges beside people: which of their words are compared, and the figures against other implementations of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from penstock.contracts.records import Context, Evaluation, Feedback, Score
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from services.evaluation.judging.agreement import Pair, agreement, cohen_kappa, pairs
from services.evaluation.judging.command_agreement import by_judge, verdicts_of

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
VERDICTS = {"good": 1.0, "fair": 0.5, "bad": 0.0}


def judged(request: str, label: str, *, judge: str = "j1", at: int = 0, **changes: Any) -> Evaluation:
    score: dict[str, Any] = {
        "name": "help",
        "subject": "answer",
        "score": VERDICTS.get(label, 0.5),
        "label": label,
    } | changes
    return Evaluation(
        event_id=f"e-{request}-{judge}-{at}", request_id=request, tenant_id="t", occurred_at=NOW + timedelta(seconds=at),
        causation_id="c", context=Context(requested_at=NOW), scores=[Score(version=f"r+p+{judge}", **score)],
    )  # fmt: skip


def said(request: str, label: str | None = None, *, who: str = "ada", at: int = 0, **changes: Any) -> Feedback:
    fields: dict[str, Any] = {
        "event_id": f"f-{request}-{who}-{at}", "request_id": request, "tenant_id": "t",
        "occurred_at": NOW + timedelta(seconds=at), "causation_id": "", "source": "moderator", "user_id": who,
        "labels": {} if label is None else {"answer.help": label},
    }  # fmt: skip
    return Feedback(**fields | changes)


def seen(found: Sequence[Pair]) -> list[tuple[str, str, str, float, float]]:
    return [(p.request_id, p.judge_label, p.human_label, p.judge_score, p.human_score) for p in found]


def test_a_verdict_is_compared_with_a_persons_of_the_same_request() -> None:
    evaluations = [judged("r1", "good"), judged("r2", "bad"), judged("r3", "good")]
    feedback = [said("r1", "good"), said("r2", "fair"), said("r9", "bad"), said("r3", "good", tenant_id="other")]
    assert seen(pairs(evaluations, feedback, "help", VERDICTS)) == [
        ("r1", "good", "good", 1.0, 1.0), ("r2", "bad", "fair", 0.0, 0.5),
    ]  # fmt: skip


def test_several_people_give_one_view_and_each_their_newest() -> None:
    people = [
        said("r", "bad", who="ada"), said("r", "good", who="ada", at=9), said("r", "good", who="ben"),
        said("r", "fair", who="cyd"), said("r", who="dan", rating=0.0), said("r", "unheard-of", who="eve"),
    ]  # fmt: skip
    found = pairs([judged("r", "good")], [*people, people[1]], "help", VERDICTS)
    ((*words, human),) = seen(found)
    assert words == ["r", "good", "good", 1.0]
    assert human == pytest.approx(2.5 / 3)


def test_a_rating_is_only_told_apart_in_halves() -> None:
    evaluations = [judged("r1", "fair"), judged("r2", "bad")]
    feedback = [said("r1", rating=1.0), said("r2", rating=0.75), said("r2", rating=7.0, who="ben")]
    assert seen(pairs(evaluations, feedback, "help", VERDICTS)) == [
        ("r1", "better half", "better half", 0.5, 1.0), ("r2", "worse half", "better half", 0.0, 0.75),
    ]  # fmt: skip


def test_of_a_comparison_people_say_what_they_chose() -> None:
    compared = {"a": 1.0, "b": 0.0, "tie": 0.5}
    evaluations = [
        judged("r1", "a", score=1.0, categories={"position_consistency": 1.0}),
        judged("r2", "tie", score=0.5, categories={"position_consistency": 0.0}),
    ]
    found = pairs(evaluations, [said("r1", chosen="b"), said("r2", chosen="tie")], "help", compared)
    assert [(p.judge_label, p.human_label, p.human_score, p.consistent) for p in found] == [
        ("a", "b", 0.0, True), ("tie", "tie", 0.5, False),
    ]  # fmt: skip
    assert agreement(found).position_consistency.estimate == 0.5


def test_each_judge_stands_for_itself_with_its_newest_verdict_and_code_is_no_judge() -> None:
    evaluations = [
        judged("r", "bad", judge="j1"), judged("r", "good", judge="j1", at=5), judged("r", "bad", judge="j2"),
        judged("s", "good", judge="j2"),
        Evaluation(
            event_id="code", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="c",
            context=Context(requested_at=NOW), scores=[Score(name="help", subject="answer", score=1.0, version="1")],
        ),
    ]  # fmt: skip
    found = pairs(evaluations, [said("r", "good"), said("s", "good")], "help", VERDICTS)
    figures = by_judge(found, 0.95)
    assert {judge: (one.pairs, one.accuracy.estimate) for judge, one in figures.items()} == {
        "j1": (1, 1.0), "j2": (2, 0.5), "all judges": (3, pytest.approx(2 / 3)),
    }  # fmt: skip


def test_verdicts_are_known_from_what_was_given_where_the_rubric_is_gone() -> None:
    assert verdicts_of("help", None, [judged("r", "good"), judged("s", "bad")]) == {"good": 1.0, "bad": 0.0}


def _noisy(count: int, share: float, seed: int = 7) -> list[Pair]:
    """Return pairs of which the judge says in ``share`` what the person said, else anything."""
    dice = np.random.default_rng(seed)
    names = list(VERDICTS)
    human = dice.integers(0, 3, count)
    judge = np.where(dice.random(count) < share, human, dice.integers(0, 3, count))
    return [
        Pair(f"r{n}", "j", names[j], VERDICTS[names[j]], names[h], VERDICTS[names[h]])
        for n, (j, h) in enumerate(zip(judge, human, strict=True))
    ]


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_figures_are_those_of_the_reference_implementations(share: float) -> None:
    found = _noisy(300, share)
    got = agreement(found)
    judge, human = [p.judge_label for p in found], [p.human_label for p in found]
    scores = [p.judge_score for p in found], [p.human_score for p in found]
    assert got.accuracy.estimate == pytest.approx(np.mean([a == b for a, b in zip(judge, human, strict=True)]))
    assert got.kappa.estimate == pytest.approx(cohen_kappa_score(judge, human))
    assert got.pearson.estimate == pytest.approx(stats.pearsonr(*scores).statistic)
    assert got.spearman.estimate == pytest.approx(stats.spearmanr(*scores).statistic)
    assert got.position_consistency.estimate is None
    for interval in (got.accuracy, got.kappa, got.pearson, got.spearman):
        assert interval.estimate is not None
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < interval.estimate < interval.high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """With 80 % confidence, 60 samples of 120: the true agreement of 0.6 + 0.4 / 3 is inside 48 times, give or take."""
    truth = 0.6 + 0.4 / 3
    inside = 0
    for seed in range(60):
        interval = agreement(_noisy(120, 0.6, seed), confidence=0.8, resamples=200).accuracy
        assert interval.low is not None
        assert interval.high is not None
        inside += interval.low <= truth <= interval.high
    assert 40 <= inside <= 56  # 2.6 standard deviations


def test_several_judges_of_one_request_are_drawn_together() -> None:
    one = _noisy(60, 0.5)
    twice = [pair for pair in one for _ in range(2)]
    single, double = agreement(one).accuracy, agreement(twice).accuracy
    assert single.estimate == double.estimate
    assert single.low is not None
    assert double.low is not None
    assert double.low == pytest.approx(single.low, abs=0.02)  # Twice as many pairs, and no more known.


def test_what_cannot_be_said_of_few_or_equal_pairs_is_not_said() -> None:
    nothing = agreement([])
    assert (nothing.pairs, nothing.accuracy.estimate, nothing.kappa.estimate) == (0, None, None)
    alike = agreement([Pair(f"r{n}", "j", "good", 1.0, "good", 1.0) for n in range(5)])
    assert alike.accuracy.estimate == 1.0
    assert (alike.kappa.estimate, alike.pearson.estimate) == (None, None)
    one = agreement([Pair("r", "j", "good", 1.0, "bad", 0.0)])
    assert (one.accuracy.estimate, one.accuracy.low, one.pearson.estimate) == (0.0, None, None)
    assert cohen_kappa(np.array([0, 1]), np.array([1, 0])) == -1.0

"""What is given to annotators: by which reason, how often, and never twice."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from penstock.contracts.records import AnnotationTask
from penstock.text.groundedness import THRESHOLD

from services.evaluation.feedback.core import FeedbackRules
from services.evaluation.feedback.picking import PickRules
from tests.unit.feedback_partition import NOW, Partition, evaluation, feedback, logic, of, passage, result


def partition(thresholds: dict[str, float] | None = None, **rules: Any) -> Partition:
    return Partition(logic(FeedbackRules(picking=PickRules(**({"sample": 0.0, "doubly": 0.0} | rules))), thresholds))


def picked(scores: list[tuple[str, float, str]], **rules: Any) -> AnnotationTask | None:
    """Return the task that scores of a known result lead to."""
    one = partition(**rules)
    one.take(result())
    tasks: list[AnnotationTask] = of(AnnotationTask, one.take(evaluation(scores=scores)))
    return tasks[0] if tasks else None


@pytest.mark.parametrize(
    ("scores", "reason", "queue", "priority"),
    [
        ([("answer.toxicity", 0.97, "toxic")], "risk", "toxicity", 0.97),
        ([("answer.groundedness", 0.1, "ungrounded")], "risk", "groundedness", 0.9),
        ([("answer.toxicity", 0.52, "toxic")], "uncertain", "toxicity", 0.56),
        ([("prompt.toxicity", 0.5, "toxic")], "uncertain", "toxicity", 0.7),
        ([("answer.groundedness", THRESHOLD + 0.02, "grounded")], "uncertain", "groundedness", 0.56),
        ([("answer.groundedness", 0.9, "grounded"), ("answer.faithfulness", 0.0, "bad")], "disagreement",
         "groundedness", 0.96),
    ],
)  # fmt: skip
def test_uncertain_scores_and_risks_are_picked(
    scores: list[tuple[str, float, str]], reason: str, queue: str, priority: float
) -> None:
    task = picked(scores)
    assert task is not None
    assert (task.reason, task.queue) == (reason, queue)
    assert task.priority == pytest.approx(priority)
    assert task.scores == {name: score for name, score, _ in scores}
    assert task.labels == [scores[0][0]]


def test_certain_scores_are_left_alone() -> None:
    assert picked([("answer.toxicity", 0.02, "clean"), ("answer.groundedness", 0.95, "grounded")]) is None
    assert picked([("answer.readability", 0.5, "")]) is None  # nobody says where its threshold is


def test_uncertainty_is_measured_from_the_configured_threshold() -> None:
    one = partition({"toxicity": 0.8, "readability": 0.5})
    one.take(result(0))
    one.take(result(1))
    assert of(AnnotationTask, one.take(evaluation(0, [("answer.toxicity", 0.5, "clean")]))) == []
    assert of(AnnotationTask, one.take(evaluation(0, [("answer.toxicity", 0.79, "clean")], part="b"))) != []
    assert of(AnnotationTask, one.take(evaluation(1, [("answer.readability", 0.45, "")])))[0].queue == "readability"


def test_versions_of_an_evaluator_that_contradict_each_other_are_picked() -> None:
    one = partition()
    one.take(result())
    assert of(AnnotationTask, one.take(evaluation(scores=[("answer.toxicity", 0.3, "clean")]))) == []
    (task,) = of(AnnotationTask, one.take(evaluation(scores=[("answer.toxicity", 0.7, "toxic")], part="b")))
    assert task.reason == "disagreement"


@pytest.mark.parametrize(
    ("given", "reason", "queue"),
    [
        ([feedback(rating=0.0)], "risk", "quality"),
        ([feedback(correction="Better.")], "risk", "quality"),
        ([feedback(rating=1.0), feedback(by="bob", rating=0.5)], "disagreement", "quality"),
        ([feedback(labels={"answer.toxicity": "toxic"})], "disagreement", "toxicity"),
        ([feedback(rating=1.0)], None, None),
        ([feedback(rating=0.0, queue="toxicity", source="moderator")], None, None),
        ([feedback(rating=0.0), feedback(repeat=1, rating=1.0)], "risk", "quality"),
        ([feedback(repeat=1, rating=1.0), feedback(rating=0.0)], None, None),  # the older came later: it does not stand
    ],
)  # fmt: skip
def test_what_people_say_is_picked_where_it_is_bad_or_disputed(
    given: list[Any], reason: str | None, queue: str | None
) -> None:
    one = partition()
    one.take(result())
    one.take(evaluation(scores=[("answer.toxicity", 0.02, "clean")]))
    tasks = [task for record in given for task in of(AnnotationTask, one.take(record))]
    assert [(task.reason, task.queue) for task in tasks] == ([(reason, queue)] if reason else [])


def test_a_task_has_all_that_an_annotator_needs_and_its_requests_key() -> None:
    one = partition(doubly=1.0)
    out = one.take(result(7, citations=[passage("The passage.")]))
    out += one.take(feedback(7, rating=0.0))
    (emit,) = [emit for emit in out if emit.topic == "annotation-tasks"]
    task = of(AnnotationTask, [emit])[0]
    assert emit.key == "c7"
    assert (task.tenant_id, task.request_id, task.prompt, task.content, task.model) == (
        "team", "r7", "question 7", "answer 7", "m",
    )  # fmt: skip
    assert [each.text for each in task.citations] == ["The passage."]
    assert (task.raters, task.context.route, task.causation_id) == (2, "chat", "feedback-team-7-ada-0")


def test_no_request_is_picked_twice_and_budgets_hold_by_team_reason_and_hour() -> None:
    one = partition(hourly=3)
    for number in range(20):
        for team in ("team", "other"):
            one.take(result(number, team=team))
        for repeat in range(2):
            one.take(feedback(number, f"u{repeat}", rating=0.0))
            one.take(feedback(number, f"u{repeat}", rating=0.0, team="other"))
        one.take(evaluation(number, [("answer.toxicity", 0.5, "toxic")]))
    tasks = of(AnnotationTask, one.emits)
    assert Counter((task.tenant_id, task.reason) for task in tasks) == {
        ("team", "risk"): 3, ("other", "risk"): 3, ("team", "uncertain"): 3,
    }  # fmt: skip
    assert len({(task.tenant_id, task.request_id) for task in tasks}) == len(tasks)
    one.take(result(50), NOW + timedelta(hours=1))
    assert of(AnnotationTask, one.take(feedback(50, rating=0.0), NOW + timedelta(hours=1)))
    assert partition(hourly=0).take(result()) == []


def test_the_random_sample_is_the_same_whatever_is_said_and_of_its_share() -> None:
    quiet, loud = (partition(sample=0.1, hourly=10_000) for _ in range(2))
    for number in range(2_000):
        quiet.take(result(number))
        loud.take(evaluation(number, [("answer.toxicity", 0.99, "toxic")]))
        loud.take(result(number))
    sampled = {t.request_id for t in of(AnnotationTask, quiet.emits)}
    assert {t.request_id for t in of(AnnotationTask, loud.emits) if t.reason == "sample"} == sampled
    assert 150 <= len(sampled) <= 250  # 200 expected, five standard deviations are 67
    assert len(of(AnnotationTask, loud.emits)) == 2_000
    assert of(AnnotationTask, quiet.emits)[0].labels == ["prompt.toxicity", "answer.toxicity"]


def test_a_share_of_the_tasks_is_for_two() -> None:
    one = partition(sample=1.0, doubly=0.25, hourly=10_000)
    for number in range(800):
        one.take(result(number))
    raters = Counter(task.raters for task in of(AnnotationTask, one.emits))
    assert set(raters) == {1, 2}
    assert 140 <= raters[2] <= 260  # 200 expected

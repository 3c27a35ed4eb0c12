"""Results, scores and feedback joined: in any order, hours apart, within bounds that are told of."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.bus import Message
from penstock.contracts.records import (
    AnnotationTask,
    Completion,
    DeadLetter,
    Evaluation,
    Label,
    LlmResult,
    Record,
    Score,
)
from penstock.stateful import InvalidEvent

from services.evaluation.exchanges import scored
from services.evaluation.feedback.core import FeedbackRules, feedback_logic
from services.evaluation.feedback.memory import EARLY, OPINIONS, TEXT_CHARS, WAITING, Limits, Slot, kept
from services.evaluation.feedback.opinions import InvalidFeedback, newest, opinion
from services.evaluation.feedback.picking import PickRules
from tests.unit.feedback_partition import (
    CODEC,
    NOW,
    Lengths,
    Partition,
    evaluation,
    feedback,
    logic,
    of,
    passage,
    result,
    scores_of,
)

TOXIC = ("answer.toxicity", 0.97, "toxic")
GROUNDED = ("answer.groundedness", 0.9, "grounded")


def test_feedback_is_scored_against_what_the_evaluators_said() -> None:
    partition = Partition()
    partition.take(result())
    partition.take(evaluation(scores=[TOXIC], part="toxicity"))
    partition.take(evaluation(scores=[GROUNDED], part="quality"))
    out = partition.take(
        feedback(rating=0.25, labels={"answer.toxicity": "clean", "answer.tone": "curt"}, correction="Better.")
    )
    assert scores_of(out) == {
        "rating": (0.25, "bad"),
        "correction": (1.0, "corrected"),
        "disagreement": (1.0, "contradicted"),
        "rating_gap": (0.65, "grounded"),
    }
    for one in of(Evaluation, out):
        assert (one.model, one.context.prompt_version, one.context.route) == ("m", "v1", "chat")
        assert one.context.experiments == {"short": "concise"}
        assert (one.tenant_id, one.request_id, one.causation_id) == ("team", "r0", "feedback-team-0-ada-0")
        assert all(score.subject == "feedback" for score in one.scores)
    assert {emit.key for emit in out if emit.topic == "evaluations"} == {"c0"}


def test_a_label_teaches_with_the_features_of_the_text_and_the_score_in_force() -> None:
    partition = Partition()
    partition.take(result())
    out = partition.take(feedback(labels={"answer.toxicity": "clean", "prompt.toxicity": "toxic"}, source="moderator"))
    assert of(Label, out) == []  # what the classifier said of it is not known yet
    out = partition.take(evaluation(scores=[TOXIC]))
    (label,) = of(Label, out)
    assert (label.model, label.subject, label.label, label.source, label.author) == (
        "toxicity", "answer", "clean", "moderator", "ada",
    )  # fmt: skip
    assert (label.features, label.features_version, label.score, label.version) == (
        b"8:answer 0", "lengths-1", 0.97, "v7",
    )  # fmt: skip
    assert [emit.key for emit in out if emit.topic == "labels"] == ["toxicity"]


def test_a_text_that_many_labelled_is_featurised_once_when_its_score_comes() -> None:
    read: list[str] = []

    class Counted(Lengths):
        def features(self, text: str) -> bytes:
            read.append(text)
            return super().features(text)

    partition = Partition(feedback_logic(FeedbackRules(), {"toxicity": Counted()}, lambda name: None))
    partition.take(result())
    for rater in range(OPINIONS):
        partition.take(feedback(by=f"rater-{rater}", labels={"answer.toxicity": "clean", "prompt.toxicity": "clean"}))
    out = partition.take(evaluation(scores=[TOXIC, ("prompt.toxicity", 0.1, "clean")]))
    assert len(of(Label, out)) == 2 * OPINIONS
    assert sorted(read) == ["answer 0", "question 0"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"rating": 5.0}, "outside 0 to 1"),
        ({"rating": float("nan")}, "outside 0 to 1"),
        ({"chosen": "left"}, "none of a, b"),
        ({"source": "cat", "rating": 1.0}, "none of user"),
        ({"by": "x" * 300, "rating": 1.0}, "is longer than 256"),
        ({"team": "x" * 300, "by": None, "rating": 1.0}, "is longer than 256"),
    ],
)
def test_feedback_that_nobody_can_read_names_the_cause(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidFeedback, match=told) as raised:
        Partition().take(feedback(**fields))
    # Anybody writes feedback: what is wrong with it must not stop the service.
    assert isinstance(raised.value, InvalidEvent)


# -- any order ---------------------------------------------------------------------------------------------------------


def _story() -> list[Record]:
    """Events of two requests that share ids with nobody: results, scores in parts, raters who change their minds."""
    return [
        result(0),
        result(1),
        evaluation(0, [TOXIC, ("prompt.toxicity", 0.1, "clean")], part="toxicity"),
        evaluation(0, [GROUNDED], part="quality"),
        evaluation(0, [("answer.groundedness", 0.1, "ungrounded")], part="judge"),
        evaluation(1, [("answer.toxicity", 0.51, "toxic")]),
        feedback(0, "ada", rating=1.0, labels={"answer.toxicity": "clean"}),
        feedback(0, "ada", repeat=1, rating=0.0),
        feedback(0, "bob", labels={"answer.toxicity": "toxic", "prompt.toxicity": "toxic"}, source="moderator"),
        feedback(0, None, rating=0.5),
        feedback(1, "ada", correction="Better."),
        feedback(1, "bob", chosen="b", labels={"answer.groundedness": "ungrounded"}),
    ]


def _joined(events: list[tuple[Record, float]]) -> tuple[dict[str, Any], Partition]:
    partition = Partition(logic(FeedbackRules(picking=PickRules(sample=0.0))))
    for record, hours in events:
        partition.take(record, NOW + timedelta(hours=hours))
    return partition.sink(Evaluation, Label), partition


EXPECTED = _joined([(record, 0.0) for record in _story()])[0]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_interleaving_and_duplication_joins_to_the_same(data: st.DataObject) -> None:
    story = _story()
    again = data.draw(st.lists(st.sampled_from(range(len(story))), max_size=6), "duplicates")
    order = data.draw(st.permutations([*range(len(story)), *again]), "order")
    span = data.draw(st.floats(0, 23), "hours from the first to the last")
    events = [(story[index], span * place / len(order)) for place, index in enumerate(order)]
    found, partition = _joined(events)
    assert found == EXPECTED
    assert partition.sink(DeadLetter) == {}
    tasks = of(AnnotationTask, partition.emits)
    assert len({task.request_id for task in tasks}) == len(tasks) == 2  # both are a risk or in dispute, each once


def test_what_is_expected_of_any_order_is_not_nothing() -> None:
    scores = [score.name for _, _, one in EXPECTED.values() if isinstance(one, Evaluation) for score in one.scores]
    assert (
        sorted(scores)
        == ["chosen", "correction", "correction", "correction", "correction"]
        + ["disagreement"] * 2
        + ["rating"] * 3
        + ["rating_gap"] * 6
    )
    assert len([one for _, _, one in EXPECTED.values() if isinstance(one, Label)]) == 3


def test_feedback_comes_days_late_and_hours_early() -> None:
    late = Partition()
    late.take(result())
    late.take(evaluation(scores=[TOXIC]), NOW + timedelta(seconds=1))
    assert "disagreement" in scores_of(
        late.take(feedback(rating=1.0, labels={"answer.toxicity": "clean"}), NOW + timedelta(hours=160))
    )
    early = Partition()
    assert early.take(feedback(rating=1.0, labels={"answer.toxicity": "clean"})) == []
    # After an outage one topic may be read days ahead of another: what waits goes by the time of the results.
    early.take(evaluation(scores=[TOXIC]), NOW + timedelta(hours=100))
    assert set(scores_of(early.take(result(), NOW + timedelta(hours=23)))) == {"rating", "correction", "disagreement"}
    assert early.sink(Evaluation, Label) == late.sink(Evaluation, Label)


# -- raters ------------------------------------------------------------------------------------------------------------


def test_the_newest_of_each_rater_stands_and_the_nameless_each_count() -> None:
    records = [
        feedback(by="ada", repeat=3, rating=0.0),
        feedback(by="ada", repeat=1, rating=1.0),
        feedback(by="bob", repeat=2, rating=0.5),
        feedback(by=None, repeat=4, rating=0.25),
        feedback(by=None, repeat=5, rating=0.75),
    ]
    opinions = [one for record in records if (one := opinion(record, _message(record))) is not None]
    assert [(each.user, each.rating) for each in newest(opinions)] == [
        ("bob", 0.5),
        ("ada", 0.0),
        ("", 0.25),
        ("", 0.75),
    ]


def _message(record: Record) -> Message:
    return Message("feedback", 0, 7, 0, b"k", CODEC.encode("feedback", record))


# -- other people's, and what is no traffic ----------------------------------------------------------------------------


def test_feedback_of_another_team_joins_nothing_and_ends_as_a_dead_letter() -> None:
    partition = Partition(logic(FeedbackRules(limits=Limits(slots=1))))
    partition.take(result())
    partition.take(evaluation(scores=[TOXIC]))
    assert partition.take(feedback(team="rival", rating=0.0, labels={"answer.toxicity": "clean"})) == []
    (letter,) = of(DeadLetter, partition.take(result(), NOW + timedelta(hours=25)))
    assert (letter.code, letter.origin_topic, letter.origin_offset) == ("result_unknown", "feedback", 0)
    assert "'r0' of team 'rival'" in letter.reason


def test_only_what_is_served_takes_part() -> None:
    partition = Partition()
    for purpose in ("judge", "evaluation"):
        assert partition.take(result(purpose=purpose)) == []
    assert partition.states == {}
    assert partition.take(feedback(rating=0.0)) == []


def test_an_answer_that_was_asked_for_again_is_not_what_people_rate() -> None:
    def quality(attempt: int, score: float) -> Evaluation:
        (emit,) = scored(
            completion(attempt), [Score(name="groundedness", subject="answer", score=score, label="grounded")]
        )
        assert isinstance(emit.record, Evaluation)
        return emit.record

    def completion(attempt: int) -> Completion:
        return Completion(
            event_id=f"completion-{attempt}", request_id="r0", tenant_id="team", occurred_at=NOW, causation_id="",
            context=result().context, messages=[], model="m", backend="openai", content="x", attempt=attempt,
        )  # fmt: skip

    released = msgspec.structs.replace(result(), causation_id="completion-1")
    events: list[Record] = [quality(0, 0.1), quality(1, 0.9), released, feedback(rating=1.0)]
    for order in itertools.permutations(events):
        partition = Partition(logic(FeedbackRules(picking=PickRules(sample=0.0))))
        emits = [emit for record in order for emit in partition.take(record)]
        assert [score.score for one in of(Evaluation, emits) for score in one.scores if score.name == "rating_gap"] == [
            0.1
        ]
        assert of(AnnotationTask, emits) == []  # the two answers do not contradict each other


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_feedback_whose_result_never_comes_is_told_of_even_where_no_request_comes_by() -> None:
    rules = FeedbackRules(limits=Limits(slots=64))
    partition = Partition(logic(rules))
    sent = feedback(rating=0.0, comment="hm")
    partition.take(sent)
    letters: list[DeadLetter] = []
    for number in range(1, 130):
        letters += of(DeadLetter, partition.take(result(number), NOW + timedelta(hours=24, minutes=1)))
    (letter,) = letters
    assert not letter.truncated
    assert CODEC.decode("feedback", letter.origin_value) == sent  # `penstock dlq replay` can send it again


def test_a_full_slot_loses_no_result_to_feedback_and_tells_what_it_drops() -> None:
    partition = Partition(logic(FeedbackRules(limits=Limits(slots=1))))
    known, *others = range(WAITING + 3)
    partition.take(result(known))
    letters: list[DeadLetter] = []
    for number in others:
        letters += of(DeadLetter, partition.take(feedback(number, rating=0.0)))
    assert [letter.origin_offset for letter in letters] == [0, 1]
    assert "rating" in scores_of(partition.take(feedback(known, rating=1.0)))
    # The newest result takes the slot, and what waited for it joins.
    assert scores_of(partition.take(result(others[-1])))["rating"] == (0.0, "bad")
    assert scores_of(partition.take(feedback(known, "bob", rating=1.0))) == {}


def test_results_are_remembered_while_there_is_room_and_then_the_oldest_go_first() -> None:
    places = 200

    def remembered(results: int) -> list[bool]:
        partition = Partition(logic(FeedbackRules(limits=Limits(slots=places))))
        for number in range(results):
            partition.take(evaluation(number, [TOXIC]))  # as it comes: scores of an answer are ahead of its release
            partition.take(result(number), NOW + timedelta(seconds=number))
        return [bool(partition.take(feedback(number, rating=1.0))) for number in range(results)]

    assert sum(remembered(places * 3 // 4)) >= places * 3 // 4 - 2
    found = remembered(places * 4)
    assert sum(found[-places // 2 :]) >= places // 2 - 4
    assert sum(found) > places * 0.9


def test_feedback_on_one_request_is_bounded_and_what_waits_over_it_is_told_of() -> None:
    partition = Partition()
    letters: list[DeadLetter] = []
    for repeat in range(EARLY + 2):
        letters += of(DeadLetter, partition.take(feedback(by=f"u{repeat}", repeat=repeat, rating=0.0)))
    assert len(letters) == 2
    assert len(of(Evaluation, partition.take(result()))) == EARLY
    for repeat in range(EARLY + 2, EARLY + OPINIONS + 2):
        # Once the result is known all are scored, however many.
        assert "rating" in scores_of(partition.take(feedback(by=f"u{repeat}", repeat=repeat, rating=0.0)))
    assert len(of(Evaluation, partition.take(evaluation(scores=[GROUNDED])))) == OPINIONS


def test_memory_is_flat_over_many_results() -> None:
    rules = FeedbackRules(limits=Limits(slots=128))
    partition = Partition(logic(rules))
    text = "The reader returned by csv.reader is an iterator over the rows of the file. " * 8
    for number in range(1_500):
        partition.take(result(number, prompt=f"{number} {text[:80]}", content=f"{number} {text}"))
    slots = [partition.read(key) for key in partition.states if key.startswith("slot/")]
    assert len(slots) <= 128
    assert all(isinstance(slot, Slot) and not slot.waiting for slot in slots)
    assert max(map(len, partition.states.values())) < 1_500


def test_states_are_forgotten_by_event_time_but_never_feedback_that_waits() -> None:
    partition = Partition()
    partition.take(result(1))
    expires_at = partition.logic.expires_at
    assert expires_at is not None
    (key,) = partition.states
    assert expires_at(key, partition.read(key)) == NOW + Limits().keep
    partition.take(feedback(2, rating=0.0))
    (waiting,) = partition.states.keys() - {key}
    assert expires_at(waiting, partition.read(waiting)) is None
    stale = Partition()
    stale.take(result(1))
    assert stale.take(feedback(1, rating=0.0), NOW + timedelta(days=8)) == []  # forgotten, though still in the table


def test_texts_are_kept_to_their_first_characters() -> None:
    long: LlmResult = result(content="x" * 9_000, citations=[passage("y" * 3_000), passage("z" * 3_000), passage("w")])
    found = kept(long)
    assert len(found.content) == TEXT_CHARS
    assert [len(each.text) for each in found.citations] == [3_000, 1_000]

"""Results and feedback to evaluations and alerts; the whole behaviour of the scoring processor, without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from penstock.bus import Emit, Message
from penstock.config.kinds import Team
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Alert, Context, Evaluation, Feedback, LlmResult, Passage, Record, Score

from services.evaluation.adapters import load_toxicity
from services.evaluation.core.scoring import ScoringRules, scoring
from services.evaluation.core.watch import WatchRules

NOW = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)
CODEC = Codec.offline(Catalogue.load())
MODEL = load_toxicity()
INSULT = "you are a worthless piece of shit"


def result(
    prompt: str, content: str = "", *, number: int = 0, status: str = "completed", citations: Sequence[str] = ()
) -> LlmResult:
    return LlmResult(
        event_id=event_id("test", "result", number), request_id=f"r{number}", tenant_id="t", occurred_at=NOW,
        causation_id="", context=Context(requested_at=NOW), status=status, prompt=prompt, content=content, model="m",
        citations=[
            Passage(passage_id=str(n), document_id="d", text=text, score=1.0) for n, text in enumerate(citations)
        ],
    )  # fmt: skip


def feedback(
    number: int,
    labels: dict[str, str],
    source: str = "moderator",
    repeat: int = 0,
    *,
    rating: float | None = None,
    team: str = "t",
    at: datetime = NOW,
) -> Feedback:
    return Feedback(
        event_id=event_id(f"feedback-{number}", "test", repeat), request_id=f"r{number}", tenant_id=team,
        occurred_at=at, causation_id="", source=source, labels=labels, rating=rating,
    )  # fmt: skip


class Processor:
    """Runs the logic as the shell does, its states through their stored form each time."""

    def __init__(self, rules: ScoringRules | None = None, team: Team | None = None) -> None:
        self.logic = scoring(MODEL, rules or ScoringRules(), lambda name: team)
        self.states: dict[str, bytes] = {}
        self.offset = 0

    def _read(self, key: str | None) -> Any:
        if key is None or key not in self.states:
            return None
        return msgspec.msgpack.decode(self.states[key], type=self.logic.state_type)

    def handle(self, record: Record, now: datetime = NOW) -> list[Emit]:
        topic = "feedback" if isinstance(record, Feedback) else "llm-results"
        message = Message(topic, 0, self.offset, int(now.timestamp() * 1000), b"k", b"v")
        self.offset += 1
        out: list[Emit] = []
        for key, event in self.logic.route(record, message, self._read):
            state, emits = self.logic.step(self._read(key), event, now)
            out += emits
            if key is not None and state is None:
                self.states.pop(key, None)
            elif key is not None:
                self.states[key] = msgspec.msgpack.encode(state)
        for emit in out:
            assert CODEC.decode(emit.topic, CODEC.encode(emit.topic, emit.record)) == emit.record
        return out

    def scores(self, record: LlmResult) -> dict[tuple[str, str], Score]:
        (evaluation,) = [e.record for e in self.handle(record) if isinstance(e.record, Evaluation)]
        return {(score.name, score.subject): score for score in evaluation.scores}


def alerts(emits: Sequence[Emit]) -> list[Alert]:
    return [emit.record for emit in emits if isinstance(emit.record, Alert)]


def test_prompt_and_answer_are_scored_apart() -> None:
    scores = Processor().scores(result(INSULT, "I am sorry that you are upset."))
    assert scores["toxicity", "prompt"].label == "toxic"
    assert "shit" in scores["toxicity", "prompt"].features
    assert scores["toxicity", "answer"].label == "clean"
    assert scores["toxicity", "answer"].features == {}
    assert scores["toxicity", "answer"].version == f"{MODEL.version}+0"


def test_a_blocked_prompt_is_scored_and_a_result_without_text_is_not() -> None:
    assert set(Processor().scores(result(INSULT, status="blocked"))) == {("toxicity", "prompt")}
    assert Processor().handle(result("", status="expired")) == []


def test_an_answer_that_quotes_passages_is_checked_against_them() -> None:
    passage = "The garbage collector of CPython breaks reference cycles; it runs 3 generations."
    scores = Processor().scores(
        result("How?", "The garbage collector breaks cycles in 3 generations.", citations=[passage])
    )
    assert 0.6 <= scores["groundedness", "answer"].score < 1.0
    assert scores["groundedness", "answer"].label == "grounded"
    scores = Processor().scores(result("How?", "Elephants migrate across 7 oceans every winter.", citations=[passage]))
    assert (scores["groundedness", "answer"].score, scores["groundedness", "answer"].label) == (0.0, "ungrounded")
    assert ("groundedness", "answer") not in Processor().scores(result("How?", "It runs."))


def test_feedback_teaches_through_the_remembered_request() -> None:
    text = "this stupid bug, you stupid machine"
    processor = Processor()
    before = processor.scores(result(text))["toxicity", "prompt"]
    assert before.label == "toxic"
    for repeat in range(10):
        processor.handle(feedback(0, {"prompt.toxicity": "clean"}, repeat=repeat))
    after = processor.scores(result(text, number=1))["toxicity", "prompt"]
    assert (after.label, after.version) == ("clean", f"{MODEL.version}+10")
    # Insults stay insults.
    assert processor.scores(result(INSULT, number=2))["toxicity", "prompt"].label == "toxic"


def test_feedback_teaches_prompt_and_answer_at_once_by_their_own_labels() -> None:
    processor = Processor()
    first = processor.scores(result("zorgle blimfax", "quibble frotz"))
    labels = {"prompt.toxicity": "toxic", "answer.toxicity": "clean", "answer.helpful": "yes"}
    for repeat in range(5):
        processor.handle(feedback(0, labels, repeat=repeat))
    second = processor.scores(result("zorgle blimfax", "quibble frotz", number=1))
    assert second["toxicity", "prompt"].score > first["toxicity", "prompt"].score
    assert second["toxicity", "answer"].score < second["toxicity", "prompt"].score
    assert second["toxicity", "prompt"].version.endswith("+10")


@pytest.mark.parametrize(
    "given",
    [
        feedback(0, {}),
        feedback(0, {"prompt.toxicity": "perhaps"}),
        feedback(0, {"answer.toxicity": "toxic"}),  # there was no answer
    ],
)
def test_feedback_that_says_nothing_teaches_nothing(given: Feedback) -> None:
    processor = Processor()
    processor.handle(result("hello there"))
    states = dict(processor.states)
    assert processor.handle(given) == []
    assert processor.states == states


def given_scores(emits: Sequence[Emit]) -> dict[str, tuple[float, str]]:
    (evaluation,) = [emit.record for emit in emits if isinstance(emit.record, Evaluation)]
    assert {score.subject for score in evaluation.scores} == {"feedback"}
    return {score.name: (score.score, score.label) for score in evaluation.scores}


PASSAGE = "The garbage collector of CPython breaks reference cycles; it runs 3 generations."


def test_feedback_is_scored_against_what_the_evaluators_said() -> None:
    processor = Processor()
    processor.handle(result("How?", "The garbage collector breaks cycles in 3 generations.", citations=[PASSAGE]))
    # The answer is grounded, the classifier called the prompt clean: the person thinks otherwise of both.
    scores = given_scores(processor.handle(feedback(0, {"prompt.toxicity": "toxic"}, rating=0.0)))
    assert scores["rating"] == (0.0, "bad")
    assert scores["disagreement"] == (1.0, "contradicted")
    assert scores["rating_gap"][0] > 0.6
    scores = given_scores(processor.handle(feedback(0, {"prompt.toxicity": "clean"}, rating=1.0, repeat=1)))
    assert scores["disagreement"] == (0.0, "borne out")
    assert scores["rating_gap"][0] < 0.4


def test_the_scores_of_feedback_carry_whose_and_what_they_are_of() -> None:
    processor = Processor()
    context = Context(
        requested_at=NOW, route="fast", prompt_name="p", prompt_version="v7", policy_name="strict", policy_version="a1"
    )
    processor.handle(msgspec.structs.replace(result("hello there"), context=context))
    given = feedback(0, {}, rating=0.75)
    (emit,) = processor.handle(given)
    evaluation = emit.record
    assert isinstance(evaluation, Evaluation)
    assert (emit.topic, emit.key, evaluation.tenant_id) == ("evaluations", "r0", "t")
    assert (evaluation.context, evaluation.model, evaluation.status) == (context, "m", "completed")
    assert (evaluation.causation_id, evaluation.occurred_at) == (given.event_id, given.occurred_at)
    assert processor.handle(given)[0].record == evaluation


def test_feedback_of_another_team_is_not_scored() -> None:
    processor = Processor()
    processor.handle(result("hello there"))
    assert processor.handle(feedback(0, {}, rating=0.0, team="u")) == []


@pytest.mark.parametrize("rating", [-0.5, 1.5, float("nan")])
def test_a_rating_outside_its_scale_is_no_score(rating: float) -> None:
    processor = Processor()
    processor.handle(result("hello there"))
    assert processor.handle(feedback(0, {}, rating=rating)) == []


def test_feedback_before_its_result_is_held_and_counts_as_if_it_came_after() -> None:
    early, late = Processor(), Processor()
    given = feedback(0, {"prompt.toxicity": "toxic"}, rating=1.0)
    assert early.handle(given) == []
    out = early.handle(result("hello there"))
    late.handle(result("hello there"))
    expected = late.handle(given)
    assert [emit for emit in out if emit.record.causation_id == given.event_id] == expected != []
    assert early.states == late.states
    # Once only.
    assert [emit for emit in early.handle(result("hello there")) if emit.record.causation_id == given.event_id] == []


def test_feedback_that_was_held_for_too_long_or_is_another_requests_is_not_joined() -> None:
    processor = Processor(ScoringRules(remembered=16))
    processor.handle(feedback(0, {"prompt.toxicity": "toxic"}, rating=1.0, at=NOW - timedelta(hours=2)))
    assert len(processor.handle(result("hello there"))) == 1
    assert "model" not in processor.states
    for number in range(50):
        processor.handle(feedback(number, {}, rating=1.0))
    assert sum(key.startswith("early/") for key in processor.states) == 1
    assert len(processor.handle(result("hello there", number=3))) == 1


def test_a_result_remembered_by_the_version_before_still_teaches() -> None:
    processor = Processor()
    processor.handle(result("zorgle blimfax"))
    (key,) = [key for key in processor.states if key.startswith("recent/")]
    tag, *fields = msgspec.msgpack.decode(processor.states[key])
    processor.states[key] = msgspec.msgpack.encode([tag, *fields[:3]])
    assert processor.handle(feedback(0, {"prompt.toxicity": "toxic"}, rating=1.0)) == []
    assert "model" in processor.states


def test_memory_of_requests_is_bounded() -> None:
    processor = Processor(ScoringRules(remembered=16))
    for number in range(500):
        processor.handle(result(f"question {number}", number=number))
    assert sum(key.startswith("recent/") for key in processor.states) <= 16


def test_a_severe_text_alerts_once_and_says_later_how_often() -> None:
    processor = Processor()
    first = alerts(processor.handle(result(INSULT, number=0)))
    assert [(a.kind, a.name, a.severity, a.sample_requests) for a in first] == [
        ("toxicity", "severe_prompt", "warning", ["r0"])
    ]
    assert INSULT not in str(first)
    assert alerts(processor.handle(result(INSULT, number=1), NOW + timedelta(minutes=1))) == []
    (later,) = alerts(processor.handle(result(INSULT, number=2), NOW + timedelta(minutes=11)))
    assert later.fingerprint == first[0].fingerprint
    assert later.event_id != first[0].event_id
    assert later.figures["suppressed"] == 1
    (answer,) = alerts(processor.handle(result("hi", INSULT, number=3), NOW + timedelta(minutes=11)))
    assert (answer.name, answer.severity) == ("severe_answer", "critical")


def test_the_team_sets_from_where_a_text_is_severe() -> None:
    score = Processor().scores(result(INSULT))["toxicity", "prompt"].score
    lax = Team(name="t", toxicity_alert=min(1.0, score + 1e-3))
    assert alerts(Processor(team=lax).handle(result(INSULT))) == []
    assert len(alerts(Processor(team=Team(name="t", toxicity_alert=0.6)).handle(result(INSULT)))) == 1


def test_a_share_of_toxic_texts_alerts_within_its_window_only() -> None:
    rules = ScoringRules(watch=WatchRules(severe_from=1.0, rate_from=0.2, rate_texts=20))

    def traffic(minutes_apart: float) -> list[Alert]:
        processor = Processor(rules)
        found = []
        for number in range(40):
            text = INSULT if number % 4 == 3 else "What is a list?"
            found += alerts(
                processor.handle(result(text, number=number), NOW + timedelta(minutes=minutes_apart * number))
            )
        return found

    (alert,) = traffic(0.1)
    assert (alert.name, alert.sample_requests[-1]) == ("prompt_rate", "r19")
    assert alert.figures["share"] == pytest.approx(5 / 20)
    assert traffic(3.0) == []  # a window of 10 minutes never holds 20 texts

"""What a target in shadow says reaches nobody: every reader of completions, scores and costs leaves it out, or names it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.audit.story import story
from penstock.bus import MemoryBus, Message
from penstock.clock import ManualClock
from penstock.config.kinds import Budget, Evaluator, Price, Prompt, PromptMessage, Route, Rubric, Shadow, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.config.rubrics import Choice
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    Completion,
    Context,
    Cost,
    Evaluation,
    Feedback,
    GroundedRequest,
    Purpose,
    Score,
    ToolCall,
    Usage,
)
from penstock.contracts.records import Message as ChatMessage
from penstock.ledger.scores import ScoreBook

from services.drift.projection import project
from services.evaluation.core.pricing import price_completion
from services.evaluation.core.watch import WatchRules, watching
from services.evaluation.exchanges import judged_completion, scored
from services.evaluation.experiments.projection import observe
from services.evaluation.feedback.log import Log, cases
from services.evaluation.golden.promotion import Found
from services.evaluation.judging.tasks import judge_tasks
from services.guardrails.releasing import is_answer
from services.inference.core import Answered, completion, completion_id
from services.inference.routing import MeasuredQuality
from services.inference.shadow import shadow_completion, shadow_request, shadows_of
from services.intake.settlement import charge_of
from services.intake.validity import PURPOSES
from tests.unit.feedback_partition import Partition

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
TRIED = Target(backend="openai", model="tried")
SERVED = Target(backend="openai", model="served")
REQUEST = GroundedRequest(
    event_id="e", request_id="r", tenant_id="support", occurred_at=NOW, causation_id="c",
    context=Context(
        requested_at=NOW, admitted_at=NOW, user_id="ada", experiments={"models": "large"},
        experiment_versions={"models": "v"},
    ),
    messages=[ChatMessage(role="user", content="Are tuples immutable?")], stream=True, embedding_tokens=9,
)  # fmt: skip
USAGE = Usage(input_tokens=10, output_tokens=4)


def answered(model: str) -> Answered:
    return Answered(model, "openai", f"as {model} says", "stop", USAGE, 200_000)


def shadow(request: GroundedRequest = REQUEST, target: Target = TRIED) -> Completion:
    emit = shadow_completion(shadow_request(request), target, answered(target.model), NOW, NOW + timedelta(seconds=1))
    assert isinstance(emit.record, Completion)
    assert (emit.topic, emit.key) == ("completions", request.request_id)
    return emit.record


def served() -> Completion:
    (emit,) = completion(REQUEST, answered("served"), NOW, NOW, target=SERVED)
    assert isinstance(emit.record, Completion)
    return emit.record


def scores(record: Completion) -> Evaluation:
    names = ("groundedness", "toxicity")
    (emit,) = scored(record, [Score(name=name, subject="answer", score=0.9, label="toxic") for name in names])
    assert isinstance(emit.record, Evaluation)
    return emit.record


SAID, SCORES = shadow(), scores(shadow())
COST = price_completion(
    SAID,
    lambda model, at: Price(model=model, input_cost_per_token=Decimal("1e-6"), output_cost_per_token=Decimal("2e-6")),
)


def test_it_is_an_event_of_its_own_and_asks_for_nothing_but_an_answer() -> None:
    other = shadow(target=TRIED.model_copy(update={"name": "other"}))
    ids = {served().event_id, SAID.event_id, other.event_id}
    assert len(ids) == 3
    assert served().event_id == completion_id(REQUEST)
    assert shadow() == SAID, "again the same"
    assert (SAID.kind, SAID.target, SAID.request_model, SAID.causation_id) == ("shadow", "tried", "tried", "e")
    asked = shadow_request(REQUEST)
    assert (asked.stream, asked.context.priority, asked.context.purpose) == (False, "batch", "shadow")
    assert asked.context.experiments == asked.context.experiment_versions == {}


def test_the_release_gate_passes_over_it() -> None:
    assert not is_answer(SAID)


@pytest.mark.parametrize(
    ("topic", "record"),
    [("completions", SAID), ("evaluations", SCORES), ("costs", COST)],
    ids=["said", "scores", "cost"],
)
def test_it_is_no_traffic(topic: str, record: Any) -> None:
    assert record.context.purpose == Purpose.SHADOW
    assert project(topic, 0, 0, record, {"answer.language": "de"}) == [], "drift"
    named = msgspec.structs.replace(
        record, context=msgspec.structs.replace(record.context, experiments=REQUEST.context.experiments)
    )
    assert observe(topic, named, lambda name: pytest.fail("an experiment was looked up")) == []


def test_it_is_scored_and_its_scores_name_it() -> None:
    exchange = judged_completion(SAID)
    assert exchange is not None
    assert exchange.answer == "as tried says"
    assert (SCORES.model, SCORES.context.purpose, SCORES.scores[0].subject) == ("tried", "shadow", "answer")
    alien = msgspec.structs.replace(SAID, context=msgspec.structs.replace(SAID.context, purpose="serve"))
    assert judged_completion(alien) is None, "one of these alone is not enough"
    calling = msgspec.structs.replace(SAID, tool_calls=[ToolCall(id="call_1", name="look_up")])
    assert judged_completion(calling) is None, "words beside calls of tools are no answer yet"


def test_no_judge_is_asked_and_nobody_is_alarmed() -> None:
    verdicts = (Choice(name="good", score=1, meaning="It helps."), Choice(name="bad", score=0, meaning="It does not."))
    rubric = Rubric(name="helpfulness", prompt="judge", route="judge", choices=verdicts)
    prompt = Prompt(name="judge", template=(PromptMessage(role="user", content="?"),), labels=("production",))
    config = ConfigPlane.of([rubric, prompt, Evaluator(name="helpfulness")])
    assert len(judge_tasks(served(), config)) == 1, "what is served is judged"
    assert judge_tasks(SAID, config) == []
    message = Message("evaluations", 0, 0, 0, b"k", b"")
    assert list(watching(WatchRules(), lambda name: None).route(SCORES, message, lambda key: None)) == []


def test_feedback_is_not_joined_with_it() -> None:
    partition = Partition()
    partition.take(SCORES)
    assert partition.states == {}


async def test_a_rated_answer_has_the_scores_of_what_was_served() -> None:
    bus = MemoryBus(Catalogue.load(), ManualClock(NOW))
    answer = served()
    (own,) = scored(answer, [Score(name="groundedness", subject="answer", score=0.2)])
    for topic, record in (("completions", answer), ("completions", SAID), ("evaluations", own.record)):
        await bus.publish(topic, "r", record)
    await bus.publish("evaluations", "r", msgspec.structs.replace(SCORES, occurred_at=NOW + timedelta(hours=1)))
    given = Feedback(event_id="f", request_id="r", tenant_id="support", occurred_at=NOW, causation_id="", rating=1.0)
    topics = ("completions", "evaluations")
    (case,) = await cases(Log(bus, bus.codec), {("support", "r"): [given]}, topics)
    assert case.completion == answer
    assert {name: score.score for name, score in case.scores.items()} == {"answer.groundedness": 0.2}


def test_golden_sets_and_quality_floors_leave_it_out() -> None:
    found = Found()
    found.take(SAID, ("completions", 0, 0))
    assert found.completion is None
    quality = MeasuredQuality()
    for _ in range(100):
        quality.take(SCORES, {"default": "answer.groundedness"})
    assert quality.mean("default", "answer.groundedness", ["tried"], NOW.timestamp()) is None


def test_it_is_paid_for_as_what_it_is_and_its_question_is_not_embedded_twice() -> None:
    assert (COST.kind, COST.amount) == ("shadow", Decimal("0.000018"))
    assert SAID.embedding_tokens == 0
    team = Team(name="support", budgets=(Budget(name="day", window="day", limit=Decimal(1), mode="hard"),))
    charge = charge_of(COST, team)
    assert charge is not None
    assert (charge.slot, charge.part, charge.amount) == ("0", True, 18_000_000), (
        "its request's call is yet to be paid for"
    )


def test_comparisons_of_models_by_score_and_cost_are_of_what_was_served() -> None:
    book = ScoreBook()
    cost = Cost(
        event_id="x", request_id="r", tenant_id="support", occurred_at=NOW, causation_id="", context=REQUEST.context,
        model="served", priced=True, amount=Decimal(1),
    )  # fmt: skip
    book.call(cost)
    book.call(COST)
    book.evaluation(SCORES)
    assert book.of(("support", "default", "served")) == {}


def test_the_audit_says_that_it_was_in_shadow() -> None:
    (chapter,) = story([("completions", 0, 0, SAID)])
    assert "in shadow: it is not released" in chapter.headline


def test_nobody_can_ask_for_it() -> None:
    assert Purpose.SHADOW not in PURPOSES


@given(st.text(max_size=20), st.floats(0.01, 1.0))
def test_each_shadow_has_its_share_of_what_is_served(request_id: str, share: float) -> None:
    route = Route(name="default", targets=(SERVED,), shadows=(Shadow(target=TRIED, share=share),))
    request = msgspec.structs.replace(REQUEST, request_id=request_id)
    drawn = shadows_of(route, request)
    assert drawn == shadows_of(route, request)
    assert drawn in ([], [TRIED])
    if share == 1.0:
        assert drawn == [TRIED]
    for other in (
        msgspec.structs.replace(request, attempt=1),
        msgspec.structs.replace(request, context=msgspec.structs.replace(request.context, purpose="evaluation")),
    ):
        assert shadows_of(route, other) == []


def test_the_share_is_kept() -> None:
    route = Route(name="default", targets=(SERVED,), shadows=(Shadow(target=TRIED, share=0.25),))
    drawn = sum(bool(shadows_of(route, msgspec.structs.replace(REQUEST, request_id=f"r{n}"))) for n in range(4_000))
    assert drawn / 4_000 == pytest.approx(0.25, abs=0.03)

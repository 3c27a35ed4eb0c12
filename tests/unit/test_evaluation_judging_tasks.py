"""Which answers are judged, and waiting for what becomes of tasks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from penstock.bus import Message as LogMessage
from penstock.bus import Producer
from penstock.bus.memory import MemoryBus
from penstock.bus.producer import dead_letter
from penstock.clock import SystemClock
from penstock.config.files import load_files
from penstock.config.kinds import Evaluator
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue, project_file
from penstock.contracts.envelope import derive
from penstock.contracts.records import Completion, Context, Evaluation, JudgeTask, Message, Passage, Score
from prometheus_client import REGISTRY

from services.evaluation.evaluators.runner import takes
from services.evaluation.judging.tasks import judge_tasks
from services.evaluation.judging.waiting import judge_all
from tests.unit.test_evaluation_judging import a_task

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SHIPPED = load_files(project_file("infra/config"))
PASSAGE = Passage(passage_id="p", document_id="d", text="Water wets.", score=0.9)


def plane(*evaluators: Evaluator) -> ConfigPlane:
    made = ConfigPlane.of(SHIPPED)
    for each in evaluators:
        made.put(each.key, each)
    return made


def answer(request_id: str = "r", **changes: Any) -> Completion:
    fields: dict[str, Any] = {
        "event_id": f"c-{request_id}", "request_id": request_id, "tenant_id": "support", "occurred_at": NOW,
        "causation_id": "g", "context": Context(requested_at=NOW, conversation_id="k"), "model": "small",
        "backend": "openai", "content": "Yes.", "passages": [PASSAGE],
        "messages": [Message(role="user", content="Before?"), Message(role="user", content="Is water wet?")],
    }  # fmt: skip
    return Completion(**fields | changes)


def tasks_of(completion: Completion, config: ConfigPlane) -> list[JudgeTask]:
    emits = judge_tasks(completion, config)
    assert {(emit.topic, emit.key) for emit in emits} <= {("judge-tasks", "k")}
    return [emit.record for emit in emits if isinstance(emit.record, JudgeTask)]


ALL = plane(Evaluator(name="helpfulness"), Evaluator(name="faithfulness"), Evaluator(name="correctness"))


def test_nothing_is_judged_where_no_share_is_given() -> None:
    assert tasks_of(answer(), plane()) == []
    assert tasks_of(answer(), plane(Evaluator(name="helpfulness", rate=0))) == []


def test_an_answer_is_judged_by_each_rubric_that_samples_it_and_has_what_it_needs() -> None:
    tasks = tasks_of(answer(), ALL)
    # Traffic has no reference, and one answer is no pair.
    assert [task.rubric for task in tasks] == ["faithfulness", "helpfulness"]
    for task in tasks:
        assert (task.question, task.answers, task.passages, task.models) == (
            "Is water wet?", ["Yes."], ["Water wets."], ["small"],
        )  # fmt: skip
        assert (task.reply_key, task.request_id, task.causation_id) == ("k", "r", "c-r")
    assert tasks == tasks_of(answer(), ALL)
    assert len({task.event_id for task in tasks}) == 2
    assert [task.rubric for task in tasks_of(answer(passages=[]), ALL)] == ["helpfulness"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "cached"},
        {"kind": "judge"},
        {"kind": "abandoned"},
        {"error": "no answer within 5 s"},
        {"content": " "},
        {"context": Context(requested_at=NOW, purpose="judge")},
        {"context": Context(requested_at=NOW, purpose="evaluation")},
    ],
)
def test_only_what_a_model_answered_to_a_user_is_judged(changes: dict[str, Any]) -> None:
    assert tasks_of(answer(**changes), ALL) == []


def test_shares_are_kept_by_route_and_grow_without_changing_what_was_in() -> None:
    config = plane(Evaluator(name="helpfulness", rate=0.0, routes={"default": 0.25}))
    answers = [answer(f"r{number}") for number in range(4_000)]
    judged = {each.request_id for each in answers if tasks_of(each, config)}
    assert 900 < len(judged) < 1_100
    elsewhere = [
        msgspec.structs.replace(each, context=Context(requested_at=NOW, route="metered")) for each in answers[:50]
    ]
    assert not any(tasks_of(each, config) for each in elsewhere)
    assert judged == {each.request_id for each in answers if takes(each.request_id, "helpfulness", 0.25)}
    assert judged < {each.request_id for each in answers if takes(each.request_id, "helpfulness", 0.4)}
    assert all(takes(each.request_id, "helpfulness", 1.0) for each in answers)


async def test_a_dead_letter_that_a_step_puts_out_is_counted_like_any_other() -> None:
    bus = MemoryBus(Catalogue.load(), SystemClock())
    origin = LogMessage("judge-tasks", 0, 7, 0, b"k", b"v")
    letter = dead_letter("evaluation", "evaluation", origin, "judge_failed", "told why", NOW)
    await Producer(bus.producer(), bus.codec, "judging-tests").send("dlq-evaluation", "k", letter)
    labels = {"service": "judging-tests", "topic": "judge-tasks", "code": "judge_failed"}
    assert REGISTRY.get_sample_value("penstock_dead_letters_total", labels) == 1


async def test_whoever_waits_learns_the_verdict_the_failure_or_that_neither_came() -> None:
    bus = MemoryBus(Catalogue.load(), SystemClock())
    producer = Producer(bus.producer(), bus.codec, "tests")
    tasks = [a_task(event_id=f"t{number}", reply_key=f"k{number}") for number in range(3)]

    async def judge() -> None:
        for event in await bus.collect("judge-tasks", 3):
            task, message = event.record, event.message
            assert isinstance(task, JudgeTask)
            if task.event_id == "t0":
                score = Score(name="helpfulness", subject="answer", score=1.0, label="good")
                evaluation = Evaluation(**derive(task, "x", 0, NOW), context=task.context, scores=[score])
                await producer.send("evaluations", task.reply_key, evaluation)
                foreign = msgspec.structs.replace(evaluation, event_id="other", causation_id="t2-of-another")
                await producer.send("evaluations", task.reply_key, foreign)
            elif task.event_id == "t1":
                origin = LogMessage(message.topic, message.partition, message.offset, 0, b"k", b"v")
                letter = dead_letter("evaluation", "evaluation", origin, "judge_failed", "told why", NOW)
                await producer.send("dlq-evaluation", "k", letter)

    judging = asyncio.create_task(judge())
    found = await judge_all(
        tasks, transport=bus, codec=bus.codec, producer=producer, clock=SystemClock(), timeout_s=1.0
    )
    await judging
    assert {task: each.scores[0].label for task, each in found.evaluations.items()} == {"t0": "good"}
    assert found.failed == {"t1": "judge_failed: told why"}
    assert found.waiting == {"t2"}

"""Tasks to verdicts: what a judge is asked, what becomes of its answers, and how every task ends exactly once. Pure.

A task is one state under its own key. It asks, in one order or in both, waits for the one result that every request has
(admission and every hop after it keep the deadline), asks again where that is no verdict, and ends: as an evaluation, or
as a dead letter that `penstock dlq replay evaluation` gives another round of attempts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec
from penstock.bus import Emit, Message
from penstock.bus.partitioning import key_in
from penstock.bus.producer import REPLAYED, dead_letter
from penstock.config.prompts import Prompt, VariableError
from penstock.config.rubrics import Rubric
from penstock.contracts.envelope import derive
from penstock.contracts.judge_requests import judge_task_key, judge_task_of
from penstock.contracts.records import Evaluation, JudgeTask, LlmResult, Purpose
from penstock.stateful import EmitLike, Logic, Lookup

from services.evaluation.judging.asking import Plan, plan_of, request_of, variables_of
from services.evaluation.judging.verdicts import Failure, Given, given, score_of

__all__ = [
    "ENDED_KEPT",
    "LARGEST_MESSAGE",
    "LARGEST_TASK",
    "PENDING_KEPT",
    "Configuration",
    "Event",
    "State",
    "judging",
]

PENDING_KEPT = timedelta(days=8)
"""How long a task waits for a result: longer than the log keeps the request, so no result can come later."""
ENDED_KEPT = timedelta(days=1)
"""How long it is known that a task has ended, against a writer that repeats itself."""
LARGEST_TASK = 128 * 1024
"""Bytes of a task's texts: they are kept in memory until the judge has answered."""
LARGEST_MESSAGE = 2 * LARGEST_TASK
"""Bytes of a task as it was read, with whatever else it says: it is kept too, and a state must fit into one message."""
_SERVICE = "evaluation"


class Configuration(Protocol):
    """The part of the config plane that judging reads."""

    def rubric(self, name: str) -> Rubric | None: ...
    def prompt(self, name: str, label: str = ...) -> Prompt | None: ...


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """The task's message as it stands in the log: what becomes of it as a dead letter."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None

    @classmethod
    def of(cls, message: Message) -> Origin:
        return cls(message.topic, message.partition, message.offset, message.timestamp_ms, message.key, message.value)

    @property
    def message(self) -> Message:
        return Message(self.topic, self.partition, self.offset, self.timestamp_ms, self.key, self.value)


class Question(msgspec.Struct, frozen=True, array_like=True):
    """One order of a task: which attempt is under way, and the verdict once it is there."""

    order: str
    attempt: int
    given: Given | None = None


class Pending(msgspec.Struct, frozen=True, array_like=True, tag="pending"):
    """A task that waits for its judge. ``before`` attempts were made before it was sent again as a dead letter."""

    task: JudgeTask
    plan: Plan
    questions: tuple[Question, ...]
    origin: Origin
    asked_at: datetime
    before: int = 0


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """A task that has ended, with the number of its last attempt; a ``failed`` one may be sent again by hand."""

    at: datetime
    attempt: int
    failed: bool


State = Pending | Ended


class Asked(msgspec.Struct, frozen=True):
    """A task that arrives; ``replayed`` where a person sent it again."""

    task: JudgeTask
    origin: Origin
    replayed: bool


class Answered(msgspec.Struct, frozen=True):
    """The result of one of a task's requests."""

    result: LlmResult
    order: str
    attempt: int


Event = Asked | Answered


def judging(config: Configuration, partitions: int) -> Logic[State, Event]:
    """Return the processor of ``judge-tasks`` and of the judges' ``llm-results``; others are passed over.

    Args:
        config: the rubrics and prompts in force.
        partitions: how many both topics have. Each order of a task is asked under a key of its own that falls to the task's
            partition: the answer finds the task, and no call of the judged conversation waits for a judge's.
    """

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Event]]:
        if isinstance(record, JudgeTask):
            replayed = any(name == REPLAYED for name, _ in message.headers)
            yield f"task/{judge_task_key(record.event_id)}", Asked(record, Origin.of(message), replayed)
        elif isinstance(record, LlmResult) and record.context.purpose == Purpose.JUDGE:
            found = judge_task_of(record.request_id)
            if found is not None:
                key, order, attempt = found
                yield f"task/{key}", Answered(record, order, attempt)

    def step(state: State | None, event: Event, now: datetime) -> tuple[State | None, Sequence[EmitLike]]:
        if isinstance(event, Answered):
            return _answered(state, event, partitions, now) if isinstance(state, Pending) else (state, [])
        if state is None:
            return _asked(event, config, 0, partitions, now)
        if isinstance(state, Ended) and state.failed and event.replayed:
            return _asked(event, config, state.attempt, partitions, now)
        return state, []

    return Logic(
        step=step,
        route=route,
        state_type=State,
        expires_at=lambda key, state: (
            state.asked_at + PENDING_KEPT if isinstance(state, Pending) else state.at + ENDED_KEPT
        ),
        # A dead letter that is sent again has the identity it had.
        recognises=frozenset({"judge-tasks"}),
    )


def _asked(
    event: Asked, config: Configuration, before: int, partitions: int, now: datetime
) -> tuple[State, Sequence[EmitLike]]:
    """Return a new task with its first requests, or its end where it cannot be judged at all."""
    task = event.task
    planned = _planned(task, len(event.origin.value or b""), config)
    if isinstance(planned, Failure):
        return _failed(event.origin, planned, before, now)
    questions = tuple(Question(order, before + 1) for order in planned.orders)
    state = Pending(task, planned, questions, event.origin, now, before)
    return state, [_ask(state, question, partitions, now) for question in questions]


def _planned(task: JudgeTask, message_size: int, config: Configuration) -> Plan | Failure:
    def no(code: str, reason: str) -> Failure:
        return Failure(reason, retried=False, code=code)

    rubric = config.rubric(task.rubric)
    if rubric is None:
        return no("unknown_rubric", f"no rubric {task.rubric!r} is configured; see `penstock config show rubrics`")
    prompt = config.prompt(rubric.prompt, rubric.prompt_label)
    if prompt is None:
        reason = f"no version {rubric.prompt_label!r} of the prompt {rubric.prompt!r} of rubric {task.rubric!r}"
        return no("unknown_prompt", f"{reason}; see `penstock config show prompts`")
    wanted = 2 if rubric.mode == "pairwise" else 1
    if len(task.answers) != wanted:
        return no(
            "invalid_task",
            f"rubric {rubric.name!r} is {rubric.mode}: it needs {wanted} answers, not {len(task.answers)}",
        )
    if not task.reply_key:
        return no(
            "invalid_task", "reply_key is empty; it must be the judged request's conversation_id, else its request_id"
        )
    texts = [task.question, *task.answers, *task.passages, task.reference or ""]
    if (size := sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)) > LARGEST_TASK:
        return no("task_too_large", f"its texts are {size:,} bytes, more than the {LARGEST_TASK:,} that are judged")
    if message_size > LARGEST_MESSAGE:
        return no("task_too_large", f"it has {message_size:,} bytes, more than the {LARGEST_MESSAGE:,} that are judged")
    plan = plan_of(rubric, prompt)
    try:
        prompt.render(variables_of(task, plan))
    except VariableError as error:
        return no("invalid_task", f"{error}; rubric {rubric.name!r} cannot judge without it")
    return plan


def _answered(state: Pending, event: Answered, partitions: int, now: datetime) -> tuple[State, Sequence[EmitLike]]:
    """Return the task after one result: the next attempt, the next state of waiting, or its end."""
    question = next((each for each in state.questions if each.order == event.order), None)
    # A result of an attempt that was made before, or that nobody of this task made, says nothing.
    if question is None or question.given is not None or question.attempt != event.attempt:
        return state, []
    if event.result.tenant_id != state.task.tenant_id:
        return state, []
    said = given(event.result, state.plan, event.order)
    if isinstance(said, Failure):
        if not said.retried or question.attempt - state.before >= state.plan.attempts:
            last = max(each.attempt for each in state.questions)
            reason = f"rubric {state.plan.rubric!r}, attempt {question.attempt}: {said.reason}"
            return _failed(state.origin, msgspec.structs.replace(said, reason=reason), last, now)
        again = msgspec.structs.replace(question, attempt=question.attempt + 1)
        after = _with(state, again, now)
        return after, [_ask(after, again, partitions, now)]
    after = _with(state, msgspec.structs.replace(question, given=said), state.asked_at)
    verdicts = [each.given for each in after.questions if each.given is not None]
    if len(verdicts) < len(after.questions):
        return after, []
    last = max(each.attempt for each in after.questions)
    return Ended(now, last, failed=False), [_evaluated(after, verdicts, now)]


def _with(state: Pending, question: Question, asked_at: datetime) -> Pending:
    questions = tuple(question if each.order == question.order else each for each in state.questions)
    return msgspec.structs.replace(state, questions=questions, asked_at=asked_at)


def _ask(state: Pending, question: Question, partitions: int, now: datetime) -> Emit:
    task = state.task
    key = key_in(state.origin.partition, f"judge-{judge_task_key(task.event_id)}-{question.order}", partitions)
    return Emit("llm-requests", key, request_of(task, state.plan, question.order, question.attempt, key, now))


def _evaluated(state: Pending, verdicts: Sequence[Given], now: datetime) -> Emit:
    task = state.task
    evaluation = Evaluation(
        **derive(task, "evaluation.judging", 1, now),
        context=task.context,
        model=task.models[0] if task.models and task.models[0] else None,
        scores=[score_of(state.plan, verdicts)],
    )
    return Emit("evaluations", task.reply_key, evaluation)


def _failed(origin: Origin, failure: Failure, attempt: int, now: datetime) -> tuple[Ended, Sequence[EmitLike]]:
    letter = dead_letter(_SERVICE, _SERVICE, origin.message, failure.code, failure.reason, now)
    key = f"{origin.topic}/{origin.partition}/{origin.offset}"
    return Ended(now, attempt, failed=True), [Emit(f"dlq-{_SERVICE}", key, letter)]

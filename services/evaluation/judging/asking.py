"""What a judge is asked: a rubric's prompt with the judged texts marked off, and the shape of the verdict. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from penstock.config.prompts import Prompt
from penstock.config.rubrics import Rubric
from penstock.contracts.judge_requests import judge_event_id, judge_request_id
from penstock.contracts.records import JudgeTask, LlmRequest, Purpose, Sampling

__all__ = ["PAIRWISE", "Plan", "Verdict", "plan_of", "request_of", "schema_of", "variables_of"]

# What chat templates take for the end of a message, where a backend reads them inside one: ChatML, Llama, Gemma, Mistral.
_CONTROL = re.compile(r"<(?=\|)|<(?=/?s>)|<(?=(?:start|end)_of_turn>)|<(?=<?/?SYS>)|\[(?=/?INST\])")


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """A verdict that a judge may give, what it counts and when to give it."""

    name: str
    score: float
    meaning: str


PAIRWISE = (
    Verdict("a", 1.0, "answer A is better"),
    Verdict("b", 0.0, "answer B is better"),
    Verdict("tie", 0.5, "neither is better"),
)
"""Verdicts of a comparison; the score is that of the first answer."""


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """How one task is judged: the rubric and the prompt in force when it was accepted, for all of its requests."""

    rubric: str
    version: str
    pairwise: bool
    orders: tuple[str, ...]
    """``given``, and ``swapped`` where a comparison is judged in both orders."""
    verdicts: tuple[Verdict, ...]
    prompt: str
    prompt_version: str
    variables: tuple[str, ...]
    route: str
    attempts: int
    deadline_s: float


def plan_of(rubric: Rubric, prompt: Prompt) -> Plan:
    """Return how tasks are judged by ``rubric`` with this version of its prompt."""
    pairwise = rubric.mode == "pairwise"
    return Plan(
        rubric=rubric.name,
        version=rubric.version,
        pairwise=pairwise,
        orders=("given", "swapped") if pairwise and rubric.swap else ("given",),
        verdicts=PAIRWISE if pairwise else tuple(Verdict(c.name, c.score, c.meaning) for c in rubric.choices),
        prompt=prompt.name,
        prompt_version=prompt.version,
        variables=tuple(prompt.variables),
        route=rubric.route,
        attempts=rubric.attempts,
        deadline_s=rubric.deadline_s,
    )


def variables_of(task: JudgeTask, plan: Plan, order: str = "given") -> dict[str, str]:
    """Return the values of the prompt's variables, as far as the prompt has these and the task has values.

    Judged texts come from anyone, and may hold what reads like an instruction to the judge. Each stands between two lines
    with a code that depends on all of the texts, so that none of them can hold it; ``marker`` tells the judge that code.
    """
    marker = _marker(task)
    answers = task.answers if order == "given" else task.answers[::-1]
    names = ("answer_a", "answer_b") if plan.pairwise else ("answer",)
    texts = {"question": task.question, **dict(zip(names, answers, strict=True))}
    if task.passages:
        texts["passages"] = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(task.passages, start=1))
    if task.reference is not None:
        texts["reference"] = task.reference
    values = {name: _marked_off(name, text, marker) for name, text in texts.items()}
    values["marker"] = marker
    values["verdicts"] = "\n".join(f"- {each.name}: {each.meaning}" for each in plan.verdicts)
    return {name: value for name, value in values.items() if name in plan.variables}


def schema_of(plan: Plan) -> str:
    """Return the JSON schema of a verdict. The reason comes first: a model that has written it is held to it."""
    meanings = "; ".join(f"{each.name}: {each.meaning}" for each in plan.verdicts)
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "description": "Why, in one to three sentences."},
            "verdict": {"type": "string", "enum": [each.name for each in plan.verdicts], "description": meanings},
        },
        "required": ["reason", "verdict"],
        "additionalProperties": False,
    }
    return msgspec.json.encode(schema).decode()


def request_of(task: JudgeTask, plan: Plan, order: str, attempt: int, key: str, now: datetime) -> LlmRequest:
    """Return the request that asks a judge: the same for the same attempt, whenever it is made again.

    Args:
        order: ``given`` or ``swapped``.
        attempt: from 1; each is a request of its own.
        key: of the request's events; it falls to the partition of the task.
        now: its time; the deadline is counted from here.
    """
    return LlmRequest(
        event_id=judge_event_id(task.event_id, order, attempt),
        request_id=judge_request_id(task.event_id, order, attempt),
        tenant_id=task.tenant_id,
        occurred_at=now,
        causation_id=task.event_id,
        conversation_id=key,
        # A budget for each user is then one of the judges', and no user's.
        user_id="judge",
        route=plan.route,
        prompt_name=plan.prompt,
        prompt_label=plan.prompt_version,
        prompt_variables=variables_of(task, plan, order),
        sampling=Sampling(seed=attempt, response_format=schema_of(plan)),
        deadline_at=now + timedelta(seconds=plan.deadline_s),
        tags={"purpose": "judge", "rubric": plan.rubric},
        purpose=Purpose.JUDGE,
    )


def _marker(task: JudgeTask) -> str:
    texts = [task.question, *task.answers, *task.passages, task.reference or ""]
    said = msgspec.json.encode([task.event_id, *(text.encode("utf-8", "surrogatepass") for text in texts)])
    marker = hashlib.sha256(said).hexdigest()[:16]
    while any(marker in text for text in texts):
        marker = hashlib.sha256(marker.encode()).hexdigest()[:16]
    return marker


def _marked_off(name: str, text: str, marker: str) -> str:
    # A space more in a control token changes nothing for a reader, and everything for a chat template.
    plain = _CONTROL.sub(lambda hit: f"{hit[0]} ", text)
    return f"--- {name} {marker} begins ---\n{plain}\n--- {name} {marker} ends ---"

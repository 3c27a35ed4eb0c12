"""Which answers are judged by models: the sampled share of the traffic, rubric by rubric. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from penstock.bus import Emit
from penstock.config.entry import Entry
from penstock.config.evaluators import Evaluator
from penstock.config.prompts import Prompt
from penstock.config.rubrics import Rubric
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import Completion, JudgeTask

from services.evaluation.evaluators.runner import takes
from services.evaluation.exchanges import judged_completion

__all__ = ["Configuration", "judge_tasks"]


class Configuration(Protocol):
    """The part of the config plane that says what is judged."""

    def evaluator(self, name: str) -> Evaluator | None: ...
    def prompt(self, name: str, label: str = ...) -> Prompt | None: ...
    def entries(self, kind: str) -> Mapping[str, Entry]: ...


def judge_tasks(completion: Completion, config: Configuration) -> list[Emit]:
    """Return the tasks of one answer: one for each pointwise rubric that samples it.

    A rubric judges the share of the traffic that the evaluator of the same name gives for the answer's route, and nothing
    where there is none: judges cost money. The answer must be one that a model gave to a user just now, and must have what
    the rubric's prompt requires: a rubric that needs passages judges no answer without them. A reference never comes with
    traffic, so rubrics that require one are for golden sets.
    """
    exchange = judged_completion(completion)
    if exchange is None or completion.kind != "completion":
        return []
    emits = []
    key = request_key(completion.context, completion.request_id)
    there = {"passages"} if exchange.passages else set()
    for name, rubric in sorted(config.entries("rubrics").items()):
        if not isinstance(rubric, Rubric) or rubric.mode != "pointwise":
            continue
        evaluator = config.evaluator(name)
        rate = evaluator.rate_of(exchange.route) if evaluator is not None else 0.0
        if not takes(completion.request_id, name, rate) or _lacks(rubric, there, config):
            continue
        task = JudgeTask(
            **derive(completion, f"evaluation.judge-task.{name}", 0, completion.occurred_at),
            context=completion.context,
            rubric=name,
            question=exchange.question,
            answers=[exchange.answer],
            passages=[passage.text for passage in exchange.passages],
            models=[completion.model],
            reply_key=key,
        )
        emits.append(Emit("judge-tasks", key, task))
    return emits


def _lacks(rubric: Rubric, there: set[str], config: Configuration) -> bool:
    prompt = config.prompt(rubric.prompt, rubric.prompt_label)
    if prompt is None:
        return False  # The task says so, as a dead letter.
    optional = {"passages", "reference"} - there
    return any(prompt.variables[name].required for name in optional & prompt.variables.keys())

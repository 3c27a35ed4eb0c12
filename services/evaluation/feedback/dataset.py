"""Datasets made of feedback: for fine-tuning, for preference training, for classifiers. Pure; like cases, like bytes.

Texts are those of the events: what guardrails masked stays masked, and what they put back into released answers is taken
out again where a model is to learn from them. Corrections are taken as people wrote them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from penstock.contracts.records import Feedback, Purpose

from services.evaluation.feedback.conversations import conversation, screened_answer
from services.evaluation.feedback.log import Case
from services.evaluation.feedback.opinions import VOCABULARY, known_labels

__all__ = ["FORMATS", "Choices", "Dataset", "Format", "made"]

_TRUSTED = {"moderator": 1}
"""Whose word counts before that of others."""
_UNFIT = {"answer.toxicity": "toxic", "answer.groundedness": "ungrounded"}
"""Labels of answers that no model should learn to give."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of datasets.

    Attributes:
        help: what a row is.
        topics: what it needs of the log beside the feedback.
        rows: rows of one case; it notes in the counter why a case has none.
    """

    help: str
    topics: tuple[str, ...]
    rows: Callable[[Case, Choices, Counter[str]], Iterator[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Choices:
    """What is asked for.

    Attributes:
        min_rating: mean rating from which an answer is well rated.
        label: what label rows are of: toxicity or groundedness.
    """

    min_rating: float = 0.75
    label: str = "toxicity"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows, and where they come from.

    Attributes:
        lines: JSON, one a row.
        requests: team and request_id of every row.
        skipped: cases without a row, by the reason.
    """

    lines: list[bytes]
    requests: list[tuple[str, str]]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The file: JSON lines, UTF-8."""
        return b"".join(line + b"\n" for line in self.lines)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


def made(cases: Sequence[Case], name: str, choices: Choices) -> Dataset:
    """Return the dataset of a format: cases in the order of their results, then of their ids."""
    skipped: Counter[str] = Counter()
    lines, requests = [], []
    for case in sorted(cases, key=_place):
        for row in FORMATS[name].rows(case, choices, skipped):
            lines.append(msgspec.json.encode(row))
            requests.append((case.team, case.request_id))
    return Dataset(lines, requests, dict(sorted(skipped.items())))


def _place(case: Case) -> tuple[float, str, str]:
    return (case.result.occurred_at.timestamp() if case.result else 0.0, case.team, case.request_id)


# -- what people made of an answer -------------------------------------------------------------------------------------


def _correction(feedback: Sequence[Feedback]) -> str | None:
    """Return the correction that counts: a moderator's before a user's, then the newest."""
    given = [each for each in feedback if each.correction]
    best = max(given, key=lambda each: (_TRUSTED.get(each.source, 0), each.occurred_at, each.event_id), default=None)
    return None if best is None else best.correction


def _rating(feedback: Sequence[Feedback]) -> float | None:
    ratings = [each.rating for each in feedback if each.rating is not None and 0 <= each.rating <= 1]
    return sum(ratings) / len(ratings) if ratings else None


def _majority(feedback: Sequence[Feedback], full_name: str) -> str | None:
    """Return the label that most raters give; ``None`` where none do, or as many say otherwise."""
    votes = Counter(known_labels(each.labels).get(full_name) for each in feedback)
    del votes[None]
    ranked = votes.most_common(2)
    return None if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]) else ranked[0][0]


def _conversation(case: Case) -> list[dict[str, str]]:
    """Return the messages that were answered, as OpenAI's chat API writes them."""
    if case.completion is not None and case.completion.messages:
        return [{"role": each.role, "content": each.content} for each in case.completion.messages]
    return [{"role": "user", "content": case.result.prompt}] if case.result is not None and case.result.prompt else []


def _answer(case: Case, skipped: Counter[str]) -> str | None:
    """Return the released answer of served traffic, or note why there is none to learn from."""
    if case.result is None:
        skipped["result not in the log"] += 1
    elif case.result.context.purpose != Purpose.SERVE:
        skipped["not served traffic"] += 1
    elif case.result.status != "completed" or not case.result.content:
        skipped["no released answer"] += 1
    elif case.result.tool_calls or (case.completion and any(each.tool_calls for each in case.completion.messages)):
        # Rows have roles and words: without its calls such a conversation teaches to make things up.
        skipped["tools were called"] += 1
    elif (screened := screened_answer(case)) is None:
        skipped["personal data was put back into the answer"] += 1
    else:
        return screened
    return None


# -- formats -----------------------------------------------------------------------------------------------------------


def _sft(case: Case, choices: Choices, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    answer = _answer(case, skipped)
    messages = _conversation(case)
    if answer is None:
        return
    correction, rating = _correction(case.feedback), _rating(case.feedback)
    unfit = any(_majority(case.feedback, name) == label for name, label in _UNFIT.items())
    if not messages:
        skipped["no question"] += 1
    elif correction is not None:
        yield {"messages": [*messages, {"role": "assistant", "content": correction}]}
    elif unfit:
        skipped["labelled toxic or ungrounded"] += 1
    elif rating is None or rating < choices.min_rating:
        skipped["neither corrected nor well rated"] += 1
    else:
        yield {"messages": [*messages, {"role": "assistant", "content": answer}]}


def _conversations(case: Case, choices: Choices, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    answer = _answer(case, skipped)
    messages = _conversation(case)
    if answer is None:
        return
    correction, rating = _correction(case.feedback), _rating(case.feedback)
    if not messages:
        skipped["no question"] += 1
    elif correction is not None:
        yield conversation(case, messages, correction, rating, corrected=True)
    elif any(_majority(case.feedback, name) == label for name, label in _UNFIT.items()):
        skipped["labelled toxic or ungrounded"] += 1
    elif rating is None:
        skipped["neither corrected nor rated"] += 1
    else:
        yield conversation(case, messages, answer, rating, corrected=False)


def _preferences(case: Case, choices: Choices, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    votes = Counter(each.chosen for each in case.feedback if each.chosen in ("a", "b"))
    if case.pair is not None and votes["a"] != votes["b"]:
        question, first, second = case.pair
        better, worse = (first, second) if votes["a"] > votes["b"] else (second, first)
        yield {"prompt": question, "chosen": better, "rejected": worse}
        return
    correction = _correction(case.feedback)
    if correction is None:
        skipped["nothing preferred"] += 1
        return
    answer = _answer(case, skipped)
    if answer is None or case.result is None:
        return
    if answer.strip() == correction.strip():
        skipped["correction is the answer itself"] += 1
    elif not case.result.prompt:
        skipped["no question"] += 1
    else:
        yield {"prompt": case.result.prompt, "chosen": correction, "rejected": answer}


def _labels(case: Case, choices: Choices, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    if case.result is None:
        skipped["result not in the log"] += 1
        return
    positive = VOCABULARY[choices.label][0]
    found = False
    for subject, text in (("prompt", case.result.prompt), ("answer", case.result.content)):
        label = _majority(case.feedback, f"{subject}.{choices.label}")
        if label is None or not text:
            continue
        found = True
        if choices.label == "groundedness":
            passages = case.completion.passages if case.completion is not None else case.result.citations
            yield {
                "context": "\n\n".join(passage.text for passage in passages or case.result.citations),
                "question": case.result.prompt,
                "response": text,
                "grounded": int(label == positive),
                "source": "feedback",
            }
        else:
            yield {"text": text, "label": int(label == positive), "source": "feedback"}
    if not found:
        skipped[f"no label of {choices.label}, or raters are split"] += 1


def _everything(case: Case, choices: Choices, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    result = case.result
    about: dict[str, Any] = {"team": case.team, "request_id": case.request_id}
    if result is not None:
        context = result.context
        about |= {
            "route": context.route, "model": result.model, "prompt_name": context.prompt_name,
            "prompt_version": context.prompt_version, "policy_version": context.policy_version, "status": result.status,
            "requested_at": context.requested_at, "experiments": context.experiments,
            "messages": _conversation(case), "answer": result.content,
            "citations": [{"passage_id": each.passage_id, "text": each.text} for each in result.citations],
            "scores": {name: {"score": one.score, "label": one.label, "version": one.version}
                       for name, one in sorted(case.scores.items())},
        }  # fmt: skip
    else:
        skipped["result not in the log"] += 1
    for each in case.feedback:
        yield about | {
            "feedback": {
                "event_id": each.event_id, "occurred_at": each.occurred_at, "user_id": each.user_id, "source": each.source,
                "rating": each.rating, "labels": each.labels, "correction": each.correction, "comment": each.comment,
                "chosen": each.chosen, "queue": each.queue,
            }
        }  # fmt: skip


FORMATS: Mapping[str, Format] = {
    "sft": Format(
        "conversations with the corrected or well-rated answer, as OpenAI fine-tunes on",
        ("llm-results", "completions"),
        _sft,
    ),
    "conversations": Format(
        "rated conversations with evidence, answer and rating, as `penstock finetune` trains on",
        ("llm-results", "completions"),
        _conversations,
    ),
    "preferences": Format(
        "prompt, chosen and rejected, of corrections and of answers that were compared",
        ("llm-results", "completions", "judge-tasks"),
        _preferences,
    ),
    "labels": Format(
        "labelled texts, as `penstock evaluate score` reads them", ("llm-results", "completions"), _labels
    ),
    "jsonl": Format(
        "all feedback with its request, answer and scores",
        ("llm-results", "completions", "evaluations"),
        _everything,
    ),
}

"""What judges say of the answers of a run: each answer by itself, or the baseline's and a candidate's side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import msgspec
from penstock.bus import Producer, history
from penstock.bus.types import Transport
from penstock.clock import Clock
from penstock.config.rubrics import Rubric
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Context, Evaluation, JudgeTask

from services.evaluation.golden.answers import Answer, Run
from services.evaluation.golden.dataset import Case
from services.evaluation.judging.waiting import Judged, judge_all

__all__ = ["Judgement", "JudgementFile", "Question", "judge", "pairwise_tables", "pointwise", "questions_of"]

_FILE = "judgements.jsonl"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge said.

    Attributes:
        task: event_id of the judge's task.
        request_id: answer that was judged; of a comparison the baseline's.
        other: the candidate's answer in a comparison; empty where one answer was judged by itself.
        variant: the candidate of a comparison, else the variant of the answer.
        score: from 0 (bad) to 1 (good); of a comparison 1 where the baseline's answer is better, 0.5 for a tie.
        reason: the judge's, or why there is no score.
    """

    task: str
    rubric: str
    request_id: str
    other: str = ""
    case: str
    variant: str
    score: float | None
    label: str = ""
    reason: str = ""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be judged: the task, and what it is about."""

    task: JudgeTask
    rubric: str
    case: str
    variant: str
    other: str = ""


def questions_of(
    run: Run,
    cases: Mapping[str, Case],
    answers: Sequence[Answer],
    baseline: str,
    rubrics: Sequence[Rubric],
    clock: Clock,
    needs: Mapping[str, Set[str]] | None = None,
) -> list[Question]:
    """Return what judges are asked: each completed answer by a pointwise rubric; by a pairwise one, the n-th answer of the
    baseline to a case against the n-th of each candidate. Two equal answers are not compared: that is a tie.

    Identities follow from the run and the answers, so that a resumed run asks nothing again.

    Args:
        baseline: variant that the others are compared with.
        needs: which of ``passages`` and ``reference`` a rubric's prompt requires, by rubric: what lacks them is not judged
            by it.
    """
    required = needs or {}
    completed = [answer for answer in answers if answer.status == "completed" and answer.case in cases]
    first = {(answer.case, answer.repeat): answer for answer in completed if answer.variant == baseline}
    found = []
    for rubric in rubrics:
        for answer in completed:
            there = {"passages"} if answer.passages else set()
            there |= {"reference"} if cases[answer.case].references else set()
            if required.get(rubric.name, set()) - there:
                continue
            if rubric.mode == "pointwise":
                found.append(_question(run, cases[answer.case], rubric, [answer], clock))
                continue
            other = first.get((answer.case, answer.repeat))
            if answer.variant != baseline and other is not None and other.content.split() != answer.content.split():
                found.append(_question(run, cases[answer.case], rubric, [other, answer], clock))
    return found


def _question(run: Run, case: Case, rubric: Rubric, answers: Sequence[Answer], clock: Clock) -> Question:
    about, last = answers[0], answers[-1]
    other = last.request_id if len(answers) > 1 else ""
    now = clock.now()
    task = JudgeTask(
        event_id=event_id(run.run, f"golden.judge/{rubric.name}/{rubric.version}/{about.request_id}/{other}"),
        request_id=about.request_id,
        tenant_id=run.team,
        occurred_at=now,
        causation_id="",
        context=Context(requested_at=now, purpose="evaluation"),
        rubric=rubric.name,
        question=about.question or case.asked,
        answers=[answer.content for answer in answers],
        passages=[passage.text for passage in about.passages],
        reference=case.references[0] if case.references else None,
        models=[answer.model or "" for answer in answers],
        reply_key=about.request_id,
    )
    return Question(task=task, rubric=rubric.name, case=case.id, variant=last.variant, other=other)


class JudgementFile:
    """``judgements.jsonl`` in a run's folder: what was said once is not asked again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        written = self._path.read_bytes() if self._path.exists() else b""
        # A last line that a crash cut off counts as not written.
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            os.truncate(self._path, len(whole))
        said = [msgspec.json.decode(line, type=Judgement) for line in whole.splitlines()]
        self.said = {judgement.task: judgement for judgement in said}

    def add(self, judgements: Sequence[Judgement]) -> None:
        """Keep judgements."""
        with self._path.open("ab") as file:
            for judgement in judgements:
                file.write(msgspec.json.encode(judgement) + b"\n")
                self.said[judgement.task] = judgement
            file.flush()
            os.fsync(file.fileno())


async def judge(
    transport: Transport,
    codec: Codec,
    producer: Producer,
    kept: JudgementFile,
    run: Run,
    questions: Sequence[Question],
    *,
    clock: Clock,
    timeout_s: float,
) -> list[str]:
    """Have judged what has no judgement in ``kept`` yet; return what to note about those that got none.

    Raises:
        penstock.bus.KafkaUnavailable: Kafka is away, or a topic is missing.
    """
    asked = {question.task.event_id: question for question in questions if question.task.event_id not in kept.said}
    if not asked:
        return _notes(questions, kept)
    before = await _said_before(transport, codec, run, set(asked))
    _keep(kept, asked, Judged(evaluations=before))
    left = [question.task for task, question in asked.items() if task not in before]
    if left:
        judged = await judge_all(
            left, transport=transport, codec=codec, producer=producer, clock=clock, timeout_s=timeout_s
        )
        _keep(kept, asked, judged)
    return _notes(questions, kept)


async def _said_before(transport: Transport, codec: Codec, run: Run, tasks: set[str]) -> dict[str, Evaluation]:
    """What a process that crashed had judged already."""
    found: dict[str, Evaluation] = {}
    async with history(transport, ["evaluations"], since_ms=int(run.started_at.timestamp() * 1000)) as messages:
        async for message in messages:
            record = codec.readable(message.topic, message.value)
            if isinstance(record, Evaluation) and record.causation_id in tasks:
                found[record.causation_id] = record
    return found


def _keep(kept: JudgementFile, asked: Mapping[str, Question], judged: Judged) -> None:
    made = []
    for task, evaluation in judged.evaluations.items():
        score = next((one for one in evaluation.scores if one.name == asked[task].rubric), None)
        if score is not None:
            made.append(_judgement(asked[task], score.score, score.label, score.reason))
    made += [_judgement(asked[task], None, "", reason) for task, reason in judged.failed.items()]
    if made:
        kept.add(made)


def _judgement(question: Question, score: float | None, label: str, reason: str) -> Judgement:
    return Judgement(
        task=question.task.event_id,
        rubric=question.rubric,
        request_id=question.task.request_id,
        other=question.other,
        case=question.case,
        variant=question.variant,
        score=score,
        label=label,
        reason=reason,
    )


def _notes(questions: Sequence[Question], kept: JudgementFile) -> list[str]:
    notes = []
    for rubric in dict.fromkeys(question.rubric for question in questions):
        own = [kept.said.get(question.task.event_id) for question in questions if question.rubric == rubric]
        late = own.count(None)
        failed = [one for one in own if one is not None and one.score is None]
        if late:
            notes.append(f"judge {rubric}: {late} of {len(own)} have no verdict in time; --resume waits for them again")
        if failed:
            notes.append(f"judge {rubric}: {len(failed)} of {len(own)} could not be judged, e.g. {failed[0].reason}")
    return notes


def pointwise(judgements: Sequence[Judgement]) -> dict[str, dict[str, float]]:
    """Return what pointwise rubrics say, as ``judge.<rubric>`` by request_id."""
    found: dict[str, dict[str, float]] = {}
    for one in judgements:
        if not one.other and one.score is not None:
            found.setdefault(one.request_id, {})[f"judge.{one.rubric}"] = one.score
    return found


def pairwise_tables(
    judgements: Sequence[Judgement], rubrics: Sequence[str], candidate: str, answers: Sequence[Answer], baseline: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Return the tables of pairwise rubrics for the baseline and a candidate: the share of comparisons that each wins,
    case by case, a tie counting half. Equal answers tie."""
    first = {(a.case, a.repeat): a for a in answers if a.variant == baseline and a.status == "completed"}
    second = {(a.case, a.repeat): a for a in answers if a.variant == candidate and a.status == "completed"}
    said = {(one.rubric, one.request_id, one.other): one.score for one in judgements if one.other}
    won: dict[str, dict[str, float]] = {}
    for rubric in rubrics:
        by_case: dict[str, list[float]] = {}
        for place, a in first.items():
            if (b := second.get(place)) is None:
                continue
            equal = a.content.split() == b.content.split()
            score = 0.5 if equal else said.get((rubric, a.request_id, b.request_id))
            if score is not None:
                by_case.setdefault(place[0], []).append(score)
        if by_case:
            won[f"judge.{rubric}"] = {case: sum(scores) / len(scores) for case, scores in by_case.items()}
    lost = {metric: {case: 1 - score for case, score in by_case.items()} for metric, by_case in won.items()}
    return won, lost

"""The answers of a run, and the file they are kept in: what was paid for once is never asked again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO

import msgspec
from penstock.contracts.records import Completion, LlmResult, Passage, Usage

from services.evaluation.golden.variants import Ask, Variant

__all__ = ["Answer", "AnswerFile", "Run", "RunError", "answer_of"]

_RUN, _ANSWERS = "run.json", "answers.jsonl"


class RunError(Exception):
    """A run's folder cannot be used; the message names the cause and the remedy."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a run asks; written before its first request.

    Attributes:
        run: identity, part of every request's.
        started_at: what the run wrote and read stands in the log after it, UTC.
        dataset: name of the golden set.
        dataset_version: its content hash.
        tags: labels by which its cases were chosen; empty for all.
        team: who asks and pays.
        key_id: identity of the key that it asks with; None for none.
        variants: the first is the baseline.
        repeats: how often each case is asked of each variant.
        seed: of the order of requests and of the resampling.
    """

    run: str
    started_at: datetime
    dataset: str
    dataset_version: str
    team: str
    key_id: str | None = None
    variants: list[Variant]
    repeats: int = 1
    seed: int = 0
    tags: list[str] = []


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How one request of a run ended.

    Attributes:
        case_version: content hash of the case that was asked.
        status: as of a result: completed, blocked, rejected, failed or expired.
        passages: what was attached as evidence; the cited passages where the completion is not on the log any more.
        cited: passage_id of what the answer quotes.
        grounding: what retrieval found; ``off`` where it looked for nothing, or the completion is not on the log any more.
        cost: of all its calls together, USD, exact; None where a call has no price, or its cost did not come.
        latency_ms: from the request to its result, by the instants in the events.
    """

    case: str
    case_version: str
    variant: str
    repeat: int = 0
    request_id: str
    status: str
    code: str | None = None
    reason: str | None = None
    question: str = ""
    content: str = ""
    passages: list[Passage] = []
    cited: list[str] = []
    grounding: str = "off"
    citations: list[Passage] = []
    model: str | None = None
    finish_reason: str | None = None
    prompt: str | None = None
    prompt_version: str | None = None
    policy: str = ""
    policy_version: str | None = None
    usage: Usage = Usage()
    cost: Decimal | None = None
    latency_ms: float = 0.0

    @property
    def ask(self) -> Ask:
        """Which request of the run it answers."""
        return Ask(self.case, self.variant, self.repeat)


def answer_of(
    ask: Ask,
    case_version: str,
    result: LlmResult,
    cost: Decimal | None,
    answered: Completion | None,
) -> Answer:
    """Return a result with what its calls say, as it is kept.

    Args:
        answered: the completion that was released; None where there is none, or it is not on the log any more.
    """
    context = result.context
    return Answer(
        case=ask.case,
        case_version=case_version,
        variant=ask.variant,
        repeat=ask.repeat,
        request_id=result.request_id,
        status=result.status,
        code=result.code,
        reason=result.reason,
        question=result.prompt,
        content=result.content,
        passages=list(result.citations if answered is None else answered.passages),
        cited=[passage.passage_id for passage in result.citations] if answered is None else list(answered.citations),
        grounding="off" if answered is None else answered.grounding,
        citations=result.citations,
        model=result.model,
        finish_reason=result.finish_reason,
        prompt=context.prompt_name,
        prompt_version=context.prompt_version,
        policy=context.policy_name,
        policy_version=context.policy_version,
        usage=result.usage,
        cost=cost,
        latency_ms=max(0.0, (result.occurred_at - context.requested_at).total_seconds() * 1000),
    )


class AnswerFile:
    """A run's folder: ``run.json`` and ``answers.jsonl``, which grows by a line an answer, each on disk when it returns."""

    def __init__(self, folder: Path, run: Run, answers: Iterable[Answer] = ()) -> None:
        self.folder = folder
        self.run = run
        self._answers = {answer.ask: answer for answer in answers}
        self._file: IO[bytes] | None = None

    @classmethod
    def create(cls, folder: Path, run: Run) -> AnswerFile:
        """Begin a run.

        Raises:
            RunError: the folder holds a run already, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / _RUN).open("xb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(run)) + b"\n")
        except FileExistsError:
            raise RunError(
                f"{folder} holds a run already: finish it with --resume {folder}, or name another --out"
            ) from None
        except OSError as error:
            raise RunError(f"cannot write {folder}: {error.strerror}; name another folder with --out") from error
        return cls(folder, run)

    @classmethod
    def open(cls, folder: Path) -> AnswerFile:
        """Open a run that was begun before. A last line that a crash cut off counts as not written.

        Raises:
            RunError: there is no run in the folder, or a line of it is damaged.
        """
        try:
            run = msgspec.json.decode((folder / _RUN).read_bytes(), type=Run)
            path = folder / _ANSWERS
            written = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise RunError(f"{folder} holds no run ({error.strerror}): give the folder that --out named") from error
        except msgspec.MsgspecError as error:
            raise RunError(f"{folder / _RUN} is no run: {error}; give the folder that --out named") from error
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            os.truncate(path, len(whole))
        answers = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                answers.append(msgspec.json.decode(line, type=Answer))
            except msgspec.MsgspecError as error:
                raise RunError(
                    f"{path}:{number} is no answer: {error}; remove the line and its case is asked again"
                ) from error
        return cls(folder, run, answers)

    @property
    def answers(self) -> list[Answer]:
        """Every answer there is."""
        return list(self._answers.values())

    def missing(self, asks: Iterable[Ask]) -> list[Ask]:
        """Return those of ``asks`` that have no answer yet."""
        return [ask for ask in asks if ask not in self._answers]

    def add(self, answer: Answer) -> None:
        """Keep an answer; the first of an ask counts."""
        if answer.ask in self._answers:
            return
        if self._file is None:
            self._file = (self.folder / _ANSWERS).open("ab")
        self._file.write(msgspec.json.encode(answer) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._answers[answer.ask] = answer

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

"""The questions of a demo run: the ones shipped about Python's own documentation, or the user's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from penstock.demo.corpus import Source

__all__ = ["Question", "QuestionError", "from_documents", "read", "shipped"]

_MOST_DERIVED = 100


class QuestionError(Exception):
    """The file of questions cannot be used; the message names the line, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question, in one or more phrasings, and what a right answer contains."""

    phase: str
    """"A" before the shift of topic, "B" after it."""
    phrasings: tuple[str, ...]
    expected: str | None = None
    """A word or phrase of the right answer, compared without case."""
    document_id: str | None = None
    """Document that holds the answer, where known."""


def shipped() -> list[Question]:
    """Return the questions about Python's documentation: phase A about the language, phase B about its library."""
    text = resources.files("penstock.demo").joinpath("questions.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [
        Question(row["phase"], (row["question"], row["paraphrase"]), row["expected"], row["document"]) for row in rows
    ]


def read(path: Path) -> list[Question]:
    """Read a user's questions: one a line, or JSON lines ``{"question": ..., "expected": ..., "phase": "A" or "B"}``.

    In a plain file the first blank line between questions, in JSON lines the field ``phase``, marks a shift of topic.

    Raises:
        QuestionError: the file is missing, not UTF-8, empty, or a line of it is malformed.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise QuestionError(f"{path}: {error.strerror}; give a file with one question a line") from error
    except UnicodeDecodeError as error:
        raise QuestionError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    found: list[Question] = []
    phase = "A"
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        if not stripped:
            phase = "B" if found else "A"
        elif stripped.startswith("{"):
            found.append(_from_json(stripped, f"{path}:{number}", phase))
        else:
            found.append(Question(phase, (stripped,)))
    if not found:
        raise QuestionError(f"{path} holds no question; write one a line")
    return sorted(found, key=lambda question: question.phase)


def from_documents(documents: Sequence[Source]) -> list[Question]:
    """Return a question about each of ``documents``, for a folder that came without questions; at most 100."""
    titles = dict.fromkeys(document.title for document in documents)
    return [Question("A", (f"What do the documents say about {title}?",)) for title in list(titles)[:_MOST_DERIVED]]


def _from_json(line: str, place: str, phase: str) -> Question:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise QuestionError(f"{place}: not JSON ({error.msg} at column {error.colno}); mend the line") from error
    question, expected = row.get("question"), row.get("expected")
    phase = row.get("phase", phase)
    if not isinstance(question, str) or not question.strip():
        raise QuestionError(f'{place}: "question" is missing; write {{"question": "...", "expected": "..."}}')
    if expected is not None and not isinstance(expected, str):
        raise QuestionError(f'{place}: "expected" is {expected!r}; write a word or phrase of the right answer')
    if phase not in ("A", "B"):
        raise QuestionError(f'{place}: "phase" is {phase!r}; write "A" (before the shift of topic) or "B" (after it)')
    return Question(phase, (question.strip(),), expected)

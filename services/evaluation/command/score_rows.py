"""Labelled lines for evaluators: read one at a time from JSON lines or CSV, their fields told apart by name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
from penstock.cli.reading import reading
from penstock.contracts.records import Message, Passage

from services.evaluation.evaluators.protocol import Exchange, Subject

__all__ = ["BadLine", "Reading", "Row", "read_rows"]

_BOM = b"\xef\xbb\xbf"
_PROMPTS = ("question", "prompt", "query", "input", "user_input", "instruction")
_ANSWERS = ("answer", "response", "output", "completion", "prediction", "summary", "claim")
_TEXTS = (
    "text",
    "phrase",
    "comment",
    "comment_text",
    "tweet",
    "sentence",
    "utterance",
    "message",
    "content",
    "test_case",
)
_PASSAGES = (
    "context",
    "passages",
    "contexts",
    "documents",
    "document",
    "knowledge",
    "evidence",
    "source_text",
    "article",
)
_REFERENCES = ("reference", "expected", "ideal", "gold", "correct_answer", "target", "answers")
_LABELS: Mapping[str, tuple[str, ...]] = {
    "toxicity": ("label", "toxic", "toxicity", "is_toxic", "hate", "hateful"),
    "groundedness": ("grounded", "label", "faithful", "attributable", "is_grounded", "consistent"),
    "hallucination": ("hallucinated", "hallucination", "label"),
}
_YES = {
    "1", "true", "yes", "y", "positive", "toxic", "hateful", "hate", "offensive", "abusive", "unsafe", "grounded",
    "faithful", "supported", "consistent", "attributable", "good", "correct", "pass", "hallucinated", "refuses",
}  # fmt: skip
_NO = {
    "0", "false", "no", "n", "negative", "clean", "nontoxic", "non-toxic", "non-hateful", "neutral", "normal", "safe",
    "ungrounded", "unfaithful", "unsupported", "inconsistent", "bad", "incorrect", "wrong", "fail", "not grounded",
    "not toxic", "none", "answers",
}  # fmt: skip


class BadLine(Exception):
    """A line that cannot be scored; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How lines are read.

    Attributes:
        evaluator: its name, which tells the field of the label.
        subject: which text a lone ``text`` is.
        text_field: field of the scored text, where its name does not tell; likewise ``label_field``.
        either: where a line has no prompt, its answer is scored in the prompt's place: the evaluator takes both alike.
    """

    evaluator: str
    subject: Subject
    text_field: str | None = None
    label_field: str | None = None
    either: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A line: its fields as they were written, what is scored, and its label, None where it has none."""

    where: str
    fields: Mapping[str, Any]
    exchange: Exchange
    label: bool | None


def read_rows(source: Path, reading: Reading) -> Iterator[Row | tuple[str, str]]:
    """Yield every line of ``source`` (``-`` is standard input, JSON lines), or (file:line, why) for one that is none.

    Only one line is held at a time. A ``.csv`` or ``.tsv`` file has a line of names.

    Raises:
        click.ClickException: the file cannot be read.
    """
    for where, fields in _lines(source):
        try:
            if isinstance(fields, BadLine):
                raise fields
            yield _row(where, fields, reading)
        except BadLine as error:
            yield where, str(error)


def _row(where: str, fields: Mapping[str, Any], reading: Reading) -> Row:
    messages = _messages(fields)
    prompt, answer = _first(fields, _PROMPTS), _first(fields, _ANSWERS)
    text = _first(fields, _TEXTS)
    if reading.text_field is not None:
        text = fields.get(reading.text_field)
        if text is None:
            raise BadLine(f'has no field "{reading.text_field}", which --text-field names')
    if reading.subject == "prompt" and (reading.text_field is not None or prompt is None):
        prompt = text
    elif reading.subject == "answer" and (reading.text_field is not None or answer is None):
        answer = text
    if prompt is None:
        prompt = next((each.content for each in reversed(messages) if each.role == "user"), None)
    if answer is None and messages and messages[-1].role == "assistant":
        answer = messages[-1].content
    if reading.either and prompt is None:
        prompt = answer
    scored = prompt if reading.subject == "prompt" else answer
    if scored is None:
        names = (*(_PROMPTS if reading.subject == "prompt" else _ANSWERS), "text")
        raise BadLine(f"has no {reading.subject}: none of {', '.join(names)}; name its field with --text-field")
    exchange = Exchange(
        request_id=str(fields.get("request_id") or fields.get("id") or where),
        question=_text("prompt", prompt) if prompt is not None else "",
        answer=_text("answer", answer) if answer is not None else "",
        messages=messages,
        passages=_passages(_first(fields, _PASSAGES)),
        citations=tuple(map(str, cited)) if isinstance(cited := fields.get("citations"), list) else (),
        reference=_reference(_first(fields, _REFERENCES)),
        response_format=_schema(fields.get("response_format")),
        finish_reason=str(fields.get("finish_reason") or "stop"),
    )
    return Row(where, fields, exchange, _label(fields, reading))


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _text(what: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise BadLine(f"has a {what} that is a {type(value).__name__}; write it as a text")


def _messages(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    value = fields.get("messages")
    if value is None:
        return ()
    try:
        return msgspec.convert(value, tuple[Message, ...])
    except msgspec.ValidationError as error:
        raise BadLine(
            f'has "messages" that are none: {error}; write a list of objects with role and content'
        ) from error


def _passages(value: Any) -> tuple[Passage, ...]:
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    found = []
    for number, item in enumerate(items, 1):
        fields = item if isinstance(item, dict) else {"text": item}
        text = _first(fields, ("text", "content", "passage"))
        if not isinstance(text, str):
            raise BadLine("has a passage that is neither a text nor an object with a text; write one of both")
        name = str(_first(fields, ("passage_id", "id")) or number)
        title = str(fields.get("title") or "")
        found.append(Passage(passage_id=name, document_id=str(fields.get("document_id") or name), title=title, text=text,
                             score=1.0))  # fmt: skip
    return tuple(found)


def _reference(value: Any) -> str | None:
    if isinstance(value, list):  # of right answers, as question answering writes them
        value = value[0] if value else None
    return None if value is None else _text("reference", value)


def _schema(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _label(fields: Mapping[str, Any], reading: Reading) -> bool | None:
    names = (
        (reading.label_field,)
        if reading.label_field is not None
        else _LABELS.get(reading.evaluator, ("label", reading.evaluator))
    )
    for name in names:
        if fields.get(name) not in (None, ""):
            return _yes(name, fields[name])
    if reading.label_field is not None:
        raise BadLine(f'has no label in the field "{reading.label_field}", which --label-field names')
    return None


def _yes(name: str, value: Any) -> bool:
    if isinstance(value, int | float) and 0 <= value <= 1:
        return value >= 0.5  # the share of annotators that say so
    said = str(value).strip().lower()
    if said in _YES or said in _NO:
        return said in _YES
    try:
        share = float(said)
    except ValueError:
        share = -1.0
    if 0 <= share <= 1:
        return share >= 0.5
    raise BadLine(f'"{name}" is {value!r}, which is neither yes nor no; write 1 or 0')


def _lines(source: Path) -> Iterator[tuple[str, Mapping[str, Any] | BadLine]]:
    name = "<stdin>" if str(source) == "-" else str(source)
    with reading(source) as file:
        suffix = source.suffix.lower()
        if suffix in (".csv", ".tsv"):
            csv.field_size_limit(2**30)
            text = io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")
            table = csv.DictReader(text, delimiter="\t" if suffix == ".tsv" else ",")
            try:
                for row in table:
                    where = f"{name}:{table.line_num}"
                    if None in row or None in row.values():
                        yield where, BadLine("has another number of fields than the line of names; quote its commas")
                    else:
                        yield where, row
            except csv.Error as error:
                raise click.ClickException(f"{name}:{table.line_num} is no CSV: {error}") from error
            return
        for number, raw in enumerate(file, 1):
            line = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
            if line:
                yield f"{name}:{number}", _fields(line)


def _fields(line: bytes) -> Mapping[str, Any] | BadLine:
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        return BadLine(f"is not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x}); convert it")
    except (ValueError, RecursionError) as error:
        return BadLine(f"is not JSON: {error}")
    if not isinstance(value, dict):
        return BadLine('is no object; write one a line, such as {"text": "...", "label": 1}')
    return value

"""Labelled lines: what each format says of a text, and which scanners its labels speak of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.config.policies import STAGES

from services.guardrails.command.lines import BadLine, read_rows
from services.guardrails.command.subject import TEXT_FIELDS, Subject, subject_of

__all__ = ["TASKS", "Entity", "Labelled", "Reading", "Task", "read_labelled"]


@dataclass(frozen=True, slots=True)
class Task:
    """What labels speak of: ``positive`` names a row with label 1, ``scanners`` what looks for it, the main one first."""

    name: str
    positive: str
    scanners: tuple[str, ...]
    stage: str = "input"


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("injection", "attack", ("injection", "indirect_injection", "multi_turn", "classifier", "gibberish")),
        Task("suffix", "suffix", ("gibberish", "injection", "token_flood", "classifier")),
        Task("toxicity", "toxic", ("toxicity", "classifier")),
        Task("pii", "with data", ("pii",)),
        Task("groundedness", "ungrounded", ("groundedness",), "output"),
        Task("topics", "banned", ("banned_topics",)),
    )
}

_YES = {"1", "true", "yes", "positive", "attack", "injection", "jailbreak", "malicious", "unsafe", "harmful", "toxic",
        "hateful", "offensive", "suffix", "gibberish", "ungrounded"}  # fmt: skip
_NO = {"0", "false", "no", "negative", "benign", "ordinary", "legitimate", "safe", "clean", "harmless", "nontoxic",
       "non-toxic", "normal", "grounded"}  # fmt: skip
_DOCUMENT_WORDS = {"ctx", "context", "contexts", "doc", "docs", "document", "documents", "indirect", "passage",
                   "passages", "email", "webpage", "bipia"}  # fmt: skip
"""Words of a source's name that say that its texts are documents; BIPIA is a collection of instructions in documents."""
_GROUP_FIELDS = ("source", "family", "category", "type", "attack")
_OTHER_TEXTS = ("phrase", "comment", "sentence", "utterance", "message", "suffix")
_PATH_HINTS = (("toxic", "toxicity"), ("hate", "toxicity"), ("suffix", "suffix"), ("gibberish", "suffix"))


@dataclass(frozen=True, slots=True)
class Entity:
    """A piece of personal data: code points ``start`` to ``end`` of the text, of the type that the data names."""

    type: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row. ``label`` is None where the row says something else than yes or no: its ``topics``, its ``entities``."""

    where: str
    task: str
    stage: str
    subject: Subject
    label: bool | None
    source: str
    topics: Mapping[str, str]
    entities: tuple[Entity, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read rows, where their fields do not say it themselves."""

    task: str | None = None
    stage: str | None = None
    label_field: str | None = None
    text_field: str | None = None
    group_field: str | None = None


def read_labelled(sources: Iterable[Path], reading: Reading) -> Iterator[Labelled | tuple[str, str]]:
    """Yield every row of the files, or (file:line, why) for one that is none.

    Raises:
        click.ClickException: a file cannot be read.
    """
    for source in sources:
        for where, fields in read_rows(source):
            try:
                if isinstance(fields, BadLine):
                    raise fields
                yield _labelled(where, source, fields, reading)
            except BadLine as error:
                yield where, str(error)


def _labelled(where: str, source: Path, fields: Mapping[str, Any], reading: Reading) -> Labelled:
    task = TASKS[reading.task] if reading.task else _task(source, fields)
    group = _group(fields, reading.group_field) or source.stem
    stage = reading.stage or _stage(task, fields, group)
    text_field = reading.text_field
    if text_field is None and not any(fields.get(name) is not None for name in TEXT_FIELDS[stage]):
        text_field = next((name for name in _OTHER_TEXTS if isinstance(fields.get(name), str)), None)
    subject = subject_of(fields, stage, text_field)
    topics = {name: str(value) for name in ("domain", "intent", "topic") if (value := fields.get(name)) is not None}
    entities = _entities(fields.get("spans"), subject) if task.name == "pii" else ()
    return Labelled(where, task.name, stage, subject, _label(task, fields, reading), group, topics, entities)


def _task(source: Path, fields: Mapping[str, Any]) -> Task:
    if "spans" in fields:
        return TASKS["pii"]
    if "grounded" in fields:
        return TASKS["groundedness"]
    if fields.keys() & {"hate", "toxic", "toxicity"}:
        return TASKS["toxicity"]
    if "label" in fields:
        path = str(source).lower()
        return TASKS[next((task for hint, task in _PATH_HINTS if hint in path), "injection")]
    if fields.keys() & {"domain", "intent", "topic"}:
        return TASKS["topics"]
    raise BadLine(
        "has no label: none of label, spans, grounded, hate, domain or intent; name its field with --label-field and "
        "what it says with --task"
    )


def _stage(task: Task, fields: Mapping[str, Any], group: str) -> str:
    """The row's own ``stage``; documents where an injection stands in one by its source; else the task's."""
    said = fields.get("stage")
    if said is not None:
        stage = {"document": "documents", "answer": "output", "prompt": "input"}.get(str(said), str(said))
        if stage not in STAGES:
            raise BadLine(f'"stage" is {said!r}; there are {", ".join(STAGES)}')
        return stage
    if task.name == "injection" and (
        _DOCUMENT_WORDS & set(re.split(r"[^a-z]+", group.lower())) or fields.keys() & {"document"}
    ):
        return "documents"
    return task.stage


def _group(fields: Mapping[str, Any], name: str | None) -> str:
    names = (name,) if name else _GROUP_FIELDS
    return next((str(fields[one]) for one in names if fields.get(one) not in (None, "")), "")


def _label(task: Task, fields: Mapping[str, Any], reading: Reading) -> bool | None:
    if reading.label_field is None and task.name in ("pii", "topics"):
        return None
    names = [reading.label_field] if reading.label_field else ["label", "toxicity", "toxic", "hate"]
    if task.name == "groundedness" and reading.label_field in (None, "grounded"):
        return not _yes("grounded", fields)
    for name in names:
        if fields.get(name) is not None:
            return _yes(name, fields)
    raise BadLine(f"has no label: {' nor '.join(names)} is there; name its field with --label-field")


def _yes(name: str, fields: Mapping[str, Any]) -> bool:
    value = fields.get(name)
    said = str(int(value)) if isinstance(value, float) and value in (0.0, 1.0) else str(value).strip().lower()
    if said in _YES or said in _NO:
        return said in _YES
    raise BadLine(f'"{name}" is {value!r}, which is neither yes nor no; write 1 or 0')


def _entities(spans: Any, subject: Subject) -> tuple[Entity, ...]:
    if not isinstance(spans, list):
        raise BadLine('"spans" is no list')
    length = len(subject.segments[0].text)
    return tuple(_entity(span, length) for span in spans)


def _entity(span: Any, length: int) -> Entity:
    if not isinstance(span, dict):
        raise BadLine('"spans" holds something that is no object')
    kind = _first(span, ("entity_type", "type", "kind", "label"))
    start, end = _first(span, ("start_position", "start")), _first(span, ("end_position", "end"))
    if not isinstance(kind, str) or not isinstance(start, int) or not isinstance(end, int):
        raise BadLine('"spans" needs entity_type, start_position and end_position in every entry')
    if not 0 <= start < end <= length:
        raise BadLine(f"the span {start} to {end} does not lie in the text, which has {length} characters")
    return Entity(kind, start, end)


def _first(span: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((span[name] for name in names if name in span), None)

"""Golden sets: questions with what a good answer must keep, one case a line of a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

import jsonschema_rs
import re2
from penstock.config.canonical import canonical_json, content_hash
from penstock.contracts.records import Message, Sampling
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

__all__ = ["Case", "Dataset", "DatasetError", "Turn", "parse_dataset", "read_dataset"]

_UNVERSIONED = {"id", "source", "note"}


class DatasetError(Exception):
    """A golden set cannot be used; the message names the file, the line, the cause and the remedy."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


class Turn(_Part):
    """One message of a case's conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = Field(min_length=1)


class CaseSampling(_Part):
    """Generation parameters of a case, the same for every variant."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: tuple[str, ...] = Field(default=(), max_length=4)
    seed: int | None = None


class Case(_Part):
    """One question, and what its answer must keep.

    Attributes:
        id: name within the set; the hash of the content where none is given.
        question: text of a single user message, or ``messages``: a conversation, oldest first.
        prompt: registered prompt that is rendered with ``variables`` before the messages.
        references: right answers; the one that is nearest counts. ``reference`` is a list of one.
        must_contain: texts that the answer holds, compared without case; of a list inside the list one is enough.
        must_not_contain: texts that it does not hold, compared without case.
        regex: RE2 expressions of which each matches somewhere in the answer.
        json_schema: JSON schema that the answer follows. The model is asked for it where it can be held to one.
        status: how the request ends: completed, or blocked and the like for what must not be answered.
        code: machine-readable reason of that end, e.g. prompt_injection.
        citations: documents that the answer quotes, by document_id, source, title or passage_id.
        max_cost: most that all calls of the request cost together, USD.
        max_latency_ms: longest time from the request to its result.
        tags: labels by which cases are chosen and grouped.
        weight: how much the case counts in means, relative to the others.
        source: where a promoted case comes from; no part of the version.
        note: for people; no part of the version.
    """

    id: str = Field(default="", pattern=r"^[\x21-\x7e]{0,120}$")
    question: str | None = Field(default=None, min_length=1)
    messages: tuple[Turn, ...] = ()
    prompt: str | None = Field(default=None, min_length=1)
    variables: dict[str, str] = {}
    references: tuple[str, ...] = ()
    must_contain: tuple[str | tuple[str, ...], ...] = ()
    must_not_contain: tuple[str, ...] = ()
    regex: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    status: Literal["completed", "blocked", "rejected", "failed", "expired", "cancelled"] = "completed"
    code: str | None = None
    citations: tuple[str, ...] = ()
    max_cost: Decimal | None = Field(default=None, ge=0)
    max_latency_ms: int | None = Field(default=None, ge=1)
    sampling: CaseSampling = CaseSampling()
    tags: tuple[str, ...] = ()
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    source: dict[str, str] = {}
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = dict(value)
        if "reference" in given:
            if "references" in given:
                raise ValueError("has reference and references: write references alone")
            reference = given.pop("reference")
            given["references"] = [] if reference is None else [reference]
        for name in ("must_contain", "must_not_contain", "regex", "citations", "tags"):
            if isinstance(given.get(name), str):
                given[name] = [given[name]]
        return given

    @field_validator("must_contain", "must_not_contain", "references")
    @classmethod
    def _nothing_empty(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for one in value:
            if not one or not all(one if isinstance(one, tuple) else (one.strip(),)):
                raise ValueError("holds an empty text, which every answer contains: remove it")
        return value

    @field_validator("regex")
    @classmethod
    def _expressions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        options = re2.Options()
        options.log_errors = False
        for expression in value:
            try:
                re2.compile(expression, options=options)
            except re2.error as error:
                said = error.args[0] if error.args else error
                why = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
                raise ValueError(
                    f"{expression!r} is no RE2 expression ({why}); look-around and back-references do not exist there"
                ) from None
        return value

    @field_validator("json_schema")
    @classmethod
    def _schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            try:
                jsonschema_rs.validator_for(value, offline=True)
            except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
                raise ValueError(f"is no JSON schema: {str(error).splitlines()[0]}") from None
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.question is not None and self.messages:
            raise ValueError("has question and messages: write the conversation as messages alone")
        if self.question is None and not self.messages and self.prompt is None:
            raise ValueError('asks nothing: write "question", "messages", or "prompt" with its "variables"')
        if self.variables and self.prompt is None and self.question is None and not self.messages:
            raise ValueError('has variables and nothing to put them in: name the "prompt"')
        of_answers = [
            name
            for name in ("must_contain", "must_not_contain", "regex", "json_schema", "citations")
            if getattr(self, name)
        ]
        if self.status != "completed" and of_answers:
            raise ValueError(
                f"expects {self.status}, which has no answer, and says what the answer holds ({', '.join(of_answers)}): "
                "remove one of the two"
            )
        return self

    @property
    def asked(self) -> str:
        """The last message of the user, for people; of a prompt alone its variables."""
        texts = [turn.content for turn in self.messages if turn.role == "user"]
        if self.question is not None:
            return self.question
        return texts[-1] if texts else ", ".join(f"{name}: {value}" for name, value in self.variables.items())

    @property
    def conversation(self) -> list[Message]:
        """The messages that are sent."""
        if self.question is not None:
            return [Message(role="user", content=self.question)]
        return [Message(role=turn.role, content=turn.content) for turn in self.messages]

    @property
    def request_sampling(self) -> Sampling:
        """The generation parameters that are sent."""
        given = self.sampling
        return Sampling(
            temperature=given.temperature,
            top_p=given.top_p,
            max_completion_tokens=given.max_completion_tokens,
            stop=list(given.stop),
            seed=given.seed,
            response_format=None if self.json_schema is None else canonical_json(self.json_schema),
        )

    @property
    def version(self) -> str:
        """Content hash of what the case asks and demands."""
        return content_hash(self._content())

    @property
    def question_version(self) -> str:
        """Hash of what the case asks alone: two cases with one are the same question."""
        asked = self.model_dump(
            mode="json", include={"question", "messages", "prompt", "variables"}, exclude_defaults=True
        )
        if not self.messages and self.question is not None:
            del asked["question"]
            asked["messages"] = [{"role": "user", "content": self.question}]
        return content_hash(canonical_json(asked))

    def _content(self) -> str:
        content = self.model_dump(mode="python", exclude_defaults=True, exclude=_UNVERSIONED)
        return canonical_json(content)


class Dataset(_Part):
    """A golden set.

    Attributes:
        name: what reports call it.
        version: hash over the versions of its cases, sorted by their ids. The order of the lines, their layout, the
            name and the description are no part of it.
        cases: in the order of the file.
    """

    name: str
    description: str = ""
    cases: tuple[Case, ...]

    @property
    def version(self) -> str:
        """First 16 hex digits of SHA-256 over the cases' ids and versions, sorted by id."""
        return content_hash(
            "\n".join(f"{case.id} {case.version}" for case in sorted(self.cases, key=lambda case: case.id))
        )

    def tagged(self, tags: Sequence[str]) -> tuple[Case, ...]:
        """Return the cases that carry one of ``tags``; all of them where none is named."""
        return tuple(case for case in self.cases if not tags or set(tags) & set(case.tags))


def read_dataset(path: Path) -> Dataset:
    """Read a golden set: JSON lines, the first of which may be ``{"dataset": NAME, "description": ...}``.

    Raises:
        DatasetError: the file cannot be read, holds no case, or lines of it are malformed. The message lists up to ten
            of those lines.
    """
    try:
        # Not splitlines(): texts in JSON may hold U+2028 and its like as they are.
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; give a file with one JSON object a line") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    return parse_dataset(lines, str(path), path.stem)


def parse_dataset(lines: Iterable[str], place: str, name: str) -> Dataset:
    """Read a golden set from its lines; ``place`` is what errors call the file, ``name`` the set's where it says none.

    Raises:
        DatasetError: as of :func:`read_dataset`.
    """
    cases: dict[str, tuple[int, Case]] = {}
    problems: list[str] = []
    description, first = "", True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _row(line)
            if first and "dataset" in row:
                name, description = _header(row)
            else:
                case = _case(row)
                if case.id in cases:
                    raise ValueError(f"id {case.id!r} stands in line {cases[case.id][0]} already: {_REMEDY_TWICE}")
                cases[case.id] = (number, case)
        except ValueError as error:
            problems.append(f"{place}:{number}: {error}")
        first = False
    if problems:
        more = f"\n... and {len(problems) - 10} more lines" if len(problems) > 10 else ""
        raise DatasetError("\n".join(problems[:10]) + more)
    if not cases:
        raise DatasetError(
            f'{place} holds no case: write one a line, e.g. {{"question": "...", "must_contain": "..."}}'
        )
    return Dataset(name=name, description=description, cases=tuple(case for _, case in cases.values()))


_REMEDY_TWICE = "give each case an id of its own, or remove the repetition"


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno}): write one object a line") from None
    except RecursionError:
        raise ValueError("nested too deep: write a case as a flat object") from None
    if not isinstance(row, dict):
        raise ValueError(f'is a {type(row).__name__}, not an object: write {{"question": "..."}}')
    return row


def _header(row: Mapping[str, Any]) -> tuple[str, str]:
    if unknown := sorted(row.keys() - {"dataset", "description"}):
        raise ValueError(f'{", ".join(unknown)}: the line that names the set holds "dataset" and "description" alone')
    name, description = row["dataset"], row.get("description", "")
    if not isinstance(name, str) or not name.strip() or not isinstance(description, str):
        raise ValueError('"dataset" and "description" are texts: write {"dataset": "support", "description": "..."}')
    return name, description


def _case(row: dict[str, Any]) -> Case:
    try:
        case = Case.model_validate(row)
    except ValidationError as error:
        raise ValueError("; ".join(_cause(one) for one in error.errors())) from None
    return case if case.id else case.model_copy(update={"id": case.version})


def _cause(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no such field; a case has {', '.join(sorted([*Case.model_fields, 'reference']))}"
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else f"the case {text}"

"""The configuration as files: ``<folder>/<kind>/*.yaml``, each holding one entry or a list of them.

Every problem names file, line, field, cause and remedy, and all of them are reported at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from penstock.config.entry import FieldError
from penstock.config.kinds import KINDS, Entry, Prompt
from penstock.config.prompt_tests import TESTS_SUFFIX
from penstock.config.references import check_references
from penstock.config.yaml_lines import Document, FieldPath, YamlError, read_yaml

__all__ = ["ConfigFiles", "ConfigInvalid", "Located", "Problem", "load_entries", "load_files"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where (``field`` is the path inside the file), and what to do."""

    file: Path
    line: int
    field: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " + (f"{self.field}: " if self.field else "")
        return where + self.cause + (f"; {self.remedy}" if self.remedy else "")


class ConfigInvalid(Exception):
    """Files do not make a valid configuration; ``problems`` holds every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Located:
    """An entry and where it was read: at ``base`` of ``document``, in ``file``."""

    entry: Entry
    file: Path
    document: Document
    base: FieldPath

    @property
    def line(self) -> int:
        """Line of the entry, from 1."""
        return self.document.line(self.base)


@dataclass(frozen=True, slots=True)
class ConfigFiles:
    """The entries of a folder by kind and key; a kind without files of its own is absent."""

    root: Path
    kinds: Mapping[str, Mapping[str, Located]]
    warnings: Sequence[Problem] = field(default=())

    def __iter__(self) -> Iterator[Entry]:
        """Every entry once."""
        seen: set[int] = set()
        for located in (item for entries in self.kinds.values() for item in entries.values()):
            if id(located.entry) not in seen:
                seen.add(id(located.entry))
                yield located.entry


def load_files(root: Path, published: Mapping[str, Mapping[str, Entry]] | None = None) -> ConfigFiles:
    """Read and validate every file under ``root``.

    References to a kind that has no files under ``root`` are looked up in ``published`` (kind -> key -> entry) where it
    is given, and are not checked where it is not.

    Raises:
        ConfigInvalid: with every problem found.
    """
    problems: list[Problem] = []
    kinds: dict[str, dict[str, Located]] = {}
    for kind, file in _files(root, problems):
        for located in _read(kind, file, problems):
            entries = kinds.setdefault(kind, {})
            for key in _keys(located.entry):
                if key not in entries:
                    entries[key] = located
                elif not (isinstance(located.entry, Prompt) and key == located.entry.key):
                    first = entries[key]
                    problems.append(
                        Problem(
                            located.file, located.line, kind, f"{key} is defined a second time",
                            f"remove it here or at {first.file}:{first.line}",
                        )
                    )  # fmt: skip
    warnings: list[Problem] = []
    if not problems:
        known: dict[str, Mapping[str, Entry]] = dict(published or {})
        known.update({kind: {key: item.entry for key, item in entries.items()} for kind, entries in kinds.items()})
        for located in (item for entries in kinds.values() for item in entries.values()):
            for broken in check_references(located.entry, known):
                path = (*located.base, *broken.path)
                line = located.document.line(path)
                problem = Problem(located.file, line, _dotted(path), broken.cause, broken.remedy)
                (warnings if broken.warning else problems).append(problem)
    if problems:
        raise ConfigInvalid(sorted(set(problems), key=lambda p: (str(p.file), p.line, p.field)))
    return ConfigFiles(root, kinds, tuple(dict.fromkeys(warnings)))


def load_entries(kind: str, file: Path) -> list[Located]:
    """Read and validate the entries of one file; what they refer to is not looked for.

    Raises:
        ConfigInvalid: with every problem found.
    """
    problems: list[Problem] = []
    located = _read(kind, file, problems)
    if problems:
        raise ConfigInvalid(problems)
    return located


def _keys(entry: Entry) -> list[str]:
    if isinstance(entry, Prompt):
        return [entry.key, *(f"{entry.name}@{label}" for label in entry.labels)]
    return [entry.key]


def _files(root: Path, problems: list[Problem]) -> list[tuple[str, Path]]:
    there = f"it holds the folders {', '.join(KINDS)} with YAML files in them"
    if not root.is_dir():
        problems.append(Problem(root, 1, "", "is no folder", f"give the configuration's folder; {there}"))
        return []
    found = []
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name in KINDS:
            found += [(path.name, file) for file in sorted(path.rglob("*")) if _holds_entries(path.name, file)]
        elif path.is_dir() and not path.name.startswith("."):
            close = difflib.get_close_matches(path.name, KINDS, n=1)
            remedy = f"rename it to {close[0]}" if close else f"the kinds are {', '.join(KINDS)}"
            problems.append(Problem(path, 1, "", f"{path.name} is no kind of configuration", remedy))
        elif path.suffix in (".yaml", ".yml"):
            problems.append(Problem(path, 1, "", "lies in no kind's folder", f"move it into one of {', '.join(KINDS)}"))
    if not found and not problems:
        problems.append(Problem(root, 1, "", "holds no configuration", there))
    return found


def _holds_entries(kind: str, file: Path) -> bool:
    """Tests of prompts lie beside the prompts, and are no entries."""
    return file.suffix in (".yaml", ".yml") and not (kind == Prompt.KIND and file.name.endswith(TESTS_SUFFIX))


def _read(kind: str, file: Path, problems: list[Problem]) -> list[Located]:
    try:
        document = read_yaml(file.read_text("utf-8"))
    except YamlError as error:
        problems.append(Problem(file, error.line, "", error.cause, error.remedy))
        return []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(file, 1, "", f"cannot be read: {error}", "make it a readable UTF-8 file"))
        return []
    listed = isinstance(document.data, list)
    located = []
    for index, item in enumerate(document.data if listed else [document.data]):
        base: FieldPath = (index,) if listed else ()
        if not isinstance(item, dict):
            problems.append(
                Problem(
                    file, document.line(base), _dotted(base), f"holds {_said(item)} where an entry of {kind} belongs",
                    "write a mapping, or a list of mappings, with the fields " + ", ".join(KINDS[kind].model_fields),
                )
            )  # fmt: skip
            continue
        try:
            located.append(Located(KINDS[kind].model_validate(item), file, document, base))
        except ValidationError as error:
            details = error.errors(include_url=False)
            deep = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
            # An invalid item also makes its list count as too short; the item's own problem says enough.
            details = [d for d in details if not (d["type"] == "too_short" and d["loc"] in deep)]
            problems += [_problem(kind, file, document, base, detail) for detail in details]
    return located


def _problem(kind: str, file: Path, document: Document, base: FieldPath, detail: ErrorDetails) -> Problem:
    path: FieldPath = detail["loc"]
    cause = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    raised = detail.get("ctx", {}).get("error")
    if isinstance(raised, FieldError):
        path, cause = (*path, *raised.path), raised.cause
    cause = cause[:1].lower() + cause[1:]
    remedy = ""
    owner, known = _field(KINDS[kind], path)
    if detail["type"] == "missing":
        cause, remedy = "is missing", f"add it: {known}"
    elif detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), owner, n=1)
        cause = "is no field here"
        remedy = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(owner)}"
    elif known:
        value = detail["input"]
        shown = "" if isinstance(value, dict | list) else f" (is {_said(value)})"
        cause, remedy = cause + shown, f"what belongs here: {known}"
    return Problem(file, document.line((*base, *path)), _dotted((*base, *path)), cause, remedy)


def _field(model: type[BaseModel], path: FieldPath) -> tuple[list[str], str]:
    """Return the fields of the innermost model on ``path``, and the description of the field the path ends in."""
    description = ""
    for step in path:
        info = model.model_fields.get(step) if isinstance(step, str) else None
        if info is None:
            if isinstance(step, str):
                description = description if not model.model_fields else ""
            continue
        description = info.description or ""
        if (inner := _model_in(info.annotation)) is not None:
            model = inner
    return list(model.model_fields), description


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model is not None), None)


def _dotted(path: FieldPath) -> str:
    return ".".join(map(str, path))


def _said(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

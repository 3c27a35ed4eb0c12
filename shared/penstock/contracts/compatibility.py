"""FULL_TRANSITIVE compatibility, checked offline: every version of a record against every other, as reader and as writer.

The rules are those of schema resolution in the Avro specification 1.12 (https://avro.apache.org/docs/1.12.0/specification/
#schema-resolution), stricter in one place: a logical type (a decimal's scale, a timestamp's unit) may not change, since a
reader would take the same bytes for another amount or instant without noticing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from penstock.contracts.catalogue import Catalogue, Topic
from penstock.contracts.draft import draft_schema

__all__ = ["Break", "Mismatch", "check_catalogue", "check_topic", "check_versions", "mismatches"]

Schema = Any
"""An Avro schema as JSON data: a name, a list (union) or a mapping."""

# Promotions: what a reader of the key accepts beside itself.
_PROMOTED = {
    "long": {"int"},
    "float": {"int", "long"},
    "double": {"int", "long", "float"},
    "string": {"bytes"},
    "bytes": {"string"},
}
_PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
_LOGICAL = ("logicalType", "precision", "scale")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a reader cannot take what a writer wrote: the field (dotted, from the record) and the rule it breaks."""

    field: str
    rule: str


@dataclass(frozen=True, slots=True)
class Break:
    """A mismatch between two versions of a topic's record. A version is a number, or ``class`` for the Python record."""

    topic: str
    record: str
    field: str
    reader: str
    writer: str
    rule: str

    def __str__(self) -> str:
        return (
            f"{self.topic}: {self.record}.{self.field}: a reader of {self.reader} cannot read what {self.writer} wrote: "
            f"{self.rule}"
        )


def check_catalogue(catalogue: Catalogue) -> list[Break]:
    """Check every topic."""
    return [broken for topic in catalogue.topics.values() for broken in check_topic(topic)]


def check_topic(topic: Topic) -> list[Break]:
    """Check every version of the topic's record against every other, and the record's class as a reader of all."""
    versions: dict[str, Schema] = {f"v{number}": schema for number, schema in topic.versions.items()}
    versions["class"] = draft_schema(topic.record)
    return check_versions(topic.name, topic.record.__name__, versions)


def check_versions(topic: str, record: str, versions: Mapping[str, Schema]) -> list[Break]:
    """Check ``versions`` (name -> schema) in both directions, each pair as reader and writer."""
    pairs = [(*pair, mismatches(versions[pair[0]], versions[pair[1]])) for pair in permutations(versions, 2)]
    pairs += [(name, name, list(_bad_defaults(schema, _named(schema), ""))) for name, schema in versions.items()]
    return [
        Break(topic, record, mismatch.field, reader, writer, mismatch.rule)
        for reader, writer, found in pairs
        for mismatch in found
    ]


def mismatches(reader: Schema, writer: Schema) -> list[Mismatch]:
    """Return every reason why ``reader`` cannot resolve data of ``writer``; empty where it can."""
    return list(_Resolution(_named(reader), _named(writer)).compare(reader, writer, ""))


class _Resolution:
    """One pair of schemas. Pairs of records being compared are remembered, since records may contain themselves."""

    def __init__(self, reader_names: Mapping[str, Schema], writer_names: Mapping[str, Schema]) -> None:
        self._reader_names = reader_names
        self._writer_names = writer_names
        self._open: set[tuple[str, str]] = set()

    def compare(self, reader: Schema, writer: Schema, path: str) -> Iterator[Mismatch]:
        for schema, names in ((reader, self._reader_names), (writer, self._writer_names)):
            if isinstance(schema, str) and schema not in _PRIMITIVES and schema not in names:
                yield Mismatch(path, f"type {schema} is defined nowhere in its schema")
                return
        reader = _resolved(reader, self._reader_names)
        writer = _resolved(writer, self._writer_names)
        if isinstance(writer, list):
            for branch in writer:
                yield from self._branch_readable(reader, branch, path)
        elif isinstance(reader, list):
            yield from self._branch_readable(reader, writer, path)
        else:
            yield from self._plain(reader, writer, path)

    def _branch_readable(self, reader: Schema, branch: Schema, path: str) -> Iterator[Mismatch]:
        """A branch must be readable by the reader, or by one of the reader's branches."""
        if not isinstance(reader, list):
            yield from self.compare(reader, branch, path)
            return
        attempts = [list(self.compare(option, branch, path)) for option in reader]
        if all(attempts):
            # The branch of the same type says most about what is wrong; without one, the type itself is.
            same = [a for option, a in zip(reader, attempts, strict=True) if self._same_kind(option, branch)]
            shown = _shown(_resolved(branch, self._writer_names))
            yield from same[0] if same else [Mismatch(path, f"type {shown} is not among {_shown(reader)}")]

    def _same_kind(self, reader: Schema, writer: Schema) -> bool:
        return _kind(_resolved(reader, self._reader_names)) == _kind(_resolved(writer, self._writer_names))

    def _plain(self, reader: Schema, writer: Schema, path: str) -> Iterator[Mismatch]:
        kind, written = _kind(reader), _kind(writer)
        if kind != written and written not in _PROMOTED.get(kind, ()):
            yield Mismatch(path, f"type changed: {_shown(writer)} cannot be read as {_shown(reader)}")
        elif _logical(reader) != _logical(writer):
            yield Mismatch(path, f"logical type changed: {_shown(writer)} would be misread as {_shown(reader)}")
        elif kind == "array":
            yield from self.compare(reader["items"], writer["items"], f"{path}[]")
        elif kind == "map":
            yield from self.compare(reader["values"], writer["values"], f"{path}{{}}")
        elif kind == "enum":
            yield from _enum(reader, writer, path)
        elif kind == "fixed":
            if (_short(reader), reader["size"]) != (_short(writer), writer["size"]):
                yield Mismatch(path, f"fixed changed: {_shown(writer)} cannot be read as {_shown(reader)}")
        elif kind == "record":
            yield from self._records(reader, writer, path)

    def _records(self, reader: Schema, writer: Schema, path: str) -> Iterator[Mismatch]:
        names = {_short(reader), *(alias.rpartition(".")[2] for alias in reader.get("aliases", []))}
        if _short(writer) not in names:
            yield Mismatch(path or _short(reader), f"record renamed from {_short(writer)} to {_short(reader)}")
            return
        pair = (_full(reader), _full(writer))
        if pair in self._open:
            return
        self._open.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        claimed = set()
        for field in reader["fields"]:
            name = next((n for n in (field["name"], *field.get("aliases", [])) if n in written), None)
            below = f"{path}.{field['name']}" if path else field["name"]
            if name is not None:
                claimed.add(name)
                yield from self.compare(field["type"], written[name]["type"], below)
            elif "default" not in field:
                yield Mismatch(below, _missing(field, reader, written))
        self._open.discard(pair)


def _missing(field: Mapping[str, Any], reader: Schema, written: Mapping[str, Any]) -> str:
    known = {other["name"] for other in reader["fields"]}
    twins = [name for name, other in written.items() if name not in known and other["type"] == field["type"]]
    hint = f" (renamed to or from {twins[0]}? a rename is a removal and an addition)" if twins else ""
    return (
        "the writer has no such field and the reader gives it no default"
        f"{hint}; add fields with a default only, and remove only fields that always had one"
    )


def _enum(reader: Schema, writer: Schema, path: str) -> Iterator[Mismatch]:
    if _short(reader) != _short(writer):
        yield Mismatch(path, f"enum renamed from {_short(writer)} to {_short(reader)}")
    unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if unknown and "default" not in reader:
        yield Mismatch(path, f"enum symbols {', '.join(unknown)} are unknown to the reader, which has no default")


def _bad_defaults(schema: Schema, names: Mapping[str, Schema], path: str) -> Iterator[Mismatch]:
    """A default must be a value of the field's type, of a union's first branch: else no reader can use it."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _bad_defaults(branch, names, path)
    elif isinstance(schema, dict):
        yield from _bad_defaults(schema.get("items", schema.get("values", "null")), names, path)
        for field in schema.get("fields", []):
            below = f"{path}.{field['name']}" if path else field["name"]
            if "default" in field and not _fits(field["default"], field["type"], names):
                yield Mismatch(below, f"default {field['default']!r} is no value of {_shown(field['type'])}")
            yield from _bad_defaults(field["type"], names, below)


def _fits(value: Any, schema: Schema, names: Mapping[str, Schema]) -> bool:
    schema = _resolved(schema, names)
    if isinstance(schema, list):
        return _fits(value, schema[0], names)
    kind = _kind(schema)
    if kind == "record":
        return isinstance(value, dict) and all(
            _fits(value[field["name"]], field["type"], names) if field["name"] in value else "default" in field
            for field in schema["fields"]
        )
    if kind == "array":
        return isinstance(value, list) and all(_fits(item, schema["items"], names) for item in value)
    if kind == "map":
        return isinstance(value, dict) and all(_fits(item, schema["values"], names) for item in value.values())
    if kind == "enum":
        return value in schema["symbols"]
    if kind in ("int", "long"):
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in ("float", "double"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    types: dict[str, type] = {"null": type(None), "boolean": bool}
    return isinstance(value, types.get(kind, str))


def _named(schema: Schema) -> dict[str, Schema]:
    """Named types inside ``schema`` by full and by short name."""
    found: dict[str, Schema] = {}

    def walk(node: Schema) -> None:
        if isinstance(node, list):
            for branch in node:
                walk(branch)
        elif isinstance(node, dict):
            if "name" in node and node.get("type") in ("record", "enum", "fixed"):
                found[_short(node)] = found[_full(node)] = node
            for field in node.get("fields", []):
                walk(field["type"])
            walk(node.get("items", node.get("values")))
            if not isinstance(node.get("type"), str):
                walk(node.get("type"))

    walk(schema)
    return found


def _resolved(schema: Schema, names: Mapping[str, Schema]) -> Schema:
    if isinstance(schema, str) and schema not in _PRIMITIVES:
        return names.get(schema, schema)
    if isinstance(schema, dict) and not isinstance(schema.get("type"), str):
        return _resolved(schema["type"], names)
    return schema


def _kind(schema: Schema) -> str:
    return schema if isinstance(schema, str) else "union" if isinstance(schema, list) else str(schema["type"])


def _logical(schema: Schema) -> tuple[Any, ...]:
    return tuple(schema.get(key) for key in _LOGICAL) if isinstance(schema, dict) else (None,) * len(_LOGICAL)


def _short(schema: Mapping[str, Any]) -> str:
    return str(schema["name"]).rpartition(".")[2]


def _full(schema: Mapping[str, Any]) -> str:
    name = str(schema["name"])
    return name if "." in name or "namespace" not in schema else f"{schema['namespace']}.{name}"


def _shown(schema: Schema) -> str:
    if isinstance(schema, list):
        return "[" + ", ".join(map(_shown, schema)) + "]"
    if isinstance(schema, str):
        return schema
    kind = _kind(schema)
    if kind in ("record", "enum", "fixed"):
        return f"{kind} {_short(schema)}"
    if kind == "array":
        return f"array of {_shown(schema['items'])}"
    if kind == "map":
        return f"map of {_shown(schema['values'])}"
    logical = [str(schema[key]) for key in _LOGICAL if key in schema]
    return f"{kind} ({' '.join(logical)})" if logical else kind

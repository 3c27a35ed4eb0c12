"""Examples of messages: JSON under ``schemas/examples/<topic>/v<N>/`` that shows producers and readers what to expect.

They also hold a published version to what it said: a field that is renamed, retyped or removed in place no longer fits
the examples. In JSON an instant is ISO 8601 with a zone, money a decimal string, bytes are base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from penstock.contracts.catalogue import Catalogue

__all__ = ["Example", "ExampleInvalid", "examples", "to_avro"]


class ExampleInvalid(Exception):
    """An example does not fit its schema; the message names file, field and cause."""


@dataclass(frozen=True, slots=True)
class Example:
    """One example of one version of a topic's record, as JSON data."""

    topic: str
    version: int
    file: Path
    data: Any


def examples(catalogue: Catalogue) -> Iterator[Example]:
    """Yield every example beside ``catalogue``.

    Raises:
        ExampleInvalid: a file is no JSON, or stands under a topic or version that does not exist.
    """
    for file in sorted((catalogue.root / "examples").glob("*/*/*.json")):
        topic, folder = file.parent.parent.name, file.parent.name
        match = re.fullmatch(r"v(\d+)", folder)
        if topic not in catalogue.topics or match is None or int(match[1]) not in catalogue.topics[topic].versions:
            raise ExampleInvalid(f"{file}: there is no {folder} of a topic {topic}; put it under <topic>/v<N>/")
        try:
            yield Example(topic, int(match[1]), file, json.loads(file.read_text("utf-8")))
        except json.JSONDecodeError as error:
            raise ExampleInvalid(f"{file}:{error.lineno}: not JSON: {error.msg}") from error


def to_avro(example: Example, schema: Mapping[str, Any]) -> Any:
    """Return the example as the data that an Avro writer of ``schema`` takes. Fields at their default may be left out.

    Raises:
        ExampleInvalid: a field is unknown, missing without a default, or of the wrong type.
    """
    try:
        return _value(example.data, schema, {}, "")
    except _Misfit as error:
        raise ExampleInvalid(f"{example.file}: {error}") from None


class _Misfit(Exception):
    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"{path or 'record'}: {cause}")


def _value(value: Any, schema: Any, names: dict[str, Any], path: str) -> Any:
    if isinstance(schema, str) and schema in names:
        schema = names[schema]
    if isinstance(schema, list):
        return _union(value, schema, names, path)
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        names[schema["name"]] = schema
        return _record(value, schema, names, path)
    if kind == "array":
        _require(isinstance(value, list), value, "a list", path)
        return [_value(item, schema["items"], names, f"{path}[{index}]") for index, item in enumerate(value)]
    if kind == "map":
        _require(isinstance(value, dict), value, "a mapping", path)
        return {key: _value(item, schema["values"], names, f"{path}.{key}") for key, item in value.items()}
    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    return _scalar(value, kind, logical, path)


def _record(value: Any, schema: Mapping[str, Any], names: dict[str, Any], path: str) -> dict[str, Any]:
    _require(isinstance(value, dict), value, "a mapping", path)
    fields = {field["name"]: field for field in schema["fields"]}
    for name in value:
        if name not in fields:
            raise _Misfit(_below(path, name), f"{schema['name']} has no such field")
    result = {}
    for name, field in fields.items():
        if name in value:
            result[name] = _value(value[name], field["type"], names, _below(path, name))
        elif "default" not in field:
            raise _Misfit(_below(path, name), "is missing and has no default")
        else:
            _learn(field["type"], names)
    return result


def _learn(schema: Any, names: dict[str, Any]) -> None:
    """A named type is defined where it first stands, also when that field is left out of the example."""
    for node in schema if isinstance(schema, list) else [schema]:
        if isinstance(node, dict):
            if node.get("type") == "record":
                names[node["name"]] = node
                for field in node["fields"]:
                    _learn(field["type"], names)
            _learn(node.get("items", node.get("values")), names)


def _union(value: Any, branches: list[Any], names: dict[str, Any], path: str) -> Any:
    if value is None and "null" in branches:
        return None
    rest = [branch for branch in branches if branch != "null"]
    causes = []
    for branch in rest:
        try:
            return _value(value, branch, names, path)
        except _Misfit as error:
            causes.append(error)
    if len(causes) == 1:
        raise causes[0]
    raise _Misfit(path, f"{value!r} fits none of its types")


def _scalar(value: Any, kind: str, logical: str | None, path: str) -> Any:
    if logical == "timestamp-micros":
        _require(isinstance(value, str), value, "an instant such as 2026-01-05T09:00:00Z", path)
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            instant = datetime.min
        _require(instant.tzinfo is not None, value, "an instant with its zone, such as 2026-01-05T09:00:00Z", path)
        return instant
    if logical == "decimal":
        _require(isinstance(value, str), value, 'an amount as a string, such as "0.000021"', path)
        try:
            return Decimal(value)
        except InvalidOperation:
            raise _Misfit(path, f"{value!r} is no decimal") from None
    if kind == "bytes":
        _require(isinstance(value, str), value, "base64", path)
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            raise _Misfit(path, f"{value!r} is no base64") from None
    number = not isinstance(value, bool)
    fits = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "int": isinstance(value, int) and number,
        "long": isinstance(value, int) and number,
        "float": isinstance(value, int | float) and number,
        "double": isinstance(value, int | float) and number,
        "null": value is None,
    }
    _require(fits.get(kind, False), value, kind, path)
    return value


def _require(fits: bool, value: Any, wanted: str, path: str) -> None:
    if not fits:
        raise _Misfit(path, f"{json.dumps(value)[:60]} is not {wanted}")


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

"""Avro schemas drafted from the record classes.

A new version of a record starts here: change the class, write the draft out as ``schemas/avro/<record>.v<N>.avsc``, and
the contract tests say whether it is compatible with every version before it. Published versions are never edited.
"""

from __future__ import annotations

import re
import types
import typing
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Union

import msgspec

from penstock.contracts.records import Part, Record

__all__ = ["NAMESPACE", "avro_name", "draft_schema", "file_stem"]

NAMESPACE = "penstock.events"

# Twelve decimal places: token prices go down to 1e-8 USD and below. 38 digits are what SQL engines and Parquet hold.
_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 12}
_PRIMITIVES: dict[Any, Any] = {
    str: "string",
    int: "long",
    float: "double",
    bool: "boolean",
    bytes: "bytes",
    datetime: {"type": "long", "logicalType": "timestamp-micros"},
    Decimal: _DECIMAL,
}


def file_stem(record: type[msgspec.Struct]) -> str:
    """``LlmRequest`` -> ``llm-request``, as the schema's file is named."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", record.__name__).lower()


def avro_name(record: type[msgspec.Struct]) -> str:
    """Full name of the record in Avro."""
    return f"{NAMESPACE}.{record.__name__}"


def draft_schema(record: type[Record]) -> dict[str, Any]:
    """Return the Avro schema of ``record`` as the class has it now, as plain JSON data."""
    return _record(record, named=set())


def _record(cls: type[msgspec.Struct], named: set[str]) -> dict[str, Any]:
    named.add(cls.__name__)
    hints = typing.get_type_hints(cls, include_extras=True)
    schema: dict[str, Any] = {"type": "record", "name": cls.__name__}
    if issubclass(cls, Record):
        schema["namespace"] = NAMESPACE
    schema["doc"] = " ".join((cls.__doc__ or "").split())
    schema["fields"] = [_field(info, hints[info.name], named) for info in msgspec.structs.fields(cls)]
    return schema


def _field(info: msgspec.structs.FieldInfo, hint: Any, named: set[str]) -> dict[str, Any]:
    hint, meta = typing.get_args(hint)[0], typing.get_args(hint)[1]
    field: dict[str, Any] = {"name": info.name, "type": _type(hint, named), "doc": meta.description}
    if info.default is not msgspec.NODEFAULT:
        field["default"] = _default(info.default)
    elif info.default_factory is not msgspec.NODEFAULT:
        field["default"] = _default(info.default_factory())
    return field


def _type(hint: Any, named: set[str]) -> Any:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _type(typing.get_args(hint)[0], named)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"only T | None can be drafted, not {hint}")
        return ["null", _type(inner[0], named)]
    if origin is list:
        return {"type": "array", "items": _type(typing.get_args(hint)[0], named)}
    if origin is dict:
        return {"type": "map", "values": _type(typing.get_args(hint)[1], named)}
    if isinstance(hint, type) and issubclass(hint, Part):
        return hint.__name__ if hint.__name__ in named else _record(hint, named)
    return _PRIMITIVES[hint]


def _default(value: Any) -> Any:
    return msgspec.to_builtins(value)

"""Bring JSON values to the types that a schema asks for, where nothing of them is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["coerced"]

MAX_DEPTH = 64
"""Levels of the value and of the schema that are gone into."""
MAX_STEPS = 20_000
"""Values that are looked at, again for each branch of a schema that is tried: deep ones may have very many."""
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?(?:[eE][+-]?\d{1,2})?")


def coerced(value: Any, schema: Any) -> Any:
    """The value as ``schema`` wants it, as far as that can be told: a new one, ``value`` itself is not changed.

    - text to integer, number, boolean or null where it is written exactly so, and back;
    - a number without a fraction to an integer; one value to an array of it, where an array is wanted and it fits;
    - a text to the one of an enumeration that differs in case and white space only.

    Follows properties, items, references within the schema, and of anyOf and oneOf the first branch whose type fits.
    """
    return _coerced(value, schema, _Work(schema), 0)


@dataclass(slots=True)
class _Work:
    """The whole schema, for references into it, and how many steps are left."""

    schema: Any
    steps: int = MAX_STEPS


def _coerced(value: Any, schema: Any, work: _Work, depth: int) -> Any:
    work.steps -= 1
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH or work.steps < 0:
        return value
    if isinstance(schema.get("$ref"), str):
        return _coerced(value, _resolved(schema["$ref"], work.schema), work, depth + 1)
    for part in _schemas(schema.get("allOf")):
        value = _coerced(value, part, work, depth + 1)
    branches = [*_schemas(schema.get("anyOf")), *_schemas(schema.get("oneOf"))]
    fitting = [branch for branch in branches if _fits(value, branch, work, depth)]
    for branch in fitting[:1] or branches:
        changed = _coerced(value, branch, work, depth + 1)
        if _fits(changed, branch, work, depth):
            value = changed
            break
    value = _as_option(value, schema)
    types = _types(schema)
    if types and not any(_is(value, name) for name in types):
        for name in types:
            changed, done = _to(value, name)
            if done:
                value = changed
                break
        else:
            if "array" in types and not isinstance(value, list | dict):
                value = [value]
    if isinstance(value, dict):
        properties = schema.get("properties")
        others = schema.get("additionalProperties")
        if isinstance(properties, Mapping) or isinstance(others, Mapping):
            known = properties if isinstance(properties, Mapping) else {}
            return {key: _coerced(item, known.get(key, others), work, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        first = schema.get("prefixItems")
        heads = first if isinstance(first, list) else []
        return [
            _coerced(item, heads[index] if index < len(heads) else schema.get("items"), work, depth + 1)
            for index, item in enumerate(value)
        ]
    return value


def _schemas(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _types(schema: Mapping[str, Any]) -> list[str]:
    named = schema.get("type")
    return [named] if isinstance(named, str) else named if isinstance(named, list) else []


def _fits(value: Any, schema: Any, work: _Work, depth: int) -> bool:
    """Whether the value has the type, or is the constant, that a branch asks for."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return True
    if isinstance(schema.get("$ref"), str):
        return _fits(value, _resolved(schema["$ref"], work.schema), work, depth + 1)
    types = _types(schema)
    if types and not any(_is(value, name) for name in types):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if isinstance(schema.get("enum"), list) and value not in schema["enum"]:
        return False
    required = schema.get("required")
    return not (isinstance(required, list) and isinstance(value, dict) and any(key not in value for key in required))


def _is(value: Any, name: str) -> bool:
    if name == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str, "boolean": bool, "array": list, "object": dict, "null": type(None),
    }  # fmt: skip
    return name in kinds and isinstance(value, kinds[name])


def _to(value: Any, name: str) -> tuple[Any, bool]:
    """The value as the type ``name``, and whether it could be."""
    if isinstance(value, str):
        text = value.strip()
        if name == "integer" and _INTEGER.fullmatch(text):
            return int(text), True
        if name == "number" and _NUMBER.fullmatch(text):
            return (int(text) if _INTEGER.fullmatch(text) else float(text)), True
        if name == "boolean" and text.lower() in ("true", "false"):
            return text.lower() == "true", True
        if name == "null" and text.lower() in ("null", "none", ""):
            return None, True
    elif name == "string" and isinstance(value, bool | int | float):
        return json.dumps(value), True
    return value, False


def _as_option(value: Any, schema: Mapping[str, Any]) -> Any:
    """The one option of an enumeration that a text differs from in case and white space only."""
    options = (
        schema.get("enum") if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    )
    if not isinstance(value, str) or not options or value in options:
        return value
    wanted = " ".join(value.split()).casefold()
    same = [option for option in options if isinstance(option, str) and " ".join(option.split()).casefold() == wanted]
    return same[0] if len(same) == 1 else value


def _resolved(reference: str, root: Any) -> Any:
    """What a reference within the schema (a JSON pointer, RFC 6901) leads to; None where it leads nowhere."""
    if not reference.startswith("#"):
        return None
    node = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node

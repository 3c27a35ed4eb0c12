"""The published description of the API: OpenAPI 3.1, made of the types that the bodies are decoded with. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import msgspec

from services.edge.errors import ErrorAnswer
from services.edge.operations import AT_ANY_TIME, Operation

__all__ = ["Schema", "document"]

Schema = Mapping[str, Any]
_VERSION = "1.0.0"
_DESCRIPTION = (
    "Chat completions and embeddings as OpenAI's API has them, requests that nobody waits for, feedback and documents. "
    "Every request is an event: what it led to can be asked for by its id, here and in the log."
)
_NOT_BEFORE = {"description": "When the same request may succeed.", "schema": {"type": "integer", "minimum": 0}}
_WAITING = {
    "retry-after": {**_NOT_BEFORE, "description": f"{_NOT_BEFORE['description']} In seconds, rounded up."},
    "retry-after-ms": {**_NOT_BEFORE, "description": f"{_NOT_BEFORE['description']} In milliseconds."},
}


def document(
    operations: Sequence[Operation], rules: Mapping[Any, Sequence[Schema]] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the description of ``operations``, ready to be written as JSON.

    Args:
        operations: what is offered.
        rules: JSON schemas that values of a type keep to beside what the type says: what one field asks of another.
    """
    shown = [one for one in operations if one.described]
    types = list(dict.fromkeys([ErrorAnswer, *(kind for one in shown for kind in _types(one))]))
    references, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    refers = dict(zip(types, references, strict=True))
    for kind, schemas in rules.items():
        components[kind.__name__]["allOf"] = [dict(schema) for schema in schemas]
    paths: dict[str, dict[str, Any]] = {}
    for one in shown:
        paths.setdefault(one.path.replace(":path}", "}"), {})[one.method.lower()] = _operation(one, refers)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Penstock", "version": _VERSION, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "API key of a team: `penstock keys create`."}
            },
        },
    }


def _types(operation: Operation) -> list[Any]:
    bodies = [] if operation.body is None else [operation.body]
    return bodies + [kind for kinds in operation.answers.values() for kind in kinds if not isinstance(kind, str)]


def _operation(operation: Operation, refers: Mapping[Any, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    if operation.parameters:
        told["parameters"] = [
            {
                "name": one.name,
                "in": one.place,
                "required": one.place == "path",
                "description": one.description,
                "schema": dict(one.schema),
            }
            for one in operation.parameters
        ]
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": refers[operation.body]}}}
    told["responses"] = {str(status): _answer(status, kinds, refers) for status, kinds in operation.answers.items()}
    errors = {*operation.errors, *(AT_ANY_TIME if operation.keyed else ())}
    told["responses"] |= {str(status): _error(status, refers) for status in sorted(errors)}
    if operation.keyed:
        told["security"] = [{"key": []}]
    return told


def _answer(status: int, kinds: Sequence[Any], refers: Mapping[Any, Any]) -> dict[str, Any]:
    content = {
        kind if isinstance(kind, str) else "application/json": {
            # Of what is no JSON there is no schema.
            "schema": {} if isinstance(kind, str) else refers[kind]
        }
        for kind in kinds
    }
    return {"description": HTTPStatus(status).phrase, "content": content}


def _error(status: int, refers: Mapping[Any, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": refers[ErrorAnswer]}},
    }
    if status in (429, 503):
        told["headers"] = _WAITING
    return told

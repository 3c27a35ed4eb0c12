"""What the API offers, as a table: the routes and the published description of them are made of the same entries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["AT_ANY_TIME", "Operation", "Parameter", "routes_of"]

AT_ANY_TIME = (401, 429, 500, 503)
"""Errors that every operation with a key may be answered with."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter outside the body. ``schema`` is its JSON schema."""

    name: str
    place: Literal["path", "header"]
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address.

    Attributes:
        path: with its parameters in braces, as OpenAPI writes it.
        id: name of the operation, for clients that are generated.
        answers: what is answered by status, as a type or as a media type that is no JSON.
        endpoint: what answers it.
        body: type of the JSON body; None where there is none.
        errors: statuses of errors beside those of every operation with a key.
        keyed: whether it takes an API key.
        described: whether it stands in the published description.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    id: str
    summary: str
    answers: Mapping[int, Sequence[Any]]
    endpoint: Callable[[Request], Awaitable[Response]]
    body: Any = None
    parameters: Sequence[Parameter] = ()
    errors: Sequence[int] = ()
    keyed: bool = True
    described: bool = True


def routes_of(operations: Sequence[Operation]) -> list[Route]:
    """Return the routes of ``operations``, in their order: they are tried one after the other."""
    return [Route(one.path, one.endpoint, methods=[one.method], name=one.id) for one in operations]

"""What every route of the API stands on: who asks, what is asked, and the wait for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from penstock.clock import Clock
from penstock.config.plane import ConfigPlane
from penstock.contracts.envelope import new_id
from penstock.telemetry.traces import Tracing
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from services.edge.boundary import Room, read_body
from services.edge.errors import ApiError
from services.edge.operations import Parameter
from services.edge.protocol import Authenticator, Caller, Desk

__all__ = ["IDEMPOTENCY_KEY", "Front", "address_of", "identity", "json_answer", "still_under_way"]

T = TypeVar("T")
# https://www.w3.org/TR/trace-context/, 3.2 and 3.3: what is neither is not passed on.
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(rb"[\x20-\x7e]{1,512}")

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Identity of what is sent, within the team: sent again with the same content it is the same, and is done once.",
    {"type": "string", "pattern": r"^[\x21-\x2e\x30-\x7e]{1,200}$"},
)


@dataclass(frozen=True, slots=True)
class Front:
    """What routes are made from.

    Attributes:
        authenticator: knows callers by their keys.
        desk: takes up what they ask, and has the results.
        config: the live configuration.
        clock: of the instants that events carry.
        tracing: of the trace that a request belongs to.
        room: for bodies.
        leaving: done when the process must end: nobody is waited for any more.
        max_body_bytes: most bytes of a body.
        answer_timeout_s: how long an answer is waited for.
        keepalive_s: how long a stream may be silent.
        embedding_model: whose vectors are given.
        embedding_dimension: length of these.
    """

    authenticator: Authenticator
    desk: Desk
    config: ConfigPlane
    clock: Clock
    tracing: Tracing
    room: Room
    leaving: asyncio.Future[None]
    max_body_bytes: int
    answer_timeout_s: float
    keepalive_s: float
    embedding_model: str
    embedding_dimension: int

    def caller(self, request: Request) -> Caller:
        """Return who asks, and count the request as one of the team's.

        Raises:
            ApiError: the team has too many requests under way here.
            Unauthorised: the key is missing or not in force.
        """
        caller = self.authenticator.caller(request.headers.get("authorization"))
        request.state.of_team(caller.team)
        return caller

    async def body(self, request: Request) -> bytes:
        """Return the body; errors as of :func:`~services.edge.boundary.read_body`."""
        return await read_body(request, self.max_body_bytes, self.room)

    def traced(self, request: Request, name: str) -> AbstractContextManager[Sequence[tuple[str, bytes]]]:
        """Return a context manager around what is sent for ``request``; it gives the headers of the trace it belongs to."""
        carried: list[tuple[str, bytes]] = []
        given = dict(request.scope["headers"])
        parent, state = given.get(b"traceparent", b""), given.get(b"tracestate", b"")
        if _TRACEPARENT.fullmatch(parent):
            carried.append(("traceparent", parent))
            if _TRACESTATE.fullmatch(state):
                carried.append(("tracestate", state))
        return self.tracing.hop(name, carried)

    async def unless_gone(self, request: Request, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what ``work`` gives; None where the process must end before.

        Raises:
            ClientDisconnect: the client has gone before.
        """
        working = asyncio.create_task(work)
        gone = asyncio.create_task(_gone(request))
        try:
            ends: set[asyncio.Future[Any]] = {working, gone, self.leaving}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if gone.done():
                raise ClientDisconnect
            return None
        finally:
            working.cancel()
            gone.cancel()


async def _gone(request: Request) -> None:
    """Return when the client has gone; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def identity(request: Request, given: str | None) -> str:
    """Return ``given``, or the identity of this very send, and name it in the answer."""
    chosen = given or new_id()
    request.state.request_id = chosen
    return chosen


def still_under_way(status: int, request_id: str, *, again: bool) -> ApiError:
    """Return the error of a request whose answer is not waited for any longer, though it will come.

    Args:
        status: 503 where the edge stops, 504 where time is up.
        again: whether the request's identity is the client's own: sent again, it joins the one that is under way.
    """
    why = "the edge is being stopped" if status == 503 else "the answer was not there in time"
    return ApiError(
        status,
        f"{why}, and the request goes on: its result will stand at {address_of(request_id)}",
        code="still_under_way",
        retry_after_ms=1000 if again else None,
    )


def address_of(request_id: str) -> str:
    """Return where a request is asked for."""
    return f"/v1/requests/{quote(request_id, safe='')}"


def json_answer(answer: msgspec.Struct, status: int = 200) -> Response:
    """Return ``answer`` as JSON."""
    return Response(msgspec.json.encode(answer), status, media_type="application/json")

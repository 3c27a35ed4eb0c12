"""What surrounds every request of the edge: its identity, its errors, its bounds and its figures."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from penstock.contracts.codec import Invalid
from penstock.contracts.envelope import new_id
from penstock.telemetry import get_logger, metrics
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.edge.errors import ApiError
from services.edge.protocol import Conflict, Gone, Unauthorised, Unavailable

__all__ = ["Boundary", "Room", "as_api_error", "read_body"]

log = get_logger(__name__)
_JSON = "application/json"
_ANSWERED = (ApiError, HTTPException, Unauthorised, Conflict, Gone, Unavailable, Invalid)
_DISCARDED_BYTES = 65_536
"""A body up to this is read to its end behind an error, and the connection goes on; one that is longer closes it."""
_LINGER_BYTES = 33_554_432
_LINGER_S = 5.0
"""So much more is taken from a client that still sends behind its error, since a connection that is closed on unread data is
reset, and the answer lost with it."""


class Room:
    """How much is taken at once; what is more is told to come again. No team takes more than half of it.

    Args:
        requests: most requests that are answered at once.
        body_bytes: most bytes of all bodies that are being received.
    """

    def __init__(self, requests: int, body_bytes: int) -> None:
        self._requests = requests
        self._body_bytes = body_bytes
        self._most_of_team = max(1, requests // 2)
        self._of_team: Counter[str] = Counter()

    @contextlib.contextmanager
    def request(self) -> Iterator[Callable[[str], None]]:
        """Answer one request. What it gives is called with the team once that is known, and raises ApiError where the team
        has too many under way.

        Raises:
            ApiError: too many are being answered.
        """
        if self._requests < 1:
            raise _busy("answers as many requests as it can")
        self._requests -= 1
        metrics.HTTP_UNDER_WAY.inc()
        known: list[str] = []

        def of(team: str) -> None:
            if self._of_team[team] >= self._most_of_team:
                raise _busy("answers as many requests of one team as it can")
            self._of_team[team] += 1
            known.append(team)

        try:
            yield of
        finally:
            self._requests += 1
            metrics.HTTP_UNDER_WAY.dec()
            for team in known:
                self._of_team[team] -= 1
                if not self._of_team[team]:
                    del self._of_team[team]

    @contextlib.contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Receive a body. What it gives is called with the bytes of each part, and raises ApiError where others take up
        the room."""
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if self._body_bytes < size:
                raise _busy("receives as many bytes as it can hold")
            self._body_bytes -= size
            held += size

        try:
            yield take
        finally:
            self._body_bytes += held


def _busy(how: str) -> ApiError:
    return ApiError(503, f"the edge {how}; send the request again in a second", code="slow_down", retry_after_ms=1000)


async def read_body(request: Request, limit: int, room: Room) -> bytes:
    """Return the body of ``request``, which must be JSON by its Content-Type.

    Raises:
        ApiError: it is something else, or has more than ``limit`` bytes.
        ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise ApiError(415, f"the body must be JSON; send it with Content-Type: {_JSON}", code="unsupported_media_type")
    declared = _declared(request.scope)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    received = bytearray()
    with room.body() as take:
        async for part in request.stream():
            if len(received) + len(part) > limit:
                raise _too_large(limit)
            take(len(part))
            received += part
    request.scope["state"]["body_read"] = True
    return bytes(received)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body has more than {limit:,} bytes; send less", code="request_too_large")


class Boundary:
    """Around the routes: every request gets an id, every failure an answer in one shape, every answer its figures."""

    def __init__(self, routes: ASGIApp, room: Room) -> None:
        self._routes = routes
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the edge serves HTTP alone, not {scope['type']}")
        began = time.perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = new_id()
        scope["app"] = self  # so that Starlette raises what it answers by itself
        status: int | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_ours(message.get("headers", ()), state["request_id"])
            await send(message)

        try:
            try:
                with contextlib.ExitStack() as taken:
                    if scope["path"].startswith("/v1/"):
                        state["of_team"] = taken.enter_context(self._room.request())
                    await self._routes(scope, receive, answer)
            except _ANSWERED as problem:
                if isinstance(problem, Unavailable):
                    why = str(problem.__cause__ or problem)
                    log.warning("a request was turned away", request_id=state["request_id"], reason=why)
                await _refuse(scope, receive, answer, as_api_error(problem))
            except ClientDisconnect:
                status = 499  # as nginx counts a client that has gone
            except Exception as error:
                log.error("a request failed", request_id=state["request_id"], kind=type(error).__name__, exc_info=error)
                if status is None:
                    text = "the edge failed at this request, and says why in its log under this request's x-request-id"
                    await _refuse(scope, receive, answer, ApiError(500, text, code="internal_error"))
        finally:
            route = getattr(scope.get("route"), "path", "none")
            metrics.HTTP_REQUESTS.labels(route, str(status or 499)).inc()
            metrics.HTTP_SECONDS.labels(route).observe(time.perf_counter() - began)


def _with_ours(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    given = list(headers)
    if not any(name == b"cache-control" for name, _ in given):
        given.append((b"cache-control", b"no-store"))
    return [*given, (b"x-request-id", request_id.encode("ascii")), (b"x-content-type-options", b"nosniff")]


def as_api_error(problem: Exception) -> ApiError:
    """Return what is answered to what the parts of the edge raise."""
    match problem:
        case ApiError():
            return problem
        case HTTPException():
            return _of_starlette(problem)
        case Unauthorised():
            challenge = [("www-authenticate", 'Bearer realm="penstock"')]
            return ApiError(401, str(problem), code="invalid_api_key", headers=challenge)
        case Conflict():
            return ApiError(409, str(problem), code="idempotency_conflict", retry=False)
        case Gone():
            return ApiError(410, str(problem), code="result_gone")
        case Unavailable():
            return ApiError(503, str(problem), code="unavailable", retry_after_ms=problem.retry_after_ms)
        case Invalid():
            return ApiError(400, str(problem), code="invalid_value")
    raise TypeError(f"{type(problem).__name__} is answered by nobody")


def _of_starlette(error: HTTPException) -> ApiError:
    headers = list((error.headers or {}).items())
    if error.status_code == 404:
        return ApiError(404, "nothing is served at this address; see /docs", code="not_found", headers=headers)
    if error.status_code == 405:
        return ApiError(405, "the address has no such method; see /docs", code="method_not_allowed", headers=headers)
    return ApiError(error.status_code, str(error.detail), headers=headers)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Answer with an error; where the client still sends, take what comes for a while, so that it gets to read it."""
    body = error.body()
    headers = [("content-type", _JSON), ("content-length", str(len(body))), *error.headers()]
    closing = not scope["state"].get("body_read") and _goes_on_sending(scope)
    if closing:
        headers.append(("connection", "close"))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": closing})
    if closing:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    left = _LINGER_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _goes_on_sending(scope: Scope) -> bool:
    """Whether more is to come than is read and dropped without ado, or none may come that is announced."""
    names = {name for name, _ in scope["headers"]}
    declared = _declared(scope)
    return (
        b"transfer-encoding" in names or (declared or 0) > _DISCARDED_BYTES or (bool(declared) and b"expect" in names)
    )


def _declared(scope: Scope) -> int | None:
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), None)

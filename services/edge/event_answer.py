"""An answer that is sent as its events come, over the connection it was asked on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from penstock.contracts.records import LlmResult, ResultChunk
from penstock.telemetry import get_logger
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.edge.boundary import as_api_error
from services.edge.errors import ApiError
from services.edge.front import Front, still_under_way
from services.edge.protocol import Conflict, Gone, Ticket, Unavailable
from services.edge.sse import HEADERS, KEEP_ALIVE

__all__ = ["EventAnswer", "EventWriter"]

_STALLED_S = 60.0
"""A client that takes nothing for so long has gone, whatever its connection says."""
log = get_logger(__name__)
_RAW_HEADERS = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in HEADERS]


async def _nothing() -> None:
    return


class EventWriter(Protocol):
    """Makes events of what a request gives."""

    def refusal(self, result: LlmResult) -> ApiError | None:
        """Return the error of HTTP that ``result`` is while nothing was sent; None where it is told in events."""
        ...

    def piece(self, chunk: ResultChunk) -> bytes:
        """Return the events of a piece; none where the client has it."""
        ...

    def result(self, result: LlmResult) -> bytes:
        """Return the last events."""
        ...

    def broken(self, error: ApiError) -> bytes:
        """Return the last events where the result is not waited for any longer."""
        ...


class EventAnswer(Response):
    """Follows a request from its beginning. The status waits for the first event, for as long as a stream may be silent:
    what is refused at once is an error of HTTP.

    Args:
        front: what it stands on.
        ticket: of the request.
        writer: of the events.
        again: whether a send that follows joins this one.
        left: awaited where the client goes, or is sent away, before anything was sent.
    """

    def __init__(
        self,
        front: Front,
        ticket: Ticket,
        writer: EventWriter,
        *,
        again: bool,
        left: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        super().__init__()
        self._front = front
        self._ticket = ticket
        self._writer = writer
        self._again = again
        self._left = left
        self._opened = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events.

        Raises:
            ApiError: there is no answer, and nothing was sent.
            ClientDisconnect: the client has gone.
        """
        gone = asyncio.create_task(_disconnected(receive))
        try:
            async with self._front.desk.following(self._ticket) as events:
                await self._follow(events, gone, send)
        except (Conflict, Gone, Unavailable) as problem:
            if not self._opened:
                raise
            await self._write(send, self._writer.broken(as_api_error(problem)))
        except ClientDisconnect:
            # One that has read anything of it does not send it again.
            if not self._opened:
                await self._left()
            raise
        except Exception as error:
            if not self._opened:
                raise
            log.error("a stream failed", request_id=self._ticket.request_id, kind=type(error).__name__, exc_info=error)
            told = "the edge failed at this stream, and says why in its log; the result will stand at /v1/requests/"
            broken = ApiError(500, told + self._ticket.request_id, code="internal_error")
            await self._write(send, self._writer.broken(broken))
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(
        self, events: AsyncIterator[ResultChunk | LlmResult], gone: asyncio.Task[None], send: Send
    ) -> None:
        front, writer = self._front, self._writer
        loop = asyncio.get_running_loop()
        give_up = loop.time() + front.answer_timeout_s
        coming = asyncio.ensure_future(anext(events))
        try:
            while True:
                silence = min(front.keepalive_s, max(0.0, give_up - loop.time()))
                waiting: set[asyncio.Future[Any]] = {coming, gone, front.leaving}
                await asyncio.wait(waiting, timeout=silence, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise ClientDisconnect
                if coming.done():
                    event = coming.result()
                    if isinstance(event, LlmResult):
                        if not self._opened and (error := writer.refusal(event)) is not None:
                            raise error
                        await self._write(send, writer.result(event))
                        return
                    coming = asyncio.ensure_future(anext(events))
                    await self._write(send, writer.piece(event))
                elif front.leaving.done() or loop.time() >= give_up:
                    late = still_under_way(
                        503 if front.leaving.done() else 504, self._ticket.request_id, again=self._again
                    )
                    if not self._opened:
                        await self._left()
                        raise late
                    await self._write(send, writer.broken(late))
                    return
                else:
                    await self._write(send, KEEP_ALIVE)
        finally:
            # An iterator that is left while it is asked cannot be closed.
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await coming

    async def _write(self, send: Send, events: bytes) -> None:
        if not self._opened:
            self._opened = True
            await send({"type": "http.response.start", "status": 200, "headers": list(_RAW_HEADERS)})
        if not events:
            return
        try:
            async with asyncio.timeout(_STALLED_S):
                await send({"type": "http.response.body", "body": events, "more_body": True})
        except TimeoutError:
            raise ClientDisconnect from None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""HTTP/1.1 as the edge reads it: uvicorn's protocol on llhttp, bounded in size and time, without what is ambiguous.

Two servers that understand one message differently can be made to see different requests in it (request smuggling, RFC
9112, 11.2). llhttp refuses most of that: a Content-Length beside a Transfer-Encoding, or twice, bare line feeds, folded
lines, malformed chunks. Refused here as well: encodings other than ``chunked``, any of HTTP/1.0, a missing or second Host,
versions that are not 1.0 or 1.1, trailers, and upgrades, whose body llhttp would drop. uvicorn itself bounds neither the
header block nor the time in which a request comes: a client that sends a byte a minute would hold its connection for ever.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from penstock.telemetry import metrics
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from services.edge.errors import ApiError

__all__ = ["EdgeProtocol", "WireLimits"]

_MESSAGES = {
    400: "the request is not valid HTTP/1.1",
    408: "the request was not received in time; send it again at once",
    414: "the address of the request is too long",
    431: "the headers of the request are too many or too large",
    501: "only the transfer encoding `chunked` is served",
    503: "the edge has as many connections as it can serve; try again in a moment",
    505: "only HTTP/1.0 and HTTP/1.1 are served",
}


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds on what one connection may send.

    Attributes:
        header_bytes: of all headers of a request together.
        headers: their number.
        target_bytes: of the request's address: path and query.
        receive_s: in which a request must have come in whole, from its first byte; an idle new connection has as long.
        connections: open at once.
    """

    header_bytes: int = 65_536
    headers: int = 100
    target_bytes: int = 8_192
    receive_s: float = 30.0
    connections: int = 900


class _Refused(Exception):
    """Raised inside a callback of the parser, which then stops."""


class EdgeProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: WireLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._receiving = False
        self._head_complete = False
        self._status = 400
        self._unparsed = 0
        self._header_bytes = 0
        self._hosts = 0
        self._encoded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the deadline of the first request, or turn the connection away."""
        super().connection_made(transport)  # type: ignore[arg-type]  # it is a Transport, as uvicorn declares
        if len(self.connections) > self._limits.connections:
            self._status = 503
            self.send_400_response("")
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came. A header is only seen whole: what the parser gathers for one is bounded here."""
        if self._unparsed > self._limits.header_bytes + self._limits.target_bytes:
            self._status = 431
            self.send_400_response("")
            return
        self._unparsed += len(data)
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if idle and not self._receiving and self._deadline is None and not self.transport.is_closing():
            # Line breaks before a request, which the parser passes over: they must not keep a connection open for ever.
            self._arm()

    def on_message_begin(self) -> None:
        """Begin a request and its deadline."""
        self._receiving = True
        self._head_complete = False
        self._header_bytes = 0
        self._hosts = 0
        self._encoded = False
        self._disarm()
        self._arm()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        if len(self.url) + len(url) > self._limits.target_bytes:
            raise self._refused(414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one after the body (a trailer) could say what the head did not, and nothing here needs any."""
        if self._head_complete:
            raise self._refused(400)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self._limits.header_bytes or len(self.headers) >= self._limits.headers:
            raise self._refused(431)
        lower = name.lower()
        if lower == b"host":
            self._hosts += 1
        elif lower == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise self._refused(501)
            self._encoded = True
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Judge the header block as a whole, and begin to answer."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise self._refused(505)
        old = version == "1.0"
        if self._hosts > 1 or (not old and self._hosts == 0) or (old and self._encoded) or self.parser.should_upgrade():
            raise self._refused(400)
        self._head_complete = True
        self._unparsed = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's deadline."""
        self._receiving = False
        self._unparsed = 0
        self._disarm()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read, in OpenAI's shape, and close; ``msg`` is uvicorn's and is left out."""
        self._disarm()
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        # While another request is answered, what is written now would be taken for its answer.
        if not answering or (self.cycle.more_body and not self.cycle.response_started):
            error = ApiError(
                self._status,
                _MESSAGES[self._status],
                code="slow_down" if self._status == 503 else "invalid_http",
                retry_after_ms=1000 if self._status == 503 else None,
                retry=True if self._status == 408 else None,
            )
            body = error.body()
            metrics.HTTP_REQUESTS.labels("none", str(self._status)).inc()
            lines = [STATUS_LINE[self._status], b"content-type: application/json\r\nconnection: close\r\n"]
            lines += [f"{name}: {value}\r\n".encode("ascii") for name, value in error.headers()]
            lines.append(b"content-length: %d\r\n\r\n" % len(body))
            self.transport.write(b"".join([*lines, body]))
        self.transport.close()

    def _refused(self, status: int) -> _Refused:
        self._status = status
        return _Refused(status)

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self._limits.receive_s, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        if self.pipeline:
            # What was sent behind a request is not read on before that one is answered: no fault of the client.
            self._arm()
        elif self._receiving:
            self._status = 408
            self.send_400_response("")
        else:
            self.transport.close()

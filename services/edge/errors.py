"""Errors of the edge, as OpenAI's API writes them: the one shape of every answer that is none. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["ApiError", "ErrorAnswer", "ErrorDetail"]

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
_RETRIED_UNASKED = frozenset({408, 409, 429})
"""OpenAI's clients send these again by themselves, and every status from 500."""
_LONGEST_WAIT_MS = 60_000
"""A client that is told to wait for longer may come back at a time of its own choosing: it is told not to."""


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong.

    Attributes:
        message: the cause and the remedy, for people.
        type: class of the error, e.g. invalid_request_error.
        param: part of the request that is wrong, e.g. ``messages[0].role``.
        code: the cause, for programs.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Body of every answer with a status from 400."""

    error: ErrorDetail


class ApiError(Exception):
    """A request is answered with an error.

    Args:
        status: of HTTP.
        message: the cause and the remedy; never a credential.
        code: the cause, for programs.
        param: part of the request that is wrong.
        type: class of the error; None takes that of ``status``.
        retry_after_ms: when the same request may succeed; None where waiting does not help.
        retry: whether the client may send it again by itself; None: only where waiting helps.
        headers: others to answer with.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        retry_after_ms: int | None = None,
        retry: bool | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type or _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
        self.retry_after_ms = retry_after_ms
        self.retry = retry
        self._headers = tuple(headers)

    def answer(self) -> ErrorAnswer:
        """Return the body."""
        return ErrorAnswer(error=ErrorDetail(message=self.message, type=self.type, param=self.param, code=self.code))

    def body(self) -> bytes:
        """Return the body as JSON."""
        return msgspec.json.encode(self.answer())

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that go with it, beside the body's own.

        ``retry-after-ms`` is exact; ``retry-after``, which has no fractions of a second, is rounded up.
        ``x-should-retry`` decides first in OpenAI's clients.
        """
        headers = list(self._headers)
        wait = self.retry_after_ms
        if wait is not None:
            headers += [("retry-after-ms", str(wait)), ("retry-after", str(-(-wait // 1000)))]
        worth = self.retry if self.retry is not None else wait is not None and wait <= _LONGEST_WAIT_MS
        if not worth and (self.status in _RETRIED_UNASKED or self.status >= 500):
            headers.append(("x-should-retry", "false"))
        return headers

"""What the parts of the edge are to each other: who is asking, and where a request meets its result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from penstock.contracts.records import Document, Feedback, LlmRequest, LlmResult, ResultChunk

__all__ = [
    "Authenticator",
    "Caller",
    "Conflict",
    "Desk",
    "Gone",
    "Headers",
    "Standing",
    "Ticket",
    "Unauthorised",
    "Unavailable",
]

Headers = Sequence[tuple[str, bytes]]
"""Headers of a message in the log: the trace's."""


class Unauthorised(Exception):
    """The credential is missing, unknown, revoked or expired; the message says which without naming it."""


class Conflict(Exception):
    """The request_id or Idempotency-Key is another request's, with other content."""


class Gone(Exception):
    """The request has ended, and its result is kept nowhere any more."""


class Unavailable(Exception):
    """The log or Redis takes nothing now: the request was not taken up, and may be sent again.

    Attributes:
        retry_after_ms: when it is worth a try.
    """

    def __init__(self, message: str, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as its key says."""

    team: str
    key_id: str
    routes: tuple[str, ...] = ("*",)

    def allows(self, route: str) -> bool:
        """Return whether the key may ask for ``route``; the team's own limits stand beside it."""
        return "*" in self.routes or route in self.routes


class Authenticator(Protocol):
    """Knows callers by their keys."""

    def caller(self, authorization: str | None) -> Caller:
        """Return who sent a request with this Authorization header.

        Raises:
            Unauthorised: nobody did.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that the log has.

    Attributes:
        taken_at: when it was taken up first: the same for every send of it.
        again: it had been sent before; this send joins that one.
    """

    team: str
    request_id: str
    taken_at: datetime
    again: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a request now. ``result`` is None while it is under way."""

    ticket: Ticket
    result: LlmResult | None = None


class Desk(Protocol):
    """Takes requests up and hands results out: any replica the result of any request of the team."""

    async def submit(self, request: LlmRequest, headers: Headers = ()) -> Ticket:
        """Put ``request`` into the log, once for each request_id of a team; return when the log has it.

        Raises:
            Conflict: the request_id is another request's.
            Unavailable: nothing was put there.
        """
        ...

    async def leave(self, ticket: Ticket, fingerprint: str) -> None:
        """Note that whoever waited for ``ticket`` has gone without its answer; where it cannot be noted, it is not."""
        ...

    async def adopt(self, team: str, fingerprint: str) -> str | None:
        """Return the request_id of what was left under ``fingerprint`` lately, each once; None where nothing was.

        Raises:
            Unavailable: it cannot be looked up now.
        """
        ...

    async def conversation_of(self, team: str, request_id: str) -> str | None:
        """Return the conversation of a request that came through the edge lately; None where it had none, or is not known.

        Raises:
            Unavailable: it cannot be looked up now.
        """
        ...

    async def give_feedback(self, feedback: Feedback, headers: Headers = ()) -> None:
        """Put ``feedback`` into the log.

        Raises:
            Unavailable: nothing was put there.
        """
        ...

    async def add_document(self, document: Document, headers: Headers = ()) -> None:
        """Put ``document`` into the log.

        Raises:
            Unavailable: nothing was put there.
        """
        ...

    async def standing(self, team: str, request_id: str) -> Standing | None:
        """Return what is known of a request that came through the edge lately; None where nothing is.

        Raises:
            Conflict: it was turned away: another request came under its request_id another way.
            Gone: it has ended, and the log has its result no more.
            Unavailable: it cannot be looked up now.
        """
        ...

    async def result(self, ticket: Ticket, timeout_s: float) -> LlmResult | None:
        """Wait for the result; None where it has not come in time: it still will, and can be asked for later.

        Raises:
            Conflict, Gone: as of :meth:`standing`.
            Unavailable: it cannot be waited for now.
        """
        ...

    def following(self, ticket: Ticket) -> AbstractAsyncContextManager[AsyncIterator[ResultChunk | LlmResult]]:
        """Follow a request from its beginning: its pieces in their order, each once, and then its result, the last one.

        Pieces may be fewer than the result has, where the stream was broken off. What counts is the result.

        Raises:
            Conflict, Gone: while it is followed: as of :meth:`standing`.
            Unavailable: it cannot be followed now.
        """
        ...

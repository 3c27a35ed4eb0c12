"""How a request that is waited for is sent, and what becomes of one whose client goes away before its answer.

OpenAI's clients send a request again by themselves where the connection broke or time was up, under no key of their own, and
count these sends in a header. What such a client left is noted by its content; the send that follows joins it instead of
having the same answered, and paid for, once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from penstock.contracts.records import LlmRequest, LlmResult
from starlette.requests import ClientDisconnect, Request

from services.edge.front import Front, identity, still_under_way
from services.edge.identities import fingerprint
from services.edge.protocol import Caller, Ticket

__all__ = ["Sent", "awaited", "leave", "send"]

_RETRY_COUNT = "x-stainless-retry-count"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that the log has.

    Attributes:
        keyed: its identity is the client's own: sent again, it is given this same result.
        fingerprint: by what a send that follows finds it once this client has left; None where none would look.
    """

    ticket: Ticket
    keyed: bool
    fingerprint: str | None = None

    @property
    def joined(self) -> bool:
        """Whether a send that follows joins this one while it is under way."""
        return self.keyed or self.fingerprint is not None


async def send(front: Front, request: Request, caller: Caller, asked: LlmRequest, key: str | None) -> Sent:
    """Put ``asked`` into the log: under the identity ``key``, that of the send which this one repeats, or one of its own.

    Raises:
        Conflict: ``key`` is another request's.
        Unavailable: the log or Redis takes nothing.
    """
    mark = before = None
    count = request.headers.get(_RETRY_COUNT)
    if key is None and count is not None:
        mark = fingerprint(asked)
        if count.strip("0"):
            before = await front.desk.adopt(caller.team, mark)
    asked = msgspec.structs.replace(asked, request_id=identity(request, key or before))
    try:
        with front.traced(request, "edge request") as headers:
            return Sent(await front.desk.submit(asked, headers), key is not None, mark)
    except BaseException:
        if mark is not None and before is not None:
            # It did not join after all: the next send may.
            await front.desk.leave(Ticket(caller.team, before, asked.occurred_at), mark)
        raise


async def awaited(front: Front, request: Request, sent: Sent) -> LlmResult:
    """Return the result.

    Raises:
        ApiError: it has not come in time, or the process ends: it still will.
        ClientDisconnect: the client has gone.
        Conflict, Gone, Unavailable: as :meth:`services.edge.protocol.Desk.result` does.
    """
    try:
        result = await front.unless_gone(request, front.desk.result(sent.ticket, front.answer_timeout_s))
    except ClientDisconnect:
        await leave(front, sent)
        raise
    if result is None:
        await leave(front, sent)
        raise still_under_way(503 if front.leaving.done() else 504, sent.ticket.request_id, again=sent.joined)
    return result


async def leave(front: Front, sent: Sent) -> None:
    """Note that the client of ``sent`` has gone without its answer."""
    if sent.fingerprint is not None:
        await front.desk.leave(sent.ticket, sent.fingerprint)

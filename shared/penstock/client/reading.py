"""What every reader of public topics does with a message: decode it, and drop what was read before."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator

from penstock.bus import Message
from penstock.client.inbox import REMEMBERED, IdempotencyConflict, Told
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import LlmResult, Record, RequestConflict, ResultChunk
from penstock.telemetry import get_logger

__all__ = ["LATE_PIECES_S", "Unread", "pieces_then_result"]

log = get_logger(__name__)

LATE_PIECES_S = 2.0
"""How long the last pieces are waited for once the result is there: both leave guardrails at about the same time."""


class Unread:
    """Gives each event once."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, message: Message) -> Record | None:
        """Return the record; None where it was read before or cannot be read."""
        try:
            record = self._codec.decode(message.topic, message.value)
        except Undecodable as error:
            log.warning("skipped an event", topic=message.topic, offset=message.offset, reason=error.reason)
            return None
        if record.event_id in self._seen:
            return None
        self._seen[record.event_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return record


async def pieces_then_result(
    request_id: str, events: asyncio.Queue[Told], timeout_s: float, late_pieces_s: float
) -> AsyncGenerator[ResultChunk | LlmResult, None]:
    """Yield the pieces of a request in their order, each once, and then the result.

    Raises:
        IdempotencyConflict: the request was turned away.
        TimeoutError: neither a piece nor the result came within ``timeout_s``.
    """
    result: LlmResult | None = None
    expected, ended = 0, False
    while result is None or not ended:
        try:
            async with asyncio.timeout(timeout_s if result is None else late_pieces_s):
                event = await events.get()
        except TimeoutError:
            if result is None:
                raise TimeoutError(f"no result of request {request_id} within {timeout_s:.0f} s") from None
            if expected or result.status == "completed":
                log.warning("the last pieces did not come", request_id=request_id, pieces=expected)
            break
        if isinstance(event, RequestConflict):
            raise IdempotencyConflict(event)
        if isinstance(event, LlmResult):
            result = event
            # Where nothing was streamed and nothing was answered, nothing follows.
            ended = ended or (expected == 0 and result.status != "completed")
        elif event.sequence >= expected and not ended:
            # One partition keeps their order: what is left out does not come any more.
            complete = event.sequence == expected
            ended = event.finish_reason is not None or not complete
            if complete or event.finish_reason is not None:
                expected = event.sequence + 1
                yield event
    yield result

"""What became of requests, and who waits to hear of it. Pure but for the futures and queues of those who wait."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from penstock.contracts.records import LlmResult, RequestConflict, ResultChunk

__all__ = ["REMEMBERED", "IdempotencyConflict", "Inbox", "Key", "Told"]

REMEMBERED = 10_000
"""Requests that are remembered, and events: after a crash upstream the same event may stand in the log twice."""

_CONFLICT_S = 1.0
"""Within this a conflict is told of: intake decides in milliseconds."""

Key = tuple[str, str]
"""A request: its team and its request_id, which is another's in another team."""

Told = ResultChunk | LlmResult | RequestConflict


class IdempotencyConflict(Exception):
    """The request_id stands for a request of other content: this one was not taken up. Send it under another."""

    def __init__(self, conflict: RequestConflict) -> None:
        super().__init__(f"request {conflict.request_id} of {conflict.tenant_id}: {conflict.reason}")
        self.conflict = conflict
        self.request_id = conflict.request_id


@dataclass(slots=True, eq=False)
class _Stream:
    events: asyncio.Queue[Told]
    content: str | None = None
    """Of the request as it was sent; none before it is."""


@dataclass(slots=True)
class _Request:
    """One request_id of a team.

    Of several contents that were sent under it the first to arrive is the request, and the result is that one's; ``first``
    is the one taken for it until a conflict says otherwise.
    """

    first: str | None = None
    last: str | None = None
    result: LlmResult | None = None
    found: bool = False
    """The result was there before anything was sent from here: of the same request, unless a conflict follows."""
    sends: dict[str, str] = field(default_factory=dict)
    """Contents by the event_id that they were sent under."""
    conflicts: dict[str, RequestConflict] = field(default_factory=dict)
    """By the content that was turned away."""
    waiting: list[tuple[str | None, asyncio.Future[LlmResult]]] = field(default_factory=list)
    streams: list[_Stream] = field(default_factory=list)

    def result_of(self, content: str | None) -> LlmResult | None:
        return self.result if content in (None, self.first) or self.first is None else None


class Inbox:
    """Requests by team and request_id; of those that nobody waits for the latest 10,000 are remembered."""

    def __init__(self) -> None:
        self._requests: OrderedDict[Key, _Request] = OrderedDict()

    def submitted(self, key: Key, event_id: str, content: str) -> None:
        """Note that a request is being sent. Call it before: the answer may be quick.

        Args:
            key: whose it is.
            event_id: what it is sent as.
            content: what tells it from another request, as of :func:`~penstock.contracts.request_content.content_hash`.
        """
        request = self._request(key)
        request.last = request.sends[event_id] = content
        request.conflicts.pop(content, None)
        if request.result is not None and request.result.retry_after_ms is not None:
            # A refusal that waiting helps: the request is open again.
            request.first, request.result = content, None
        elif request.first is None:
            request.first, request.found = content, request.result is not None
        for stream in request.streams:
            if stream.content is None:
                stream.content = content
                if (known := request.result_of(content)) is not None:
                    stream.events.put_nowait(known)

    def take(self, record: Told) -> None:
        """Give ``record`` to those who wait for it."""
        key = (record.tenant_id, record.request_id)
        if isinstance(record, ResultChunk):
            self._pass_on(self._requests.get(key), record)
            return
        request = self._request(key)
        if isinstance(record, LlmResult):
            request.result = record
        elif (turned_away := request.sends.get(record.causation_id)) is not None:
            request.conflicts[turned_away] = record
            if turned_away == request.first != request.last:
                request.first = request.last
        for content, future in list(request.waiting):
            self._settle(request, content, future)
        self._pass_on(request, record)

    async def result(self, key: Key, timeout_s: float) -> LlmResult:
        """Return the result of what was submitted last under ``key``.

        Raises:
            IdempotencyConflict: it was turned away.
            TimeoutError: neither came within ``timeout_s``.
        """
        request = self._request(key)
        future: asyncio.Future[LlmResult] = asyncio.get_running_loop().create_future()
        waiter = (request.last, future)
        request.waiting.append(waiter)
        try:
            known = request.result
            if request.found and known is not None and request.last not in request.conflicts:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(_CONFLICT_S, timeout_s)):
                        return await asyncio.shield(future)
                return known
            self._settle(request, *waiter)
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise TimeoutError(f"no result of request {key[1]} within {timeout_s:.0f} s") from None
        finally:
            request.waiting.remove(waiter)

    @contextmanager
    def stream(self, key: Key) -> Iterator[asyncio.Queue[Told]]:
        """Gather what comes of the request that is submitted next under ``key``, its result first where that is known."""
        request = self._request(key)
        stream = _Stream(asyncio.Queue())
        request.streams.append(stream)
        try:
            yield stream.events
        finally:
            request.streams.remove(stream)

    def _settle(self, request: _Request, content: str | None, future: asyncio.Future[LlmResult]) -> None:
        if future.done():
            return
        conflict = request.conflicts.get(content) if content is not None else None
        result = request.result_of(content)
        if conflict is not None:
            future.set_exception(IdempotencyConflict(conflict))
        elif result is not None:
            future.set_result(result)

    def _pass_on(self, request: _Request | None, record: Told) -> None:
        if request is None or not request.streams:
            return
        whose = request.sends.get(record.causation_id) if isinstance(record, RequestConflict) else request.first
        for stream in request.streams:
            if stream.content is not None and stream.content == whose:
                stream.events.put_nowait(record)

    def _request(self, key: Key) -> _Request:
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = _Request()
            if len(self._requests) > REMEMBERED:
                self._forget_one()
        return found

    def _forget_one(self) -> None:
        """Forget the oldest that nobody waits for; one that somebody waits for becomes the youngest."""
        for _ in range(len(self._requests) - 1):  # the youngest is just being made
            key, request = next(iter(self._requests.items()))
            if not request.waiting and not request.streams:
                del self._requests[key]
                return
            self._requests.move_to_end(key)

"""The desk: requests go to the log once, and whoever waits for a result gets it, at whichever replica.

A request is noted in Redis before it is put into the log, so that the hop that reads results knows it (results_hop). A
waiter looks at Redis first, then at every notice, and once a second: a notice that is lost costs a second and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
from penstock.bus import Producer, Sent, Transient
from penstock.clock import Clock
from penstock.contracts.codec import Codec
from penstock.contracts.records import Document, Feedback, LlmRequest, LlmResult, Record, ResultChunk
from penstock.contracts.request_content import content_hash
from penstock.telemetry import get_logger

from services.edge.identities import conflict_reason, may_come_again, sent_event_id
from services.edge.protocol import Conflict, Gone, Headers, Standing, Ticket, Unavailable
from services.edge.redis_store import EdgeStore, Found, KeptResult, Taking
from services.edge.result_log import ResultLog
from services.edge.waiters import RequestKey, Waiter, Waiters

__all__ = ["LogDesk"]

log = get_logger(__name__)
T = TypeVar("T")

_POLL_S = 0.05
_SEARCHES = 5
"""Times that a result is looked for in a log that cannot be read."""
LATE_PIECES_S = 2.0
"""How long the last pieces are waited for once the result is there: both leave guardrails at about the same time."""
_OVERDUE = timedelta(minutes=10)
"""A request that has waited for so long may have a result that Redis has lost; the log is looked through as often."""
_MOST_SEARCHES, _REMEMBERED = 16, 4_096
"""Searches at once, and requests whose last one is remembered."""
_STALLED_S = 5.0
"""The log takes nothing where the oldest send has waited so long: what comes then is refused before it is noted."""


class LogDesk:
    """The desk on Kafka and Redis (see :class:`services.edge.protocol.Desk`). :meth:`run` must run beside it.

    Args:
        look_again_s: how often who waits looks at Redis without being told to, seconds.
    """

    def __init__(
        self,
        store: EdgeStore,
        results: ResultLog,
        producer: Producer,
        codec: Codec,
        clock: Clock,
        look_again_s: float = 1.0,
    ) -> None:
        self._store = store
        self._look_again_s = look_again_s
        self._results = results
        self._producer = producer
        self._codec = codec
        self._clock = clock
        self._waiters = Waiters()
        self._sending: dict[object, float] = {}
        self._sends: set[asyncio.Task[Sent]] = set()
        self._searches: set[asyncio.Task[None]] = set()
        self._looked: dict[RequestKey, datetime] = {}

    @property
    def waiting(self) -> int:
        """How many wait here for a result."""
        return len(self._waiters)

    # -- taking up -----------------------------------------------------------------------------------------------------

    async def submit(self, request: LlmRequest, headers: Headers = ()) -> Ticket:
        """Put ``request`` into the log under an event_id of its own; see :class:`services.edge.protocol.Desk`."""
        self._must_take()
        key = (request.tenant_id, request.request_id)
        taken = await _available(
            self._store.take(
                key,
                content_hash(request),
                self._clock.now(),
                streamed=request.stream,
                deadline=request.deadline_at,
                conversation=request.conversation_id,
            )
        )
        if taken.how is Taking.CONFLICT:
            raise Conflict(conflict_reason(request.request_id))
        ticket = Ticket(*key, taken.at, again=taken.how is Taking.AGAIN)
        if taken.known_since is not None:
            # It came another way before: its result may have come before anybody here looked for it. It was admitted, so
            # what told an earlier send of it to wait is over.
            self._background(self._search(key, taken.known_since, admitted=True), self._searches)
        if not taken.ended:
            # One that is under way stands in the log once more: whoever sent it first may have died before it did.
            event = msgspec.structs.replace(request, event_id=sent_event_id(key, taken.number))
            await self._send("llm-requests", request.conversation_id or request.request_id, event, headers)
        return ticket

    async def leave(self, ticket: Ticket, fingerprint: str) -> None:
        """Note that a client has gone; see :class:`services.edge.protocol.Desk`."""
        try:
            await self._store.leave((ticket.team, ticket.request_id), fingerprint)
        except Transient as error:
            log.warning("not noted that a client has gone", request_id=ticket.request_id, reason=str(error))

    async def adopt(self, team: str, fingerprint: str) -> str | None:
        """Return what was left; see :class:`services.edge.protocol.Desk`."""
        return await _available(self._store.adopt(team, fingerprint))

    async def conversation_of(self, team: str, request_id: str) -> str | None:
        """Return the conversation of a request; see :class:`services.edge.protocol.Desk`."""
        return await _available(self._store.conversation((team, request_id)))

    async def give_feedback(self, feedback: Feedback, headers: Headers = ()) -> None:
        """Put ``feedback`` into the log, under the key of the request that it is about."""
        self._must_take()
        await self._send("feedback", feedback.conversation_id or feedback.request_id, feedback, headers)

    async def add_document(self, document: Document, headers: Headers = ()) -> None:
        """Put ``document`` into the log."""
        self._must_take()
        await self._send("documents", document.document_id, document, headers)

    def _must_take(self) -> None:
        oldest = next(iter(self._sending.values()), None)
        if oldest is not None and self._clock.monotonic() - oldest > _STALLED_S:
            raise Unavailable("the log takes nothing now; send the request again later")

    async def _send(self, topic: str, key: str, record: Record, headers: Headers) -> None:
        # Whoever goes away meanwhile takes nothing back: what was begun is in the log or it is not.
        await asyncio.shield(self._background(self._sent(topic, key, record, headers), self._sends))

    async def _sent(self, topic: str, key: str, record: Record, headers: Headers) -> Sent:
        mark = object()
        self._sending[mark] = self._clock.monotonic()
        try:
            return await (await self._producer.send(topic, key, record, headers))
        except ValueError:  # Invalid, or more bytes than the log takes: that is the caller's to tell
            raise
        except (OSError, RuntimeError) as error:
            log.error("the log did not take an event", topic=topic, request_id=record.request_id, reason=str(error))
            raise Unavailable("the log did not take the request; send it again later") from error
        finally:
            del self._sending[mark]

    # -- handing out ---------------------------------------------------------------------------------------------------

    async def standing(self, team: str, request_id: str) -> Standing | None:
        """Return what is known of a request; see :class:`services.edge.protocol.Desk`."""
        key = (team, request_id)
        found = await _available(self._store.find(key))
        if found is None:
            return None
        return Standing(Ticket(team, request_id, found.taken), await self._result_of(key, found))

    async def result(self, ticket: Ticket, timeout_s: float) -> LlmResult | None:
        """Wait for a result; see :class:`services.edge.protocol.Desk`.

        Raises:
            Conflict: intake turned the request away: its request_id is that of another one that came another way.
            Unavailable: it cannot be looked for, all the time.
        """
        key = (ticket.team, ticket.request_id)
        give_up = self._clock.monotonic() + timeout_s
        with self._waiters.waiting(key) as waiter:
            while True:
                away: Unavailable | None = None
                waiter.look()
                try:
                    found = await _available(self._store.find(key))
                    if found is not None and (result := await self._result_of(key, found)) is not None:
                        return result
                except Unavailable as error:
                    away = error
                remaining = give_up - self._clock.monotonic()
                if remaining <= 0:
                    if away is not None:
                        raise away
                    return None
                await waiter.wait(min(remaining, self._look_again_s))

    @asynccontextmanager
    async def following(self, ticket: Ticket) -> AsyncGenerator[AsyncIterator[ResultChunk | LlmResult], None]:
        """Follow a request; see :class:`services.edge.protocol.Desk`.

        Raises:
            Conflict: while it is iterated: intake turned the request away.
            Unavailable: it cannot be looked for at the beginning.
        """
        key = (ticket.team, ticket.request_id)
        await _available(self._store.find(key))
        with self._waiters.waiting(key) as waiter:
            async with aclosing(self._events(key, waiter)) as events:
                yield events

    async def _events(self, key: RequestKey, waiter: Waiter) -> AsyncGenerator[ResultChunk | LlmResult, None]:
        read = expected = 0
        ended, give_up = False, None
        while True:
            waiter.look()
            try:
                found = await self._store.find(key, pieces_after=read)
                result = await self._result_of(key, found) if found is not None else None
            except (Transient, Unavailable) as error:
                log.warning("a request is looked for again", request_id=key[1], reason=str(error.__cause__ or error))
                await waiter.wait(self._look_again_s)
                continue
            pieces = found.pieces if found is not None else ()
            read += len(pieces)
            for value in pieces:
                piece = self._codec.readable("result-chunks", value)
                # After a crash some stand there twice. One partition keeps their order: one that is left out does not come.
                if ended or not isinstance(piece, ResultChunk) or piece.sequence < expected:
                    continue
                complete = piece.sequence == expected
                ended = piece.finish_reason is not None or not complete
                if complete or piece.finish_reason is not None:
                    expected = piece.sequence + 1
                    yield piece
            if result is not None:
                now = self._clock.monotonic()
                give_up = now + LATE_PIECES_S if give_up is None else give_up
                streamed = found is not None and found.streamed
                # Where nothing was streamed and nothing was answered, nothing follows.
                if ended or not streamed or (expected == 0 and result.status != "completed") or now >= give_up:
                    yield result
                    return
            await waiter.wait(self._look_again_s if give_up is None else max(0.01, give_up - self._clock.monotonic()))

    async def _result_of(self, key: RequestKey, found: Found) -> LlmResult | None:
        if found.conflict is not None:
            raise Conflict(found.conflict)
        if found.place is None:
            self._look_in_log(key, found.taken)
            return None
        if found.result is None:
            kept = await _available(self._results.at(key, found.place))
            if kept is None:
                raise Gone(
                    f"request {key[1]!r} has ended, and the log keeps its result no more; send it under another identity"
                )
            return kept
        result = self._codec.decode("llm-results", found.result)
        assert isinstance(result, LlmResult)
        return result

    # -- beside it ----------------------------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Wake those who wait here when there is news, until ``stopping`` is set and nobody waits any more."""
        listening = asyncio.create_task(self._listen())
        stopped = asyncio.create_task(self._deserted(stopping))
        try:
            await asyncio.wait({listening, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
        finally:
            left = [listening, stopped, *self._searches]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _deserted(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        while self._waiters:
            await self._clock.sleep(_POLL_S)

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(self._store.news()) as news:
                    async for keys in news:
                        if keys:
                            self._waiters.wake(keys)
                        else:
                            # It listens from here on: what was told before is looked for.
                            self._waiters.wake_all()
            except Transient as error:
                log.warning("news of results is not heard now; who waits looks once a second", reason=str(error))
            await self._clock.sleep(self._look_again_s)

    def _background(self, job: Coroutine[Any, Any, T], among: set[asyncio.Task[T]]) -> asyncio.Task[T]:
        def over(task: asyncio.Task[T]) -> None:
            among.discard(task)
            if not task.cancelled():
                task.exception()  # nobody may be left to take it, and the log has it

        task = asyncio.create_task(job)
        among.add(task)
        task.add_done_callback(over)
        return task

    def _look_in_log(self, key: RequestKey, taken: datetime) -> None:
        """Look in the log for the result of a request that has waited for long: a Redis that was replaced by its replica may
        have lost what the hop wrote last, and nobody writes it again."""
        now = self._clock.now()
        if now - taken < _OVERDUE or len(self._searches) >= _MOST_SEARCHES:
            return
        if (before := self._looked.get(key)) is not None and now - before < _OVERDUE:
            return
        self._looked.pop(key, None)
        self._looked[key] = now
        if len(self._looked) > _REMEMBERED:
            del self._looked[next(iter(self._looked))]
        self._background(self._search(key, taken), self._searches)

    async def _search(self, key: RequestKey, since: datetime, *, admitted: bool = False) -> None:
        """Keep the result of a request that came another way before, where it stands in the log already.

        Args:
            admitted: whether only the result that ends it counts.
        """
        for _ in range(_SEARCHES):
            try:
                found = await self._results.since(key, since)
                if found is not None and not (admitted and may_come_again(found[1])):
                    message, result = found
                    await self._store.keep([KeptResult(key, result.event_id, message, may_come_again(result))], ())
                return
            except Transient as error:
                log.warning("a result is looked for again in the log", request_id=key[1], reason=str(error))
                await self._clock.sleep(self._look_again_s)
        log.error("it is not known whether a result stands in the log", request_id=key[1])


async def _available(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except Transient as error:
        # Where the parts of the edge are is nothing that clients are told: the cause goes to the log.
        raise Unavailable("requests cannot be looked up now; send the request again later") from error

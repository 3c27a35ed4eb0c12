"""The asynchronous client.

async with Client(tenant="support") as client:
    request_id = await client.submit("How do I reset my password?")
    result = await client.result(request_id)
    async for result in client.results(group="my-app"):
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from penstock.bus import KafkaBus, Partition, Producer, Transport
from penstock.bus.offsets import OffsetTracker
from penstock.bus.types import RawConsumer, RawReader
from penstock.client.inbox import IdempotencyConflict
from penstock.client.publishing import Publisher, Question, connected
from penstock.client.reading import LATE_PIECES_S, Unread, pieces_then_result
from penstock.client.sending import RequestNotSent, Sender
from penstock.client.vectors import Embeddings, embeddings_of
from penstock.clock import Clock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import new_id
from penstock.contracts.records import LlmResult, Message, Purpose, RequestConflict, ResultChunk
from penstock.settings import KafkaSettings, load_settings

__all__ = ["Client", "IdempotencyConflict", "RequestNotSent"]

_OUTCOMES = ("llm-results", "request-conflicts")
_LEAVE_S = 1.0
"""How long readers of topics may take to end before they are told again."""


class Client(Publisher):
    """A producer and consumer of Penstock's public topics. Use as an async context manager.

    ``settings`` default to the environment (KAFKA_BOOTSTRAP, SCHEMA_REGISTRY_URL, ...). ``tenant`` is the team that
    requests belong to unless a call names another. What the log does not take for the moment is sent again for
    ``retry_timeout_s`` seconds, under the same identity. ``transport`` and ``codec`` replace Kafka, for tests.
    """

    def __init__(
        self,
        settings: KafkaSettings | None = None,
        *,
        tenant: str | None = None,
        transport: Transport | None = None,
        codec: Codec | None = None,
        clock: Clock | None = None,
        retry_timeout_s: float = 60.0,
    ) -> None:
        super().__init__(tenant, clock or SystemClock())
        self._settings = settings
        self._transport = transport
        self._codec = codec
        self._own_bus: KafkaBus | None = None
        self._retry_timeout_s = retry_timeout_s
        self._followers: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._reading: set[RawConsumer] = set()

    async def __aenter__(self) -> Client:
        """Connect.

        Raises:
            penstock.bus.KafkaUnavailable: no broker answers.
            penstock.contracts.registry.RegistryError: the registry does not answer, or a schema is not registered.
        """
        if self._transport is None or self._codec is None:
            settings = self._settings or load_settings(KafkaSettings)
            self._codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
            self._own_bus = KafkaBus(settings, client_id="penstock-client", start_timeout_s=30)
            await self._own_bus.start()
            self._transport = self._own_bus
        producer = Producer(self._transport.producer(), self._codec, "client", self._clock)
        self._sender = Sender(producer, self._retry_timeout_s, self._clock)
        await self._follow(_OUTCOMES)
        return self

    async def __aexit__(self, *exc: object) -> None:
        left = set(self._followers.values())
        while left:
            # More than once: a consumer that gets its answer at that very moment may not hear of it.
            for follower in left:
                follower.cancel()
            ended, left = await asyncio.wait(left, timeout=_LEAVE_S)
            await asyncio.gather(*ended, return_exceptions=True)
        # An iteration that was left by `break` is closed when Python gets to it, which may be after the loop has ended.
        while self._reading:
            await self._reading.pop().close()
        if self._own_bus is not None:
            await self._own_bus.close()

    async def result(self, request_id: str, timeout_s: float = 60.0, *, tenant: str | None = None) -> LlmResult:
        """Return the result of a request submitted since this client was opened.

        Raises:
            IdempotencyConflict: what was submitted last under this request_id was turned away.
            RequestNotSent: neither the call nor the client names a team.
            TimeoutError: it did not come within ``timeout_s``.
        """
        return await self._inbox.result((self._team(tenant), request_id), timeout_s)

    async def ask(
        self, question: Question, *, timeout_s: float = 60.0, tenant: str | None = None, **submit: Any
    ) -> LlmResult:
        """Submit and wait for the result: :meth:`submit` and :meth:`result` in one."""
        request_id = await self.submit(question, tenant=tenant, **submit)
        return await self.result(request_id, timeout_s, tenant=tenant)

    async def embed(
        self, texts: str | Sequence[str], *, timeout_s: float = 60.0, tenant: str | None = None, **submit: Any
    ) -> Embeddings:
        """Return the vectors of ``texts``, which are screened, priced and limited like any request; a text is one of them.

        Arguments beside these are those of :meth:`submit`, as ``request_id``, ``route``, ``policy``, ``tags``.

        Raises:
            NotEmbedded: they have none; its ``result`` says why.
            IdempotencyConflict: the request_id stands for another request.
            RequestNotSent: the log did not take it.
            TimeoutError: they did not come within ``timeout_s``.
        """
        messages = [Message(role="user", content=text) for text in ([texts] if isinstance(texts, str) else texts)]
        result = await self.ask(messages, timeout_s=timeout_s, tenant=tenant, purpose=Purpose.EMBED, **submit)
        return embeddings_of(result)

    async def stream(
        self,
        question: Question,
        *,
        timeout_s: float = 60.0,
        late_pieces_s: float = LATE_PIECES_S,
        tenant: str | None = None,
        request_id: str | None = None,
        **submit: Any,
    ) -> AsyncGenerator[ResultChunk | LlmResult, None]:
        """Submit, yield the released pieces of the answer as they come, and the result last.

        The last piece has a finish_reason; one that is neither stop nor length says that the pieces are not the whole
        answer: ``content_filter`` where a rule cut them, ``error`` where they could not go on, ``cancelled``
        where the request was. What counts is the result.

        Args:
            question: text of a single user message, or the conversation so far.
            timeout_s: longest wait for the next piece or the result.
            late_pieces_s: longest wait for the last pieces once the result is there. After a crash of guardrails pieces
                can be later than the result by a session timeout of its consumers.
            tenant: team of the request.
            request_id: the request's identity; a new one by default.
            submit: as of :meth:`submit`.

        Raises:
            IdempotencyConflict: the request_id stands for another request.
            RequestNotSent: the log did not take it.
            TimeoutError: neither a piece nor the result came within ``timeout_s``.
        """
        await self._follow(("result-chunks",))
        request_id = request_id or new_id()
        with self._inbox.stream((self._team(tenant), request_id)) as events:
            await self.submit(question, tenant=tenant, request_id=request_id, stream=True, **submit)
            async for event in pieces_then_result(request_id, events, timeout_s, late_pieces_s):
                yield event

    async def results(self, group: str, *, tenant: str | None = None) -> AsyncGenerator[LlmResult, None]:
        """Yield results as a member of the consumer group ``group``, each once, those of a conversation in order.

        A result counts as read when the next one is asked for; after a crash the reader gets the unread ones again.
        ``tenant`` keeps only one team's. Runs until the iteration is left.
        """
        transport, codec = connected(self._transport), connected(self._codec)
        tracker = OffsetTracker()

        async def revoked() -> None:
            await consumer.commit(tracker.committable())
            tracker.forget()

        consumer = await transport.subscribe(group, ["llm-results"], revoked, lambda: None)
        self._reading.add(consumer)
        unread = Unread(codec)
        try:
            while True:
                for message in await consumer.poll(0.5, 500):
                    place = Partition(message.topic, message.partition)
                    tracker.taken(place, message.offset)
                    result = unread.take(message)
                    if isinstance(result, LlmResult) and tenant in (None, result.tenant_id):
                        yield result
                    tracker.finished(place, message.offset)
                if offsets := tracker.committable():
                    await consumer.commit(offsets)
                    tracker.committed(offsets)
        finally:
            if consumer in self._reading:
                self._reading.discard(consumer)
                await consumer.commit(tracker.committable())
                await consumer.close()

    async def _follow(self, topics: tuple[str, ...]) -> None:
        """Read ``topics`` from where they end now: whatever is submitted through this client comes after."""
        if topics not in self._followers:
            reader = await connected(self._transport).read(topics, from_end=True)
            # Another call may have been first while this one waited.
            if topics in self._followers:
                await reader.close()
            else:
                self._followers[topics] = asyncio.create_task(self._read(reader, Unread(connected(self._codec))))

    async def _read(self, reader: RawReader, unread: Unread) -> None:
        try:
            while True:
                records = [unread.take(message) for message in await reader.poll(0.5)]
                # Conflicts first: they say whose a result is that came at the same time.
                for record in sorted(records, key=lambda record: not isinstance(record, RequestConflict)):
                    if isinstance(record, LlmResult | ResultChunk | RequestConflict):
                        self._inbox.take(record)
        finally:
            await reader.close()

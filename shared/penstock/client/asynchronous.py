"""The asynchronous client.

async with Client(tenant="support") as client:
    request_id = await client.submit("How do I reset my password?")
    result = await client.result(request_id)
    async for result in client.results(group="my-app"):
        ...
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from opentelemetry import propagate

from penstock.bus import KafkaBus, Partition, Producer, Transport
from penstock.bus.offsets import OffsetTracker
from penstock.bus.types import RawConsumer, RawReader
from penstock.client.reading import LATE_PIECES_S, REMEMBERED, Unread, pieces_then_result
from penstock.clock import Clock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec, Invalid
from penstock.contracts.envelope import Envelope, event_id, new_id
from penstock.contracts.records import (
    Cancellation,
    Document,
    Feedback,
    LlmRequest,
    LlmResult,
    Message,
    Record,
    ResultChunk,
    Sampling,
)
from penstock.settings import KafkaSettings, load_settings

__all__ = ["Client", "RequestNotSent"]

Question = str | Sequence[Message] | Sequence[Mapping[str, str]]


class RequestNotSent(Exception):
    """The log did not take the event; the message says why. Sending again with the same request_id is safe."""


_LEAVE_S = 1.0
"""How long readers of topics may take to end before they are told again."""


class Client:
    """A producer and consumer of Penstock's public topics. Use as an async context manager.

    ``settings`` default to the environment (KAFKA_BOOTSTRAP, SCHEMA_REGISTRY_URL, ...). ``tenant`` is the team that
    requests belong to unless a call names another. ``transport`` and ``codec`` replace Kafka, for tests.
    """

    def __init__(
        self,
        settings: KafkaSettings | None = None,
        *,
        tenant: str | None = None,
        transport: Transport | None = None,
        codec: Codec | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._tenant = tenant
        self._transport = transport
        self._codec = codec
        self._clock = clock or SystemClock()
        self._own_bus: KafkaBus | None = None
        self._producer: Producer | None = None
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._results: OrderedDict[str, LlmResult] = OrderedDict()
        self._waiters: dict[str, list[asyncio.Future[LlmResult]]] = {}
        self._streams: dict[str, asyncio.Queue[ResultChunk | LlmResult]] = {}
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
        self._producer = Producer(self._transport.producer(), self._codec, "client", self._clock)
        await self._follow("llm-results")
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

    # -- producing ---------------------------------------------------------------------------------------------------

    async def submit(
        self,
        question: Question = (),
        *,
        tenant: str | None = None,
        request_id: str | None = None,
        conversation_id: str | None = None,
        user_id: str | None = None,
        route: str = "default",
        prompt: str | None = None,
        prompt_label: str = "production",
        variables: Mapping[str, str] | None = None,
        sampling: Sampling | None = None,
        stream: bool = False,
        deadline_s: float | None = None,
        tags: Mapping[str, str] | None = None,
        key_id: str | None = None,
        purpose: str = "serve",
        policy: str | None = None,
        priority: str = "standard",
    ) -> str:
        """Publish a request and return its request_id once the log has it.

        ``question`` is a text, or the messages of a conversation, oldest first. The same ``request_id`` sent again with
        the same content is answered once. ``stream`` asks for pieces of the answer on result-chunks: see :meth:`stream`.
        ``user_id``, ``key_id`` (the identity of a credential, never the credential) and ``tags`` say to whom the cost is
        allocated, and which of the team's budgets it counts in. ``purpose`` "evaluation" marks a request that
        is no traffic: detectors, caches and experiments leave it out. ``policy`` names the guardrail policy in place of
        the route's; the team must list it in its ``allowed_policies``. ``priority`` says who goes first where requests
        wait for a model: interactive, standard or batch.

        Raises:
            RequestNotSent: the log did not take it, or it does not fit its schema.
        """
        request_id = request_id or new_id()
        envelope = self._envelope(new_id(), request_id, tenant)
        request = LlmRequest(
            **envelope,
            conversation_id=conversation_id,
            user_id=user_id,
            route=route,
            prompt_name=prompt,
            prompt_label=prompt_label,
            prompt_variables=dict(variables or {}),
            messages=_messages(question),
            sampling=sampling or Sampling(),
            stream=stream,
            deadline_at=None if deadline_s is None else envelope["occurred_at"] + timedelta(seconds=deadline_s),
            tags=dict(tags or {}),
            key_id=key_id,
            purpose=purpose,
            policy_name=policy,
            priority=priority,
        )
        await self._send("llm-requests", conversation_id or request_id, request)
        return request_id

    async def cancel(
        self, request_id: str, *, tenant: str | None = None, conversation_id: str | None = None, reason: str = ""
    ) -> None:
        """Say that nobody wants the answer to a request any more: its model is stopped, and its result is ``cancelled``.

        What was generated until then is paid for. A request that was answered meanwhile keeps its result, and one that
        is unknown has none. ``conversation_id`` must be the request's, where it had one.

        Raises:
            RequestNotSent: the log did not take it.
        """
        record = Cancellation(
            **self._envelope(new_id(), request_id, tenant),
            conversation_id=conversation_id,
            reason=reason,
        )
        await self._send("cancellations", conversation_id or request_id, record)

    async def feedback(
        self,
        request_id: str,
        *,
        tenant: str | None = None,
        conversation_id: str | None = None,
        user_id: str | None = None,
        source: str = "user",
        rating: float | None = None,
        labels: Mapping[str, str] | None = None,
        correction: str | None = None,
        comment: str | None = None,
        chosen: str | None = None,
    ) -> None:
        """Publish what a person thought of a result. ``conversation_id`` must be the request's, where it had one.

        Raises:
            RequestNotSent: the log did not take it.
        """
        record = Feedback(
            **self._envelope(new_id(), request_id, tenant),
            conversation_id=conversation_id,
            user_id=user_id,
            source=source,
            rating=rating,
            labels=dict(labels or {}),
            correction=correction,
            comment=comment,
            chosen=chosen,
        )
        await self._send("feedback", conversation_id or request_id, record)

    async def document(
        self,
        document_id: str,
        content: str,
        *,
        tenant: str | None = None,
        title: str = "",
        source: str = "",
        content_type: str = "text/plain",
        tags: Mapping[str, str] | None = None,
        deleted: bool = False,
    ) -> str:
        """Publish a document, replacing the one with the same id, or remove it; return the upload's request_id.

        Raises:
            RequestNotSent: the log did not take it.
        """
        upload = new_id()
        record = Document(
            **self._envelope(event_id(upload, "client.document", 0), upload, tenant),
            document_id=document_id,
            title=title,
            source=source,
            content_type=content_type,
            content=content,
            tags=dict(tags or {}),
            deleted=deleted,
        )
        await self._send("documents", document_id, record)
        return upload

    # -- consuming ---------------------------------------------------------------------------------------------------

    async def result(self, request_id: str, timeout_s: float = 60.0) -> LlmResult:
        """Return the result of a request submitted since this client was opened.

        Raises:
            TimeoutError: it did not come within ``timeout_s``.
        """
        if (known := self._results.get(request_id)) is not None:
            return known
        waiter: asyncio.Future[LlmResult] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(request_id, []).append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            raise TimeoutError(f"no result of request {request_id} within {timeout_s:.0f} s") from None
        finally:
            waiters = self._waiters.get(request_id, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(request_id, None)

    async def ask(self, question: Question, *, timeout_s: float = 60.0, **submit: Any) -> LlmResult:
        """Submit and wait for the result: :meth:`submit` and :meth:`result` in one."""
        return await self.result(await self.submit(question, **submit), timeout_s)

    async def stream(
        self,
        question: Question,
        *,
        timeout_s: float = 60.0,
        late_pieces_s: float = LATE_PIECES_S,
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
            request_id: the request's identity; a new one by default.
            submit: as of :meth:`submit`.

        Raises:
            RequestNotSent: the log did not take it.
            TimeoutError: neither a piece nor the result came within ``timeout_s``.
        """
        await self._follow("result-chunks")
        request_id = request_id or new_id()
        events = self._streams[request_id] = asyncio.Queue()
        try:
            await self.submit(question, request_id=request_id, stream=True, **submit)
            async for event in pieces_then_result(request_id, events, timeout_s, late_pieces_s):
                yield event
        finally:
            self._streams.pop(request_id, None)

    async def results(self, group: str, *, tenant: str | None = None) -> AsyncGenerator[LlmResult, None]:
        """Yield results as a member of the consumer group ``group``, each once, those of a conversation in order.

        A result counts as read when the next one is asked for; after a crash the reader gets the unread ones again.
        ``tenant`` keeps only one team's. Runs until the iteration is left.
        """
        transport, codec = self._connected()
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

    async def _follow(self, topic: str) -> None:
        """Read ``topic`` from where it ends now: whatever is submitted through this client comes after."""
        transport, codec = self._connected()
        if topic not in self._followers:
            reader = await transport.read([topic], from_end=True)
            # Another call may have been first while this one waited.
            if topic in self._followers:
                await reader.close()
            else:
                self._followers[topic] = asyncio.create_task(self._read(reader, Unread(codec)))

    async def _read(self, reader: RawReader, unread: Unread) -> None:
        try:
            while True:
                for message in await reader.poll(0.5):
                    record = unread.take(message)
                    if isinstance(record, LlmResult | ResultChunk) and record.request_id in self._streams:
                        self._streams[record.request_id].put_nowait(record)
                    if isinstance(record, LlmResult):
                        self._deliver(record)
        finally:
            await reader.close()

    def _deliver(self, result: LlmResult) -> None:
        self._results[result.request_id] = result
        while len(self._results) > REMEMBERED:
            self._results.popitem(last=False)
        for waiter in self._waiters.pop(result.request_id, []):
            if not waiter.done():
                waiter.set_result(result)

    async def _send(self, topic: str, key: str, record: Record) -> None:
        if self._producer is None:
            raise RuntimeError("the client is not connected; use it as `async with Client() as client:`")
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        headers = [(name, value.encode()) for name, value in carrier.items()]
        try:
            await (await self._producer.send(topic, key, record, headers))
        except (Invalid, ValueError, OSError, RuntimeError) as error:
            raise RequestNotSent(f"{topic}: {error}") from error

    def _envelope(self, identity: str, request_id: str, tenant: str | None) -> Envelope:
        """The first fields of the first event of a chain."""
        return {
            "event_id": identity,
            "request_id": request_id,
            "tenant_id": self._team(tenant),
            "occurred_at": self._clock.now(),
            "causation_id": "",
        }

    def _team(self, tenant: str | None) -> str:
        team = tenant or self._tenant
        if not team:
            raise RequestNotSent("no team: pass tenant= to the call or to Client()")
        return team

    def _connected(self) -> tuple[Transport, Codec]:
        if self._transport is None or self._codec is None:
            raise RuntimeError("the client is not connected; use it as `async with Client() as client:`")
        return self._transport, self._codec


def _messages(question: Question) -> list[Message]:
    if isinstance(question, str):
        return [Message(role="user", content=question)] if question else []
    return [m if isinstance(m, Message) else Message(**m) for m in question]

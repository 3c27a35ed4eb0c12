"""The loop that runs a hop: consume, decode, handle, emit, wait for the acknowledgements, commit."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from penstock.bus.dead_letters import DeadLetterLimit
from penstock.bus.offsets import OffsetTracker
from penstock.bus.producer import Producer
from penstock.bus.retrying import FIRST_RETRY_S, retrying
from penstock.bus.types import Event, Hop, Message, Outcome, Partition, RawConsumer, Reject, Sent, Transient, Transport
from penstock.bus.window import Taken, Window, Work
from penstock.clock import Clock
from penstock.contracts.codec import Codec, Undecodable
from penstock.settings import ServiceSettings
from penstock.telemetry import get_logger, metrics
from penstock.telemetry.traces import NoTracing, Tracing

__all__ = ["HopRunner", "run_hops"]

log = get_logger(__name__)

# Short enough that a restart reads little again. While there is work a commit each second is enough: each is one more
# request to the broker for every group.
_COMMIT_INTERVAL_S = 0.25
_BUSY_INTERVALS = 4
_POLL_S = 0.5
# Calls at least whose acknowledgements are outstanding while the next ones are made: hides the broker's round trip.
_PIPELINE = 8
_MOST_POLLED = 256
# While a batch is handled, what comes is fetched together rather than one by one: nothing of it could begin before.
_GATHER_S = 0.005
# A member that has no room asks all the same, well within the five minutes after which the group thinks it dead.
_FULL_POLL_S = 60.0

_Emitted = tuple[list[Message], list[Event[Any]], list[Awaitable[Sent]]]


class _Broken(Reject):
    """A rejection that the handler did not decide on: it raised, or gave what does not fit a schema."""


class HopRunner:
    """Runs one hop until it is stopped or fails."""

    def __init__(
        self,
        hop: Hop,
        transport: Transport,
        codec: Codec,
        clock: Clock,
        settings: ServiceSettings,
        tracing: Tracing | None = None,
        on_assigned: Callable[[str], None] = lambda group: None,
        *,
        full_poll_s: float = _FULL_POLL_S,
    ) -> None:
        self.hop = hop
        self._full_poll_s = full_poll_s
        self._on_assigned = on_assigned
        self._transport = transport
        self._codec = codec
        self._producer = Producer(transport.producer(), codec, hop.service, clock)
        self._clock = clock
        self._settings = settings
        self._tracing = tracing or NoTracing()
        self._tracker = OffsetTracker()
        self._limit = DeadLetterLimit(settings.dlq_max_ratio, settings.dlq_min_messages)
        self._acks: asyncio.Queue[_Emitted] = asyncio.Queue(max(_PIPELINE, hop.concurrency))
        self._window = Window(hop, clock)
        self._running: set[asyncio.Task[None]] = set()
        self._unprepared = False  # partitions were assigned, and the hop does not know it yet
        self._stopping = asyncio.Event()
        self._failure: asyncio.Future[None] | None = None
        self._calm = asyncio.Event()  # clear while partitions are moving
        self._calm.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._gauge = metrics.IN_FLIGHT.labels(hop.service, hop.group)
        self._consumed = {topic: metrics.CONSUMED.labels(hop.service, topic) for topic in hop.topics}
        self._batch_seconds = metrics.BATCH_SECONDS.labels(hop.service, hop.group)

    def stop(self) -> None:
        """Take no more messages; :meth:`run` returns when those in flight are finished and committed."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until :meth:`stop`.

        Raises:
            Transient: something outside stayed away longer than the retries last.
            TooManyDeadLetters: most messages fail.
        """
        self._failure = asyncio.get_running_loop().create_future()
        hop = self.hop
        consumer = await self._transport.subscribe(hop.group, hop.topics, self._revoked, self._assigned, hop.gather_ms)
        self._consumer = consumer
        tasks = [
            asyncio.create_task(self._guard(job))
            for job in (self._consume(consumer), self._acknowledge(), self._commit_often(consumer))
        ]
        stopping: asyncio.Future[Any] = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, self._failure], return_when=asyncio.FIRST_COMPLETED)
            if not self._failure.done():
                self._leave_waiting()
                await self._drain(self._settings.stop_timeout_s)
            if self._failure.done():
                self._failure.result()
        finally:
            for task in [*tasks, stopping, *self._running]:
                task.cancel()
            await asyncio.gather(*tasks, stopping, *self._running, return_exceptions=True)
            try:
                await self._commit(consumer)
            finally:
                await consumer.close()
            if self._failure.done():
                self._failure.exception()
            else:
                self._failure.cancel()

    async def _guard(self, job: Any) -> None:
        try:
            await job
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    # -- consuming ---------------------------------------------------------------------------------------------------

    async def _consume(self, consumer: RawConsumer) -> None:
        while not self._stopping.is_set():
            await self._calm.wait()
            full = self._window.room == 0
            if full and await self._window.wait_for_room(self._full_poll_s):
                continue
            if full:
                # Only now: what the client has fetched ahead is thrown away by asking while paused.
                consumer.pause()
            most = max(1, min(self._window.room, _MOST_POLLED))
            messages = await consumer.poll(0.0 if full else _POLL_S, most)
            if full:
                consumer.resume()
            if self._unprepared and self._calm.is_set():
                await self._prepare(consumer, messages)
            if not messages or self._unprepared or not self._calm.is_set() or self._stopping.is_set():
                # Messages that arrive while partitions move are read again from the committed offset.
                continue
            self._take(messages)
            self._start()
            if self.hop.concurrency == 1 and self._running:
                await asyncio.wait(self._running, timeout=_GATHER_S)

    async def _prepare(self, consumer: RawConsumer, polled: Sequence[Message]) -> None:
        """Tell the hop of the partitions it has got, of which ``polled`` has been read already."""
        self._unprepared = False
        if self.hop.on_assigned is None:
            return
        give_up = self._clock.monotonic() + self._settings.retry_timeout_s
        while True:
            try:
                backlog = dict(await consumer.backlog())
                for message in reversed(polled):
                    place = Partition(message.topic, message.partition)
                    if (ahead := backlog.get(place)) is not None:
                        backlog[place] = ahead._replace(next=message.offset, since_ms=message.timestamp_ms)
                await self.hop.on_assigned(backlog)
                return
            except Transient as error:
                if self._unprepared or not self._calm.is_set():
                    # They have moved meanwhile: whoever has them is told.
                    self._unprepared = True
                    return
                if self._clock.monotonic() >= give_up:
                    raise
                log.warning("partitions are taken up again", group=self.hop.group, reason=str(error))
                await self._clock.sleep(random.uniform(0, FIRST_RETRY_S))

    def _take(self, messages: Sequence[Message]) -> None:
        """Put ``messages`` into the window; those that the hop has no use for are finished at once."""
        for message in messages:
            self._tracker.taken(Partition(message.topic, message.partition), message.offset)
            decoded = self._decoded(message)
            if decoded is None:
                self._finished(message)
            else:
                self._window.put(message, decoded)
        self._look()

    def _decoded(self, message: Message) -> Event[Any] | Undecodable | None:
        if self.hop.wanted is not None and not self.hop.wanted():
            return None
        try:
            event = Event(message, self._codec.decode(message.topic, message.value))
        except Undecodable as error:
            return error
        if self.hop.concerns is None or self.hop.concerns(event):
            return event
        self._limit.saw(dead=False)
        return None

    def _start(self) -> None:
        """Give the calls that are free to what waits for one."""
        while (
            len(self._running) < self.hop.concurrency
            and self._calm.is_set()
            and not self._stopping.is_set()
            and self._failure is not None
            and not self._failure.done()
        ):
            work = self._window.next()
            if work is None:
                return
            task = asyncio.create_task(self._call(work))
            self._running.add(task)
            task.add_done_callback(functools.partial(self._ended, work))

    async def _call(self, work: Work) -> None:
        await self._guard(self._batch(work.taken))

    def _ended(self, work: Work, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._window.done(work)
        if not task.cancelled():
            self._start()

    def _leave_waiting(self) -> None:
        """What waits for a call is left to whoever reads it again, and so are the calls that may be interrupted."""
        self._tracker.left(self._window.clear())
        if self.hop.interruptible:
            self._tracker.left(sum(task.cancel() for task in self._running))
        self._look()

    async def _batch(self, taken: Sequence[Taken]) -> None:
        started = self._clock.monotonic()
        acks: list[Awaitable[Sent]] = []
        events: list[Event[Any]] = []
        for message, decoded in taken:
            if isinstance(decoded, Event):
                events.append(decoded)
            else:
                acks.append(await self._bury(message, decoded.code, decoded.reason))
        with ExitStack() as spans:
            # The span of a message lasts as long as the work on it: what that calls is within.
            events = [
                replace(event, span=spans.enter_context(self._tracing.hop(self.hop.group, event.message.headers)))
                for event in events
            ]
            for event, outcome in zip(events, await self._handle(events), strict=True) if events else ():
                await self._emit(event, outcome, acks)
        self._batch_seconds.observe(self._clock.monotonic() - started)
        await self._acks.put(([message for message, _ in taken], events, acks))

    async def _handle(self, events: Sequence[Event[Any]]) -> Sequence[Outcome]:
        try:
            outcomes = await retrying(self.hop, events, self._clock, self._settings.retry_timeout_s)
        except Transient:
            raise
        except Exception as error:
            if len(events) == 1:
                log.error("step failed", group=self.hop.group, request_id=events[0].record.request_id, exc_info=error)
                return [_Broken("step_failed", f"{type(error).__name__} in {self.hop.group}: {error}")]
            # One event must not take its batch with it: each runs alone, and the one that raises is put aside.
            return [outcome for event in events for outcome in await self._handle([event])]
        if len(outcomes) != len(events):
            raise RuntimeError(f"{self.hop.group}: {len(outcomes)} outcomes for {len(events)} events")
        return outcomes

    async def _emit(self, event: Event[Any], outcome: Outcome, acks: list[Awaitable[Sent]]) -> None:
        if isinstance(outcome, Reject):
            await self._give_up(event, outcome, acks)
            return
        headers = event.headers
        try:
            acks += [await self._producer.send(emit.topic, emit.key, emit.record, headers) for emit in outcome]
        except ValueError as error:  # Invalid, or more bytes than the log takes: neither changes by trying again.
            await self._give_up(event, _Broken("invalid_output", str(error)), acks)
            return
        self._limit.saw(dead=False)

    async def _give_up(self, event: Event[Any], reject: Reject, acks: list[Awaitable[Sent]]) -> None:
        acks.append(await self._bury(event.message, reject.code, reject.reason))
        if isinstance(reject, _Broken) and self.hop.failed is not None:
            failed, headers = self.hop.failed(event, RuntimeError(reject.reason)), event.headers
            acks += [await self._producer.send(emit.topic, emit.key, emit.record, headers) for emit in failed]

    async def _bury(self, message: Message, code: str, reason: str) -> Awaitable[Sent]:
        log.error(
            "dead letter",
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            code=code,
            reason=reason,
        )
        ack = await self._producer.dead_letter(self.hop.group, message, code, reason)
        self._limit.saw(dead=True)
        return ack

    # -- acknowledging and committing --------------------------------------------------------------------------------

    async def _acknowledge(self) -> None:
        while True:
            messages, events, acks = await self._acks.get()
            for ack in acks:
                await ack
            if self.hop.settled is not None:
                for event in events:
                    self.hop.settled(event)
            for message in messages:
                self._finished(message)
            self._look()

    def _finished(self, message: Message) -> None:
        self._tracker.finished(Partition(message.topic, message.partition), message.offset)
        self._consumed[message.topic].inc()

    def _look(self) -> None:
        """Tell of what is in flight."""
        self._gauge.set(self._tracker.in_flight)
        if self._tracker.in_flight:
            self._idle.clear()
        else:
            self._idle.set()

    async def _commit_often(self, consumer: RawConsumer) -> None:
        passed = 0
        while True:
            await asyncio.sleep(_COMMIT_INTERVAL_S)
            passed += 1
            if self._idle.is_set() or passed >= _BUSY_INTERVALS:
                await self._commit(consumer)
                passed = 0

    async def _commit(self, consumer: RawConsumer) -> None:
        offsets = self._tracker.committable()
        if offsets:
            await consumer.commit(offsets)
            self._tracker.committed(offsets)

    async def _drain(self, timeout_s: float) -> None:
        """Wait until nothing is in flight. What is not finished by the deadline is read again by the next owner."""
        assert self._failure is not None
        idle: asyncio.Future[Any] = asyncio.create_task(self._idle.wait())
        done, _ = await asyncio.wait([idle, self._failure], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        if not done:
            log.warning("left unfinished", group=self.hop.group, messages=self._tracker.in_flight)

    async def _revoked(self) -> None:
        self._calm.clear()
        self._leave_waiting()
        # Well below the session timeout, or the group would give up on this member while it finishes.
        await self._drain(min(self._settings.stop_timeout_s, self._settings.session_timeout_ms / 2000))
        await self._commit(self._consumer)
        self._tracker.forget()
        self._idle.set()

    def _assigned(self) -> None:
        self._unprepared = True
        self._calm.set()
        self._on_assigned(self.hop.group)


async def run_hops(
    hops: Sequence[Hop],
    transport: Transport,
    codec: Codec,
    clock: Clock,
    settings: ServiceSettings,
    stop: asyncio.Event,
    tracing: Tracing | None = None,
    on_assigned: Callable[[str], None] = lambda group: None,
) -> None:
    """Run ``hops`` side by side until ``stop`` is set; the first that fails stops the others and is raised.

    ``on_assigned`` is called with a hop's group whenever the hop has got its partitions.
    """
    runners = [HopRunner(hop, transport, codec, clock, settings, tracing, on_assigned) for hop in hops]
    tasks = [asyncio.create_task(runner.run(), name=runner.hop.group) for runner in runners]
    stopper = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({stopper, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for runner in runners:
            runner.stop()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        stopper.cancel()
    for result in results:
        if isinstance(result, BaseException):
            raise result

"""Follows every topic of the flow while the demo runs, so that the report rests on what stands in the log."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Self, TypeVar

from penstock.bus import Event, Partition, Transport
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import DeadLetter, Record

__all__ = ["FLOW_TOPICS", "Observer"]

R = TypeVar("R", bound=Record)

FLOW_TOPICS = (
    "llm-requests", "requests-admitted", "requests-screened", "requests-grounded", "completions", "refusals",
    "llm-results",
)  # fmt: skip
"""Where a request passes, in order."""

_BESIDE = (
    "documents", "documents-screened", "documents-indexed", "verdicts", "costs", "team-spend", "evaluations", "feedback",
    "signals", "config-models", "drift-events", "alerts", "alert-deliveries", "dlq-intake", "dlq-guardrails",
    "dlq-retrieval", "dlq-inference", "dlq-evaluation", "dlq-drift", "dlq-alerting",
)  # fmt: skip

_POLL_S = 0.25


class Observer:
    """What the topics held since the observer was opened. Use as an async context manager.

    Records are kept whole: meant for hundreds of requests, not for production traffic.
    """

    def __init__(self, transport: Transport, codec: Codec) -> None:
        self._transport = transport
        self._codec = codec
        self._events: defaultdict[str, list[Event[Record]]] = defaultdict(list)
        self._requests: dict[tuple[Partition, int], str] = {}
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start to follow, from the end of every topic."""
        reader = await self._transport.read([*FLOW_TOPICS, *_BESIDE], from_end=True)

        async def follow() -> None:
            try:
                while True:
                    for message in await reader.poll(_POLL_S):
                        try:
                            record = self._codec.decode(message.topic, message.value)
                        except Undecodable:
                            continue  # the services put it among their dead letters, which are read here as well
                        self._events[message.topic].append(Event(message, record))
                        place = Partition(message.topic, message.partition), message.offset
                        self._requests[place] = record.request_id
                        self._grown.set()
            finally:
                await reader.close()

        self._task = asyncio.create_task(follow(), name="observe")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def records(self, topic: str, record_class: type[R]) -> list[R]:
        """Return what ``topic`` held, in order of arrival, repeats of the same event dropped."""
        found: dict[str, R] = {}
        for event in self._events[topic]:
            if isinstance(event.record, record_class):
                found.setdefault(event.record.event_id, event.record)
        return list(found.values())

    async def until(self, holds: Callable[[], bool], timeout_s: float, most_s: float | None = None) -> bool:
        """Wait until ``holds()``, asked after each arrival; return whether it came true.

        Args:
            holds: what is waited for.
            timeout_s: longest wait; with ``most_s`` the longest one without any arrival, as on a machine that is busy.
            most_s: longest wait in all.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + (timeout_s if most_s is None else most_s)
        try:
            async with asyncio.timeout(timeout_s) as patience:
                while not holds():
                    self._check()
                    self._grown.clear()
                    waiter = asyncio.create_task(self._grown.wait())
                    await asyncio.wait({waiter, *self._following()}, return_when=asyncio.FIRST_COMPLETED)
                    waiter.cancel()
                    patience.reschedule(min(end, clock() + timeout_s))
        except TimeoutError:
            return holds()
        return True

    def last_seen(self, request_id: str) -> str:
        """Say where in the flow a request was seen last, and what became of it there."""
        for letter in self.records_of(DeadLetter, self._dead_letter_topics()):
            if self._origin(letter) == request_id:
                return f"a dead letter of {letter.service} (from {letter.origin_topic}): {letter.code}: {letter.reason}"
        seen = [
            topic
            for topic in FLOW_TOPICS
            if any(event.record.request_id == request_id for event in self._events[topic])
        ]
        return f"seen last on {seen[-1]}" if seen else "seen on no topic: it never reached llm-requests"

    def records_of(self, record_class: type[R], topics: Iterable[str]) -> list[R]:
        """Return :meth:`records` of several topics, one after another."""
        return [record for topic in topics for record in self.records(topic, record_class)]

    def dead_letters(self, request_ids: Collection[str]) -> list[DeadLetter]:
        """Return what the services put aside of the events of ``request_ids``."""
        return [
            letter
            for letter in self.records_of(DeadLetter, self._dead_letter_topics())
            if self._origin(letter) in request_ids
        ]

    def _origin(self, letter: DeadLetter) -> str | None:
        return self._requests.get((Partition(letter.origin_topic, letter.origin_partition), letter.origin_offset))

    def _dead_letter_topics(self) -> list[str]:
        return [topic for topic in _BESIDE if topic.startswith("dlq-")]

    def _following(self) -> set[asyncio.Task[None]]:
        return {self._task} if self._task is not None else set()

    def _check(self) -> None:
        if self._task is not None and self._task.done():
            self._task.result()

"""Asks the cases of a run through the stream, and gathers what becomes of them from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from types import TracebackType

from penstock.bus.types import Message, RawReader, Transport
from penstock.client import Client
from penstock.clock import Clock, SystemClock
from penstock.contracts.codec import Codec
from penstock.contracts.records import Completion, Cost, LlmResult, Purpose
from penstock.money import exact

from services.evaluation.golden.answers import Answer, AnswerFile, answer_of
from services.evaluation.golden.variants import Ask, Request

__all__ = ["Gathered", "NotAnswered", "Patience", "replay"]

TOPICS = ("llm-results", "completions", "costs")
_ATTEMPTS = 20
_CLOCKS = timedelta(minutes=1)
_ZERO = Decimal(0)


class NotAnswered(Exception):
    """Requests of a run have no result; the message says how many and what to do. What was answered is kept."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run waits.

    Attributes:
        deadline_s: a request that has no answer by then ends as expired.
        grace_s: longest wait for a result after that.
        cost_s: longest wait for the costs of an answer.
        rate_s: least pause before a request that a limit of the team refused for now is sent again.
    """

    deadline_s: float = 120.0
    grace_s: float = 30.0
    cost_s: float = 15.0
    rate_s: float = 5.0


@dataclass(slots=True)
class Gathered:
    """What the log says of one request so far."""

    result: LlmResult | None = None
    completions: dict[str, Completion] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def priced(self) -> bool:
        """Whether every cost of the request is there: one a call, and one for each embedding of its question."""
        if self.result is None:
            return False
        calls = self.result.calls
        if calls is None:
            calls = int(self.result.status == "completed")
        embedded = sum(completion.embedding_tokens > 0 for completion in self.completions.values())
        return len(self.completions) >= calls and len(self.costs) >= len(self.completions) + embedded

    @property
    def cost(self) -> Decimal | None:
        """All costs together, USD; None unless every one is there and has a price."""
        amounts = [cost.amount for cost in self.costs.values()]
        if not self.priced or any(amount is None for amount in amounts):
            return None
        return exact(sum((amount for amount in amounts if amount is not None), _ZERO))

    @property
    def answered(self) -> Completion | None:
        """The call whose answer was released: the last that gave one."""
        given = [
            one for one in self.completions.values() if one.kind not in ("abandoned", "shadow") and one.error is None
        ]
        return max(given, key=lambda one: (one.attempt, one.occurred_at), default=None)


class _Gathering(AbstractAsyncContextManager["_Gathering"]):
    """Reads results, completions and costs of the requests that are expected."""

    def __init__(self, reader: RawReader, codec: Codec) -> None:
        self._reader = reader
        self._codec = codec
        self._expected: dict[str, Gathered] = {}
        self._task: asyncio.Task[None] | None = None

    def expect(self, request_id: str) -> Gathered:
        return self._expected.setdefault(request_id, Gathered())

    async def catch_up(self) -> None:
        """Read what stands in the log."""
        while not await self._reader.at_end():
            self._take(await self._reader.poll(0.5))

    async def __aenter__(self) -> _Gathering:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, gathered: Gathered, done: Callable[[Gathered], bool], timeout_s: float) -> bool:
        """Wait until ``done``; False where it is not within ``timeout_s``.

        Raises:
            Exception: what ended the reading.
        """
        assert self._task is not None
        try:
            async with asyncio.timeout(timeout_s):
                while not done(gathered):
                    gathered.changed.clear()
                    waiting = asyncio.create_task(gathered.changed.wait())
                    try:
                        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        waiting.cancel()
                    if self._task.done():
                        self._task.result()
        except TimeoutError:
            return False
        return True

    async def _follow(self) -> None:
        while True:
            self._take(await self._reader.poll(0.25))

    def _take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            # No request of a run has a conversation: its results and completions stand under its own id.
            if message.topic != "costs" and (message.key or b"").decode(errors="replace") not in self._expected:
                continue
            record = self._codec.readable(message.topic, message.value)
            gathered = self._expected.get(record.request_id) if record is not None else None
            if gathered is None:
                continue
            if isinstance(record, LlmResult):
                gathered.result = record
            elif isinstance(record, Completion):
                gathered.completions[record.event_id] = record
            elif isinstance(record, Cost):
                gathered.costs[record.event_id] = record
            gathered.changed.set()


async def replay(
    transport: Transport,
    codec: Codec,
    client: Client,
    kept: AnswerFile,
    asks: Sequence[Ask],
    requests: Mapping[Ask, tuple[Request, str]],
    *,
    resumed: bool,
    concurrency: int = 4,
    patience: Patience = Patience(),
    clock: Clock | None = None,
    on_answer: Callable[[Answer], None] = lambda _: None,
) -> None:
    """Ask what has no answer in ``kept`` yet, a few at a time in the order given, and keep each answer as it comes.

    Requests carry identities that follow from the run: one that a crashed run had sent is found on the log, or answered
    once where it is sent again. A request that ends as blocked, failed or expired is an answer with that status.

    Args:
        transport: the log, to read results, completions and costs from.
        client: sends the requests.
        asks: every request of the run.
        requests: what is sent for each of them, and the version of its case.
        resumed: whether an earlier process may have sent some of them: then the log since the run's start is read first.
        concurrency: requests under way at once.
        on_answer: is told of each answer that is kept.

    Raises:
        NotAnswered: a request has no result in time; those that have are kept.
        penstock.client.RequestNotSent: the log did not take a request.
        penstock.bus.KafkaUnavailable: Kafka is away, or a topic does not exist.
    """
    missing = kept.missing(asks)
    if not missing:
        return
    clock = clock or SystemClock()
    since_ms = int((kept.run.started_at - _CLOCKS).timestamp() * 1000)
    reader = await transport.read(TOPICS, since_ms=since_ms) if resumed else await transport.read(TOPICS, from_end=True)
    gathering = _Gathering(reader, codec)
    try:
        if resumed:
            for ask in missing:
                for attempt in range(_ATTEMPTS):
                    gathering.expect(ask.request_id(kept.run.run, attempt))
            await gathering.catch_up()
        async with gathering:
            running = _Replay(gathering, client, kept, requests, patience, clock, on_answer)
            await running.all(missing, concurrency)
    finally:
        await reader.close()


@dataclass(slots=True)
class _Replay:
    gathering: _Gathering
    client: Client
    kept: AnswerFile
    requests: Mapping[Ask, tuple[Request, str]]
    patience: Patience
    clock: Clock
    on_answer: Callable[[Answer], None]
    unanswered: list[str] = field(default_factory=list)

    async def all(self, asks: Sequence[Ask], concurrency: int) -> None:
        waiting = iter(asks)

        async def work(group: asyncio.TaskGroup) -> None:
            # One iterator for all workers: what is under way at once stays in the order of the run.
            for ask in waiting:
                if self.unanswered:
                    return
                gathered = await self._result(ask)
                if gathered is not None:
                    # The next request need not wait for the costs of this one.
                    group.create_task(self._keep(ask, gathered))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work(group))
        except* Exception as failures:
            raise _first(failures) from None
        if self.unanswered:
            left = len(self.kept.missing(asks))
            raise NotAnswered(
                f"{left} of {len(asks)} requests have no result, e.g. {self.unanswered[0]} within "
                f"{self.patience.deadline_s + self.patience.grace_s:.0f} s: do all services run (`penstock run`)? What was "
                f"answered is kept: go on with --resume {self.kept.folder}"
            )

    async def _result(self, ask: Ask) -> Gathered | None:
        request, _ = self.requests[ask]
        for attempt in range(_ATTEMPTS):
            request_id = ask.request_id(self.kept.run.run, attempt)
            gathered = self.gathering.expect(request_id)
            if gathered.result is None:
                await self._submit(request_id, request, ask)
                wait_s = self.patience.deadline_s + self.patience.grace_s
                if not await self.gathering.until(gathered, lambda one: one.result is not None, wait_s):
                    self.unanswered.append(request_id)
                    return None
            assert gathered.result is not None
            wait_ms = gathered.result.retry_after_ms
            if wait_ms is None or attempt == _ATTEMPTS - 1:
                return gathered
            # It cost nothing. The next attempt has another identity, so that its result is not taken for this one.
            await self.clock.sleep(max(self.patience.rate_s, wait_ms / 1000))
        return None

    async def _submit(self, request_id: str, request: Request, ask: Ask) -> None:
        await self.client.submit(
            request.messages,
            tenant=self.kept.run.team,
            request_id=request_id,
            route=request.route,
            prompt=request.prompt,
            prompt_label=request.prompt_label,
            variables=request.variables,
            sampling=request.sampling,
            deadline_s=self.patience.deadline_s,
            tags={"golden_set": self.kept.run.dataset, "golden_run": self.kept.run.run, "variant": ask.variant},
            purpose=Purpose.EVALUATION,
            policy=request.policy,
            key_id=self.kept.run.key_id,
        )

    async def _keep(self, ask: Ask, gathered: Gathered) -> None:
        await self.gathering.until(gathered, lambda one: one.priced, self.patience.cost_s)
        result = gathered.result
        assert result is not None
        answered = gathered.answered if result.status == "completed" else None
        answer = answer_of(
            ask,
            self.requests[ask][1],
            result,
            gathered.cost,
            answered,
        )
        self.kept.add(answer)
        self.on_answer(answer)


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found

"""Requests that are read again: answered from the log, or generated again with what was wasted accounted for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from penstock.bus import Backlog, MemoryBus, Partition, Sent, Transient
from penstock.bus.types import RawProducer, RawReader
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Completion, Usage
from penstock.telemetry import metrics

from services.inference.answered import AnsweredTail
from services.inference.core import Answered
from services.inference.flights import Left, MemoryFlights, Place, written
from services.inference.journal import Wasted
from services.inference.redelivery import KeptJournal
from tests.stream.inference_model import (
    ANSWER_TOKENS,
    PROMPT_TOKENS,
    TARGET,
    TOKENS_SO_FAR,
    HeldModel,
    Process,
    a_request,
    until,
)

CATALOGUE = Catalogue.load()
TOPICS = ["requests-grounded", "requests-repeated"]
NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus(clock: ManualClock) -> MemoryBus:
    return MemoryBus(CATALOGUE, clock)


def journal(bus: MemoryBus, flights: MemoryFlights, clock: ManualClock, process: str) -> KeptJournal:
    return KeptJournal(flights, AnsweredTail(bus, bus.codec, clock), clock, process)


async def send(bus: MemoryBus, clock: ManualClock, *names: str, **changes: Any) -> None:
    for name in names:
        await bus.publish("requests-grounded", name, a_request(name, clock, **changes))


async def completions(bus: MemoryBus, kind: str = "completion") -> list[Completion]:
    return [event.record for event in await bus.collect("completions", 0) if event.record.kind == kind]


def counted(cause: str) -> float:
    return float(metrics.WASTED_TOKENS.labels("vllm", "tiny", cause)._value.get())


def redelivered(outcome: str) -> float:
    return float(metrics.REDELIVERED.labels(outcome)._value.get())


async def test_what_has_a_completion_on_the_log_is_not_asked_again(bus: MemoryBus, clock: ManualClock) -> None:
    flights, first, second = MemoryFlights(), HeldModel(hold=False), HeldModel(hold=False)
    await send(bus, clock, *NAMES)
    await bus.publish("requests-repeated", "a", a_request("a", clock, event_id="event-again", attempt=1))
    past = clock.now() - timedelta(seconds=1)
    await send(bus, clock, "late", deadline_at=past)
    one = Process(bus, first, clock, journal=journal(bus, flights, clock, "one"))
    await bus.settled("inference", TOPICS)
    await one.stopped()
    assert sum(first.calls.values()) == 5
    # It died before its offsets were committed; meanwhile two more requests came.
    bus._committed["inference"].clear()
    await send(bus, clock, "new-1", "new-2")
    before = redelivered("answered")
    two = Process(bus, second, clock, journal=journal(bus, flights, clock, "two"))
    await bus.settled("inference", TOPICS)
    await send(bus, clock, "newest")
    await bus.settled("inference", TOPICS)
    await two.stopped()
    assert second.calls == {"new-1": 1, "new-2": 1, "newest": 1}
    assert len(await completions(bus)) == 8
    assert len(bus.messages("refusals")) == 1
    assert redelivered("answered") - before == 6


async def test_what_an_earlier_stage_sends_again_is_not_asked_again(bus: MemoryBus, clock: ManualClock) -> None:
    flights, first, second = MemoryFlights(), HeldModel(hold=False), HeldModel(hold=False)
    one = Process(bus, first, clock, journal=journal(bus, flights, clock, "one"))
    await send(bus, clock, *NAMES)
    await bus.settled("inference", TOPICS)
    await send(bus, clock, "a", "b")
    await bus.settled("inference", TOPICS)
    await one.stopped()
    assert first.calls == dict.fromkeys(NAMES, 1)
    # All is committed, so nothing that stands there tells of them.
    clock.advance(30)
    two = Process(bus, second, clock, journal=journal(bus, flights, clock, "two"))
    await until(lambda: "inference" in bus._members and len(bus._members["inference"]) == 1)
    await send(bus, clock, "c", "d", "e")
    await bus.settled("inference", TOPICS)
    await two.stopped()
    assert second.calls == {"e": 1}
    assert len(await completions(bus)) == 5


async def test_what_died_in_mid_generation_is_generated_again_and_its_tokens_are_told_and_paid(
    bus: MemoryBus, clock: ManualClock
) -> None:
    flights, first, second = MemoryFlights(), HeldModel(), HeldModel(hold=False)
    await send(bus, clock, *NAMES)
    kept = journal(bus, flights, clock, "one")
    one = Process(bus, first, clock, journal=kept)
    await until(lambda: first.held == set(NAMES))
    await kept.write()
    # What it wrote last is what a process leaves that is killed.
    left = MemoryFlights(dict(flights.entries))
    await one.stopped()
    before = counted("process")
    again = journal(bus, left, clock, "two")
    two = Process(bus, second, clock, journal=again)
    await bus.settled("inference", TOPICS)
    assert counted("process") - before == 4 * (PROMPT_TOKENS + TOKENS_SO_FAR)
    answered, abandoned = await completions(bus), await completions(bus, "abandoned")
    assert {one.request_id for one in answered} == {one.request_id for one in abandoned} == set(NAMES)
    assert {(c.usage.input_tokens, c.usage.output_tokens) for c in abandoned} == {(PROMPT_TOKENS, TOKENS_SO_FAR)}
    assert {(c.usage.input_tokens, c.usage.output_tokens) for c in answered} == {(PROMPT_TOKENS, ANSWER_TOKENS)}
    assert {c.request_model for c in abandoned} == {"tiny"}
    assert all("ended before the answer did" in (c.error or "") for c in abandoned)
    clock.advance(2)
    await again.write()
    assert left.entries == {}
    await two.stopped()


async def test_a_process_that_dies_after_another_pays_for_both_and_counts_each_once(
    bus: MemoryBus, clock: ManualClock
) -> None:
    flights, before = MemoryFlights(), counted("process")
    await send(bus, clock, "a")
    for name in ("one", "two"):
        model, kept = HeldModel(), journal(bus, flights, clock, name)
        process = Process(bus, model, clock, journal=kept)
        await until(lambda model=model: model.held == {"a"})  # type: ignore[misc]
        await kept.write()
        flights = MemoryFlights(dict(flights.entries))
        await process.stopped()
    assert [place for place, _ in flights.entries] == ["two"], "what was taken over stands in one place"
    last = Process(bus, HeldModel(hold=False), clock, journal=journal(bus, flights, clock, "three"))
    await bus.settled("inference", TOPICS)
    await last.stopped()
    assert [c.usage.output_tokens for c in await completions(bus, "abandoned")] == [TOKENS_SO_FAR, TOKENS_SO_FAR]
    assert counted("process") - before == 2 * (PROMPT_TOKENS + TOKENS_SO_FAR)


async def test_a_process_that_is_stopped_leaves_the_exact_count_of_what_it_could_not_finish(
    bus: MemoryBus, clock: ManualClock
) -> None:
    flights, first = MemoryFlights(), HeldModel()
    await send(bus, clock, "a")
    kept = journal(bus, flights, clock, "one")
    one = Process(bus, first, clock, journal=kept)
    await until(lambda: first.held == {"a"})
    await kept.write()
    await one.stopped()
    await kept.close()
    assert first.aborted == ["a"]
    assert flights.alive == set()
    two = Process(bus, HeldModel(hold=False), clock, journal=journal(bus, flights, clock, "two"))
    await bus.settled("inference", TOPICS)
    await two.stopped()
    (abandoned,) = await completions(bus, "abandoned")
    assert abandoned.usage.output_tokens == TOKENS_SO_FAR + 1


class SlowFlights(MemoryFlights):
    """Takes what is written only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.go_on = asyncio.Event(), asyncio.Event()

    async def write(self, process: str, entries: Mapping[str, bytes], ended: Collection[Place]) -> None:
        self.writing.set()
        await self.go_on.wait()
        await super().write(process, entries, ended)


async def test_what_ends_while_it_is_written_is_taken_out(bus: MemoryBus, clock: ManualClock) -> None:
    flights, model = SlowFlights(), HeldModel()
    kept = journal(bus, flights, clock, "one")
    await send(bus, clock, *NAMES)
    one = Process(bus, model, clock, journal=kept)
    await until(lambda: model.held == set(NAMES))
    write = asyncio.create_task(kept.write())
    await flights.writing.wait()
    model.let_go()
    await bus.settled("inference", TOPICS)
    flights.go_on.set()
    await write
    assert len(flights.entries) == 4
    clock.advance(2)
    await kept.write()
    assert flights.entries == {}
    await one.stopped()


class HesitantBus(MemoryBus):
    """Has completions on their way for ever, as to a broker that is cut off."""

    def producer(self) -> RawProducer:
        return HesitantProducer(super().producer())


class HesitantProducer:
    def __init__(self, producer: RawProducer) -> None:
        self._producer = producer

    async def send(self, topic: str, *rest: Any, **more: Any) -> Awaitable[Sent]:
        if topic == "completions":
            return asyncio.get_running_loop().create_future()
        return await self._producer.send(topic, *rest, **more)


async def test_an_answer_that_the_log_did_not_take_is_paid_for_when_it_is_made_again(clock: ManualClock) -> None:
    bus, flights, first, second = HesitantBus(CATALOGUE, clock), MemoryFlights(), HeldModel(hold=False), HeldModel()
    kept = journal(bus, flights, clock, "one")
    await send(bus, clock, *NAMES)
    one = Process(bus, first, clock, journal=kept)
    await until(lambda: len(kept._ending) == 4)
    clock.advance(60)
    await kept.write()
    assert len(flights.entries) == 4
    await one.stopped()
    await kept.close()
    found = MemoryBus(CATALOGUE, clock)
    await send(found, clock, *NAMES)
    second.let_go()
    two = Process(found, second, clock, journal=journal(found, flights, clock, "two"))
    await found.settled("inference", TOPICS)
    await two.stopped()
    abandoned = await completions(found, "abandoned")
    assert {(c.usage.input_tokens, c.usage.output_tokens) for c in abandoned} == {(PROMPT_TOKENS, ANSWER_TOKENS)}
    assert len(abandoned) == len(await completions(found)) == 4


async def test_what_another_process_is_still_at_is_waited_for(bus: MemoryBus, clock: ManualClock) -> None:
    flights, first, second = MemoryFlights(), HeldModel(), HeldModel(hold=False)
    await send(bus, clock, *NAMES)
    kept = journal(bus, flights, clock, "one")
    one = Process(bus, first, clock, journal=kept)
    await until(lambda: first.held == set(NAMES))
    await kept.write()
    # The group takes partitions from the first before it has ended: it goes on with its calls.
    two = Process(bus, second, clock, journal=journal(bus, flights, clock, "two"))
    await until(lambda: len(bus._members["inference"]) == 2)
    await send(bus, clock, *(f"new-{n}" for n in range(8)))
    await until(lambda: len(second.calls) > 0)
    first.let_go()
    await bus.settled("inference", TOPICS, timeout_s=15)
    await two.stopped()
    await one.stopped()
    calls: Counter[str] = first.calls + second.calls
    assert set(calls.values()) == {1}, "each model call was made once"
    assert len(await completions(bus)) == 12
    assert await completions(bus, "abandoned") == []


class SlowlyClosed(MemoryBus):
    """Its readers are closed when that is let."""

    def __init__(self, catalogue: Catalogue, clock: ManualClock) -> None:
        super().__init__(catalogue, clock)
        self.opened, self.closing, self.go_on = 0, asyncio.Event(), asyncio.Event()

    async def read(self, topics: Sequence[str], **which: Any) -> RawReader:
        self.opened += 1
        reader = await super().read(topics, **which)
        close = reader.close

        async def slowly() -> None:
            self.closing.set()
            await self.go_on.wait()
            await close()

        return cast("RawReader", SimpleNamespace(poll=reader.poll, at_end=reader.at_end, close=slowly))


async def test_what_comes_while_the_log_is_closed_behind_others_is_waited_for(clock: ManualClock) -> None:
    bus, flights = SlowlyClosed(CATALOGUE, clock), MemoryFlights(alive={"other"})
    usage = Usage(input_tokens=PROMPT_TOKENS, output_tokens=TOKENS_SO_FAR)
    for name in ("a", "b"):
        flights.entries["other", f"event-{name}"] = written([Wasted(TARGET, usage)])
    await send(bus, clock, "a", "b")
    events = {event.record.request_id: event for event in await bus.collect("requests-grounded", 2)}
    bus.go_on.set()
    kept = journal(bus, flights, clock, "one")
    places = {Partition(event.topic, event.partition) for event in events.values()}
    await kept.assigned({place: Backlog(0, 10, event_ms(clock)) for place in places})
    bus.go_on.clear()
    bus.closing.clear()
    opened = bus.opened
    first = asyncio.create_task(kept.earlier(events["a"]))
    await until(lambda: bus.opened == opened + 1)
    del flights.entries["other", "event-a"]
    assert (await first).wasted == ()
    await bus.closing.wait()
    second = asyncio.create_task(kept.earlier(events["b"]))
    await until(lambda: "event-b" in kept._awaited)
    bus.go_on.set()
    await until(lambda: second.done() or bus.opened == opened + 2)
    assert not second.done(), "the other process is still at it"
    del flights.entries["other", "event-b"]
    assert (await second).wasted == ()
    await kept.close()


def event_ms(clock: ManualClock) -> int:
    return int(clock.now().timestamp() * 1000)


async def test_what_waits_for_a_model_elsewhere_is_waited_for(bus: MemoryBus, clock: ManualClock) -> None:
    flights, first, second = MemoryFlights(), HeldModel(), HeldModel(hold=False)
    kept = journal(bus, flights, clock, "one")
    waiting = asyncio.Event()

    class Starting:
        """Has no engine yet."""

        async def generate(self, *call: Any) -> Answered:
            waiting.set()
            await started.wait()
            return await first.generate(*call)

    started = asyncio.Event()
    await send(bus, clock, "a")
    one = Process(bus, cast("HeldModel", Starting()), clock, journal=kept)
    await waiting.wait()
    await kept.write()
    again = journal(bus, flights, clock, "two")
    two = Process(bus, second, clock, journal=again)
    await until(lambda: len(bus._members["inference"]) == 2)
    await until(lambda: bool(second.calls or again._awaited) or one.task.done())
    first.let_go()
    started.set()
    await bus.settled("inference", TOPICS, timeout_s=15)
    await two.stopped()
    await one.stopped()
    assert (first.calls["a"], second.calls["a"]) == (1, 0)


async def test_where_a_process_dies_that_was_waited_for_the_request_is_generated_again(
    bus: MemoryBus, clock: ManualClock
) -> None:
    flights, first, second = MemoryFlights(), HeldModel(), HeldModel(hold=False)
    await send(bus, clock, "a")
    kept = journal(bus, flights, clock, "one")
    one = Process(bus, first, clock, journal=kept)
    await until(lambda: first.held == {"a"})
    await kept.write()
    snapshot = MemoryFlights(dict(flights.entries), alive={"one"})
    await one.stopped()
    again = journal(bus, snapshot, clock, "two")
    two = Process(bus, second, clock, journal=again)
    await until(lambda: len(again._awaited) == 1)
    assert second.calls == {}
    snapshot.alive.discard("one")
    await bus.settled("inference", TOPICS)
    await two.stopped()
    assert second.calls == {"a": 1}
    assert len(await completions(bus, "abandoned")) == 1


async def test_a_call_whose_pieces_the_log_did_not_take_is_paid_for_when_it_is_made_again(
    bus: MemoryBus, clock: ManualClock
) -> None:
    model, before = HeldModel(), counted("log")
    await send(bus, clock, "a", stream=True)
    process = Process(bus, model, clock, journal=journal(bus, MemoryFlights(), clock, "one"))
    await until(lambda: model.held == {"a"})
    bus.fail_sends = 1
    model.let_go()
    await bus.settled("inference", TOPICS)
    await process.stopped()
    assert model.calls == {"a": 2}
    (abandoned,) = await completions(bus, "abandoned")
    (answered,) = await completions(bus)
    assert abandoned.usage.output_tokens == answered.usage.output_tokens == ANSWER_TOKENS
    assert counted("log") - before == PROMPT_TOKENS + ANSWER_TOKENS


@asynccontextmanager
async def passing(clock: ManualClock) -> AsyncIterator[None]:
    """Let the clock's time pass."""

    async def pass_on() -> None:
        while True:
            await asyncio.sleep(0)
            clock.advance(0.1)

    passing = asyncio.create_task(pass_on())
    try:
        yield
    finally:
        passing.cancel()
        await asyncio.gather(passing, return_exceptions=True)


async def test_without_redis_requests_are_answered_all_the_same(bus: MemoryBus, clock: ManualClock) -> None:
    flights, model = MemoryFlights(away=True), HeldModel(hold=False)
    await send(bus, clock, *NAMES)
    kept = journal(bus, flights, clock, "one")
    process = Process(bus, model, clock, journal=kept)
    async with passing(clock):
        await bus.settled("inference", TOPICS)
        await kept.write()
        await process.stopped()
    await kept.close()
    bus._committed["inference"].clear()
    second = HeldModel(hold=False)
    process = Process(bus, second, clock, journal=journal(bus, flights, clock, "two"))
    async with passing(clock):
        await bus.settled("inference", TOPICS)
        await process.stopped()
    assert second.calls == {}
    assert len(await completions(bus)) == 4


class MissedFlights(MemoryFlights):
    """Misses the first answers, as Redis does beside a process that has its hands full."""

    missed = 0

    async def others(self, process: str) -> dict[str, list[Left]]:
        self.missed += 1
        if self.missed <= 3:
            raise Transient("no answer in time")
        return await super().others(process)


async def test_what_died_is_paid_for_though_redis_answers_late(bus: MemoryBus, clock: ManualClock) -> None:
    left = written([Wasted(TARGET, Usage(input_tokens=PROMPT_TOKENS, output_tokens=TOKENS_SO_FAR))])
    flights = MissedFlights({("old", "event-a"): left})
    await send(bus, clock, "a")
    async with passing(clock):
        process = Process(bus, HeldModel(hold=False), clock, journal=journal(bus, flights, clock, "two"))
        await bus.settled("inference", TOPICS)
        await process.stopped()
    assert flights.missed == 4
    (abandoned,) = await completions(bus, "abandoned")
    assert abandoned.usage.output_tokens == TOKENS_SO_FAR


async def test_what_cannot_be_read_of_what_a_process_left_costs_no_answer(bus: MemoryBus, clock: ManualClock) -> None:
    flights = MemoryFlights({("old", "event-a"): b"\xc1 of a later version"})
    await send(bus, clock, "a")
    process = Process(bus, HeldModel(hold=False), clock, journal=journal(bus, flights, clock, "two"))
    await bus.settled("inference", TOPICS)
    await process.stopped()
    assert len(await completions(bus)) == 1
    assert await completions(bus, "abandoned") == []

"""The hop loop on the in-memory log: order, retry, dead letters, pipelining, rebalance, stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from penstock.bus import Emit, Event, Hop, MemoryBus, Outcome, Reject, Transient, run_hops
from penstock.bus.dead_letters import DeadLetterLimit, TooManyDeadLetters
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import derive
from penstock.contracts.records import AdmittedRequest, Context, DeadLetter, LlmRequest, Message, Refusal
from penstock.settings import ServiceSettings

CATALOGUE = Catalogue.load()
CLOCK = ManualClock()
SETTINGS = ServiceSettings(dlq_min_messages=1000)


def a_request(request_id: str) -> LlmRequest:
    return LlmRequest(
        event_id=f"event-{request_id}",
        request_id=request_id,
        tenant_id="support",
        occurred_at=CLOCK.now(),
        causation_id="",
        messages=[Message(role="user", content=f"question {request_id}")],
    )


def admit(request: LlmRequest) -> list[Emit]:
    record = AdmittedRequest(
        **derive(request, "test", 0, CLOCK.now()),
        context=Context(requested_at=request.occurred_at),
        messages=request.messages,
    )
    return [Emit("requests-admitted", request.request_id, record)]


async def relay(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
    return [admit(event.record) for event in events]


def a_hop(handler: Any, **options: Any) -> Hop:
    return Hop(service="intake", group="g", topics=("llm-requests",), handler=handler, **options)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(CATALOGUE, CLOCK)


@asynccontextmanager
async def running(
    bus: MemoryBus, *hops: Hop, settings: ServiceSettings = SETTINGS
) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(run_hops(hops, bus, bus.codec, SystemClock(), settings, stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 10)


async def publish(bus: MemoryBus, count: int, key: Callable[[int], str] = str) -> None:
    for number in range(count):
        await bus.publish("llm-requests", key(number), a_request(str(number)))


async def test_every_message_is_handled_once_and_committed(bus: MemoryBus) -> None:
    await publish(bus, 50)
    async with running(bus, a_hop(relay)):
        events = await bus.collect("requests-admitted", 50)
        await bus.settled("g", ["llm-requests"])
    assert {e.record.request_id for e in events} == {str(n) for n in range(50)}


async def test_a_restart_continues_at_the_commit_and_a_replay_gives_the_same_identities(bus: MemoryBus) -> None:
    await publish(bus, 10)
    async with running(bus, a_hop(relay)):
        await bus.collect("requests-admitted", 10)
        await bus.settled("g", ["llm-requests"])
    bus._committed["g"].clear()
    async with running(bus, a_hop(relay)):
        events = await bus.collect("requests-admitted", 20)
    assert len({e.record.event_id for e in events}) == 10


async def test_what_a_hop_has_no_use_for_is_passed_over_unread_and_committed(bus: MemoryBus) -> None:
    use = False
    await publish(bus, 3)
    await bus.append("llm-requests", b"k", b"{not avro}")
    async with running(bus, a_hop(relay, wanted=lambda: use)):
        await bus.settled("g", ["llm-requests"])
        assert bus.messages("requests-admitted") == bus.messages("dlq-intake") == []
        use = True
        await bus.publish("llm-requests", "k", a_request("later"))
        events = await bus.collect("requests-admitted", 1)
    assert [e.record.request_id for e in events] == ["later"]


async def test_an_event_that_a_hop_has_no_use_for_waits_for_no_call_and_is_no_dead_letter(bus: MemoryBus) -> None:
    held = asyncio.Event()

    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        await held.wait()
        return await relay(events)

    await bus.publish("llm-requests", "k", a_request("wanted"))
    await publish(bus, 40, lambda number: "other")
    for _ in range(12):
        await bus.append("llm-requests", b"other", b"{not avro}")
    hop = a_hop(handler, concurrency=2, waiting=2, concerns=lambda event: event.record.request_id == "wanted")
    async with running(bus, hop, settings=ServiceSettings(dlq_min_messages=10, dlq_max_ratio=0.5)) as task:
        # One call is taken up all the while.
        await bus.collect("dlq-intake", 12)
        assert not task.done()
        assert bus.messages("requests-admitted") == []
        held.set()
        events = await bus.collect("requests-admitted", 1)
        await bus.settled("g", ["llm-requests"])
    assert [e.record.request_id for e in events] == ["wanted"]


async def test_undecodable_messages_go_to_the_dead_letters_and_the_partition_moves_on(bus: MemoryBus) -> None:
    await bus.publish("llm-requests", "k", a_request("before"))
    await bus.append("llm-requests", b"k", b"{not avro}", [("traceparent", b"00-1-2-01")])
    await bus.publish("llm-requests", "k", a_request("after"))
    async with running(bus, a_hop(relay)):
        events = await bus.collect("requests-admitted", 2)
        letters = await bus.collect("dlq-intake", 1)
    assert [e.record.request_id for e in events] == ["before", "after"]
    letter: DeadLetter = letters[0].record
    assert (letter.code, letter.origin_topic, letter.origin_offset) == ("wrong_magic_byte", "llm-requests", 1)
    assert letter.origin_value == b"{not avro}"
    assert letter.origin_headers == {"traceparent": b"00-1-2-01"}


async def test_one_event_that_raises_does_not_take_its_batch_along(bus: MemoryBus) -> None:
    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        if any(e.record.request_id == "3" for e in events):
            raise ValueError("cannot bear the number three")
        return await relay(events)

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        refusal = Refusal(
            **derive(event.record, "test", 1, CLOCK.now()),
            context=Context(requested_at=CLOCK.now()),
            stage="intake",
            status="failed",
            code="internal_error",
            reason="x",
        )
        return [Emit("refusals", event.record.request_id, refusal)]

    await publish(bus, 8, key=lambda n: "one")
    async with running(bus, a_hop(handler, failed=failed)):
        events = await bus.collect("requests-admitted", 7)
        letters = await bus.collect("dlq-intake", 1)
        refusals = await bus.collect("refusals", 1)
        await bus.settled("g", ["llm-requests"])
    assert [e.record.request_id for e in events] == ["0", "1", "2", "4", "5", "6", "7"]
    assert letters[0].record.code == "step_failed"
    assert "number three" in letters[0].record.reason
    assert refusals[0].record.request_id == "3"


async def test_a_rejected_input_is_a_dead_letter_with_its_reason(bus: MemoryBus) -> None:
    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        return [Reject("no_good", "because") for _ in events]

    await publish(bus, 1)
    async with running(bus, a_hop(handler)):
        letters = await bus.collect("dlq-intake", 1)
    assert (letters[0].record.code, letters[0].record.reason) == ("no_good", "because")


async def test_a_transient_failure_is_retried_and_nothing_is_lost_or_doubled(bus: MemoryBus) -> None:
    tries = []

    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        tries.append(len(events))
        if len(tries) < 3:
            raise Transient("redis is away")
        return await relay(events)

    await publish(bus, 5, key=lambda n: "one")
    async with running(bus, a_hop(handler)):
        await bus.collect("requests-admitted", 5)
        await bus.settled("g", ["llm-requests"])
    assert tries[:3] == [5, 5, 5]
    assert len(bus.messages("requests-admitted")) == 5


async def test_a_failure_that_lasts_stops_the_service_and_commits_nothing(bus: MemoryBus) -> None:
    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        raise Transient("redis is away for good")

    await publish(bus, 1)
    async with running(bus, a_hop(handler), settings=ServiceSettings(retry_timeout_s=0.2)) as task:
        with pytest.raises(Transient, match="for good"):
            await asyncio.wait_for(asyncio.shield(task), 10)
    assert not any(bus.committed("g").values())
    assert bus.messages("dlq-intake") == []


async def test_a_broker_that_refuses_stops_the_service_and_commits_nothing(bus: MemoryBus) -> None:
    bus.fail_sends = 1
    await publish(bus, 1)
    async with running(bus, a_hop(relay)) as task:
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(asyncio.shield(task), 10)
    assert not any(bus.committed("g").values())


async def test_too_many_dead_letters_stop_the_service(bus: MemoryBus) -> None:
    for _ in range(20):
        await bus.append("llm-requests", b"k", b"junk")
    async with running(bus, a_hop(relay), settings=ServiceSettings(dlq_min_messages=10)) as task:
        with pytest.raises(TooManyDeadLetters, match="limit of 50%"):
            await asyncio.wait_for(asyncio.shield(task), 10)


def test_the_share_of_dead_letters_counts_the_newest_only() -> None:
    limit = DeadLetterLimit(max_ratio=0.5, min_messages=10, window=10)
    for _ in range(20):
        limit.saw(dead=False)
    for _ in range(5):
        limit.saw(dead=True)
    with pytest.raises(TooManyDeadLetters):
        limit.saw(dead=True)


async def test_concurrent_calls_keep_the_order_of_each_key(bus: MemoryBus) -> None:
    gates = {str(n): asyncio.Event() for n in range(6)}
    started: list[str] = []

    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        (event,) = events
        started.append(event.record.request_id)
        await gates[event.record.request_id].wait()
        return admit(event.record) and [admit(event.record)]

    # Even numbers share one key, odd ones another: 0 and 1 may run at once, 2 only after 0.
    await publish(bus, 6, key=lambda n: "even" if n % 2 == 0 else "odd")
    async with running(bus, a_hop(handler, concurrency=4)):
        async with asyncio.timeout(5):
            while len(started) < 2:
                await asyncio.sleep(0.01)
        assert sorted(started) == ["0", "1"]
        for gate in gates.values():
            gate.set()
        events = await bus.collect("requests-admitted", 6)
        await bus.settled("g", ["llm-requests"])
    order = [e.record.request_id for e in events]
    assert [i for i in started if int(i) % 2 == 0] == ["0", "2", "4"]
    assert sorted(order) == [str(n) for n in range(6)]


async def test_a_slow_call_holds_back_the_commit_but_not_the_others(bus: MemoryBus) -> None:
    gate = asyncio.Event()

    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        if events[0].record.request_id == "0":
            await gate.wait()
        return await relay(events)

    for number in range(4):
        value = bus.codec.encode("llm-requests", a_request(str(number)))
        await bus.append("llm-requests", f"key-{number}".encode(), value, partition=0)
    async with running(bus, a_hop(handler, concurrency=4)):
        await bus.collect("requests-admitted", 3)
        assert not any(bus.committed("g").values())
        gate.set()
        await bus.collect("requests-admitted", 4)
        await bus.settled("g", ["llm-requests"])


async def test_the_window_bounds_what_is_in_flight(bus: MemoryBus) -> None:
    gate = asyncio.Event()
    running_now, most = 0, 0

    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await gate.wait()
        running_now -= 1
        return await relay(events)

    await publish(bus, 40)
    async with running(bus, a_hop(handler, concurrency=3)):
        async with asyncio.timeout(5):
            while most < 3:
                await asyncio.sleep(0.01)
        gate.set()
        await bus.collect("requests-admitted", 40)
    assert most == 3


async def test_a_second_member_takes_its_share_and_nothing_is_lost(bus: MemoryBus) -> None:
    await publish(bus, 20)
    async with running(bus, a_hop(relay)):
        await bus.collect("requests-admitted", 20)
        async with running(bus, a_hop(relay)):
            for number in range(20, 60):
                await bus.publish("llm-requests", str(number), a_request(str(number)))
            await bus.collect("requests-admitted", 60)
            await bus.settled("g", ["llm-requests"])
        for number in range(60, 70):
            await bus.publish("llm-requests", str(number), a_request(str(number)))
        await bus.collect("requests-admitted", 70)
        await bus.settled("g", ["llm-requests"])
    ids = {bus.codec.decode("requests-admitted", m.value).request_id for m in bus.messages("requests-admitted")}
    assert ids == {str(n) for n in range(70)}


async def test_stop_finishes_and_commits_what_is_in_flight(bus: MemoryBus) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        entered.set()
        await gate.wait()
        return await relay(events)

    await publish(bus, 3, key=lambda n: "one")
    stop = asyncio.Event()
    task = asyncio.create_task(run_hops([a_hop(handler)], bus, bus.codec, SystemClock(), SETTINGS, stop))
    await asyncio.wait_for(entered.wait(), 5)
    stop.set()
    gate.set()
    await asyncio.wait_for(task, 10)
    assert len(bus.messages("requests-admitted")) == 3
    assert sum(bus.committed("g").values()) == 3


async def test_trace_context_is_carried_to_what_a_hop_emits(bus: MemoryBus) -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await bus.publish("llm-requests", "k", a_request("1"), [("traceparent", parent), ("other", b"x")])
    async with running(bus, a_hop(relay)):
        (event,) = await bus.collect("requests-admitted", 1)
    assert dict(event.message.headers) == {"traceparent": parent}

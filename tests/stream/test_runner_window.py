"""A hop's window on the in-memory log: urgency, what waits when partitions move, and what a hop is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from penstock.bus import Backlog, Event, Hop, MemoryBus, Outcome, Partition, Transient, Urgency, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import LlmRequest
from penstock.settings import ServiceSettings
from penstock.telemetry import metrics

CATALOGUE = Catalogue.load()
CLOCK = ManualClock()
TOPIC = "llm-requests"


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(CATALOGUE, CLOCK)


class Desk:
    """A handler that a test lets go on, call by call."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.gate = asyncio.Semaphore(0)

    async def __call__(self, events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        self.started += [event.record.request_id for event in events]
        await self.gate.acquire()
        return [[] for _ in events]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def publish(bus: MemoryBus, *names: str) -> None:
    for name in names:
        record = LlmRequest(
            event_id=name, request_id=name, tenant_id="t", occurred_at=CLOCK.now(), causation_id="",
            priority=name.partition("-")[0],
        )  # fmt: skip
        await bus.publish(TOPIC, name, record)


def a_hop(handler: Any, **options: Any) -> Hop:
    return Hop(service="intake", group="g", topics=(TOPIC,), handler=handler, **options)


def in_flight() -> float:
    """Return what a hop has taken in and not finished."""
    return float(metrics.IN_FLIGHT.labels("intake", "g")._value.get())


def run(bus: MemoryBus, hop: Hop, stop: asyncio.Event, **settings: Any) -> asyncio.Task[None]:
    return asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), ServiceSettings(**settings), stop))


def by_priority(event: Event[LlmRequest]) -> Urgency:
    return Urgency(["interactive", "standard", "batch"].index(event.record.priority))


async def test_what_waits_for_a_slot_goes_by_urgency(bus: MemoryBus) -> None:
    desk, stop = Desk(), asyncio.Event()
    # The first two take the slots; the rest is compared.
    await publish(bus, "batch-0", "batch-1")
    task = run(bus, a_hop(desk, concurrency=2, waiting=8, urgency=by_priority), stop)
    await until(lambda: len(desk.started) == 2)
    waiting = ["batch-2", "standard-3", "batch-4", "interactive-5", "standard-6", "interactive-7"]
    await publish(bus, *waiting)
    await until(lambda: in_flight() == 8)
    for _ in range(8):
        desk.gate.release()
    await bus.settled("g", [TOPIC])
    stop.set()
    await task
    assert sorted(desk.started[:2]) == ["batch-0", "batch-1"]
    assert [name.partition("-")[0] for name in desk.started[2:]] == [
        "interactive", "interactive", "standard", "standard", "batch", "batch",
    ]  # fmt: skip


async def test_what_waits_at_a_stop_is_left_to_the_next_and_what_runs_is_finished(bus: MemoryBus) -> None:
    desk, stop = Desk(), asyncio.Event()
    await publish(bus, *(f"standard-{n}" for n in range(8)))
    task = run(bus, a_hop(desk, concurrency=2), stop)
    await until(lambda: len(desk.started) == 2)
    await until(lambda: in_flight() == 4)
    stop.set()
    await until(lambda: in_flight() == 2)
    for _ in range(8):
        desk.gate.release()
    await asyncio.wait_for(task, 5)
    assert len(desk.started) == 2
    stop.clear()
    task = run(bus, a_hop(desk, concurrency=2), stop)
    await bus.settled("g", [TOPIC], timeout_s=10)
    stop.set()
    await task
    assert sorted(desk.started) == [f"standard-{n}" for n in range(8)]


async def test_what_waits_when_partitions_move_is_not_started_by_who_has_lost_them(bus: MemoryBus) -> None:
    first, second, stop = Desk(), Desk(), asyncio.Event()
    await publish(bus, *(f"standard-{n}" for n in range(12)))
    # The drain of the rebalance ends without the two that run.
    one = run(bus, a_hop(first, concurrency=2, waiting=20), stop, stop_timeout_s=0.2)
    await until(lambda: len(first.started) == 2)
    running = set(first.started)
    two = run(bus, a_hop(second, concurrency=2, waiting=20), stop, stop_timeout_s=0.2)
    await until(lambda: len(second.started) > 0)
    for _ in range(40):
        first.gate.release()
        second.gate.release()
    await bus.settled("g", [TOPIC], timeout_s=10)
    stop.set()
    await asyncio.gather(one, two)
    again = [name for name in [*first.started, *second.started] if name not in running]
    assert len(again) == len(set(again)), "nothing that only waited was started twice"
    assert {*first.started, *second.started} == {f"standard-{n}" for n in range(12)}


async def test_partitions_that_a_hop_cannot_take_up_yet_wait_for_it_and_lose_nothing(bus: MemoryBus) -> None:
    tries: list[Mapping[Partition, Backlog]] = []
    seen: list[str] = []

    async def assigned(backlog: Mapping[Partition, Backlog]) -> None:
        tries.append(backlog)
        if len(tries) < 3:
            raise Transient("the log is away")

    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        seen.extend(event.record.request_id for event in events)
        return [[] for _ in events]

    names = [f"standard-{n}" for n in range(6)]
    await publish(bus, *names)
    stop = asyncio.Event()
    task = run(bus, a_hop(handler, concurrency=2, on_assigned=assigned), stop)
    await bus.settled("g", [TOPIC], timeout_s=10)
    stop.set()
    await task
    assert tries[0] == tries[1] == tries[2]
    assert sorted(seen) == names


async def test_a_hop_is_told_what_stands_in_its_partitions_before_it_gets_any_of_it(bus: MemoryBus) -> None:
    told: list[Mapping[Partition, Backlog]] = []
    seen: list[str] = []

    async def assigned(backlog: Mapping[Partition, Backlog]) -> None:
        assert seen == [], "nothing is handled before the hop knows"
        await asyncio.sleep(0.05)
        told.append(backlog)

    async def handler(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        assert told
        seen.extend(event.record.request_id for event in events)
        return [[] for _ in events]

    await publish(bus, *(f"standard-{n}" for n in range(6)))
    stop = asyncio.Event()
    task = run(bus, a_hop(handler, concurrency=2, on_assigned=assigned), stop)
    await bus.settled("g", [TOPIC], timeout_s=10)
    stop.set()
    await task
    (backlog,) = told
    assert set(backlog) == {Partition(TOPIC, n) for n in range(CATALOGUE.topic(TOPIC).partitions)}
    assert sum(ahead.end - ahead.next for ahead in backlog.values()) == 6
    for place, ahead in backlog.items():
        first = next((m for m in bus.messages(TOPIC) if m.partition == place.partition), None)
        assert ahead.since_ms == (None if first is None else first.timestamp_ms)
        assert ahead.next == 0

"""Batches on the in-memory log: filled by urgency and in turns of teams, in the order of each key, reading on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from penstock.bus import Event, Hop, MemoryBus, Message, Outcome, Transient, by_team, run_hops, urgency_of
from penstock.bus.runner import HopRunner
from penstock.bus.types import RawConsumer
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import LlmRequest
from penstock.settings import ServiceSettings

from tests.stream.test_runner_window import in_flight, until

CATALOGUE = Catalogue.load()
CLOCK = ManualClock()
TOPIC = "llm-requests"


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(CATALOGUE, CLOCK)


class Desk:
    """A handler of batches that a test lets go on, batch by batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Semaphore(0)

    @property
    def handled(self) -> list[str]:
        return [name for batch in self.batches for name in batch]

    async def __call__(self, events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        self.batches.append([event.record.request_id for event in events])
        await self.gate.acquire()
        return [[] for _ in events]


def a_hop(handler: Any, **options: Any) -> Hop:
    options = {
        "max_batch": 4,
        "waiting": 1000,
        "flow": by_team,
        "urgency": lambda event: urgency_of(event.record.priority, None),
        **options,
    }
    return Hop(service="intake", group="g", topics=(TOPIC,), handler=handler, **options)


def run(bus: MemoryBus, hop: Hop, stop: asyncio.Event, **settings: Any) -> asyncio.Task[None]:
    return asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), ServiceSettings(**settings), stop))


async def publish(bus: MemoryBus, team: str, *numbers: int, key: str = "", priority: str = "standard") -> None:
    """Publish requests "TEAM-NUMBER", all of them to one partition, each under a key of its own unless ``key`` is given."""
    for number in numbers:
        name = f"{team}-{number}"
        record = LlmRequest(
            event_id=name, request_id=name, tenant_id=team, occurred_at=CLOCK.now(), causation_id="", priority=priority
        )
        await bus.append(TOPIC, (key or name).encode(), bus.codec.encode(TOPIC, record), partition=0)


def read(bus: MemoryBus) -> int:
    """Return how many messages the members of the group have read."""
    return sum(sum(member.positions.values()) for member in bus._members.get("g", []))


async def test_a_flood_of_one_team_lets_another_go_in_turn_though_all_of_it_came_before(bus: MemoryBus) -> None:
    desk, stop = Desk(), asyncio.Event()
    await publish(bus, "a", *range(200))
    task = run(bus, a_hop(desk), stop)
    await until(lambda: read(bus) == 200)
    # Reading went on while the first batch is handled: what comes now is seen before what waits is handled.
    await publish(bus, "b", *range(6))
    await until(lambda: read(bus) == 206)
    for _ in range(60):
        desk.gate.release()
    await bus.settled("g", [TOPIC])
    stop.set()
    await task
    assert desk.batches[0] == ["a-0", "a-1", "a-2", "a-3"]
    after = desk.handled[4:]
    last_of_b = after.index("b-5")
    assert sum(name.startswith("a") for name in after[:last_of_b]) <= 6, "one of the flood before each of the other's"
    assert [name for name in desk.handled if name.startswith("b")] == [f"b-{n}" for n in range(6)]
    assert sorted(desk.handled) == sorted([*(f"a-{n}" for n in range(200)), *(f"b-{n}" for n in range(6))])
    assert max(map(len, desk.batches)) == 4
    assert len(desk.batches) == 52, "batches are full while enough waits"


async def test_a_conversation_keeps_its_order_whatever_its_priorities(bus: MemoryBus) -> None:
    desk, stop = Desk(), asyncio.Event()
    await publish(bus, "a", *range(4))
    task = run(bus, a_hop(desk), stop)
    await until(lambda: len(desk.batches) == 1)
    await publish(bus, "b", 0, key="conversation", priority="batch")
    await publish(bus, "b", 1, 2, key="conversation", priority="interactive")
    await publish(bus, "c", *range(3))
    await until(lambda: read(bus) == 10)
    for _ in range(10):
        desk.gate.release()
    await bus.settled("g", [TOPIC])
    stop.set()
    await task
    # The head of the conversation is of the last class, and what is urgent in it waits for that, but not for more.
    assert desk.handled[4:] == ["c-0", "c-1", "c-2", "b-0", "b-1", "b-2"]
    assert desk.batches[1] == ["c-0", "c-1", "c-2", "b-0"]


async def test_no_more_is_read_than_may_wait_and_reading_goes_on_when_there_is_room(bus: MemoryBus) -> None:
    desk, stop = Desk(), asyncio.Event()
    await publish(bus, "a", *range(40))
    task = run(bus, a_hop(desk, waiting=8), stop)
    await until(lambda: read(bus) == 12)  # four are handled, eight wait
    for done in range(1, 6):
        desk.gate.release()
        await until(lambda done=done: read(bus) == 12 + 4 * done)  # type: ignore[misc]
    for _ in range(10):
        desk.gate.release()
    await bus.settled("g", [TOPIC])
    stop.set()
    await task
    assert desk.handled == [f"a-{n}" for n in range(40)]


class Asked:
    """A member of a group, and how often it was asked for messages while paused."""

    def __init__(self, consumer: RawConsumer) -> None:
        self.while_paused = 0
        self._consumer = consumer
        self._paused = False
        self.commit = consumer.commit
        self.backlog = consumer.backlog
        self.close = consumer.close

    async def poll(self, timeout_s: float, max_messages: int) -> Sequence[Message]:
        self.while_paused += self._paused
        return await self._consumer.poll(timeout_s, max_messages)

    def pause(self) -> None:
        self._paused = True
        self._consumer.pause()

    def resume(self) -> None:
        self._paused = False
        self._consumer.resume()


class AskedBus(MemoryBus):
    """The log in memory, and what its members were asked."""

    def __init__(self) -> None:
        super().__init__(CATALOGUE, CLOCK)
        self.asked: list[Asked] = []

    async def subscribe(self, *arguments: Any) -> RawConsumer:
        self.asked.append(Asked(await super().subscribe(*arguments)))
        return self.asked[-1]


async def test_a_member_without_room_goes_on_asking_so_that_its_group_keeps_it() -> None:
    bus, desk = AskedBus(), Desk()
    await publish(bus, "a", *range(40))
    hop = a_hop(desk, waiting=8)
    runner = HopRunner(hop, bus, bus.codec, SystemClock(), ServiceSettings(), full_poll_s=0.01)
    task = asyncio.create_task(runner.run())
    await until(lambda: any(one.while_paused >= 3 for one in bus.asked))
    assert read(bus) == 12, "asking reads nothing"
    for _ in range(10):
        desk.gate.release()
    await bus.settled("g", [TOPIC])
    runner.stop()
    await task
    assert desk.handled == [f"a-{n}" for n in range(40)]


async def test_what_waits_for_a_batch_at_a_stop_is_left_and_nothing_of_it_is_committed(bus: MemoryBus) -> None:
    desk, stop = Desk(), asyncio.Event()
    await publish(bus, "a", *range(4))
    task = run(bus, a_hop(desk), stop)
    await until(lambda: len(desk.batches) == 1)
    await publish(bus, "a", *range(4, 20))
    await publish(bus, "b", 0)
    await until(lambda: read(bus) == 21)
    desk.gate.release()
    await until(lambda: len(desk.batches) == 2)
    stop.set()
    await until(lambda: in_flight() == 4)
    desk.gate.release()
    await asyncio.wait_for(task, 5)
    assert desk.batches[1] == ["b-0", "a-4", "a-5", "a-6"]
    # b-0 is done, and what stands before it in the log is not: it is read once more.
    assert sum(bus.committed("g").values()) == 7
    again, stop = Desk(), asyncio.Event()
    for _ in range(20):
        again.gate.release()
    task = run(bus, a_hop(again), stop)
    await bus.settled("g", [TOPIC])
    stop.set()
    await task
    assert sorted(again.handled) == sorted([*(f"a-{n}" for n in range(7, 20)), "b-0"])


async def test_a_rebalance_leaves_what_waits_to_its_next_owner(bus: MemoryBus) -> None:
    first, second, stop = Desk(), Desk(), asyncio.Event()
    for number in range(40):
        name = f"a-{number}"
        record = LlmRequest(event_id=name, request_id=name, tenant_id="a", occurred_at=CLOCK.now(), causation_id="")
        await bus.publish(TOPIC, name, record)
    one = run(bus, a_hop(first), stop)
    await until(lambda: read(bus) == 40)
    # The batch under way is finished before the partitions move.
    two = run(bus, a_hop(second), stop)
    for _ in range(40):
        first.gate.release()
        second.gate.release()
    await until(lambda: len(second.batches) > 0)
    await bus.settled("g", [TOPIC])
    stop.set()
    await asyncio.gather(one, two)
    assert sorted([*first.handled, *second.handled]) == sorted(f"a-{n}" for n in range(40))
    assert first.handled
    assert second.handled


async def test_after_a_failure_no_other_batch_begins(bus: MemoryBus) -> None:
    calls: list[list[str]] = []

    async def away(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        calls.append([event.record.request_id for event in events])
        raise Transient("redis is away for good")

    await publish(bus, "a", *range(12))
    task = run(bus, a_hop(away), asyncio.Event(), retry_timeout_s=0.2)
    with pytest.raises(Transient, match="for good"):
        await asyncio.wait_for(task, 10)
    assert {tuple(call) for call in calls} == {("a-0", "a-1", "a-2", "a-3")}
    assert not any(bus.committed("g").values())

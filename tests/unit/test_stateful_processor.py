"""The shell of stateful processors: order of effects, duplicates, bad input, failures, and crashes anywhere."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.bus import Emit, Message
from penstock.bus.dead_letters import TooManyDeadLetters
from penstock.clock import ManualClock
from penstock.contracts.envelope import derive
from penstock.contracts.records import Cost, TeamSpend
from penstock.stateful import (
    Checkpointing,
    EmitLike,
    IdLimits,
    InvalidEvent,
    Logic,
    Lookup,
    Stalled,
    StallGuard,
    StatefulProcessor,
)
from penstock.stateful.table import UnreadableState

from tests.unit.stateful_fakes import (
    CODEC,
    NOW,
    Broker,
    BrokerAway,
    FakeOutput,
    FakeStream,
    FakeTable,
    cost,
    counting,
    processor_of,
    run,
)


def counts(broker: Broker) -> list[tuple[str, int]]:
    return [(key, record.calls) for _, key, record in broker.outputs if isinstance(record, TeamSpend)]


async def test_outputs_stand_before_state_and_state_before_offsets() -> None:
    broker = Broker(source=[cost(0), cost(1, "b"), cost(2)])
    await run(processor_of(broker), broker)
    kinds = [entry.split()[0] for entry in broker.journal]
    # Two teams and one segment of ids, each written once, though one team had two events.
    assert kinds == ["output"] * 3 + ["state"] * 3 + ["ack"] * 3
    assert counts(broker) == [("a", 1), ("b", 1), ("a", 2)]


async def test_nothing_is_acknowledged_before_the_broker_has_the_outputs() -> None:
    broker = Broker(source=[cost(0)], held=asyncio.Event())
    processor = processor_of(broker)
    working = asyncio.ensure_future(run(processor, broker))
    while not broker.outputs:
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (broker.changelog, broker.acked) == ([], set())
    assert broker.held is not None
    broker.held.set()
    await working
    assert broker.acked == {0}


async def test_the_next_event_of_a_key_sees_the_state_before_its_checkpoint() -> None:
    broker = Broker(source=[cost(n) for n in range(100)])
    await run(processor_of(broker), broker)
    assert [count for _, count in counts(broker)] == list(range(1, 101))
    assert len(broker.changelog) == 2  # the team and the ids, once


async def test_an_upstream_duplicate_is_counted_once_also_after_a_restart() -> None:
    broker = Broker(source=[cost(0), cost(1), cost(0)])
    await run(processor_of(broker), broker)
    broker.source += [cost(1), cost(2)]
    await run(processor_of(broker), broker)
    assert counts(broker) == [("a", 1), ("a", 2), ("a", 3)]
    assert broker.committed() == 5


async def test_a_repeated_event_reaches_the_steps_that_recognise_it_themselves() -> None:
    broker = Broker(source=[cost(0), cost(0)])
    own = dataclasses.replace(counting(), recognises=frozenset({"costs"}))
    await run(processor_of(broker, logic=own), broker)
    assert counts(broker) == [("a", 1), ("a", 2)]


async def test_an_id_is_forgotten_by_number_and_by_time() -> None:
    few = Checkpointing(interval_s=3600, recent_ids=IdLimits(capacity=4, ttl_s=1e6, segment_size=2))
    broker = Broker(source=[cost(n) for n in range(20)] + [cost(0)])
    await run(processor_of(broker, checkpointing=few), broker, checkpoint_every=1)
    assert counts(broker)[-1] == ("a", 21)
    # The source's messages are a second apart.
    short = Checkpointing(interval_s=3600, recent_ids=IdLimits(capacity=1000, ttl_s=5, segment_size=1))
    broker = Broker(source=[cost(n) for n in range(20)] + [cost(0), cost(19)])
    await run(processor_of(broker, checkpointing=short), broker, checkpoint_every=1)
    assert counts(broker)[-1] == ("a", 21)


@pytest.mark.parametrize(("value", "code"), [(b"", "truncated"), (b"\x01bad!", "wrong_magic_byte"), (None, "no_value")])
async def test_what_cannot_be_decoded_is_put_aside_and_acknowledged(value: bytes | None, code: str) -> None:
    broker = Broker(source=[cost(0), value, cost(1)])
    await run(processor_of(broker), broker)
    assert broker.letters == [(1, code)]
    assert counts(broker) == [("a", 1), ("a", 2)]
    assert broker.committed() == 3


async def test_an_event_whose_step_raises_is_put_aside_and_leaves_no_trace() -> None:
    broker = Broker(source=[cost(0), cost(1, "poison"), cost(2)])
    await run(processor_of(broker), broker)
    assert broker.letters == [(1, "step_failed")]
    assert counts(broker) == [("a", 1), ("a", 2)]
    assert broker.committed() == 3


async def test_an_output_that_fits_no_schema_is_its_events_fate() -> None:
    broker = Broker(source=[cost(0), cost(1)])
    await run(processor_of(broker, counting(topic="costs")), broker)
    assert broker.letters == [(0, "invalid_output"), (1, "invalid_output")]
    assert broker.outputs == []
    assert broker.committed() == 2


async def test_too_many_dead_letters_stop_the_worker() -> None:
    limits = Checkpointing(interval_s=3600, dead_letter_ratio=0.5, dead_letter_window=10)
    broker = Broker(source=[cost(n) for n in range(10)] + [b"bad"] * 10)
    with pytest.raises(TooManyDeadLetters, match="6 of the last 10 messages"):
        await run(processor_of(broker, checkpointing=limits), broker)
    assert len(broker.letters) == 5
    assert broker.acked == set()


async def test_what_a_writer_got_wrong_is_put_aside_and_stops_nobody() -> None:
    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Cost]]:
        if record.tenant_id == "wrong":
            raise InvalidEvent("the team is wrong: name another")
        return [(record.tenant_id, record)]

    limits = Checkpointing(interval_s=3600, dead_letter_ratio=0.1, dead_letter_window=10)
    wrong: list[bytes | None] = [cost(n, "wrong") for n in range(1, 30)]
    broker = Broker(source=[cost(0), *wrong, cost(30)])
    await run(processor_of(broker, dataclasses.replace(counting(), route=route), checkpointing=limits), broker)
    assert broker.letters == [(offset, "invalid_event") for offset in range(1, 30)]
    assert counts(broker) == [("a", 1), ("a", 2)]
    assert broker.committed() == 31


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4])
async def test_a_failed_send_fails_the_worker_and_acknowledges_nothing(taken: int) -> None:
    broker = Broker(source=[cost(0), cost(1), cost(2, "b")], takes=taken)
    with pytest.raises(BrokerAway):
        await run(processor_of(broker), broker)
    assert broker.acked == set()


async def test_a_frozen_process_writes_no_state() -> None:
    clock = ManualClock()
    guard = StallGuard(clock, limit_s=5.0)
    broker = Broker(source=[cost(0)])
    processor = processor_of(broker, guard=guard)
    clock.advance(6.0)
    guard.tick()
    clock.advance(0.5)
    with pytest.raises(Stalled, match=r"stood still for 6\.0 s"):
        await run(processor, broker)
    assert (broker.changelog, broker.acked) == ([], set())
    # A rebalance says anew what is ours.
    guard.reset()
    await run(processor_of(broker, guard=guard), broker)
    assert broker.acked == {0}


async def test_what_was_not_checkpointed_is_dropped_at_a_rebalance() -> None:
    broker = Broker(source=[cost(0), cost(1)])
    processor = processor_of(broker)
    await processor.recover(broker.restore)
    async for _ in processor.process(FakeStream(broker.events(), idle=False)):
        pass
    await processor.recover(broker.restore)
    await processor.checkpoint()
    assert broker.acked == set()
    await run(processor, broker)
    # Delivered again, applied to the state they met the first time: the same ids, the same counts.
    assert counts(broker) == [("a", 1), ("a", 2)] * 2
    assert len({record.event_id for _, _, record in broker.outputs}) == 2


async def test_checkpoints_are_taken_by_themselves() -> None:
    broker = Broker(source=[cost(n) for n in range(10)])
    processor = processor_of(broker, checkpointing=Checkpointing(interval_s=0.01, max_events=3, max_in_flight=4))
    await processor.recover(broker.restore)

    async def body() -> None:
        async for _ in processor.process(FakeStream(broker.events())):
            pass

    working = asyncio.ensure_future(body())
    async with asyncio.timeout(5):
        while broker.committed() < 10:
            await asyncio.sleep(0.001)
    working.cancel()
    await processor.close()
    assert [count for _, count in counts(broker)] == list(range(1, 11))


async def test_of_a_compacted_topic_only_the_newest_record_of_a_key_is_sent() -> None:
    broker = Broker(source=[cost(0), cost(1), cost(2, "b"), cost(3)])
    await run(processor_of(broker, counting(latest=frozenset({"team-spend"}))), broker)
    assert counts(broker) == [("a", 3), ("b", 1)]
    assert [entry.split()[0] for entry in broker.journal].index("state") == 2


async def test_a_state_of_another_version_stops_the_worker_and_blames_no_event() -> None:
    broker = Broker(source=[cost(0), cost(1)])
    await run(processor_of(broker), broker)
    broker.source.append(cost(2))
    other: Logic[list[str], Cost] = Logic(step=counting().step, route=counting().route, state_type=list[str])  # type: ignore[arg-type]
    with pytest.raises(UnreadableState, match="another version of the service wrote it"):
        await run(processor_of(broker, other), broker)
    assert (broker.letters, broker.committed()) == ([], 2)


async def test_a_newest_record_that_fits_no_schema_puts_its_event_aside_and_nothing_else() -> None:
    """Encoding waits for the checkpoint, when the state has the event already; it must be as if it had not come."""
    made: list[int] = []

    class Lazy(msgspec.Struct, frozen=True):
        cost: Cost
        count: int
        topic: str = "team-spend"

        @property
        def key(self) -> str:
            return self.cost.tenant_id

        @property
        def record(self) -> TeamSpend:
            made.append(self.count)
            if self.cost.request_id == "r2":
                raise ArithmeticError("too large")
            # The calls of r4 fit no 64 bits.
            return TeamSpend(
                **derive(self.cost, "count", 0, NOW), window="day", window_start=NOW, amount=Decimal(self.count),
                calls=self.count + (self.cost.request_id == "r4") * 2**70,
            )  # fmt: skip

    def step(state: int | None, event: Cost, now: datetime) -> tuple[int, list[EmitLike]]:
        count = (state or 0) + 1
        return count, [Lazy(event, count), Emit("costs", "audit", event)]

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str, Cost]]:
        return [(record.tenant_id, record)]

    logic: Logic[int, Cost] = Logic(step=step, route=route, latest=frozenset({"team-spend"}))
    fine = Broker(source=[cost(0), cost(1), cost(3)])
    await run(processor_of(fine, logic), fine)
    assert (counts(fine), made) == ([("a", 3)], [3])

    broker = Broker(source=[cost(0), cost(1), cost(2), cost(3), cost(4)])
    await run(processor_of(broker, logic), broker)
    assert broker.letters == [(2, "invalid_output"), (4, "invalid_output")]
    assert counts(broker) == [("a", 3)]
    assert broker.committed() == 5
    assert {record.event_id for topic, _, record in broker.outputs if topic == "costs"} >= {
        CODEC.decode("costs", cost(n)).event_id for n in (0, 1, 3)
    }
    # What is durable goes on from there.
    broker.source.append(cost(5))
    await run(processor_of(broker, logic), broker)
    assert counts(broker) == [("a", 3), ("a", 4)]


async def test_a_rebalance_while_such_an_event_is_looked_for_leaves_the_rest_to_the_new_owner() -> None:
    class Rebalanced(FakeOutput):
        sends = 0

        async def send(self, topic: str, key: str, record: Any, headers: Any = ()) -> Any:
            self.sends += 1
            if self.sends == 4:  # the first event, the second time
                await processor.recover(broker.restore)
            return await super().send(topic, key, record, headers)

    def step(state: int | None, event: Cost, now: datetime) -> tuple[int, list[Emit]]:
        count = (state or 0) + 1
        spend = TeamSpend(
            **derive(event, "count", 0, NOW), window="day", window_start=NOW, amount=Decimal(count),
            calls=count + (event.request_id == "r2") * 2**70,
        )  # fmt: skip
        return count, [Emit("team-spend", event.tenant_id, spend), Emit("costs", "audit", event)]

    broker = Broker(source=[cost(0), cost(1), cost(2)])
    processor: StatefulProcessor[Any, Any] = StatefulProcessor(
        "test", Logic(step=step, route=counting().route, latest=frozenset({"team-spend"})), group="test", codec=CODEC,
        output=Rebalanced(broker), table=FakeTable(), clock=ManualClock(), checkpointing=Checkpointing(interval_s=3600.0),
    )  # fmt: skip
    await run(processor, broker)
    assert (broker.letters, broker.changelog, broker.acked) == ([], [], set())


async def test_a_step_without_key_needs_no_table() -> None:
    def step(state: None, event: Any, now: datetime) -> tuple[None, list[Emit]]:
        return None, [Emit("costs", event.tenant_id, event)]

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[None, Any]]:
        return [(None, record)]

    broker = Broker(source=[cost(0), cost(1)])
    await run(processor_of(broker, Logic(step=step, route=route), stateless=True), broker)
    assert (len(broker.outputs), broker.changelog, broker.committed()) == (2, [], 2)


async def test_a_state_can_be_read_deleted_and_expire() -> None:
    def step(state: int | None, event: str, now: datetime) -> tuple[int | None, list[Emit]]:
        return (None if event == "delete" else (state or 0) + 1), []

    seen: list[Any] = []

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str, str]]:
        seen.append((lookup("x"), lookup("y")))
        return [(record.tenant_id[0], record.tenant_id[1:])]

    def expires_at(key: str, state: int) -> datetime | None:
        return datetime.fromtimestamp(1_767_603_600 + 3, tz=None).astimezone() if key == "y" else None

    broker = Broker(source=[cost(0, "x"), cost(1, "y"), cost(2, "x"), cost(3, "xdelete")])
    logic: Logic[int, str] = Logic(step=step, route=route, expires_at=expires_at)
    await run(processor_of(broker, logic), broker, checkpoint_every=1)
    # Source messages are a second apart, the first at 09:00:00: y is gone once a message of 09:00:04 was seen.
    broker.source += [cost(4, "z"), cost(5, "z"), cost(6, "z")]
    await run(processor_of(broker, logic), broker, checkpoint_every=1)
    assert seen == [(None, None), (1, None), (1, 1), (2, 1), (None, 1), (None, None), (None, None)]
    contents: dict[bytes, bytes] = {}
    await broker.restore(contents)
    assert sorted(key for key in contents if b"/k/" in key) == [b"0/k/z"]


@settings(max_examples=150, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 14), min_size=1, max_size=40),
    crashes=st.lists(st.integers(0, 25), max_size=6),
    every=st.integers(1, 7),
)
def test_no_crash_changes_the_outcome(numbers: list[int], crashes: list[int], every: int) -> None:
    """Duplicates upstream; a crash after any number of messages taken by the broker, in mid-checkpoint too."""
    team = {number: "abc"[number % 3] for number in range(15)}
    broker = Broker(source=[cost(number, team[number]) for number in numbers])

    async def live() -> None:
        for takes in crashes:
            broker.takes = takes
            try:
                await run(processor_of(broker), broker, checkpoint_every=every)
            except BrokerAway:
                continue
        broker.takes = float("inf")
        await run(processor_of(broker), broker, checkpoint_every=every)

    asyncio.run(live())
    assert broker.committed() == len(numbers)
    by_id: dict[str, set[tuple[str, int]]] = {}
    for _, key, record in broker.outputs:
        assert isinstance(record, TeamSpend)
        by_id.setdefault(record.event_id, set()).add((key, record.calls))
    assert all(len(contents) == 1 for contents in by_id.values()), "one id, two contents"
    expected = Counter(team[number] for number in set(numbers))
    assert sorted(content for (content,) in by_id.values()) == sorted(
        (name, count) for name, total in expected.items() for count in range(1, total + 1)
    )

"""The log replayed through the service's processor: the events of the core, with commands at their time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import numpy as np
from penstock.bus import Message
from penstock.clock import SystemClock
from penstock.contracts.codec import Codec
from penstock.contracts.records import Record, Signal

from services.drift.budget import Budget
from services.drift.core import Rules, logic
from services.drift.lookback.replay_log import Confirmed, ServiceReplay, event_line, events_of
from tests.unit.drift_partition import BEGIN, SEGMENT, Partition, a_command, a_signal

RULES = Rules(budget=Budget(per_day=1.0))


def there_and_back() -> list[Signal]:
    """Return a score that goes up at 300, and back at 600."""
    rng = np.random.default_rng(2)
    level = [2.0 if 300 <= number < 600 else 0.0 for number in range(900)]
    return [
        a_signal(number, {"retrieval.score": level[number] + 0.5 * float(rng.standard_normal())})
        for number in range(900)
    ]


def encoded(codec: Codec, records: Sequence[Record], topic: str) -> list[Message]:
    return [
        Message(topic, 2, number, round(record.occurred_at.timestamp() * 1000), b"key", codec.encode(topic, record))
        for number, record in enumerate(records)
    ]


async def run(replay: ServiceReplay, messages: Sequence[Message]) -> list[Confirmed]:
    async def source() -> AsyncIterator[Message]:
        for message in messages:
            yield message

    return [confirmed async for confirmed in replay.run(source())]


async def test_it_gives_what_the_core_gives(codec: Codec) -> None:
    records = there_and_back()
    direct = Partition(RULES).take(records).events
    replay = ServiceReplay(logic(RULES), codec, SystemClock())
    found = await run(replay, encoded(codec, records, "signals"))
    assert [one.event for one in found] == direct != []
    assert [one.event.returned for one in found] == [False, True]
    assert [one.index for one in found] == [one.place.offset for one in found]
    assert replay.messages == 900
    line = event_line(found[0])
    assert (line["index"], line["kind"], line["signal"]) == (found[0].index, "abrupt", "retrieval.score")
    assert line["event_id"] == direct[0].event_id
    assert line["evidence"]["test"] == [
        {
            "topic": "signals",
            "partition": 2,
            "first_offset": direct[0].test[0].first_offset,
            "last_offset": found[0].index,
        }
    ]


async def test_a_command_is_told_when_the_signals_have_come_to_its_time(codec: Codec) -> None:
    records = there_and_back()
    rebase = a_command("rebase", segment=SEGMENT, at=BEGIN + timedelta(seconds=500))
    before = Partition(RULES).take(records[:500]).take([rebase]).take(records[500:])
    replay = ServiceReplay(logic(RULES), codec, SystemClock(), encoded(codec, [rebase], "drift-commands"))
    found = await run(replay, encoded(codec, records, "signals"))
    assert [one.event for one in found] == before.events
    assert [one.event.returned for one in found] == [False, False], "what came first is not the baseline any more"


async def test_what_cannot_be_read_is_put_aside_and_the_rest_goes_on(codec: Codec) -> None:
    records = there_and_back()
    messages = encoded(codec, records, "signals")
    broken = [
        Message("signals", 2, 10_000 + number, messages[-1].timestamp_ms, b"key", b"\x01junk") for number in range(400)
    ]
    replay = ServiceReplay(logic(RULES), codec, SystemClock())
    found = await run(replay, [*broken, *messages])
    assert replay.refused == 400
    assert len(found) == 2


async def test_a_record_that_stands_twice_counts_once(codec: Codec) -> None:
    records = there_and_back()
    once = encoded(codec, records, "signals")
    twice = [
        each for number, message in enumerate(once) for each in ([message, message] if number % 7 == 0 else [message])
    ]
    moved = [Message(m.topic, m.partition, number, m.timestamp_ms, m.key, m.value) for number, m in enumerate(twice)]
    found = await run(ServiceReplay(logic(RULES), codec, SystemClock()), moved)
    assert [one.event.signal for one in found] == ["retrieval.score", "retrieval.score"]


def test_every_value_of_a_record_is_an_event_and_a_broken_vector_none() -> None:
    record = a_signal(
        3, {"a": 1.0}, categories={"b": "x"}, vectors={"c": np.ones(4, "<f4").tobytes(), "d": b"abc"}
    )  # fmt: skip
    message = Message("signals", 1, 77, 0, b"k", b"")
    events = list(events_of(record, message, 5))
    assert [(event.signal, event.index) for event in events] == [("a", 5), ("b", 5), ("c", 5)]
    assert all(event.place is not None and event.place.offset == 77 for event in events)

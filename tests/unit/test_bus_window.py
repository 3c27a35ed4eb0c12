"""What a hop reads ahead: how much, what a call gets of it, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from penstock.bus import Event, Hop, Message, Outcome, Urgency, by_priority, by_team, urgency_of
from penstock.bus.window import WAITING_BYTES, Window
from penstock.clock import ManualClock
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import AdmittedRequest, Context

NOW = datetime(2026, 7, 1, tzinfo=UTC)


async def handler(events: Sequence[Event[Any]]) -> Sequence[Outcome]:
    raise AssertionError("a window calls no handler")


def a_window(**options: Any) -> Window:
    return Window(Hop(service="s", group="g", topics=("t",), handler=handler, **options), ManualClock())


def an_event(number: int, team: str = "a", key: str = "", size: int = 10, priority: str = "standard") -> Event[Any]:
    record = AdmittedRequest(
        event_id=str(number), request_id=str(number), tenant_id=team, occurred_at=NOW, causation_id="",
        context=Context(requested_at=NOW, priority=priority), messages=[],
    )  # fmt: skip
    message = Message("t", 0, number, 0, (key or str(number)).encode(), b"x" * size)
    return Event(message, record)


def put(window: Window, *events: Event[Any]) -> None:
    for event in events:
        window.put(event.message, event)


def given(window: Window) -> list[int] | None:
    """Return the offsets that the next call gets."""
    work = window.next()
    return None if work is None else [message.offset for message, _ in work.taken]


def test_a_batch_is_filled_in_turns_and_a_key_may_stand_in_it_more_than_once() -> None:
    window = a_window(max_batch=4, waiting=100, flow=by_team, urgency=by_priority)
    put(window, *(an_event(n, "a", key="talk") for n in range(4)), an_event(4, "b"), an_event(5, "b", priority="batch"))
    assert given(window) == [0, 4, 1, 2]
    assert given(window) == [3, 5]
    assert given(window) is None


def test_of_concurrent_calls_each_gets_one_and_its_key_is_busy_until_it_is_done() -> None:
    window = a_window(concurrency=2, waiting=100)
    put(window, an_event(0, key="k"), an_event(1, key="k"), an_event(2, key="l"))
    first = window.next()
    assert first is not None
    assert [message.offset for message, _ in first.taken] == [0]
    assert given(window) == [2]
    assert given(window) is None
    window.done(first)
    assert given(window) == [1]


@pytest.mark.parametrize(
    ("options", "room"),
    [
        ({}, 256),
        ({"max_batch": 8}, 8),
        ({"max_batch": 8, "waiting": 50}, 50),
        ({"concurrency": 3}, 3),
        ({"concurrency": 3, "waiting": 50}, 50),
    ],
)
def test_room_is_what_the_hop_says_or_else_as_much_as_is_at_work(options: dict[str, int], room: int) -> None:
    assert a_window(**options).room == room


async def test_a_full_window_is_refilled_when_a_quarter_of_it_has_gone() -> None:
    window = a_window(max_batch=1, waiting=8)
    put(window, *(an_event(n) for n in range(8)))
    rooms = []
    for _ in range(3):
        rooms.append(window.room)
        assert given(window) is not None
    assert rooms == [0, 0, 2]
    assert await window.wait_for_room(0.0)


async def test_bytes_are_bounded_as_well() -> None:
    window = a_window(max_batch=1, waiting=1000)
    put(window, *(an_event(n, size=WAITING_BYTES // 4) for n in range(4)))
    assert window.room == 0
    assert not await window.wait_for_room(0.0)
    assert given(window) == [0]
    assert window.room == 997


def test_what_is_forgotten_leaves_room() -> None:
    window = a_window(max_batch=2, waiting=4)
    put(window, *(an_event(n) for n in range(4)))
    assert given(window) == [0, 1]
    assert window.clear() == 2
    assert window.room == 4
    assert given(window) is None


def test_what_cannot_be_decoded_or_is_of_no_use_goes_first_and_holds_up_nobody() -> None:
    window = a_window(max_batch=3, waiting=10, flow=by_team, urgency=by_priority)
    put(window, an_event(0))
    broken, useless = an_event(1).message, an_event(2).message
    window.put(broken, Undecodable("wrong_magic_byte", "no"))
    window.put(useless, None)
    assert given(window) == [1, 2, 0]


def test_urgency_is_by_class_and_then_by_deadline() -> None:
    order = [
        urgency_of("interactive", NOW),
        urgency_of("interactive", None),
        urgency_of("standard", NOW),
        urgency_of("standard", None),
        urgency_of("batch", NOW),
    ]
    assert order == sorted(order)
    assert urgency_of("of no class", None) == urgency_of("standard", None) == Urgency(1)

"""What waits for a slot: urgency first, the order of each key kept, nobody starved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from penstock.bus.waiting import AGED_EVERY, Urgency, Waiting

URGENCIES = st.builds(Urgency, st.integers(0, 2), st.sampled_from([1.0, 2.0, math.inf]))
ARRIVALS = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", None]), URGENCIES), max_size=40)


@dataclass(frozen=True)
class Item:
    number: int
    key: bytes | None
    urgency: Urgency


def test_the_most_urgent_goes_first_and_of_equal_ones_the_first() -> None:
    waiting: Waiting[str] = Waiting()
    for name, urgency in [
        ("batch", Urgency(2)),
        ("standard", Urgency(1)),
        ("late", Urgency(0, 9.0)),
        ("whenever", Urgency(0)),
        ("soon", Urgency(0, 3.0)),
        ("second", Urgency(1)),
    ]:
        waiting.put(name.encode(), name, urgency, now=0.0)
    order = [following[1] for _ in range(6) if (following := waiting.next(0.0))]
    assert order == ["soon", "late", "whenever", "standard", "second", "batch"]
    assert waiting.next(0.0) is None


@given(ARRIVALS, st.lists(st.booleans(), max_size=60), st.floats(0, 100))
def test_everything_goes_once_and_each_key_in_its_order(
    arrivals: list[tuple[bytes | None, Urgency]], finishing: list[bool], patience_s: float
) -> None:
    waiting: Waiting[Item] = Waiting(patience_s)
    out: list[Item] = []
    started: list[Item] = []
    events = iter(finishing)
    now = 0.0
    for number, (key, urgency) in enumerate(arrivals):
        now += 1.0
        waiting.put(key, Item(number, key, urgency), urgency, now, size=number)
        while next(events, False) and (following := waiting.next(now)):
            assert following[0] not in [item.key for item in out], "one of a key at a time"
            out.append(following[1])
            started.append(following[1])
        if next(events, False) and len(out) > 0:
            waiting.done(out.pop(0).key)
    while len(waiting) or out:
        while following := waiting.next(now):
            out.append(following[1])
            started.append(following[1])
        waiting.done(out.pop(0).key)
    assert sorted(item.number for item in started) == list(range(len(arrivals)))
    for key in (b"a", b"b", b"c", None):
        of_key = [item.number for item in started if item.key == key]
        assert of_key == sorted(of_key)
    assert waiting.size == 0


@given(st.lists(URGENCIES, min_size=1, max_size=40))
def test_without_age_nothing_goes_before_what_is_more_urgent(urgencies: list[Urgency]) -> None:
    waiting: Waiting[tuple[Urgency, int]] = Waiting()
    for number, urgency in enumerate(urgencies):
        waiting.put(str(number).encode(), (urgency, number), urgency, now=0.0)
    order = [following[1] for _ in urgencies if (following := waiting.next(1.0))]
    assert order == sorted(order)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 1)), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_flows_of_a_class_take_turns(arrivals: list[tuple[str, int]], taken_before: int) -> None:
    waiting: Waiting[tuple[str, int]] = Waiting()
    for number, (flow, rank) in enumerate(arrivals):
        waiting.put(str(number).encode(), (flow, rank), Urgency(rank), now=0.0, flow=flow)
    order = [following[1] for _ in arrivals if (following := waiting.next(0.0))]
    assert sorted(order) == sorted(arrivals)
    for rank in (0, 1):
        of_class = [flow for flow, at in order if at == rank]
        for place in range(len(of_class)):
            # As long as both have something left, none is two ahead of another.
            left = set(of_class[place:])
            counts = [of_class[:place].count(flow) for flow in left]
            assert max(counts) - min(counts) <= 1


def test_a_flood_of_one_flow_delays_another_by_one_of_it() -> None:
    waiting: Waiting[str] = Waiting()
    for number in range(1000):
        waiting.put(b"a-%d" % number, "flood", Urgency(1, float(number)), now=0.0, flow="a")
    for _ in range(100):
        assert waiting.next(0.0) is not None
    waiting.put(b"b-0", "other", Urgency(1), now=0.0, flow="b")
    waiting.put(b"b-1", "other", Urgency(1), now=0.0, flow="b")
    order = [following[1] for _ in range(5) if (following := waiting.next(0.0))]
    assert order.count("other") == 2
    assert order[:2].count("other") == 1


def test_a_flow_that_comes_back_at_once_saves_nothing_up_and_skips_nobody() -> None:
    waiting: Waiting[str] = Waiting()
    order = []
    for number in range(50):
        waiting.put(b"a-%d" % number, "a", Urgency(), now=0.0, flow="a")
    for number in range(20):
        waiting.put(b"b-%d" % number, "b", Urgency(), now=0.0, flow="b")
        for _ in range(2):
            following = waiting.next(0.0)
            assert following is not None
            order.append(following[1])
    assert order.count("b") == order.count("a") == 20


@given(st.integers(0, 8), st.integers(1, 200))
def test_what_is_aged_is_not_starved_by_what_is_urgent(before: int, stream: int) -> None:
    waiting: Waiting[int] = Waiting(patience_s=10.0)
    for number in range(before + 1):
        waiting.put(b"old-%d" % number, number, Urgency(2), now=0.0)
    starts = 0
    while True:
        # As many urgent ones come as go: by urgency alone the old ones would wait for ever.
        for number in range(stream):
            waiting.put(b"new-%d-%d" % (starts, number), -1, Urgency(0, 1.0), now=11.0)
        following = waiting.next(11.0)
        assert following is not None
        starts += 1
        if following[1] == before:
            break
        assert starts < AGED_EVERY * (before + 1)
    assert starts <= AGED_EVERY * (before + 1)


def test_what_is_aged_takes_no_more_than_its_share() -> None:
    waiting: Waiting[str] = Waiting(patience_s=10.0)
    for number in range(100):
        waiting.put(b"old-%d" % number, "old", Urgency(2), now=0.0)
        waiting.put(b"new-%d" % number, "new", Urgency(0), now=20.0)
    order = [following[1] for _ in range(40) if (following := waiting.next(20.0))]
    assert order.count("old") == 40 // AGED_EVERY


def test_what_is_cleared_comes_back_in_order_and_what_is_out_keeps_its_key_busy() -> None:
    waiting: Waiting[str] = Waiting()
    for name in ("first", "second", "third"):
        waiting.put(b"k", name, Urgency(), now=0.0, size=10)
    assert waiting.next(0.0) == (b"k", "first")
    assert waiting.clear() == ["second", "third"]
    assert (len(waiting), waiting.size) == (0, 0)
    waiting.put(b"k", "again", Urgency(), now=0.0)
    assert waiting.next(0.0) is None
    waiting.done(b"k")
    assert waiting.next(0.0) == (b"k", "again")

"""Only a prefix without a gap may be committed, in whatever order messages finish."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from penstock.bus import Partition
from penstock.bus.offsets import OffsetTracker

P = Partition("t", 0)


@given(st.sets(st.integers(0, 60), min_size=1), st.randoms(use_true_random=False))
def test_committable_is_the_first_unfinished_offset(offsets: set[int], random: object) -> None:
    taken = sorted(offsets)
    order = list(taken)
    random.shuffle(order)  # type: ignore[attr-defined]
    tracker = OffsetTracker()
    for offset in taken:
        tracker.taken(P, offset)
    finished: set[int] = set()
    for offset in order:
        tracker.finished(P, offset)
        finished.add(offset)
        open_offsets = [o for o in taken if o not in finished]
        done_before = [o for o in taken if not open_offsets or o < open_offsets[0]]
        expected = {P: done_before[-1] + 1} if done_before else {}
        assert tracker.committable() == expected
        assert tracker.in_flight == len(open_offsets)


def test_what_was_committed_is_not_offered_again() -> None:
    tracker = OffsetTracker()
    tracker.taken(P, 7)
    tracker.finished(P, 7)
    tracker.committed(tracker.committable())
    assert tracker.committable() == {}


def test_messages_of_partitions_that_moved_are_ignored() -> None:
    tracker = OffsetTracker()
    tracker.taken(P, 0)
    tracker.forget()
    tracker.finished(P, 0)
    assert tracker.committable() == {}
    assert tracker.in_flight == 0


def test_what_was_begun_before_its_partition_came_back_counts_when_it_is_read_again() -> None:
    tracker = OffsetTracker()
    tracker.taken(P, 1)
    tracker.forget()
    tracker.taken(P, 0)
    tracker.finished(P, 1)
    assert tracker.in_flight == 1
    tracker.finished(P, 0)
    tracker.taken(P, 1)
    assert tracker.in_flight == 1
    tracker.finished(P, 1)
    assert tracker.in_flight == 0
    assert tracker.committable() == {P: 2}


def test_finishing_twice_counts_once() -> None:
    tracker = OffsetTracker()
    tracker.taken(P, 0)
    tracker.taken(P, 1)
    tracker.finished(P, 1)
    tracker.finished(P, 1)
    assert tracker.in_flight == 1
    assert tracker.committable() == {}

"""The false-alarm budget: what is handed out in a day never exceeds it, whatever the traffic does."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.drift.budget import Budget, Clock, advanced, allowance
from services.drift.core import Rules
from services.drift.detectors import Detectors
from tests.unit.drift_partition import Partition, a_signal

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
# Without the limit of a single value: the series alone must keep the day's sum.
OPEN = Budget(per_day=0.25, most=1.0)

Events = Iterable[tuple[int, datetime, int]]


def handed_out(events: Events, budget: Budget) -> Iterator[tuple[datetime, float, Clock]]:
    """Yield of each event (offset, timestamp, values) its time, all it got, and the clock after it."""
    clock: Clock | None = None
    for offset, at, values in events:
        each = allowance(clock, offset, at, budget, values)
        clock = advanced(clock, offset, at, budget)
        yield at, each * values, clock


def by_day(events: Events, budget: Budget) -> dict[datetime, float]:
    """Return the sum of what was handed out by day of the partition's clock, which never runs back."""
    days: dict[datetime, float] = defaultdict(float)
    newest = BEGIN
    for at, given_out, _ in handed_out(events, budget):
        newest = max(newest, at)
        days[newest.replace(hour=0, minute=0, second=0, microsecond=0)] += given_out
    return days


def traffic(counts: Iterable[int], seed: int = 1, first: int = 0) -> list[tuple[int, datetime, int]]:
    """Return events of consecutive hours with so many events each, at any moment of the hour, of 1 to 9 values."""
    rng = np.random.default_rng(seed)
    events = []
    offset = first
    for hour, count in enumerate(counts):
        for second in sorted(rng.uniform(0, 3600, count)):
            events.append((offset, BEGIN + timedelta(hours=hour, seconds=float(second)), int(rng.integers(1, 10))))
            offset += 1
    return events


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.sampled_from([0, 0, 1, 7, 60, 255, 256, 257, 900, 4000]), min_size=1, max_size=52),
    seed=st.integers(0, 2**16),
    first=st.integers(0, 10**6),
)
def test_no_day_hands_out_more_than_its_share(counts: list[int], seed: int, first: int) -> None:
    for day, total in by_day(traffic(counts, seed, first), OPEN).items():
        assert total <= OPEN.per_day * (1 + 1e-9), day


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_events_out_of_order_and_gaps_of_offsets_do_not_break_the_bound(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    gap, jitter = data.draw(st.integers(1, 50)), data.draw(st.sampled_from([0, 60, 7200, 200_000]))
    events = [
        (number * gap, BEGIN + timedelta(seconds=max(0.0, number * 20 + float(rng.normal(0, jitter)))), 3)
        for number in range(data.draw(st.integers(1, 6000)))
    ]
    assert max(by_day(events, OPEN).values()) <= OPEN.per_day * (1 + 1e-9)


def test_the_bound_of_the_installation_is_that_of_its_partitions_together() -> None:
    """Four partitions under traffic that grows a hundredfold and ends: the worst day of any of them, summed."""
    worst = 0.0
    for partition in range(4):
        growing = [int(40 * 1.1**hour) for hour in range(49)]
        worst += max(by_day(traffic(growing, partition), OPEN).values())
    assert 0.4 <= worst <= 1.0


def test_steady_traffic_gets_four_fifths_of_it_in_equal_parts() -> None:
    steady = [3000] * 24 * 2
    out = list(handed_out(traffic(steady), OPEN))
    second_day = [given_out for at, given_out, _ in out if at >= BEGIN + timedelta(days=1)]
    assert math.fsum(second_day) == pytest.approx(0.8 * OPEN.per_day, rel=1e-6)
    assert max(second_day) == pytest.approx(min(second_day))


def test_a_quiet_partition_stays_under_the_limit_of_a_value() -> None:
    quiet = [(number, BEGIN + timedelta(hours=7 * number), 1) for number in range(200)]
    budget = Budget(per_day=1.0)
    each = [given_out for _, given_out, _ in handed_out(quiet, budget)]
    assert max(each) == budget.most == 2e-5


def test_the_values_of_an_event_share_its_part() -> None:
    clock = advanced(None, 0, BEGIN, OPEN)
    one, ten = (allowance(clock, 5, BEGIN, OPEN, values) for values in (1, 10))
    assert one == pytest.approx(10 * ten)
    assert allowance(clock, 5, BEGIN, OPEN, 0) == one, "an event without values divides by nothing"


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, 700), min_size=1, max_size=30), data=st.data())
def test_a_replay_on_a_clock_that_is_ahead_gives_each_event_the_same(counts: list[int], data: st.DataObject) -> None:
    events = traffic(counts)
    if not events:
        return
    clocks: list[Clock | None] = [None]
    first: list[float] = []
    for offset, at, values in events:
        first.append(allowance(clocks[-1], offset, at, OPEN, values))
        clocks.append(advanced(clocks[-1], offset, at, OPEN))
    back = data.draw(st.integers(0, len(events) - 1))
    ahead = data.draw(st.integers(back, len(events)))
    clock = msgspec.msgpack.decode(msgspec.msgpack.encode(clocks[ahead]), type=Clock | None)
    for number in range(back, len(events)):
        offset, at, values = events[number]
        assert allowance(clock, offset, at, OPEN, values) == first[number]
        clock = advanced(clock, offset, at, OPEN)
    assert clock == clocks[-1]


def test_a_clock_changes_with_the_hour_only_and_stays_small() -> None:
    events = traffic([5] * 24 * 30)
    clocks = [clock for _, _, clock in handed_out(events, OPEN)]
    assert sum(before is not after for before, after in pairwise(clocks)) == 24 * 30 - 1
    assert len(msgspec.msgpack.encode(clocks[-1])) < 6000


def test_what_is_older_than_all_that_is_remembered_gets_next_to_nothing() -> None:
    clock: Clock | None = None
    for offset, at, _ in traffic([1] * 300, first=10_000):
        clock = advanced(clock, offset, at, OPEN)
    assert 0 < allowance(clock, 3_000, BEGIN, OPEN, 1) < 1e-6


def wealth_of(detectors: Detectors) -> float:
    """Return what the detectors of a segment have, with the alphas of the candidates under judgement."""
    held = 0.0
    for number in detectors.numbers.values():
        held += (number.wealth or 0.0) + sum(each.alpha for each in (number.level, number.spread) if each is not None)
    for vector in detectors.vectors.values():
        held += vector.topic.wealth + sum(trial.alpha for trial in vector.topic.trials)
    for category in detectors.categories.values():
        held += category.wealth + (category.pending.alpha if category.pending is not None else 0.0)
    return held


@pytest.mark.parametrize("seed", range(3))
def test_no_detector_has_what_was_not_handed_out(seed: int) -> None:
    """Not to begin with, not after a change, and not what another segment has: two releases, a change, idle signals."""
    rng = np.random.default_rng(seed)
    run = Partition(Rules(budget=Budget(per_day=1.0)))
    handed = 0.0
    clock: Clock | None = None
    for n in range(900):
        values = {
            "cost.usd": float(rng.lognormal(1.0 if n > 600 else 0.0, 0.4)),
            "model.error": float(rng.random() < 0.1),
        }
        record = a_signal(
            n,
            values,
            vectors={"prompt.topic": rng.standard_normal(32).astype("<f4").tobytes()},
            categories={"prompt.language": "abc"[int(rng.integers(0, 3))]},
            segment=f"support|m|v{n // 300}|default",
        )
        handed += 4 * allowance(clock, n, record.occurred_at, run.rules.budget, 4)
        clock = advanced(clock, n, record.occurred_at, run.rules.budget)
        run.take([record])
        held = sum(wealth_of(run.segment(f"support|m|v{version}|default").detectors) for version in range(n // 300 + 1))
        assert held <= handed * (1 + 1e-9), n
    assert run.events, "what was spent on the change is gone"

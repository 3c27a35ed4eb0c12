"""What one odd event or a large family must not do to a segment."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from services.drift.core import Observed, Rules, SegmentState, observe
from tests.unit.drift_partition import BEGIN, SEGMENT, Partition, a_command, a_signal


def test_a_clock_that_was_ahead_once_does_not_stop_the_hours_from_being_learned() -> None:
    state: SegmentState | None = None
    rules = Rules()
    for number in range(600):
        now = BEGIN + timedelta(minutes=6 * number)
        at = now + timedelta(days=3650) if number == 40 else now
        record = a_signal(number, {"model.latency_ms": 200.0 + number % 7}, at=at)
        state, _ = observe(state, Observed(record, 2, number), now, rules)
    assert state is not None
    profile = state.detectors.profiles["model.latency_ms"]
    assert profile.visit is not None
    assert profile.visit.hour == int(now.timestamp()) // 3600
    assert profile.visits == 59


def test_a_command_for_a_segment_that_its_family_no_longer_remembers_is_carried_out() -> None:
    run = Partition().take(a_signal(number, {"cost.usd": 0.5}) for number in range(50))
    others = (SEGMENT.replace("|v1|", f"|w{number}|") for number in range(70))
    later = BEGIN + timedelta(hours=1)
    run.take(a_signal(50 + number, {"cost.usd": 0.5}, segment=each, at=later) for number, each in enumerate(others))
    state = run.segment()
    run.states[SEGMENT] = msgspec.structs.replace(state, returns={"cost.usd": 3})
    run.take([a_command("rebase", segment=SEGMENT)])
    assert run.segment().returns == {}

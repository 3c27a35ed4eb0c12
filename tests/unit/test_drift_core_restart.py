"""Crashes in the middle of a checkpoint: whatever part of the states reached the changelog, the same changes are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from penstock.bus import Message
from penstock.contracts.records import Record, Signal
from penstock.stateful.table import IdLimits, Overlay

from services.drift.budget import Budget
from services.drift.core import Rules, State, logic
from tests.unit.drift_partition import Partition, a_signal

RULES = Rules(budget=Budget(per_day=1.0))


def releases() -> list[Signal]:
    """Three prompt versions side by side and one after another, the later ones with costlier answers; a checkpoint often
    holds the birth of one beside events of those it may replace."""
    rng = np.random.default_rng(12)
    born = {1: 0, 2: 230, 3: 236, 4: 420}
    feed = []
    for n in range(560):
        known = [version for version, at in born.items() if at <= n]
        version = known[-1] if n in born.values() else int(rng.choice(known[-3:]))
        cost = 1e-5 * (3 if version >= 3 else 1) * float(np.exp(rng.normal(0, 0.3)))
        feed.append(a_signal(n, {"cost.usd": cost}, segment=f"support|m|v{version}|default"))
    return feed


class Shell:
    """Processor and changelog of one partition, with crashes that leave any prefix of a checkpoint's writes."""

    def __init__(self) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.told: dict[str, Record] = {}
        """The first record of each identity: what readers keep."""
        self._rules = logic(RULES)

    def run(self, feed: Sequence[Signal], checkpoint_every: int, crashes: Iterator[float]) -> None:
        position = 0
        while position < len(feed):
            overlay = Overlay(dict(self.durable), self._rules.state_type, self._rules.expires_at, IdLimits(), 100)
            while position < len(feed):
                batch = feed[position : position + checkpoint_every]
                for record in batch:
                    self._take(overlay, record)
                writes = list(overlay.cut().items())
                crash = next(crashes)
                kept = len(writes) if crash >= 1 else int(crash * len(writes))
                for key, entry in writes[:kept]:
                    assert entry is not None
                    self.durable[key] = entry
                if crash < 1:
                    break  # nothing of this batch was acknowledged
                overlay.install(dict(writes))
                position += len(batch)

    def _take(self, overlay: Overlay, record: Signal) -> None:
        offset = record.source_offset
        message = Message("signals", 2, offset, round(record.occurred_at.timestamp() * 1000), b"key", b"")
        stores: list[tuple[Any, Any]] = []
        for key, event in self._rules.route(record, message, lambda key: overlay.read(2, key)):
            assert key is not None
            live = overlay.load(2, key)
            if live.applied.get("signals", -1) >= offset:
                continue
            state, emits = self._rules.step(live.state, event, record.occurred_at)
            for emit in emits:
                self.told.setdefault(emit.record.event_id, emit.record)
            if state is not live.state:
                stores.append((live, state))
        for live, state in stores:
            overlay.store(live, state, "signals", offset)

    def states(self) -> dict[str, bytes]:
        overlay = Overlay(dict(self.durable), self._rules.state_type, None, IdLimits(), 100)
        keys = (key.removeprefix(b"2/k/").decode() for key in sorted(self.durable))
        return {key: msgspec.msgpack.encode(overlay.read(2, key)) for key in keys}


@pytest.mark.parametrize("seed", range(12))
def test_detections_equal_an_uninterrupted_runs_wherever_the_crashes_fall(seed: int) -> None:
    feed = releases()
    whole = Partition(RULES).take(feed)
    assert len(whole.events) >= 2
    assert {event.reference_mode for event in whole.events} == {"release"}
    rng = np.random.default_rng(seed)
    shell = Shell()
    # Every other checkpoint is cut short, after any number of its writes.
    crashes = iter(lambda: float(rng.random()) if rng.random() < 0.5 else 1.0, None)
    shell.run(feed, int(rng.integers(3, 60)), crashes)
    assert shell.told == {emit.record.event_id: emit.record for emit in whole.emits}
    assert shell.states() == {key: msgspec.msgpack.encode(state) for key, state in whole.states.items()}


def test_the_states_of_all_sorts_are_told_apart_in_the_changelog() -> None:
    states = Partition(RULES).take(releases()[:5]).states
    for state in states.values():
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State)
        assert again == state
        assert type(again) is type(state)

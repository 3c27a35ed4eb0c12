"""A partition of signals in memory: the shell of the drift service in small, for its pure core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from penstock.bus import Emit, Message
from penstock.contracts.records import Alert, DriftCommand, DriftEvent, Record, Signal

from services.drift.budget import Budget
from services.drift.core import Rules, State, logic
from services.drift.segments import SegmentState

__all__ = ["BEGIN", "SEGMENT", "Partition", "a_command", "a_signal"]

BEGIN = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SEGMENT = "support|extractive|v1|default"


def a_signal(
    number: int,
    values: Mapping[str, float] | None = None,
    *,
    segment: str = SEGMENT,
    vectors: Mapping[str, bytes] | None = None,
    categories: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    at: datetime | None = None,
) -> Signal:
    """Return the ``number``-th signal of the partition, one a second unless said."""
    return Signal(
        event_id=f"e{number}",
        request_id=f"r{number}",
        tenant_id=segment.split("|")[0],
        occurred_at=at or BEGIN + timedelta(seconds=number),
        causation_id=f"c{number}",
        segment=segment,
        source="completions",
        source_partition=0,
        source_offset=number,
        values=dict(values or {}),
        categories=dict(categories or {}),
        vectors=dict(vectors or {}),
        versions=dict(versions or {}),
    )


@dataclass
class Partition:
    """States by key, one record after another; offsets count by topic."""

    rules: Rules = field(default_factory=lambda: Rules(budget=Budget(per_day=1.0)))
    states: dict[str, State] = field(default_factory=dict)
    emits: list[Emit] = field(default_factory=list)
    taken: list[tuple[int, Record]] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)

    def take(self, records: Iterable[Record]) -> Partition:
        """Run records of signals or commands; a signal's offset is the number of its source."""
        rules = logic(self.rules)
        for record in records:
            if isinstance(record, Signal):
                topic, offset = "signals", record.source_offset
            else:
                topic, offset = "drift-commands", self.offsets.get("drift-commands", -1) + 1
            self.offsets[topic] = offset
            at = record.occurred_at
            message = Message(topic, 2, offset, round(at.timestamp() * 1000), b"key", b"")
            stores: list[tuple[str, Any]] = []
            for key, event in rules.route(record, message, self.states.get):
                assert key is not None
                state, emits = rules.step(self.states.get(key), event, at)
                self.emits += emits  # type: ignore[arg-type]
                stores.append((key, state))
            self.states.update(stores)
            self.taken.append((offset, record))
        return self

    @property
    def events(self) -> list[DriftEvent]:
        """The drift events so far."""
        return [emit.record for emit in self.emits if isinstance(emit.record, DriftEvent)]

    @property
    def alerts(self) -> list[Alert]:
        """The alerts so far."""
        return [emit.record for emit in self.emits if isinstance(emit.record, Alert)]

    def segment(self, name: str = SEGMENT) -> SegmentState:
        """Return the state of a segment."""
        state = self.states[name]
        assert isinstance(state, SegmentState)
        return state

    def restored(self) -> Partition:
        """Return the partition as it comes back from the changelog."""
        states = {
            key: msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State) for key, state in self.states.items()
        }
        return Partition(self.rules, states, list(self.emits), list(self.taken), dict(self.offsets))


def a_command(action: str, *, segment: str = SEGMENT, at: datetime = BEGIN, **more: Any) -> DriftCommand:
    """Return a command about a segment."""
    return DriftCommand(
        event_id=f"k-{action}-{segment}-{at.isoformat()}",
        request_id="",
        tenant_id=segment.split("|")[0],
        occurred_at=at,
        causation_id="",
        action=action,
        segment=segment,
        author="ada",
        reason="wanted",
        **more,
    )

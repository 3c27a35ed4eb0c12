"""When a processor takes its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.stateful.table import IdLimits

__all__ = ["Checkpointing"]


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """When a checkpoint is taken and what bounds the work between two.

    Attributes:
        interval_s: longest an event waits for its checkpoint to begin.
        max_events: a checkpoint begins early at so many events.
        max_in_flight: the stream waits at so many events without a finished checkpoint.
        max_clean_states: decoded states kept in memory beside those waiting for a checkpoint.
        recent_ids: bounds of the sets of event ids against upstream duplicates.
        dead_letter_ratio: the worker stops when more than this share of the last ``dead_letter_window`` events went to
            the DLQ.
        dead_letter_window: events over which the ratio is taken; none is taken over fewer.
    """

    interval_s: float = 0.2
    max_events: int = 2_000
    max_in_flight: int = 8_000
    max_clean_states: int = 20_000
    recent_ids: IdLimits = field(default_factory=IdLimits)
    dead_letter_ratio: float = 0.2
    dead_letter_window: int = 200

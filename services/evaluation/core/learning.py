"""What labels have taught the toxicity model since it was shipped: bounded, and slow to be turned around."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from services.evaluation.core.toxicity import ToxicityModel, updated

__all__ = ["Learned", "Lesson", "learn"]

_RATE = {"moderator": 0.5, "system": 0.5}
# Anybody can press a button: what users say moves the model, but slowly.
_RATE_OF_OTHERS = 0.1
_LIMIT = 1.5
_MAX_DELTAS = 4_096
_MAX_UPDATES_AN_HOUR = 240


class Learned(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Differences to the shipped weights by bucket, to the intercept, and how many labels made them."""

    deltas: dict[int, float] = {}
    bias: float = 0.0
    updates: int = 0
    hour: int = 0
    updates_in_hour: int = 0


@dataclass(frozen=True, slots=True)
class Lesson:
    """The labels in one piece of feedback: the buckets of each labelled text and whether it is toxic."""

    source: str
    labelled: tuple[tuple[tuple[int, ...], bool], ...]


def learn(state: Learned, lesson: Lesson, model: ToxicityModel, now: datetime) -> Learned:
    """Return the state after ``lesson``; over the hour's limit it is returned as it was."""
    hour = int(now.timestamp() // 3600)
    so_far = state.updates_in_hour if hour == state.hour else 0
    if so_far >= _MAX_UPDATES_AN_HOUR:
        return state
    deltas, bias = state.deltas, state.bias
    for buckets, toxic in lesson.labelled:
        rate = _RATE.get(lesson.source, _RATE_OF_OTHERS)
        deltas, bias = updated(model, deltas, bias, buckets, toxic, rate=rate, limit=_LIMIT)
    return Learned(
        # Rounded as stored: after a restart the scores are the same to the last bit.
        {bucket: delta for bucket, delta in _strongest(deltas) if delta},
        round(bias, 6),
        state.updates + len(lesson.labelled),
        hour,
        so_far + len(lesson.labelled),
    )


def _strongest(deltas: dict[int, float]) -> list[tuple[int, float]]:
    rounded = sorted((bucket, round(delta, 6)) for bucket, delta in deltas.items())
    if len(rounded) <= _MAX_DELTAS:
        return rounded
    return sorted(sorted(rounded, key=lambda item: -abs(item[1]))[:_MAX_DELTAS])

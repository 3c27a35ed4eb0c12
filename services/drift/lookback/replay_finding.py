"""What a detector is to a replay, and what it says."""

from __future__ import annotations

import math
from collections import deque
from datetime import datetime
from typing import NamedTuple, Protocol

from services.drift.lookback.replay_lines import Value

__all__ = ["Detector", "Finding", "Trail", "UnknownParameter"]

_KEPT = 4096


class UnknownParameter(ValueError):
    """A detector was given a parameter that it does not have, or a value that it does not take."""


class Finding(NamedTuple):
    """A detection, with offsets as the detector was given them.

    Attributes:
        kind: abrupt, gradual, recurring or outlier; ``None`` where the detector does not tell them apart.
        what: what changed: level, spread, mixture, topic, or distribution where the detector sees all of it.
        change: offset at which the change is believed to have begun; ``None`` where the detector does not say.
        reference_first: offset of the reference's first value.
        before_count: values of the reference.
        after_count: values since the change.
        size: the change in the reference's standard deviations, where it is known.
        statistic: what was compared.
        threshold: with what.
        before: figures of the reference.
        after: figures since the change.
        returned: whether the first state of all is back.
    """

    kind: str | None
    what: str
    change: int | None
    reference_first: int
    before_count: int
    after_count: int | None
    size: float | None
    statistic: float | None
    threshold: float | None
    before: dict[str, float]
    after: dict[str, float]
    returned: bool = False


class Detector(Protocol):
    """Watches the values of one stream."""

    name: str

    def update(self, value: Value, offset: int, at: datetime | None = None) -> Finding | None:
        """Take one value; return the change if this value made the detector raise it.

        Args:
            value: the value.
            offset: where it stands.
            at: when it occurred, where that is known, for what depends on the hour.

        Raises:
            services.drift.lookback.replay_lines.BadLine: it does not watch such values.
        """
        ...


class Trail:
    """What the values since the last detection were, for detectors that only say that there is a change: sums of all,
    and the newest 4,096 with their offsets."""

    def __init__(self) -> None:
        self._first = -1
        self._count = 0
        self._total = 0.0
        self._squares = 0.0
        self._newest: deque[tuple[float, int]] = deque(maxlen=_KEPT)

    def add(self, value: float, offset: int) -> None:
        """Take one value."""
        if self._first < 0:
            self._first = offset
        self._count += 1
        self._total += value
        self._squares += value * value
        self._newest.append((value, offset))

    def finding(self, what: str, since: int | None, statistic: float | None, threshold: float | None) -> Finding:
        """Describe a change that lies before the newest ``since`` values, or somewhere (``None``)."""
        if since is None or not 0 < since <= len(self._newest) or since == self._count:
            before = {"mean": self._total / self._count}
            return Finding(
                None, what, None, self._first, self._count, None, None, statistic, threshold, before, {}
            )  # fmt: skip
        after = [self._newest[index] for index in range(len(self._newest) - since, len(self._newest))]
        total = math.fsum(value for value, _ in after)
        squares = math.fsum(value * value for value, _ in after)
        count = self._count - since
        mean = (self._total - total) / count
        variance = max((self._squares - squares) / count - mean * mean, 0.0)
        size = abs(total / since - mean) / math.sqrt(variance) if variance > 0 else None
        return Finding(
            None, what, after[0][1], self._first, count, since, size, statistic, threshold, {"mean": mean},
            {"mean": total / since},
        )  # fmt: skip

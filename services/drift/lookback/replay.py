"""Detectors run over history, pure: values in, detections out, and how good they were where the changes are known.

A stream is one signal of one segment; each has a detector of its own, and what is kept is constant for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any, NamedTuple

from services.drift.lookback.replay_finding import Detector, Finding
from services.drift.lookback.replay_lines import BadLine, Event, Value

__all__ = ["Detection", "Filter", "Replay", "as_line", "chosen"]


class Detection(NamedTuple):
    """A change that a detector raised.

    Attributes:
        event: the event at which it was raised.
        detector: name of the detector.
        position: how many values of the stream came before that event's.
        finding: what the detector says, with indices (offsets, for the log).
        partition: where the detector read its offsets, for the log.
    """

    event: Event
    detector: str
    position: int
    finding: Finding


class Filter(NamedTuple):
    """Which events are replayed."""

    segment: str | None = None
    signal: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def chosen(events: Iterable[Event], only: Filter) -> Iterator[Event]:
    """Yield the events of a segment, a signal, a period (its end excluded); each keeps its index."""
    for event in events:
        if only.segment not in (None, event.segment) or only.signal not in (None, event.signal):
            continue
        if only.since is not None and (event.at is None or event.at < only.since):
            continue
        if only.until is not None and (event.at is None or event.at >= only.until):
            continue
        yield event


class _Stream:
    """The detectors of one signal of one segment."""

    __slots__ = ("detectors", "kind", "seen")

    def __init__(self, kind: str, detectors: Sequence[Detector]) -> None:
        self.kind = kind
        self.detectors = detectors
        self.seen = 0


class Replay:
    """Runs detectors over streams.

    Args:
        factories: name of each detector, and what makes one by the name of a signal.
        clock: measures seconds, for the pace of each detector.
    """

    def __init__(
        self,
        factories: Sequence[tuple[str, Callable[[str], Detector]]],
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._factories = factories
        self._clock = clock
        self._streams: dict[tuple[str | None, str], _Stream] = {}
        self.seconds = dict.fromkeys((name for name, _ in factories), 0.0)
        """Time spent in each detector."""

    def observe(self, event: Event) -> list[Detection]:
        """Take one value; return what the detectors raised at it.

        Raises:
            BadLine: the value is not of the kind of those before it, or none that a detector watches.
        """
        key, kind = (event.segment, event.signal), _kind(event.value)
        stream = self._streams.get(key)
        if stream is None:
            stream = _Stream(kind, [make(event.signal) for _, make in self._factories])
            self._streams[key] = stream
        elif stream.kind != kind:
            raise BadLine(
                f"index {event.index}: a {kind} of signal {event.signal!r}, which was a {stream.kind} so far; name the "
                "signals apart under 'signal', or the field with --field"
            )
        offset = event.index if event.place is None else event.place.offset
        position, found = stream.seen, []
        stream.seen += 1
        for (name, _), detector in zip(self._factories, stream.detectors, strict=True):
            started = self._clock()
            try:
                finding = detector.update(event.value, offset, event.at)
            except BadLine as error:
                raise BadLine(f"index {event.index}: {error}") from None
            self.seconds[name] += self._clock() - started
            if finding is not None:
                found.append(Detection(event, name, position, finding))
        return found

    def counts(self) -> dict[tuple[str | None, str], int]:
        """Return how many values each stream had."""
        return {key: stream.seen for key, stream in self._streams.items()}


def as_line(detection: Detection) -> dict[str, Any]:
    """Return a detection as the fields of its JSON line."""
    event, finding = detection.event, detection.finding
    at = {} if event.at is None else {"timestamp": event.at.isoformat().replace("+00:00", "Z")}
    return {
        "index": event.index,
        "kind": finding.kind,
        "segment": event.segment,
        "signal": event.signal,
        "detector": detection.detector,
        **at,
        "change_index": finding.change if event.place is None else None,
        "what": finding.what,
        "returned": finding.returned,
        "size": finding.size,
        "statistic": finding.statistic,
        "threshold": finding.threshold,
        "before": finding.before,
        "after": finding.after,
        "evidence": _evidence(detection),
    }


def _evidence(detection: Detection) -> dict[str, Any]:
    """Return where the two windows lie. Their first and last include events of other streams in between."""
    event, finding = detection.event, detection.finding
    last = event.index if event.place is None else event.place.offset
    change = finding.change
    reference_last = (last if change is None else max(change - 1, finding.reference_first), finding.before_count)
    reference = _range(detection, finding.reference_first, *reference_last)
    if change is None:
        return {"reference": reference, "test": None}
    return {"reference": reference, "test": _range(detection, change, last, finding.after_count)}


def _range(detection: Detection, first: int, last: int, count: int | None) -> dict[str, Any]:
    place = detection.event.place
    if place is None:
        return {"first_index": first, "last_index": last, "count": count}
    return {
        "topic": place.topic, "partition": place.partition, "first_offset": first, "last_offset": last, "count": count
    }  # fmt: skip


def _kind(value: Value) -> str:
    return "number" if isinstance(value, float) else "category" if isinstance(value, str) else "vector"

"""How good detections are where the changes are known."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from services.drift.lookback.replay_lines import Event

__all__ = ["BadTruth", "KnownChange", "Scored", "Scores", "read_truth"]

_PER = 10_000


class BadTruth(ValueError):
    """What is said to be the known changes cannot be read."""


class KnownChange(msgspec.Struct, frozen=True):
    """A change that is known: the index of its first event or the instant it began at, and the segment and signal it is
    in (``None``: all)."""

    index: int | datetime
    segment: str | None = None
    signal: str | None = None

    def reached(self, event: Event) -> bool:
        """Tell whether an event comes at or after it."""
        if isinstance(self.index, datetime):
            return event.at is not None and event.at >= self.index
        return event.index >= self.index

    def concerns(self, segment: str | None, signal: str) -> bool:
        """Tell whether it is one of this stream's."""
        return self.segment in (None, segment) and self.signal in (None, signal)


class Scored(NamedTuple):
    """One known change in one stream, and how soon a detector raised it.

    Attributes:
        change: the change.
        segment: of the stream.
        signal: of the stream.
        detected: index of the event at which it was raised; ``None`` where it was missed.
        delay: values of the stream from the change's first to the one that raised it, both included.
        kind: what the detector took it for.
    """

    change: KnownChange
    segment: str | None
    signal: str
    detected: int | None
    delay: int | None
    kind: str | None


def read_truth(text: str) -> list[KnownChange]:
    """Read known changes: JSON lines, or one list, of indices or instants, or of objects with ``index`` and, where it is
    not all of them, ``segment`` and ``signal``.

    Raises:
        BadTruth: it is none of that.
    """
    try:
        whole = msgspec.json.decode(text)
        entries = whole.get("changes", [whole]) if isinstance(whole, dict) else whole
        if not isinstance(entries, list):
            entries = [entries]
    except msgspec.DecodeError:
        entries = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    entries.append(msgspec.json.decode(line))
                except msgspec.DecodeError as error:
                    raise BadTruth(f"line {number} is not JSON: {error}") from error
    changes = [_change(entry) for entry in entries]
    if len({type(change.index) for change in changes}) > 1:
        raise BadTruth("indices and instants cannot stand beside each other: write all changes in one way")
    return sorted(changes, key=_order)


def _order(change: KnownChange) -> Any:
    return change.index


def _change(entry: Any) -> KnownChange:
    fields = entry if isinstance(entry, dict) else {"index": entry}
    index = next((fields[name] for name in ("index", "change_index", "change", "at") if name in fields), None)
    if isinstance(index, str):
        try:
            index = datetime.fromisoformat(index)
            index = index.replace(tzinfo=UTC) if index.tzinfo is None else index.astimezone(UTC)
        except ValueError as error:
            raise BadTruth(
                f"{index!r} is neither an index from 0 nor an instant such as 2026-01-05T09:00:00Z"
            ) from error
    elif not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise BadTruth(
            f"{entry!r} is no change: write an index from 0 or an instant, or an object with one under 'index'"
        )
    for name in ("segment", "signal"):
        if not isinstance(fields.get(name), str | None):
            raise BadTruth(f"{entry!r}: {name!r} must be a text")
    return KnownChange(index, fields.get("segment"), fields.get("signal"))


def _plain(index: int | datetime) -> int | str:
    return index.isoformat().replace("+00:00", "Z") if isinstance(index, datetime) else index


class Scores:
    """Holds the detections of one detector against the known changes, as the stream goes by.

    A detection belongs to the newest known change of its stream, unless more than ``within`` values came since; the
    first one finds the change, others repeat it. A detection that belongs to none is a false alarm.

    Args:
        changes: what is known; empty where it is known that nothing changes, ``None`` where nobody knows.
        within: values after a change in which it must be raised; by default up to the next one.
    """

    def __init__(self, changes: Sequence[KnownChange] | None, within: int | None = None) -> None:
        self._changes = None if changes is None else sorted(changes, key=_order)
        self._within = within
        self._streams: dict[tuple[str | None, str], _Progress] = {}
        self.values = 0
        self.detections = 0
        self.false_alarms = 0
        self.repeated = 0

    def passed(self, event: Event) -> None:
        """Take note of an event; before its detections are told."""
        key = (event.segment, event.signal)
        progress = self._streams.get(key)
        if progress is None:
            progress = _Progress([change for change in self._changes or () if change.concerns(*key)])
            self._streams[key] = progress
        progress.seen += 1
        self.values += 1
        while progress.ahead and progress.ahead[0].reached(event):
            progress.started.append(_Started(progress.ahead.pop(0), progress.seen))

    def detected(self, segment: str | None, signal: str, index: int, kind: str | None) -> None:
        """Take a detection in a stream, at the event of it that passed last."""
        self.detections += 1
        progress = self._streams[(segment, signal)]
        newest = progress.started[-1] if progress.started else None
        delay = progress.seen - newest.at + 1 if newest is not None else 0
        if newest is None or (self._within is not None and delay > self._within):
            self.false_alarms += 1
        elif newest.detected is None:
            newest.detected, newest.delay, newest.kind = index, delay, kind
        else:
            self.repeated += 1

    def scored(self) -> list[Scored]:
        """Return every known change that the streams have reached."""
        return [
            Scored(one.change, segment, signal, one.detected, one.delay, one.kind)
            for (segment, signal), progress in self._streams.items()
            for one in progress.started
        ]

    def summary(self, seconds: float) -> Mapping[str, Any]:
        """Return all figures; ``seconds`` is the time spent in the detector."""
        figures: dict[str, Any] = {
            "values": self.values,
            "streams": len(self._streams),
            "detections": self.detections,
            "seconds": round(seconds, 3),
            "updates_per_second": round(self.values / seconds) if seconds > 0 else None,
        }
        scored = self.scored()
        if self._changes is None:
            return figures
        delays = [one.delay for one in scored if one.delay is not None]
        figures |= {
            "changes": len(scored),
            "detected": len(delays),
            "missed": len(scored) - len(delays),
            "delay_median": statistics.median(delays) if delays else None,
            "delay_max": max(delays, default=None),
            "false_alarms": self.false_alarms,
            "false_alarms_per_10000": round(self.false_alarms * _PER / self.values, 3) if self.values else None,
            "repeated": self.repeated,
            "known_changes": [
                {
                    "index": _plain(one.change.index), "segment": one.segment, "signal": one.signal,
                    "detected": one.detected, "delay": one.delay, "kind": one.kind,
                }
                for one in scored
            ],
        }  # fmt: skip
        return figures


class _Started:
    """A known change that the stream has reached: at its ``at``-th value, from 1."""

    __slots__ = ("at", "change", "delay", "detected", "kind")

    def __init__(self, change: KnownChange, at: int) -> None:
        self.change = change
        self.at = at
        self.detected: int | None = None
        self.delay: int | None = None
        self.kind: str | None = None


class _Progress:
    """How far a stream has come."""

    __slots__ = ("ahead", "seen", "started")

    def __init__(self, changes: Iterable[KnownChange]) -> None:
        self.ahead = list(changes)
        self.started: list[_Started] = []
        self.seen = 0

"""What a report shows, gathered from events and drift events; pure."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from penstock.contracts.records import DriftEvent

from services.drift.detection import seasonal
from services.drift.lookback.replay import Detection
from services.drift.lookback.replay_lines import Event
from services.drift.lookback.report_series import Collector, Steps, collector
from services.drift.signals import SIGNALS

__all__ = ["Drawn", "Gathered", "Mark", "Release", "Season", "SegmentReport", "of_detection", "of_drift_event"]

_DECLARED = {each.name: each for each in SIGNALS}
_HOUR_S = 3600
# Mean absolute deviations of the values by which hours differ at least where a season is drawn.
_VISIBLE = 0.5
# Weight of the newest value in the level that a season is drawn around.
_FADE = 1 / 300
# Releases of one segment that are marked.
_RELEASES = 40


class Release(msgspec.Struct, frozen=True):
    """Something that was replaced: its place on the axis, its name and its versions."""

    x: float
    name: str
    before: str
    after: str


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A change as it is drawn and told.

    Attributes:
        signal: the signal that changed.
        pattern: abrupt, gradual, recurring or outlier.
        drift: data, model, cost, ...; empty for a file.
        what: level, spread, mixture or topic.
        returned: whether the baseline is back.
        confirmed: place on the axis at which it was confirmed.
        reference: first and last place of the reference.
        test: first and last place of the test window.
        size: in the reference's standard deviations.
        statistic: the evidence, nats.
        threshold: what was needed.
        alpha: chance of a false alarm that was accepted.
        before: figures of the reference.
        after: figures since.
        causes: releases, in words.
        contributions: shares of the change by segment.
        samples_before: request ids.
        samples_after: request ids.
        where: the ranges in words, from which the verdict can be derived again.
    """

    signal: str
    pattern: str
    drift: str
    what: str
    returned: bool
    confirmed: float
    reference: tuple[float, float] | None
    test: tuple[float, float] | None
    size: float | None
    statistic: float | None
    threshold: float | None
    alpha: float | None
    before: Mapping[str, float]
    after: Mapping[str, float]
    causes: Sequence[str] = ()
    contributions: Mapping[str, float] = {}
    samples_before: Sequence[str] = ()
    samples_after: Sequence[str] = ()
    where: Sequence[str] = ()


class Season(msgspec.Struct, frozen=True):
    """What a number usually does at each hour: places and values; and of which kind the profile is."""

    phase: str
    points: Sequence[tuple[float, float]]


class Drawn(msgspec.Struct, frozen=True):
    """One signal, ready to be drawn."""

    signal: str
    kind: str
    values: int
    steps: Steps
    season: Season | None


class SegmentReport(msgspec.Struct, frozen=True):
    """One segment; ``timed`` says whether places are seconds since the epoch, else they are indices."""

    segment: str
    timed: bool
    events: int
    first: float
    last: float
    signals: Sequence[Drawn]
    marks: Sequence[Mark]
    releases: Sequence[Release]


class Gathered:
    """Gathers one segment's events.

    Args:
        segment: its name.
        timed: whether events are placed by their instant, else by their index.
    """

    def __init__(self, segment: str, *, timed: bool) -> None:
        self.segment = segment
        self._timed = timed
        self._collectors: dict[str, Collector] = {}
        self._counts: dict[str, int] = {}
        self._seasons: dict[str, _Seasonal] = {}
        self._offsets, self._places = array("q"), array("d")
        self._versions: dict[str, list[str]] = {}
        self._releases: list[Release] = []

    def place_of(self, event: Event) -> float:
        """Return where an event lies on the axis."""
        return event.at.timestamp() if self._timed and event.at is not None else float(event.index)

    def add(self, event: Event) -> None:
        """Take a value of the segment."""
        x = self.place_of(event)
        offset = event.index if event.place is None else event.place.offset
        if not self._offsets or self._offsets[-1] != offset:
            self._offsets.append(offset)
            self._places.append(x)
        if event.signal not in self._collectors:
            self._collectors[event.signal] = collector(event.value)
            self._counts[event.signal] = 0
            if self._timed and isinstance(event.value, float):
                self._seasons[event.signal] = _Seasonal(event.signal)
        self._collectors[event.signal].add(x, event.value)
        self._counts[event.signal] += 1
        season = self._seasons.get(event.signal)
        if season is not None and event.at is not None and isinstance(event.value, float):
            season.add(event.at, event.value)

    def saw(self, versions: Mapping[str, str], x: float) -> None:
        """Take note of what was in force at a place."""
        for name, version in versions.items():
            seen = self._versions.setdefault(name, [])
            # One that is in force beside others, as of two models that share a route, is new only once.
            if version not in seen:
                if seen and len(self._releases) < _RELEASES:
                    self._releases.append(Release(x, name, seen[-1], version))
                seen.append(version)

    def place_at(self, offset: int) -> float | None:
        """Return where the first event at or after an offset lies; ``None`` before the first one."""
        if not self._offsets or offset < self._offsets[0]:
            return None
        index = min(bisect.bisect_left(self._offsets, offset), len(self._offsets) - 1)
        return self._places[index]

    def report(self, marks: Sequence[Mark], releases: Iterable[Release] = ()) -> SegmentReport:
        """Return what is to be drawn."""
        drawn = []
        for signal in sorted(self._collectors, key=lambda name: (all(mark.signal != name for mark in marks), name)):
            declared = _DECLARED.get(signal)
            season = self._seasons.get(signal)
            drawn.append(
                Drawn(
                    signal,
                    declared.kind if declared is not None else "",
                    self._counts[signal],
                    self._collectors[signal].drawn(),
                    season.season() if season is not None else None,
                )
            )
        merged = {(one.name, one.after): one for one in [*self._releases, *releases]}
        return SegmentReport(
            self.segment, self._timed, len(self._offsets), min(self._places, default=0.0),
            max(self._places, default=0.0), drawn, sorted(marks, key=lambda mark: mark.confirmed),
            sorted(merged.values(), key=lambda one: one.x),
        )  # fmt: skip


class _Seasonal:
    """The profile of a number as the detectors learn it, and what it foretold hour by hour."""

    def __init__(self, signal: str) -> None:
        self._definition = _DECLARED.get(signal)
        self._profile: seasonal.Profile | None = None
        self._binary = True
        self._hour = -1
        self._deviations = (0.0, 0.0)
        # Of what is left of the values without their season.
        self._level, self._scatter, self._count = 0.0, 0.0, 0
        self._foretold: list[tuple[float, float]] = []

    def add(self, at: datetime, value: float) -> None:
        seen = value if self._definition is None else self._definition.transform(value)
        if seen is None:
            return
        if self._binary and seen not in (0, 1):
            self._binary, self._profile = False, None
        self._profile, left = seasonal.adjusted(self._profile, seen, at, scale="rate" if self._binary else "score")
        self._count += 1
        weight = max(1 / self._count, _FADE)
        self._level += (left - self._level) * weight
        self._scatter += (abs(left - self._level) - self._scatter) * weight
        hour = int(at.timestamp()) // _HOUR_S
        if hour != self._hour and seasonal.phase(self._profile) != "none":
            middle = datetime.fromtimestamp((hour + 0.5) * _HOUR_S, UTC)
            deviation = seasonal.expected(self._profile, middle)
            self._deviations = min(self._deviations[0], deviation), max(self._deviations[1], deviation)
            level = self._level + deviation
            restored = level if self._definition is None else self._definition.restore(level)
            self._foretold.append((middle.timestamp(), restored))
        self._hour = hour

    def season(self) -> Season | None:
        """Return the foretold course, where there is one that is not flat."""
        phase = seasonal.phase(self._profile)
        if phase == "none" or len(self._foretold) < 2:
            return None
        if self._deviations[1] - self._deviations[0] < _VISIBLE * self._scatter:
            return None
        return Season(phase, self._foretold)


def of_detection(detection: Detection, gathered: Gathered) -> Mark:
    """Return a replay's detection as a mark."""
    finding, confirmed = detection.finding, gathered.place_of(detection.event)
    test = None if finding.change is None else gathered.place_at(finding.change)
    first = gathered.place_at(finding.reference_first)
    reference = None if first is None else (first, confirmed if test is None else test)
    last = detection.event.index if detection.event.place is None else detection.event.place.offset
    unit = "index" if detection.event.place is None else "offset"
    where = [f"reference: {unit} {finding.reference_first} to {(finding.change or last) - 1}"]
    if finding.change is not None:
        where.append(f"test: {unit} {finding.change} to {last}")
    return Mark(
        signal=detection.event.signal,
        pattern=finding.kind or "change",
        drift="",
        what=finding.what,
        returned=finding.returned,
        confirmed=confirmed,
        reference=reference,
        test=None if test is None else (test, confirmed),
        size=finding.size,
        statistic=finding.statistic,
        threshold=finding.threshold,
        alpha=None,
        before=finding.before,
        after=finding.after,
        where=where,
    )


def of_drift_event(event: DriftEvent, gathered: Gathered) -> tuple[Mark, list[Release]]:
    """Return a drift event as a mark, and the releases that it names."""
    confirmed = event.occurred_at.timestamp()
    reference = test = None
    if event.test:
        begin = gathered.place_at(event.test[0].first_offset)
        test = None if begin is None else (begin, max(confirmed, begin))
    if event.reference:
        begin = gathered.place_at(event.reference[0].first_offset)
        end = gathered.place_at(event.reference[-1].last_offset)
        reference = None if begin is None or end is None else (begin, max(begin, end))
    where = [
        f"{name}: {one.topic} {one.partition}, offsets {one.first_offset} to {one.last_offset}"
        for name, ranges in (("reference", event.reference), ("test", event.test))
        for one in ranges
    ]
    releases = [Release(one.since.timestamp(), one.name, one.before, one.after) for one in event.releases]
    mark = Mark(
        signal=event.signal,
        pattern=event.pattern,
        drift=event.kind,
        what=event.what,
        returned=event.returned,
        confirmed=confirmed,
        reference=reference,
        test=test,
        size=event.size,
        statistic=event.statistic,
        threshold=event.threshold,
        alpha=event.alpha,
        before=event.before,
        after=event.after,
        causes=[f"{one.name} {one.before or '-'} → {one.after}" for one in event.releases],
        contributions=event.contributions,
        samples_before=event.sample_before,
        samples_after=event.sample_after,
        where=where,
    )
    return mark, releases

"""What is kept of one segment beside its detectors, pure: requests to show, versions, what was told and what goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from penstock.contracts.records import Signal

from services.drift.detectors import Detectors

__all__ = [
    "Condition", "Group", "Observed", "Sample", "Samples", "SegmentState", "Told", "Version", "coordinates", "noted",
    "requests_since", "sampled",
]  # fmt: skip

_NEWEST, _OLDER = 32, 24
# Distance, in samples, within which another event of the same request is looked for.
_SAME = 16
_VERSIONS = 4


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A request of the segment and where its first event stands."""

    offset: int
    request_id: str
    at: datetime


class Samples(msgspec.Struct, frozen=True, array_like=True):
    """Requests of the segment: the newest, and every ``stride``-th of those before them, back to the first."""

    requests: int = 0
    newest: tuple[Sample, ...] = ()
    older: tuple[Sample, ...] = ()
    stride: int = 1


class Version(msgspec.Struct, frozen=True, array_like=True):
    """A version of something that was in force, from its first event in the segment."""

    version: str
    first_offset: int
    first_at: datetime


class Told(msgspec.Struct, frozen=True, array_like=True):
    """A confirmed change."""

    signal: str
    kind: str
    size: float
    first_offset: int
    """Of the first event since the change."""
    last_offset: int
    """Of the event that confirmed it."""
    at: datetime
    """When it was confirmed."""


class Group(msgspec.Struct, frozen=True, array_like=True):
    """Changes that belong together: their windows overlap."""

    name: str
    first_offset: int
    last_offset: int


class Condition(msgspec.Struct, frozen=True):
    """An alert that was raised and not resolved."""

    signal: str
    kind: str
    """Of the alert."""
    drift: str
    """Kind of the drift-event."""
    severity: str
    title: str
    event_id: str
    """Of the drift-event that raised it."""
    since: datetime
    told_at: datetime
    group: str
    until: datetime | None = None
    """When it ends by itself: of a burst that is over."""
    patience: int = 0
    """Of a pinned signal: values without another confirmation after which it has ended."""
    quiet: int = 0
    """Of a pinned signal: values since it was confirmed last."""


class SegmentState(msgspec.Struct, frozen=True, omit_defaults=True, tag="segment"):
    """What is kept of one segment, however long it runs."""

    last_seen: datetime
    first_offset: int
    last_offset: int
    detectors: Detectors = Detectors()
    pinned: Detectors = Detectors()
    """References that stay as given, by signal."""
    predecessor: str | None = None
    inherited: tuple[str, ...] = ()
    """Signals whose reference is still that of the predecessor."""
    versions: dict[str, tuple[Version, ...]] = {}
    """By name, the oldest first."""
    samples: Samples = Samples()
    told: tuple[Told, ...] = ()
    """The newest changes, the oldest first."""
    group: Group | None = None
    conditions: dict[str, Condition] = {}
    """By name of the alert."""
    baselines: dict[str, float] = {}
    """Of numbers that changed since: the level they had before, on the detector's scale."""
    returns: dict[str, int] = {}
    """How often a signal went back to a state that was there before and is not the baseline."""


class Observed(NamedTuple):
    """A signal event, where it stands in the log, and what else its segment's step needs to know.

    Attributes:
        record: the event.
        partition: partition of ``signals``.
        offset: its offset there.
        allowance: expected false alarms that each of its values may cause.
        predecessor: name and state of the segment that a new one replaces.
        siblings: reads the other segments of the family; only asked when a change is confirmed.
    """

    record: Signal
    partition: int
    offset: int
    allowance: float = 2e-5
    predecessor: tuple[str, SegmentState] | None = None
    siblings: Callable[[], Sequence[tuple[str, SegmentState]]] = tuple


def sampled(samples: Samples, sample: Sample) -> Samples:
    """Remember the request, once: several events of one request follow each other closely."""
    if any(each.request_id == sample.request_id for each in samples.newest[-_SAME:]):
        return samples
    newest, older, stride = (*samples.newest, sample), samples.older, samples.stride
    if len(newest) > _NEWEST:
        # The number of the request that leaves the newest ones.
        if (samples.requests - _NEWEST) % stride == 0:
            older = (*older, newest[0])
        newest = newest[1:]
        if len(older) > _OLDER:
            older, stride = older[::2], stride * 2
    return Samples(samples.requests + 1, newest, older, stride)


def requests_since(samples: Samples, offset: int) -> int:
    """Return about how many requests of the segment came at or after an offset."""
    newest = sum(each.offset >= offset for each in samples.newest)
    if newest < len(samples.newest):
        return newest
    return min(newest + samples.stride * sum(each.offset >= offset for each in samples.older), samples.requests)


def noted(
    versions: Mapping[str, tuple[Version, ...]], seen: Mapping[str, str], offset: int, at: datetime
) -> dict[str, tuple[Version, ...]] | None:
    """Return the versions with those of an event; ``None`` where all are known.

    A version that is in force beside others, as those of two models that share a route, is new only once.
    """
    new = {
        name: version
        for name, version in seen.items()
        if all(known.version != version for known in versions.get(name, ()))
    }
    if not new:
        return None
    return dict(versions) | {
        name: (*versions.get(name, ()), Version(version, offset, at))[-_VERSIONS:] for name, version in new.items()
    }


def coordinates(segment: str) -> dict[str, str]:
    """Return the versions that a segment's name tells: its model, where it has a single one, and its prompt version."""
    _, model, prompt, route = segment.split("|")
    named = {} if model == "*" else {"model": model}
    return named if route == "*" else named | {"prompt": prompt}

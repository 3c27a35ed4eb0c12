"""Why a signal changed, as far as the log tells, pure: what was replaced close to the change, which inputs changed with it,
and which segments carry it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from penstock.contracts.records import Release

from services.drift.detection import scalar
from services.drift.detection.shift import Shift
from services.drift.detectors import Detectors, moving
from services.drift.segments import SegmentState, Told, Version, requests_since
from services.drift.signals import definition

__all__ = ["Causes", "contributions", "followed", "releases"]

# What is named as a cause at most, and which share of a change a segment must carry to be named.
_MOST, _LEAST = 4, 0.01
# Deviations by which the newest mean of a sibling must differ to count: its own error is 0.18 (weights of 1/16).
_NOISE = 0.5


class Causes(NamedTuple):
    """What is told of a change's origin."""

    releases: list[Release]
    contributions: dict[str, float]
    follows: str | None
    """Signal of the inputs that changed at the same time, where it is the outputs that are told of."""


def releases(versions: Mapping[str, Sequence[Version]], shift: Shift, offset: int) -> list[Release]:
    """Return what was replaced close to a change, the closest first.

    The place of a change is known to about as many events as lie between it and its confirmation; that of one which came
    over a while to twice as many.

    Args:
        versions: what was in force, by name, in the order in which it came; of the first of a name it is not known since
            when it is.
        shift: the change.
        offset: where it was confirmed.
    """
    span = offset - shift.test_first_offset + 1
    first = shift.test_first_offset - (2 * span if shift.pattern == "gradual" else span)
    near = [
        (abs(new.first_offset - shift.test_first_offset), name, old, new)
        for name, known in versions.items()
        for old, new in pairwise(known)
        if first <= new.first_offset <= offset
    ]
    near.sort(key=lambda each: each[:2])
    return [
        Release(name=name, before=old.version, after=new.version, since=new.first_at, first_offset=new.first_offset)
        for _, name, old, new in near[:_MOST]
    ]


def followed(told: Iterable[Told], detectors: Detectors, shift: Shift, offset: int) -> str | None:
    """Return the signal of the inputs that changed at the same time, or ``None``: what changed in the outputs then probably
    follows from it. The largest of the confirmed ones; else one that is not confirmed yet but moves."""
    span = offset - shift.test_first_offset + 1
    with_it = [
        each
        for each in told
        if each.kind == "data" and each.first_offset <= offset and each.last_offset >= shift.test_first_offset - span
    ]
    if with_it:
        return max(with_it, key=lambda each: each.size).signal
    return next((name for name in detectors if definition(name).kind == "data" and moving(detectors, name)), None)


def contributions(
    segment: str, state: SegmentState, siblings: Iterable[tuple[str, SegmentState]], signal: str, shift: Shift
) -> dict[str, float]:
    """Return by segment the share of a change: its requests since, times how far its own figures moved in the same
    direction.

    A sibling's own shift is the one that was confirmed at the same time; else, of numbers, how far its newest values lie
    from its reference.

    Args:
        segment: where the change was confirmed.
        state: its state.
        siblings: the other segments of the family with their states.
        signal: what changed.
        shift: the change.
    """
    rising = shift.after.get("mean", 0.0) >= shift.before.get("mean", 0.0)
    weights = {segment: max(requests_since(state.samples, shift.test_first_offset), 1) * max(shift.size, 1e-9)}
    for name, sibling in siblings:
        if signal in sibling.detectors:
            size = _own(sibling, signal, shift, rising)
            weights[name] = requests_since(sibling.samples, shift.test_first_offset) * size
    total = math.fsum(weights.values())
    named = {name: weight / total for name, weight in weights.items() if weight >= _LEAST * total}
    rest = math.fsum(named.values())
    return {name: named[name] / rest for name in sorted(named, key=lambda each: (-named[each], each))}


def _own(sibling: SegmentState, signal: str, shift: Shift, rising: bool) -> float:
    """Return how far a sibling's signal moved, in deviations of its reference."""
    sizes = [
        each.size for each in sibling.told if each.signal == signal and each.last_offset >= shift.test_first_offset
    ]
    if sizes:
        return max(sizes)
    if shift.what != "level" or signal not in sibling.detectors.numbers:
        return 0.0
    level = scalar.level_of(sibling.detectors.numbers[signal])
    if level is None or level[1] <= 0:
        return 0.0
    moved = (sibling.detectors.newest[signal] - level[0]) / level[1]
    moved = moved if rising else -moved
    return moved if moved >= _NOISE else 0.0

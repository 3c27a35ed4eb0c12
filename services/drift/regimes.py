"""How a number changed: at once or over a while, and whether it is back where it was before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from services.drift.coding import Array

__all__ = ["Regime", "matching", "ramp_gain", "remembered"]

_KEPT = 4


class Regime(msgspec.Struct, frozen=True, array_like=True):
    """A past reference in a few figures, in the signal's units."""

    mean: float
    deviation: float
    count: int


def remembered(regimes: Sequence[Regime], present: Regime) -> tuple[Regime, ...]:
    """Add the regime that ends: the baseline, which is the first, is kept for good, of the others the newest three.

    A regime that was there before is not added once more.
    """
    if any(_alike(known, present) for known in regimes):
        return tuple(regimes)
    return (*regimes[:1], *regimes[1:][-(_KEPT - 2) :], present) if regimes else (present,)


def matching(regimes: Sequence[Regime], before: Regime, after: Regime, spread: bool) -> int | None:
    """Return which past regime is back, or ``None``.

    It must lie within three standard errors of what came after the change, and closer to it than half of the way the
    signal has come.
    """
    best, closest = None, math.inf
    for index, known in enumerate(regimes):
        if spread:
            if min(known.deviation, before.deviation, after.deviation) <= 0:
                continue
            distance = abs(math.log(after.deviation / known.deviation))
            way = abs(math.log(after.deviation / before.deviation))
            error = math.sqrt(1 / max(after.count, 1) + 1 / max(known.count, 1))
        else:
            distance, way = abs(after.mean - known.mean), abs(after.mean - before.mean)
            error = _error(known, after)
        if distance <= 3 * error and distance < way / 2 and distance < closest:
            best, closest = index, distance
    return best


def ramp_gain(codes: Array, before_mean: float, deviation: float) -> float:
    """Return by how many nats a ramp since some moment fits the newest codes better than a step at some moment.

    Both have one moment and one size; the level before them is the reference's.
    """
    deviations = (codes - before_mean)[::-1]
    sizes = np.arange(1.0, len(codes) + 1)
    sums = np.cumsum(deviations)
    step = float((sums * sums / sizes).max())
    # sum over the newest k of d_i (k - i) with i counted back from the newest: each cumulative sum counts once more.
    weighted = np.cumsum(sums)
    ramp = float((weighted * weighted * 6 / (sizes * (sizes + 1) * (2 * sizes + 1))).max())
    return (ramp - step) / (2 * deviation * deviation)


def _error(one: Regime, other: Regime) -> float:
    return math.sqrt(
        max(one.deviation, other.deviation) ** 2 / max(other.count, 1) + one.deviation**2 / max(one.count, 1)
    )


def _alike(one: Regime, other: Regime) -> bool:
    return abs(one.mean - other.mean) <= max(3 * _error(one, other), 0.1 * one.deviation) and (
        0.8 <= (other.deviation / one.deviation if one.deviation else float(other.deviation == 0)) <= 1.25
    )

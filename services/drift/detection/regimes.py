"""How a number changed: at once or over a while, and whether it is back where it was before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from services.drift.detection.coding import Array

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


def ramp_gain(total: float, count: int, values: Array, variance: float) -> tuple[float, int]:
    """Return by how many nats a ramp since some moment fits the newest values better than a step at some moment, and
    how many values the ramp takes.

    Both have a level before, one moment within the window and one size, fitted by least squares.

    Args:
        total: sum of the values before the window.
        count: how many they are.
        values: the window, oldest first.
        variance: of the values around their level.
    """
    whole = count + len(values)
    sizes = np.arange(1.0, min(len(values), whole - 1) + 1)
    mean = (total + float(values.sum())) / whole
    sums = np.cumsum((values - mean)[::-1])[: len(sizes)]
    step = float((sums * sums / (sizes - sizes * sizes / whole)).max())
    # The ramp's regressor is 1, 2, ... k over the newest k values; summed with the values it is the sum of the sums.
    weighted = np.cumsum(sums)
    regressor = sizes * (sizes + 1) / 2
    squares = regressor * (2 * sizes + 1) / 3 - regressor * regressor / whole
    gains = weighted * weighted / np.maximum(squares, 1e-9)
    longest = int(gains.argmax())
    return (float(gains[longest]) - step) / (2 * variance), longest + 1


def _error(one: Regime, other: Regime) -> float:
    return math.sqrt(
        max(one.deviation, other.deviation) ** 2 / max(other.count, 1) + one.deviation**2 / max(one.count, 1)
    )


def _alike(one: Regime, other: Regime) -> bool:
    return abs(one.mean - other.mean) <= max(3 * _error(one, other), 0.1 * one.deviation) and (
        0.8 <= (other.deviation / one.deviation if one.deviation else float(other.deviation == 0)) <= 1.25
    )

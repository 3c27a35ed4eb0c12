"""How topics changed: back to what was there before, or little by little."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from services.drift.detection.features import Array
from services.drift.detection.reference import Geometry

__all__ = ["Regime", "entered", "is_ramp"]

_MOST = 4
# Messages must lie no further from a past regime's mean than chance and the drift within a regime bring them, in units
# of their own scatter, and this much closer to it than to what they left.
_WITHIN, _CLOSER = 2.0, 0.6
# Log likelihood ratio at which a ramp is believed, and messages that are a step if they are all it takes.
_CONVINCING, _SHORT = 4.0, 32


class Regime(msgspec.Struct, frozen=True, array_like=True):
    """What a segment's messages were about for a while."""

    mean: bytes
    """Shape (FEATURES,), float16."""
    weight: float
    """Messages behind it."""


def entered(
    regimes: Sequence[Regime], regime: int, known: Geometry, weight: float, arrived: Array
) -> tuple[tuple[Regime, ...], int]:
    """Add the regime that has ended, and tell whether one before it is back.

    Args:
        regimes: past regimes, the baseline first.
        regime: which of them the one that has ended was; -1: none.
        known: geometry of the reference that has ended.
        weight: messages behind it.
        arrived: the new messages, shape (n, FEATURES).

    Returns:
        The past regimes, at most four of them, and the index of the one that is back; -1: none is.
    """
    left = Regime(known.mean.astype(np.float16).tobytes(), weight)
    past = list(regimes)
    if regime >= 0:
        past[regime] = left
        ended = regime
    else:
        past = [*past[:1], *past[1:][-(_MOST - 2) :], left]
        ended = len(past) - 1
    count = len(arrived)
    centre = arrived.mean(0)
    deviations = arrived - centre
    scatter = float(np.sum((deviations @ known.inverse) * deviations)) / max(count - 1, 1)

    def distance(other: Regime) -> float:
        difference = centre - np.frombuffer(other.mean, np.float16).astype(np.float32)
        return float(difference @ known.inverse @ difference)

    back, nearest = -1, _CLOSER * distance(left)
    for index, other in enumerate(past):
        expected = scatter * (1 / count + 1 / other.weight)
        between = distance(other)
        if index != ended and between < min(_WITHIN * expected, nearest):
            back, nearest = index, between
    return tuple(past), back


def is_ramp(series: npt.NDArray[np.floating]) -> bool:
    """Tell whether a series, flat at first, rises steadily to where it ends rather than at once.

    Least squares for both, over where the step is, or where the ramp begins and ends.

    Args:
        series: messages' projections on the direction of the change, oldest first; shape (n,).
    """
    count = len(series)
    if count < 2 * _SHORT:
        return False
    values = (series - series.mean()).astype(np.float64)
    places = np.arange(count, dtype=np.float64)
    marks = range(8, count - 7, 4)

    def residual(shape: npt.NDArray[np.float64]) -> float:
        centred = shape - shape.mean()
        power = float(centred @ centred)
        return float(values @ values - (values @ centred) ** 2 / power) if power > 0 else float(values @ values)

    step = min(residual((places >= mark).astype(np.float64)) for mark in marks)
    ramp = min(
        (
            residual(np.clip((places - start) / (end - start), 0, 1))
            for start in (0, *marks[::4])
            for end in (*marks[::4], count - 1)
            if end - start >= _SHORT
        ),
        default=math.inf,
    )
    return ramp < step and count / 2 * math.log(max(step, 1e-12) / max(ramp, 1e-12)) > _CONVINCING

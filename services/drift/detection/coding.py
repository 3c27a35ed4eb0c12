"""How a number is put on the scale on which its changes are looked for.

Three codings, chosen from the first values of a reference:

- ``rate``: the signal is said to be 0 or 1, or nearly all of its values are the same. The code is whether a value
  differs from the usual one; its law under no change is known exactly, whatever the values are.
- ``symmetric``: standardised and clipped, since beyond some deviations a value says no more than that it is far off.
- ``skewed``: Tukey's g transformation (Hoaglin, "Summarizing shape numerically: the g-and-h distributions", 1985),
  which makes a shifted lognormal normal and an exponential nearly so. It is equivariant: shift and unit do not matter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["CLIP", "Array", "Coding", "Scale", "code", "coding_of", "scale_of"]

Array = npt.NDArray[np.float64]
Scale = Literal["rate", "score", "amount"]

CLIP = 4.0
"""Deviations beyond which a value says no more."""

# Standardised values are kept within what float32 holds, and their squares within what can be summed.
_FARTHEST = 1e9
_SMALLEST = 1e-300
# Beyond this the first values of a reference are not told apart, so that they can be summed.
_LARGEST = 1e300
# Of a rate, what lies within this of the usual value is it: a location chosen from stored values is rounded to float32.
_SAME = 1e-6

# The standard normal distribution's 90 % quantile.
_Q90 = 1.2815515655446004
# Share of values that are the same from which a signal is a rate of the others.
_USUAL = 0.85
# The standard error of g as estimated from n normal values is this over the root of n (delta method); the largest g used.
_G_ERROR = 1.62
_G_MOST = 1.5


class Coding(msgspec.Struct, frozen=True, array_like=True):
    """Location and scale of a reference, and how its values are coded."""

    location: float = 0.0
    scale: float = 1.0
    rate: bool = False
    g: float = 0.0

    def standard(self, value: float) -> float:
        """Return a value in units of the scale, from the location."""
        away = value - self.location
        if self.rate and abs(away) <= _SAME * self.scale + 4 * math.ulp(self.location):
            return 0.0
        return min(max(away / self.scale, -_FARTHEST), _FARTHEST)

    def coded(self, standard: float) -> float:
        """Return the code of a standardised value, as ``code`` does."""
        if self.rate:
            return float(standard != 0)
        if self.g:
            standard = math.log(max(1 + self.g * standard, 1e-9)) / self.g
        return min(max(standard, -CLIP), CLIP)


def scale_of(values: Iterable[float]) -> Literal["rate", "score"]:
    """Return how values whose meaning is not known are watched: only zeros and ones are a rate.

    It need not be asked of a stream: a reference of which nearly all values are the same, or that takes the values 0 and
    1 only, is watched as a rate under ``score`` too.
    """
    return "rate" if all(value in (0, 1) for value in values) else "score"


def coding_of(values: Sequence[float], scale: Scale) -> Coding:
    """Choose the coding of a reference from its first values."""
    if scale == "rate":
        return Coding(rate=True)
    values = [min(max(value, -_LARGEST), _LARGEST) for value in values]
    counts = Counter(values)
    usual, often = counts.most_common(1)[0]
    if len(counts) == 1 or counts.keys() == {0.0, 1.0}:
        low = min(counts)
        # Of zeros and ones zero is the usual one, however often it is. Of two other values the rarer one is not taken
        # for a one: more of a third value would look like more of it.
        return Coding(low, (max(counts) - low) or abs(low) / 20 or 1.0, rate=True)
    if often >= _USUAL * len(values):
        return Coding(usual, max(abs(value - usual) for value in counts), rate=True)
    ordered = np.sort(np.asarray(values, float))
    low, middle, high = (float(each) for each in np.quantile(ordered, (0.1, 0.5, 0.9)))
    if low < middle < high:
        g = math.log((high - middle) / (middle - low)) / _Q90
        if abs(g) > max(2 * _G_ERROR / math.sqrt(len(values)), 0.2):
            g = max(-_G_MOST, min(_G_MOST, g))
            spread = (high - low) * g / (2 * math.sinh(_Q90 * g))
            return Coding(middle, max(spread, _SMALLEST), g=g)
    mean = math.fsum(values) / len(values)
    deviation = math.hypot(*(each - mean for each in values)) / math.sqrt(len(values) - 1)
    if high > low:
        # One outlier in the first values does not blind.
        deviation = min(deviation, 1.5 * (high - low) / (2 * _Q90))
        near = [max(middle - 3 * deviation, min(middle + 3 * deviation, each)) for each in values]
        mean = math.fsum(near) / len(near)
    return Coding(mean, max(deviation, _SMALLEST))


def code(standard: Array, coding: Coding) -> Array:
    """Return the codes of standardised values."""
    if coding.rate:
        ones: Array = (standard != 0).astype(np.float64)
        return ones
    if coding.g:
        # Below the support of the fitted distribution the argument is not positive: as far off as can be.
        standard = np.log(np.maximum(1 + coding.g * standard, 1e-9)) / coding.g
    clipped: Array = np.minimum(np.maximum(standard, -CLIP), CLIP)
    return clipped

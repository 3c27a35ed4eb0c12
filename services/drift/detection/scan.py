"""Stage 1 for numbers: generalised likelihood ratio scan of the newest values against all before them.

Every number of newest values, up to the window's length, is compared with everything before them (window-limited
generalised likelihood ratio: Siegmund & Venkatraman 1995; Lai 1998), the level and the distance to the location at
once. The scan gives the likeliest place of the change with it.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from services.drift.detection.coding import Array
from services.drift.detection.history import Moments

__all__ = ["Candidate", "Sums", "scan_means", "scan_rate", "sums_of"]


class Candidate(NamedTuple):
    """Where a change may lie, and what it looks like; codes."""

    gain: float
    """Logarithm of the generalised likelihood ratio, nats."""
    before_mean: float
    before_count: int
    deviation: float
    after_mean: float
    after_count: int


class Sums(NamedTuple):
    """Sums over the newest values, for ever more of them."""

    sizes: Array
    """How many values: 1, 2, ... of the window, then block by block."""
    sums: Array
    whole: int
    """How many values there are in all."""
    total: float
    squares: float
    penalties: Array
    """Nats that are asked for more of each size: the fewer values, the more places there are to look at."""


def sums_of(moments: Moments, codes: Array, spread: bool, least: int, multiplicity: float) -> Sums:
    """Return the sums of the codes, or of their distances to the location.

    Args:
        moments: what lies before the window.
        codes: the window, oldest first.
        spread: whether the distances to the location are summed.
        least: values that must lie before a change.
        multiplicity: nats for each e-fold by which a size is smaller than the window.
    """
    series, values = (moments.spreads, np.abs(codes)) if spread else (moments.levels, codes)
    whole = series.count + len(values)
    sums = values[::-1].cumsum()
    total, squares = series.total + float(sums[-1]), series.squares + float(values @ values)
    sizes, places = _window_sizes(len(values))
    penalties = multiplicity * places
    if series.count:
        reach = moments.reach(len(values))
        sizes = np.concatenate([sizes, reach])
        sums = np.concatenate([sums, sums[-1] + moments.column(1 if spread else 0).cumsum()])
        penalties = np.concatenate([penalties, np.zeros(len(reach))])
    within = int(sizes.searchsorted(whole - least, side="right"))
    return Sums(sizes[:within], sums[:within], whole, total, squares, penalties[:within])


@cache
def _window_sizes(count: int) -> tuple[Array, Array]:
    """Return 1, 2, ... ``count``, and the logarithm of how many times each fits in."""
    sizes = np.arange(1.0, count + 1)
    places = np.log(count / sizes)
    # They are shared.
    sizes.flags.writeable = places.flags.writeable = False
    return sizes, places


def scan_means(sums: Sums) -> Candidate:
    """Compare the newest values' mean with that of all others, for each size; normal, of a common variance."""
    sizes, newest, whole, total = sums.sizes, sums.sums, sums.whole, sums.total
    mean = total / whole
    variance = max(sums.squares / whole - mean * mean, 1e-9)
    # S_k / k - (S - S_k) / (n - k), times k (n - k).
    contrasts = newest * whole - total * sizes
    gains = contrasts * contrasts / (sizes * (whole - sizes) * (2 * whole * variance)) - sums.penalties
    best = int(gains.argmax())
    size, after = int(sizes[best]), float(newest[best])
    # What the change explains is none of the scatter.
    within = max(variance - float(contrasts[best]) ** 2 / (size * (whole - size) * whole * whole), 1e-6)
    return Candidate(
        float(gains[best]), (total - after) / (whole - size), whole - size, within**0.5, after / size, size
    )


def scan_rate(sums: Sums) -> Candidate:
    """Compare the newest values' share of ones with that of all others, for each size; Bernoulli."""
    sizes, newest, whole, total = sums.sizes, sums.sums, sums.whole, sums.total
    others, rest = whole - sizes, total - newest
    same = float(_likelihood(np.array([total]), np.array([float(whole)]))[0])
    gains = _likelihood(newest, sizes) + _likelihood(rest, others) - same - sums.penalties
    best = int(gains.argmax())
    size = int(sizes[best])
    before = float(rest[best])
    smoothed = (before + 0.5) / (whole - size + 1)
    deviation = (smoothed * (1 - smoothed)) ** 0.5
    return Candidate(
        float(gains[best]), before / (whole - size), whole - size, deviation, float(newest[best]) / size, size
    )


def _likelihood(ones: Array, counts: Array) -> Array:
    """Return the maximised log-likelihood of so many ones among so many."""
    zeros = counts - ones
    return ones * np.log(np.maximum(ones, 1e-300)) + zeros * np.log(np.maximum(zeros, 1e-300)) - counts * np.log(counts)

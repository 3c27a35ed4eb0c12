"""Stage 1 for numbers: generalised likelihood ratio scan of the newest values against all before them.

Every number of newest values, up to the window's length, is compared with everything before them (window-limited
generalised likelihood ratio: Siegmund & Venkatraman 1995; Lai 1998), the level and the distance to the location at
once. The scan gives the likeliest place of the change with it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from services.drift.coding import Array

__all__ = ["Candidate", "Moments", "Series", "inflation_of", "scan_means", "scan_rate", "slid"]

_BATCH = 16
# Batches before their scatter tells more than noise.
_LEAST_BATCHES = 20


class Series(msgspec.Struct, frozen=True, array_like=True):
    """Sums over a series of codes."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    """Sum of the products of each with the next."""
    last: float = 0.0
    batch: float = 0.0
    """Sum of the batch that is not full yet."""
    batches: int = 0
    batch_squares: float = 0.0
    """Sum of the squares of the sums of 16."""

    def added(self, value: float) -> Series:
        """Return the sums with one more."""
        count, batch, batches, batch_squares = self.count + 1, self.batch + value, self.batches, self.batch_squares
        if count % _BATCH == 0:
            batches, batch_squares, batch = batches + 1, batch_squares + batch * batch, 0.0
        return Series(
            count,
            self.total + value,
            self.squares + value * value,
            self.products + self.last * value,
            value,
            batch,
            batches,
            batch_squares,
        )


class Moments(msgspec.Struct, frozen=True, array_like=True):
    """Sums over the reference's values that have left the window."""

    total: float = 0.0
    """Of the standardised values."""
    squares: float = 0.0
    levels: Series = Series()
    """Of the codes."""
    spreads: Series = Series()
    """Of the codes' distances to the location."""


class Candidate(NamedTuple):
    """Where a change may lie, and what it looks like; codes."""

    gain: float
    """Logarithm of the generalised likelihood ratio, nats."""
    before_mean: float
    before_count: int
    deviation: float
    after_mean: float
    after_count: int


def slid(moments: Moments, standard: float, coded: float) -> Moments:
    """Add a value that leaves the window."""
    return Moments(
        moments.total + standard,
        moments.squares + standard * standard,
        moments.levels.added(coded),
        moments.spreads.added(abs(coded)),
    )


def inflation_of(series: Series, codes: Array) -> float:
    """Return the long-run variance of the codes over their variance, at least 1.

    Args:
        series: the reference before the window.
        codes: the window's part of the reference.

    The larger of two estimates, each less one standard error, so that independent values are taken for what they are:
    ``(1 + r) / (1 - r)`` of the lag-1 autocorrelation, exact for a first-order autoregression; and the variance of the
    means of batches of 16 (batch means), which knows of slower dependence.
    """
    count = series.count + len(codes)
    if count < _BATCH:
        return 1.0
    mean = (series.total + float(codes.sum())) / count
    variance = (series.squares + float(codes @ codes)) / count - mean * mean
    if variance <= 1e-12:
        return 1.0
    products = series.products + float(codes[:-1] @ codes[1:]) + (series.last * float(codes[0]) if len(codes) else 0)
    correlation = (products / (count - 1) - mean * mean) / variance - count**-0.5
    correlation = min(max(correlation, 0.0), 0.95)
    inflation = (1 + correlation) / (1 - correlation)
    if series.batches >= _LEAST_BATCHES:
        batch_mean = (series.total - series.batch) / series.batches
        batched = (series.batch_squares / series.batches - batch_mean**2) / (_BATCH * variance)
        inflation = max(inflation, batched / (1 + (2 / series.batches) ** 0.5))
    return float(inflation)


def scan_means(total: float, squares: float, count: int, values: Array, most: int, multiplicity: float) -> Candidate:
    """Compare the newest 1, 2, ... values' mean with that of all others; normal, of common variance.

    Args:
        total: sum of the values before the window.
        squares: sum of their squares.
        count: how many they are.
        values: the window, oldest first.
        most: newest values that may lie after a change, at least 1 and less than all.
    """
    whole = count + len(values)
    sizes = np.arange(1.0, most + 1)
    sums = np.cumsum(values[::-1])
    total += float(sums[-1])
    sums = sums[: len(sizes)]
    others = whole - sizes
    # S_k / k - (S - S_k) / (n - k), times sqrt(k (n - k) / n): the root of twice the gain times the variance.
    mean = total / whole
    variance = max((squares + float(values @ values)) / whole - mean * mean, 1e-9)
    contrasts = sums * whole - total * sizes
    gains = contrasts * contrasts / (sizes * others * (2 * whole * variance)) + multiplicity * np.log(
        sizes / len(values)
    )
    best = int(gains.argmax())
    size = best + 1
    after = float(sums[best])
    # What the change explains is none of the scatter.
    within = max(variance - float(contrasts[best]) ** 2 / (size * (whole - size) * whole * whole), 1e-6)
    return Candidate(
        float(gains[best]), (total - after) / (whole - size), whole - size, within**0.5, after / size, size
    )


def scan_rate(ones: float, count: int, values: Array, most: int, multiplicity: float) -> Candidate:
    """Compare the newest 1, 2, ... values' share of ones with that of all others; the arguments of ``scan_means``."""
    whole = count + len(values)
    sizes = np.arange(1.0, most + 1)
    sums = np.cumsum(values[::-1])
    total = ones + float(sums[-1])
    sums = sums[: len(sizes)]
    others = whole - sizes
    rest = total - sums
    gains = (
        _entropy(sums, sizes) + _entropy(rest, others) - float(_entropy(np.array([total]), np.array([float(whole)]))[0])
    ) + multiplicity * np.log(sizes / len(values))
    best = int(gains.argmax())
    size = best + 1
    rate = float(rest[best]) / (whole - size)
    smoothed = (float(rest[best]) + 0.5) / (whole - size + 1)
    return Candidate(
        float(gains[best]),
        rate,
        whole - size,
        (smoothed * (1 - smoothed)) ** 0.5,
        float(sums[best]) / size,
        size,
    )


def _entropy(ones: Array, counts: Array) -> Array:
    """Return the maximised log-likelihood of so many ones among so many."""
    zeros = counts - ones
    return ones * np.log(np.maximum(ones, 1e-300)) + zeros * np.log(np.maximum(zeros, 1e-300)) - counts * np.log(counts)

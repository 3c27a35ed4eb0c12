"""What a reference is remembered by once its values have left the window: sums, and sums over blocks."""

from __future__ import annotations

import struct

import msgspec
import numpy as np

from services.drift.detection.coding import Array

__all__ = ["BLOCK", "Moments", "Series", "inflation_of", "slid"]

BLOCK = 64
"""Values whose sums are kept together."""
_BLOCKS = 32
_COLUMNS = 4
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
    blocks: bytes = b""
    """Sums over each 64 values, up to 2,048 of the newest ones: float32, in rows of code, distance, standardised value
    and its square; oldest first."""
    begun: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """The row of the block that is not full yet."""
    offsets: tuple[int, ...] = ()
    """Offset of the first value of each block and of the one that is not full yet."""

    def column(self, index: int) -> Array:
        """Return one sum of all blocks, the newest first, the one that is not full yet included."""
        full = np.frombuffer(self.blocks, np.float32).reshape(-1, _COLUMNS)
        sums = np.empty(len(full) + 1)
        sums[0] = self.begun[index]
        sums[1:] = full[::-1, index]
        return sums

    def reach(self, count: int) -> Array:
        """Return how many values the window of ``count`` and 1, 2, ... of the newest blocks hold."""
        begun = (self.levels.count - 1) % BLOCK + 1
        return count + begun + BLOCK * np.arange(len(self.blocks) // (4 * _COLUMNS) + 1.0)

    def newest(self, count: int) -> tuple[int, float, float, int]:
        """Return the sums of the newest blocks that make up at most ``count`` values.

        Returns:
            How many values they hold, the sums of the standardised values and of their squares, and the offset of the
            first; nothing and offset -1 where not even one block fits.
        """
        reach = self.reach(0)
        blocks = int(np.searchsorted(reach, count, side="right")) if self.levels.count else 0
        if not blocks:
            return 0, 0.0, 0.0, -1
        total, squares = (float(self.column(index)[:blocks].sum()) for index in (2, 3))
        return int(reach[blocks - 1]), total, squares, self.offsets[-blocks]


def slid(moments: Moments, standard: float, coded: float, offset: int) -> Moments:
    """Add a value that leaves the window.

    ``offset`` is the value's, or that of one a few before it.
    """
    blocks, begun, offsets = moments.blocks, moments.begun, moments.offsets
    if moments.levels.count % BLOCK == 0:
        if moments.levels.count:
            blocks = (blocks + struct.pack("<4f", *begun))[-4 * _COLUMNS * _BLOCKS :]
        begun = (0.0, 0.0, 0.0, 0.0)
        offsets = (*offsets, offset)[-_BLOCKS - 1 :]
    squared, distance = standard * standard, abs(coded)
    return Moments(
        moments.total + standard,
        moments.squares + squared,
        moments.levels.added(coded),
        moments.spreads.added(distance),
        blocks,
        (begun[0] + coded, begun[1] + distance, begun[2] + standard, begun[3] + squared),
        offsets,
    )


def inflation_of(series: Series, codes: Array) -> float:
    """Return the long-run variance of the codes over their variance, at least 1.

    Args:
        series: the reference before the window.
        codes: the window's part of the reference.

    The larger of two estimates, each less a part of its standard error, so that independent values are taken for such:
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
    correlation = (products / (count - 1) - mean * mean) / variance
    # Of few values it is too small on average, by about this (Kendall, "Note on bias in the estimation of
    # autocorrelation", 1954).
    correlation += (1 + 3 * max(correlation, 0.0)) / count - 0.5 * count**-0.5
    correlation = min(max(correlation, 0.0), 0.95)
    inflation = (1 + correlation) / (1 - correlation)
    if series.batches >= _LEAST_BATCHES:
        batch_mean = (series.total - series.batch) / series.batches
        batched = (series.batch_squares / series.batches - batch_mean**2) / (_BATCH * variance)
        inflation = max(inflation, batched / (1 + (2 / series.batches) ** 0.5))
    return float(inflation)

"""Counts of categories over the newest events and over all before them, in constant memory.

The categories of a segment are sorted into cells: one for each of up to 32 names, and eight that the others are hashed
into, so that a category that was never there becomes visible in its cell however many rare ones there are. The names
are chosen by events that are counted nowhere: counts that had chosen their own cells would be too large there.

The newest 96 events are kept one by one, older ones in blocks that double in size with age (the exponential histogram
of Datar, Gionis, Indyk and Motwani, 2002), the oldest in the totals only.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HASHED",
    "NAMES",
    "Block",
    "Counts",
    "Suffixes",
    "Windows",
    "added",
    "cell_of",
    "deviances",
    "named",
    "restarted",
    "suffixes",
]

Counts = NDArray[np.float64]

NAMES = 32
HASHED = 8
_SINGLES = 96
_BLOCK = 32
_LARGEST = 2048
_A_LEVEL = 3
_LENGTH = 64
"""Characters of a category by which it is told from others."""
_SIZES = (4, 6, 8, 12, 16, 24, 32, 48, 64)


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Counts by cell, uint16, of some consecutive events."""

    size: int
    first_offset: int
    counts: bytes


class Windows(msgspec.Struct, frozen=True, array_like=True):
    """The counts of one signal since its reference began."""

    names: tuple[str, ...] = ()
    total: bytes = b""
    """By cell, float64, of all events."""
    weight: int = 0
    first_offset: int = 0
    recent: tuple[str, ...] = ()
    """The newest events, oldest first."""
    cells: bytes = b""
    """Their cells, uint8."""
    offsets: bytes = b""
    """Their offsets, int64."""
    blocks: tuple[Block, ...] = ()
    """Before them, oldest first."""

    @property
    def totals(self) -> Counts:
        return np.frombuffer(self.total)


class Suffixes(msgspec.Struct, frozen=True):
    """The newest events at several sizes.

    Attributes:
        sizes: shape (n,), ascending.
        counts: shape (n, cells).
        first_offsets: offset of the first event of each.
    """

    sizes: Counts
    counts: Counts
    first_offsets: Sequence[int]


@lru_cache(maxsize=4096)
def _cells(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name: cell for cell, name in enumerate(names)}


def _cell(names: tuple[str, ...], category: str) -> int:
    cell = _cells(names).get(category)
    return cell if cell is not None else len(names) + zlib.crc32(category.encode("utf-8", "surrogatepass")) % HASHED


def cell_of(windows: Windows, category: str) -> int:
    """Return the cell that a category counts in."""
    return _cell(windows.names, category[:_LENGTH])


def named(sample: Sequence[str], known: Sequence[str] = (), least: int = 1) -> Windows:
    """Return empty windows whose cells fit ``sample``, with ``known`` names kept as far as there is room."""
    often = [
        name for name, count in sorted(Counter(sample).items(), key=lambda item: (-item[1], item[0])) if count >= least
    ]
    names = tuple(dict.fromkeys([*(name[:_LENGTH] for name in often), *known]))[:NAMES]
    return Windows(names, np.zeros(len(names) + HASHED).tobytes())


def added(windows: Windows, category: str, offset: int) -> tuple[Windows, Block | None]:
    """Return the windows with one more event, and the block that left the single ones, if one did."""
    name = category[:_LENGTH]
    totals, cell = windows.totals.copy(), _cell(windows.names, name)
    totals[cell] += 1
    recent, cells = (*windows.recent, name), windows.cells + bytes((cell,))
    offsets = windows.offsets + struct.pack("<q", offset)
    blocks, block = windows.blocks, None
    if len(recent) >= _SINGLES + _BLOCK:
        oldest = np.bincount(np.frombuffer(cells, np.uint8)[:_BLOCK], minlength=len(totals))
        block = Block(_BLOCK, struct.unpack_from("<q", offsets)[0], oldest.astype("<u2").tobytes())
        recent, cells, offsets = recent[_BLOCK:], cells[_BLOCK:], offsets[8 * _BLOCK :]
        blocks = _merged((*blocks, block))
    return Windows(
        windows.names,
        totals.tobytes(),
        windows.weight + 1,
        windows.first_offset if windows.weight else offset,
        recent,
        cells,
        offsets,
        blocks,
    ), block


def restarted(windows: Windows, size: int, known: Sequence[str] = ()) -> Windows:
    """Return windows that hold the newest ``size`` events alone, in cells that fit them.

    Args:
        windows: the windows so far.
        size: events to keep, of those that are kept one by one.
        known: names to keep, before those of ``windows``.
    """
    size = min(size, len(windows.recent))
    recent = windows.recent[len(windows.recent) - size :]
    # A category that is there by chance would look like a frequent one, had it a cell of its own for that.
    fresh = named(recent, (*known, *windows.names), least=3)
    if not size:
        return fresh
    cells = bytes(_cell(fresh.names, category) for category in recent)
    totals = np.bincount(np.frombuffer(cells, np.uint8), minlength=len(fresh.names) + HASHED).astype(np.float64)
    offsets = windows.offsets[len(windows.offsets) - 8 * size :]
    return Windows(fresh.names, totals.tobytes(), size, struct.unpack_from("<q", offsets)[0], recent, cells, offsets)


def _merged(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Merge the two oldest of a size where there are too many of it; let go of what is older than all that is tested."""
    size = _BLOCK
    while True:
        of_size = [index for index, block in enumerate(blocks) if block.size == size]
        if len(of_size) <= _A_LEVEL:
            break
        first, second = of_size[0], of_size[1]
        if size == _LARGEST:
            blocks = blocks[first + 1 :]
            break
        one, other = blocks[first], blocks[second]
        counts = np.frombuffer(one.counts, "<u2") + np.frombuffer(other.counts, "<u2")
        joined = Block(one.size + other.size, one.first_offset, counts.astype("<u2").tobytes())
        blocks = (*blocks[:first], joined, *blocks[second + 1 :])
        size *= 2
    return blocks


def suffixes(windows: Windows, most: float) -> Suffixes:
    """Return the newest events at every size up to ``most``."""
    cells = len(windows.names) + HASHED
    recent = np.frombuffer(windows.cells, np.uint8)
    sizes: list[int] = []
    rows: list[Counts] = []
    firsts: list[int] = []
    running, taken = np.zeros(cells), 0
    for size in (*_SIZES, len(recent)):
        if taken < size <= min(len(recent), most):
            newer = recent[len(recent) - size : len(recent) - taken]
            running = running + np.bincount(newer, minlength=cells)
            taken = size
            sizes.append(size)
            rows.append(running)
            firsts.append(struct.unpack_from("<q", windows.offsets, 8 * (len(recent) - size))[0])
    if taken == len(recent):
        for block in reversed(windows.blocks):
            taken += block.size
            if taken > most:
                break
            running = running + np.frombuffer(block.counts, "<u2")
            sizes.append(taken)
            rows.append(running)
            firsts.append(block.first_offset)
    return Suffixes(np.array(sizes, np.float64), np.array(rows).reshape(-1, cells), firsts)


def deviances(counts: Counts, expected: Counts) -> Counts:
    """Return 2 (c log(c/e) - c + e) for each cell: its sum is the statistic of the G-test for Poisson counts."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(counts > 0, counts * np.log(counts / expected), 0.0)
    found: Counts = 2 * (logs - counts + expected)
    return np.maximum(found, 0.0)

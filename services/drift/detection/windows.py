"""The newest messages of a segment at every scale: one by one, then as sums of blocks that get coarser with age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from services.drift.detection.features import FEATURES, Array
from services.drift.detection.reference import SCALE

__all__ = ["Block", "Windows", "merged", "newest", "offset_of"]

# Sizes of windows among the single messages; beyond them, the borders of blocks.
_SIZES = np.array(
    [8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208], np.intp
)
# Blocks of each size before two are merged; of the largest the oldest is given up, for the reference has it.
_TIERS = ((16, 4), (32, 4), (64, 4), (128, 6))
# Single messages from which on blocks are added: windows grow by steps that are small against them.
_SINGLES = 32
# Messages of the reference that must be left before a window.
_LEAST = 64


class Block(msgspec.Struct, frozen=True, array_like=True):
    """The sum of some consecutive messages."""

    count: int
    first_offset: int
    total: bytes
    """Shape (FEATURES,), int16: 128 messages of 8-bit features."""
    absorbed: int
    """Of its messages, those that are in the reference."""


class Windows(NamedTuple):
    """Windows that end with the newest message.

    Attributes:
        sizes: messages in each, ascending; shape (n,).
        differences: their means less the mean of the reference's messages before them; shape (n, FEATURES).
        before: the number of those; shape (n,).
    """

    sizes: Array
    differences: Array
    before: Array


def newest(recent: bytes, blocks: Sequence[Block], mean: Array, weight: float) -> Windows:
    """Return the windows over single messages and blocks.

    Args:
        recent: single messages, none of them in the reference.
        blocks: what was before them.
        mean: the reference's, shape (FEATURES,).
        weight: messages behind it.
    """
    singles = np.frombuffer(recent, np.int8).reshape(-1, FEATURES)
    sizes = _SIZES[: np.searchsorted(_SIZES, len(singles), side="right")]
    if len(sizes) == 0:
        return Windows(np.zeros(0, np.float32), np.zeros((0, FEATURES), np.float32), np.zeros(0, np.float32))
    sums = np.add.reduceat(singles[::-1][: sizes[-1]].astype(np.float32), np.r_[0, sizes[:-1]], axis=0).cumsum(axis=0)
    counts = sizes.astype(np.float32)
    differences = sums / (counts[:, None] * SCALE) - mean
    before = np.full(len(counts), weight, np.float32)
    if blocks and len(singles) >= _SINGLES:
        older = blocks[::-1]
        totals = np.array([np.frombuffer(block.total, np.int16) for block in older], np.float32) / SCALE
        absorbed = np.array([block.absorbed for block in older], np.float32)
        left = np.float32(weight) - absorbed.cumsum()
        longer = len(singles) + np.array([block.count for block in older], np.float32).cumsum()
        enough = left >= np.maximum(_LEAST, longer / 2)
        sums = singles.sum(axis=0, dtype=np.int32).astype(np.float32) / SCALE + totals.cumsum(axis=0)
        # A block has either all of its messages in the reference or, after merging, a share of them.
        shares = (absorbed / np.array([block.count for block in older], np.float32))[:, None]
        preceding = (mean * np.float32(weight) - (totals * shares).cumsum(axis=0))[enough] / left[enough, None]
        differences = np.vstack([differences, sums[enough] / longer[enough, None] - preceding])
        counts, before = np.concatenate([counts, longer[enough]]), np.concatenate([before, left[enough]])
    return Windows(counts, differences, before)


def merged(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Merge neighbours so that the newest blocks stay fine and the oldest get coarse."""
    kept = list(blocks)
    for size, most in _TIERS:
        same = [index for index, block in enumerate(kept) if block.count == size]
        if len(same) <= most:
            continue
        if size == _TIERS[-1][0]:
            return tuple(kept[same[0] + 1 :])
        older, newer = kept[same[0]], kept[same[1]]
        total = np.frombuffer(older.total, np.int16) + np.frombuffer(newer.total, np.int16)
        kept[same[0] : same[1] + 1] = [
            Block(older.count + newer.count, older.first_offset, total.tobytes(), older.absorbed + newer.absorbed)
        ]
    return tuple(kept)


def offset_of(size: int, offsets: bytes, blocks: Sequence[Block]) -> int:
    """Return where the first message of a window stands.

    Args:
        size: messages in the window; its beginning is a single message or the border of a block.
        offsets: of the single messages, int64.
        blocks: what was before them.
    """
    held = len(offsets) // 8
    if size <= held:
        return int.from_bytes(offsets[(held - size) * 8 : (held - size + 1) * 8], "little", signed=True)
    for block in reversed(blocks):
        held += block.count
        if size <= held:
            return block.first_offset
    raise ValueError(f"a window of {size} messages: only {held} are kept")

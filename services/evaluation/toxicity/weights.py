"""What labels have taught the classifier since it was shipped: differences to the shipped weights, bounded."""

from __future__ import annotations

import msgspec
import numpy as np

from services.evaluation.toxicity.features import DIMENSION, F32, I64, SLOTS

__all__ = ["MOST_SLOTS", "Weights", "WeightsError", "pack_weights", "unpack_weights"]

MOST_SLOTS = 16_384
"""Slots whose weight may differ from the shipped one: the strongest are kept. They make up 131 kB at most."""
_DENSE = DIMENSION


class WeightsError(ValueError):
    """Packed weights cannot be used."""


class Weights(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Differences to the weights of a shipped model. All numbers are float32, so that packing changes nothing.

    Attributes:
        base: version of the shipped model they belong to.
        slots: ascending, uint32 little-endian; ``deltas`` has as many float32.
        dense: 384 float32 for the embedding; empty while all are zero.
        bias: difference of the intercept.
        updates: labels that were learned from.
    """

    base: str
    slots: bytes = b""
    deltas: bytes = b""
    dense: bytes = b""
    bias: float = 0.0
    updates: int = 0

    def sparse(self) -> tuple[I64, F32]:
        """Return slots and differences."""
        return np.frombuffer(self.slots, "<u4").astype(np.int64), np.frombuffer(self.deltas, "<f4")

    def embedding(self) -> F32:
        """Return the differences of the embedding's weights, shape (384,)."""
        return np.frombuffer(self.dense, "<f4") if self.dense else np.zeros(_DENSE, np.float32)


def pack_weights(weights: Weights) -> bytes:
    """Return the wire form, below 140 kB."""
    return msgspec.msgpack.encode(weights)


def unpack_weights(data: bytes) -> Weights:
    """Return the weights in ``data``: plain numbers, nothing that could run.

    Raises:
        WeightsError: they are no weights, or do not fit together.
    """
    try:
        weights = msgspec.msgpack.decode(data, type=Weights)
    except msgspec.DecodeError as error:
        raise WeightsError(f"not packed toxicity weights: {error}; were they written by another release?") from error
    slots, deltas = np.frombuffer(weights.slots[: len(weights.slots) // 4 * 4], "<u4"), len(weights.deltas)
    fits = len(weights.slots) == deltas == 4 * len(slots) and len(weights.dense) in (0, 4 * _DENSE)
    if (
        not fits
        or len(slots) > MOST_SLOTS
        or (len(slots) and (slots.max() >= SLOTS or (np.diff(slots.astype(np.int64)) <= 0).any()))
    ):
        raise WeightsError("the parts of the packed toxicity weights do not fit together: they are damaged")
    numbers = np.concatenate([np.frombuffer(weights.deltas, "<f4"), weights.embedding(), [weights.bias]])
    if not np.isfinite(numbers).all():
        raise WeightsError(
            "the packed toxicity weights hold numbers that are not finite: roll back to an earlier version"
        )
    return weights

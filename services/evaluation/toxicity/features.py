"""What the classifier sees of a piece of text, and how that travels.

Four families. Words and pairs of neighbours, hashed; character 3- to 5-grams within words, hashed, which know a word by its
spelling variants; patterns, which are 1- to 4-grams of the words' classes (negation, hatred, identity, ...), hashed, which
know a sentence by how it is built whatever its words; and the sentence embedding, which knows words that the training never
held. Each hashed family is the set of its slots, each with the value 1 over the square root of their number, so the size of
the vector does not depend on the length of the text, and memory does not grow with the vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.evaluation.toxicity.reading import Piece

__all__ = [
    "DIMENSION", "FEATURES_VERSION", "SLOTS", "Features", "FeaturesError", "Hashed", "hashed", "pack", "quantised",
    "unpack",
]  # fmt: skip

FEATURES_VERSION = 1
"""Changes whenever the features of a text may: packed features of another version cannot be read."""

DIMENSION = 384
"""Length of the sentence embedding."""
_BITS = (17, 17, 15)
_STARTS = (0, 1 << 17, 1 << 18)
SLOTS = (1 << 18) + (1 << 15)
"""Slots of all hashed families together."""

_PRIME = np.uint32(0x9E3779B1)
_ORDERS = 4

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]


class FeaturesError(ValueError):
    """Packed features cannot be read."""


class Features(msgspec.Struct, frozen=True, array_like=True):
    """Features of one piece of a text; no text can be read out of the packed form.

    Attributes:
        words: slots of words and pairs, ascending, uint32 little-endian; likewise ``letters`` and ``patterns``.
        embedding: int8, 384 of them; empty where the text was not embedded.
        surfaces: the words of the piece, for explanation only: they are not packed.
    """

    words: bytes
    letters: bytes
    patterns: bytes
    embedding: bytes = b""
    surfaces: tuple[str, ...] = ()

    def slots(self) -> tuple[U32, U32, U32]:
        """Return the slots of the three hashed families."""
        words, letters, patterns = (
            np.frombuffer(family, dtype="<u4") for family in (self.words, self.letters, self.patterns)
        )
        return words, letters, patterns

    def vector(self) -> F32:
        """Return the embedding as a unit vector, shape (384,); zeros where there is none."""
        if not self.embedding:
            return np.zeros(DIMENSION, np.float32)
        return dequantised(np.frombuffer(self.embedding, dtype=np.int8))


@dataclass(frozen=True, slots=True)
class Hashed:
    """Slots of several pieces, sorted by piece and slot.

    Attributes:
        slots: below :data:`SLOTS`.
        owners: index of the piece of each slot.
        values: 1 over the square root of the number of slots that its family has in that piece.
        count: number of pieces.
    """

    slots: I64
    owners: I64
    values: F32
    count: int

    def margins(self, weights: F32) -> NDArray[np.float64]:
        """Return the weighted sum of each piece's slots, shape (count,)."""
        sums = np.bincount(self.owners, weights[self.slots] * self.values, self.count)
        # Without pieces numpy counts in integers.
        return sums.astype(np.float64)

    def families(self) -> list[tuple[bytes, bytes, bytes]]:
        """Return the slots of each piece as :class:`Features` has them."""
        edges = np.searchsorted(self.owners, np.arange(self.count + 1))
        narrow = self.slots.astype("<u4")
        found = []
        for first, last in itertools.pairwise(edges):
            mine = narrow[first:last]
            cuts = np.searchsorted(mine, _STARTS[1:])
            found.append((mine[: cuts[0]].tobytes(), mine[cuts[0] : cuts[1]].tobytes(), mine[cuts[1] :].tobytes()))
        return found


def hashed(pieces: Sequence[Piece]) -> Hashed:
    """Return the hashed features of pieces."""
    flat = [word for piece in pieces for word in piece]
    owners = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    words = np.fromiter((word.hash for word in flat), np.uint32, len(flat))
    codes = np.fromiter((word.code for word in flat), np.uint32, len(flat))
    keys = [_keys(owners, _mixed(words), 0)]
    if len(flat) > 1:
        beside = owners[:-1] == owners[1:]
        keys.append(_keys(owners[:-1][beside], _mixed(words[:-1] * _PRIME + words[1:])[beside], 0))
    if flat:
        grams = np.concatenate([word.grams for word in flat])
        keys.append(_keys(np.repeat(owners, [len(word.grams) for word in flat]), _mixed(grams), 1))
    # Once with words of no class as a gap of one, once without them.
    gap = codes == 0
    kept = ~gap
    kept[:1] = True
    kept[1:] |= ~gap[:-1] | (owners[1:] != owners[:-1])
    for salt, chosen in ((np.uint32(0x51ED270B), kept), (np.uint32(0x2545F491), ~gap)):
        keys += _patterns(codes[chosen], owners[chosen], salt)
    unique = np.sort(np.concatenate(keys))
    unique = unique[np.diff(unique, prepend=-1) > 0]
    found = unique >> 19
    slots = unique & ((1 << 19) - 1)
    groups = found * 3 + np.searchsorted(_STARTS, slots, "right") - 1
    sizes = np.bincount(groups, minlength=1)
    return Hashed(slots, found, (1 / np.sqrt(sizes[groups])).astype(np.float32), len(pieces))


def _patterns(codes: U32, owners: I64, salt: np.uint32) -> list[I64]:
    found = []
    rolling = np.full(len(codes), salt, dtype=np.uint32)
    for order in range(1, _ORDERS + 1):
        count = len(codes) - order + 1
        if count < 1:
            break
        rolling = rolling[:count] * _PRIME + codes[order - 1 :] + np.uint32(1)
        inside = owners[:count] == owners[order - 1 :]
        found.append(_keys(owners[:count][inside], _mixed(rolling[inside]), 2))
    return found


def _keys(owners: I64, hashes: U32, family: int) -> I64:
    """Return owner and slot as one number each."""
    return (owners << 19) + (hashes >> np.uint32(32 - _BITS[family])) + _STARTS[family]


def _mixed(values: U32) -> U32:
    """Return the values mixed by the finaliser of MurmurHash3 (public domain)."""
    values = values ^ (values >> np.uint32(16))
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def quantised(vectors: F32) -> NDArray[np.int8]:
    """Return unit vectors, shape (n, 384), as int8; their length is lost, which is 1."""
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)
    codes: NDArray[np.int8] = np.rint(vectors / largest * 127).astype(np.int8)
    return codes


def dequantised(codes: NDArray[np.int8]) -> F32:
    """Return what :func:`quantised` was given, to 0.5 % or so, shape (n, 384) or (384,)."""
    wide = codes.astype(np.float32)
    # Sums of squares of int8 are exact in float32, so the result is the same on every machine.
    length = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
    unit: F32 = wide / np.maximum(length, np.float32(1))
    return unit


def pack(features: Features) -> bytes:
    """Return the wire form: version, then each family's slots as differences in variable-length bytes, then the embedding.

    A piece of the longest kind takes about 2 kB, a tweet about 1 kB.
    """
    out = bytearray([FEATURES_VERSION])
    for slots, start in zip(features.slots(), _STARTS, strict=True):
        _varint(out, len(slots))
        last = start
        for slot in slots.tolist():
            _varint(out, slot - last)
            last = slot
    out += features.embedding
    return bytes(out)


def unpack(data: bytes) -> Features:
    """Return the features in ``data``.

    Raises:
        FeaturesError: they are of another version, or cut off.
    """
    if not data or data[0] != FEATURES_VERSION:
        raise FeaturesError(
            f"features of version {data[0] if data else 'none'} cannot be read by version {FEATURES_VERSION}: "
            "labels of another release teach nothing; drop them"
        )
    families = []
    place = 1
    try:
        for start, bits in zip(_STARTS, _BITS, strict=True):
            count, place = _read_varint(data, place)
            slots = np.empty(min(count, len(data)), dtype="<u4")
            last = start
            for i in range(count):
                step, place = _read_varint(data, place)
                last += step
                slots[i] = last
            if last >= start + (1 << bits):
                raise FeaturesError(f"slot {last} is outside its family: the features are damaged")
            families.append(slots.tobytes())
    except IndexError as error:
        raise FeaturesError("features are cut off: the label was damaged on its way") from error
    embedding = data[place:]
    if len(embedding) not in (0, DIMENSION):
        raise FeaturesError(
            f"an embedding of {len(embedding)} bytes is not one of {DIMENSION}: the features are damaged"
        )
    words, letters, patterns = families
    return Features(words, letters, patterns, embedding)


def _varint(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 28:
            raise FeaturesError("a number has too many bytes: the features are damaged")

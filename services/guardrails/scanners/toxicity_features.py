"""What the toxicity classifier sees of a text: words and their pairs, the letters within words, and what they mean.

Three families. Words and pairs of neighbours, hashed; character 3- to 5-grams that lie within one word, hashed, which
know a swear word by its spelling variants; and the unit vector of the static embedding, which knows words that the
training never held. The two hashed families are counts over the square root of their number.
"""

import html
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from penstock.embedding.static import StaticEmbedding, words
from penstock.text.normalise import canonical

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]

BITS = 17
"""Each hashed family has 2^BITS slots."""
CHAR_ORDERS = (3, 4, 5)
_LONGEST = 48
"""Characters of one word that are read: longer runs are data."""
# Addresses and the marks of one social network would tell where a text is from.
_NOISE = re.compile(r"https?://\S+|www\.\S+|@\w+|\brt\b|#")
_STRETCHED = re.compile(r"(.)\1{2,}")
_SPACED = re.compile(r"(?<!\w)(?:[a-z*][ .\-_]){3,}[a-z*](?!\w)")
# A word may carry signs inside or at its end (f*ck, a$$hole, sh!t, don't).
_WORD = re.compile(r"[^\W_]+(?:['’*@$!+]+[^\W_]+)*|[!?]")
_LEET = str.maketrans("013457@$!", "oieastasi")
_PRIME = np.uint32(0x9E3779B1)


@dataclass(frozen=True, slots=True)
class Features:
    """Slots of several pieces, each with the index of its piece, ascending. `embedded` has shape (pieces, dimension)."""

    word_slots: U32
    word_pieces: I64
    char_slots: U32
    char_pieces: I64
    embedded: F32


def read(piece: str) -> list[str]:
    """Normalised words of a piece; question and exclamation marks are words of their own."""
    folded = _NOISE.sub(" ", canonical(html.unescape(piece) if "&" in piece else piece))
    folded = _SPACED.sub(lambda match: re.sub(r"[ .\-_]", "", match.group()), folded)
    found = _WORD.findall(_STRETCHED.sub(r"\1\1", folded))
    return [word if word.isalpha() or word.isdigit() else _plain(word) for word in found]


def _plain(word: str) -> str:
    """Letters for the digits and signs that stand for them."""
    return word.translate(_LEET) if any(map(str.isalpha, word)) else word


def features(pieces: Sequence[Sequence[str]], embedding: StaticEmbedding) -> Features:
    """The three families of pieces given as their words (see `read`)."""
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    owners = np.repeat(np.arange(len(pieces)), lengths)
    flat = [word[:_LONGEST] for piece in pieces for word in piece]
    hashes = np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in flat], dtype=np.uint32)
    pairs = _mixed(hashes[:-1] * _PRIME + hashes[1:])
    together = owners[:-1] == owners[1:]
    char_slots, char_words = _char_slots(flat)
    return Features(
        np.concatenate([_mixed(hashes.copy()), pairs[together]]),
        np.concatenate([owners, owners[:-1][together]]),
        char_slots,
        owners[char_words],
        np.stack([_embedded(piece, embedding) for piece in pieces]),
    )


def _embedded(piece: Sequence[str], embedding: StaticEmbedding) -> F32:
    return embedding.embed_rows(embedding.rows(words(" ".join(piece))))


def _char_slots(flat: Sequence[str]) -> tuple[U32, I64]:
    """(slot, index of its word) of the n-grams of words bounded by spaces; none reaches into the next word."""
    line = f" {' '.join(flat)} "
    points = np.frombuffer(line.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    spaces = np.concatenate([[0], np.cumsum(points == 32)])
    rolling = np.zeros(len(points), dtype=np.uint32)
    slots, places = [], []
    for order in range(1, CHAR_ORDERS[-1] + 1):
        if order > len(points):
            break
        count = len(points) - order + 1
        rolling = rolling[:count] * _PRIME + points[order - 1 :]
        if order in CHAR_ORDERS:
            inside = spaces[order - 1 : order - 1 + count] == spaces[1 : 1 + count]
            kept = np.flatnonzero(inside)
            slots.append(_mixed(rolling[kept] + np.uint32(order)))
            places.append(spaces[kept + 1] - 1)
    if not flat or not slots:
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    return np.concatenate(slots), np.concatenate(places)


def _mixed(values: U32) -> U32:
    """The finaliser of MurmurHash3 (public domain), reduced to a slot."""
    values = values ^ (values >> np.uint32(16))
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return np.asarray(values >> np.uint32(32 - BITS), dtype=np.uint32)

"""A linear classifier over hashed word and character n-grams, in numpy alone.

Features of a text (already canonical, see `normalise.canonical`): the set of its word 1- to 3-grams and of its
character 3- to 5-grams, each hashed into its own table of 2^`bits` slots. A slot that occurs k times weighs (1 + ln k)
* idf; each family is scaled to unit length, as scikit-learn's TfidfVectorizer(sublinear_tf=True) does. The score is the
logistic of the weights' dot product.

Words hash by CRC-32 and characters by a polynomial over code points, both mixed by the finaliser of MurmurHash3 (public
domain), so a model trained in one process scores alike in any other: Python's own `hash` is salted.
"""

import json
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]

WORD_ORDERS = (1, 2, 3)
CHAR_ORDERS = (3, 4, 5)
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]")
_SPACE = re.compile(r"\s+")
_PRIME = 0x9E3779B1
_SALT = {order: np.uint32(order * 0x85EBCA6B & 0xFFFFFFFF) for order in range(1, 8)}


def _mix(values: U32) -> U32:
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values


def _grams(units: U32, orders: tuple[int, ...], bits: int) -> U32:
    """Slots of every n-gram of `units` for each order, concatenated."""
    shift = np.uint32(32 - bits)
    rolling = np.zeros(len(units), dtype=np.uint32)
    slots: list[U32] = []
    for order in range(1, orders[-1] + 1):
        if order > len(units):
            break
        rolling = rolling[: len(units) - order + 1] * np.uint32(_PRIME) + units[order - 1 :]
        if order in orders:
            slots.append(_mix(rolling + _SALT[order]) >> shift)
    return np.concatenate(slots) if slots else np.zeros(0, dtype=np.uint32)


def word_slots(text: str, bits: int) -> U32:
    """Slots (with repeats) of the word 1- to 3-grams of a canonical text; punctuation marks are words of their own."""
    crc = zlib.crc32
    tokens = [crc(token.encode("utf-8", "surrogatepass")) for token in _TOKEN.findall(text)]
    return _grams(np.array(tokens, dtype=np.uint32), WORD_ORDERS, bits)


def char_slots(text: str, bits: int) -> U32:
    """Slots (with repeats) of the character 3- to 5-grams of a canonical text, white space collapsed, padded by one
    space.
    """
    padded = f" {_SPACE.sub(' ', text).strip()} "
    points = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return _grams(points, CHAR_ORDERS, bits)


@dataclass(frozen=True, slots=True)
class LinearNgramModel:
    """Weights of one classifier.

    `word` and `char` are the products idf * weight, `word_idf` and `char_idf` the idf alone (needed for the length),
    each of shape (2^bits,). `metadata` is what the training script wrote beside the
    weights.
    """

    bits: int
    word: F32
    char: F32
    word_idf: F32
    char_idf: F32
    bias: float
    metadata: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> "LinearNgramModel":
        """Read `<path>.npz` (numpy, no pickle) and `<path>.json`.

        Raises ValueError where the two do not belong together, naming the file and the remedy.
        """
        metadata = json.loads(path.with_suffix(".json").read_text("utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            word, char, word_idf, char_idf = (
                arrays[name].astype(np.float32) for name in ("word", "char", "word_idf", "char_idf")
            )
        bits = int(metadata["bits"])
        if any(table.shape != (1 << bits,) for table in (word, char, word_idf, char_idf)):
            raise ValueError(
                f"{path}.npz does not fit {path}.json (bits={bits}); run the training script again to write both"
            )
        return cls(
            bits, word * word_idf, char * char_idf, word_idf, char_idf,
            float(metadata["bias"]), metadata,
        )  # fmt: skip

    def margin(self, features: "NgramFeatures") -> float:
        """Log odds of the positive class; minus infinity for a text without words."""
        if not len(features.word_slots):
            return -math.inf
        word = _family(features.word_slots, features.word_tf, self.word, self.word_idf)
        return self.bias + word + _family(features.char_slots, features.char_tf, self.char, self.char_idf)


@dataclass(frozen=True, slots=True)
class NgramFeatures:
    """Distinct slots of a text's word and character n-grams, and 1 + ln(count) of each: several models read them."""

    word_slots: U32
    word_tf: F32
    char_slots: U32
    char_tf: F32

    @classmethod
    def of(cls, text: str, bits: int) -> "NgramFeatures":
        """Features of a canonical text."""
        return cls(*_distinct(word_slots(text, bits)), *_distinct(char_slots(text, bits)))


def _distinct(slots: U32) -> tuple[U32, F32]:
    unique, counts = np.unique(slots, return_counts=True)
    return unique, (1.0 + np.log(counts)).astype(np.float32)


def _family(slots: U32, tf: F32, weights: F32, idf: F32) -> float:
    """Dot product of one family's unit-length tf-idf vector with its weights; 0 for an empty one."""
    if not len(slots):
        return 0.0
    lengths = tf * idf[slots]
    norm = float(np.sqrt(lengths @ lengths))
    return float(tf @ weights[slots]) / norm if norm else 0.0

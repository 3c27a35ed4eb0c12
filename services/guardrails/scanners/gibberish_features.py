"""What the gibberish classifier sees: every stretch of a text described by how expected its letters and words are.

Three character models (prose in English, code and data, other languages) say how surprising each letter is; a text of any
of these kinds is expected by one of them, and machine-made text by none. Beside them: whether words and pairs of words
have been seen, whether neighbours have to do with each other, how letters, signs and scripts alternate, whether words
come back, and how the stretch differs from the rest of the text. All of it are sums over windows, so time is linear.
"""

import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from penstock.embedding.static import StaticEmbedding

Flags = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]

WINDOW = 80
"""Characters of one window."""
STRIDE = 20
KINDS = ("prose", "code", "language")
GRAM_BITS = 19
"""Slots of a character model: 2^GRAM_BITS 4-grams, and 2^PAIR_BITS pairs of characters."""
PAIR_BITS = 15
SEEN_BITS = 22
"""Bits of the filter of pairs of words."""
STEP_BITS = 0.9
"""Surprise is stored in 15 steps of this many bits."""
UNSEEN_BITS = 3.0
"""Added to the surprise of a pair of characters where the 4-gram is not known."""
_MOST = 16 * STEP_BITS

TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_PRIME = 0x9E3779B1
_OPEN, _CLOSED = "([{<", ")]}>"
_PROGRAM = frozenset(map(ord, "{}[]()<>;=\"'|\\/&$#@*+:"))
FEATURES = (
    "prose", "code", "language", "least", "least_each", "unseen", "unseen_prose", "letters", "upper", "digits", "signs",
    "spaces", "beyond_ascii", "lines", "to_upper", "letter_sign", "letter_digit", "script_changes", "scripts", "known_words",
    "function_words", "seen_pairs", "returning", "word_length", "sign_variety", "coherence", "program_signs", "unbalanced",
    "tokens", "single_letters", "contrast", "rest_least", "rest_unseen", "seen_contrast",
)  # fmt: skip

FUNCTION_WORDS = frozenset(
    "the a an of to in and or is are was were be been for on with as by at from that this these those it its i you he she "
    "we they my your our their his her not no if then than so but do does did have has had can could will would should may "
    "might what which who when where how why there here all any some one about into over after before out up down me him "
    "them us just only also more most other such".split()
)


def mixed(values: U32) -> U32:
    """The finaliser of MurmurHash3 (public domain)."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values = values ^ (values >> np.uint32(13))
    values = values * np.uint32(0xC2B2AE35)
    return np.asarray(values ^ (values >> np.uint32(16)), dtype=np.uint32)


def code_points(text: str) -> U32:
    """Code points; those of scripts with thousands of letters are told apart by their blocks of 16 alone."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.where(points >= 0x2E80, points >> np.uint32(4) | np.uint32(0x100000), points).astype(np.uint32)


def gram_hashes(points: U32, order: int) -> U32:
    """Hash of the n-gram that ends at each place from `order` - 1 on."""
    rolling = np.zeros(max(0, len(points) - order + 1), dtype=np.uint32)
    for step in range(order):
        rolling = rolling * np.uint32(_PRIME) + points[step : len(points) - order + 1 + step]
    return mixed(rolling + np.uint32(order))


def pair_hashes(hashes: U32) -> U32:
    """Bit of the filter for each pair of neighbouring tokens."""
    return mixed(hashes[:-1] * np.uint32(_PRIME) + hashes[1:]) >> np.uint32(32 - SEEN_BITS)


def token_hashes(tokens: list[str]) -> U32:
    return np.array([zlib.crc32(token.encode("utf-8", "surrogatepass")) for token in tokens], dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What ordinary text is made of.

    `grams` holds a byte a slot for each character model, shape (3, 2^GRAM_BITS): 4 bits that tell n-grams of one slot
    apart, and the surprise plus one in steps of `STEP_BITS`, 0 for an empty slot; `pairs`, shape (3, 2^PAIR_BITS), the
    surprise of the second of two characters. `seen` is the filter of token pairs, packed bits.
    """

    grams: U8
    pairs: U8
    seen: U8

    def surprise(self, points: U32) -> tuple[F32, Flags]:
        """Bits of each character under each model, and whether its 4-gram is unknown to it; shapes (3, len(points))."""
        bits = np.full((len(KINDS), len(points)), 4.0, dtype=np.float32)
        unknown = np.zeros((len(KINDS), len(points)), dtype=bool)
        if len(points) < 4:
            return bits, unknown
        short = gram_hashes(points, 2)[2:] >> np.uint32(32 - PAIR_BITS)
        bits[:, 3:] = np.minimum(self.pairs[:, short] * STEP_BITS + UNSEEN_BITS, _MOST)
        long = gram_hashes(points, 4)
        cell = self.grams[:, long >> np.uint32(32 - GRAM_BITS)]
        mark = (long & np.uint32(15)).astype(np.uint8)
        known = (cell != 0) & ((cell >> 4) == mark)
        bits[:, 3:] = np.where(known, ((cell & 15).astype(np.float32) - 1) * STEP_BITS, bits[:, 3:])
        unknown[:, 3:] = ~known
        return bits, unknown

    def pairs_seen(self, hashes: U32) -> Flags:
        bits = pair_hashes(hashes)
        return np.asarray((self.seen[bits >> np.uint32(3)] >> (bits & np.uint32(7)).astype(np.uint8)) & 1, dtype=bool)

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["grams"], arrays["pairs"], arrays["seen"])


def _script(points: U32) -> I64:
    """Coarse script of each letter: blocks of 128 code points below U+0E00, then wide classes; 0 is Latin."""
    edges = np.array([0x250, 0x370, 0x400, 0x530, 0x590, 0x600, 0x900, 0x980, 0xE00, 0xE80, 0x1100, 0x1E00, 0x1F00])
    classes = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1])
    found = classes[np.searchsorted(edges, points, side="right")]
    return np.where(points >= 0x100000, 11 + ((points & np.uint32(0xFFFFF)) >= 0xAC0), found).astype(np.int64)


def windows(length: int) -> tuple[I64, I64]:
    """Start and end of every window of a text of `length` characters; a short text is one window."""
    starts = np.arange(0, max(1, length - WINDOW + STRIDE), STRIDE, dtype=np.int64)
    return starts, np.minimum(starts + WINDOW, length)


class _Sums:
    """Sums over windows, by running totals."""

    def __init__(self, starts: I64, ends: I64) -> None:
        self._starts, self._ends = starts, ends

    def of(self, values: npt.ArrayLike) -> F32:
        totals = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        return np.asarray(totals[self._ends] - totals[self._starts], dtype=np.float32)


def describe(text: str, statistics: Statistics, embedding: StaticEmbedding) -> tuple[I64, I64, F32]:
    """(starts, ends, features) of the windows of a text; features have shape (windows, len(FEATURES))."""
    points = code_points(text)
    starts, ends = windows(len(text))
    over = _Sums(starts, ends)
    size = np.maximum(ends - starts, 1).astype(np.float32)
    bits, unknown = statistics.surprise(points)
    means = np.stack([over.of(row) for row in bits]) / size
    least_each = bits.min(axis=0)
    never = unknown.all(axis=0)

    beyond_ascii: Flags = np.asarray(points > 127)
    new_line: Flags = np.asarray(points == 10)
    letter = np.fromiter(map(str.isalpha, text), dtype=bool, count=len(text))
    upper = np.fromiter(map(str.isupper, text), dtype=bool, count=len(text))
    digit = np.fromiter(map(str.isdigit, text), dtype=bool, count=len(text))
    space = np.fromiter(map(str.isspace, text), dtype=bool, count=len(text))
    sign = ~(letter | digit | space)
    script = np.where(letter, _script(points), -1)

    def change(left: Flags, right: Flags) -> Flags:
        found = np.zeros(len(text), dtype=bool)
        found[1:] = left[:-1] & right[1:]
        return found

    changes = np.zeros(len(text), dtype=bool)
    held = np.flatnonzero(letter)
    changes[held[1:]] = script[held[1:]] != script[held[:-1]]
    scripts = sum(
        (over.of(np.asarray(script == number)) >= 3).astype(np.float32) for number in np.unique(script[letter])
    )
    scripts = scripts + np.zeros(len(starts), dtype=np.float32)
    opened, closed = np.isin(points, list(map(ord, _OPEN))), np.isin(points, list(map(ord, _CLOSED)))
    program = np.isin(points, list(_PROGRAM))

    found = [match.span() for match in TOKEN.finditer(text)]
    tokens = [text[start:end].lower() for start, end in found]
    token_sums, pair_share, coherence, variety = _token_features(tokens, found, starts, ends, statistics, embedding)
    counts = np.maximum(token_sums["tokens"], 1)
    word_counts = np.maximum(token_sums["words"], 1)

    least = means.min(axis=0)
    unseen = over.of(never) / size
    rest = max(1, len(text) - WINDOW)
    rest_least = (least_each.sum() - over.of(least_each)) / rest
    rest_unseen = (never.sum() - over.of(never)) / rest
    columns = (
        *means, least, over.of(least_each) / size, unseen, over.of(unknown[0]) / size, over.of(letter) / size,
        over.of(upper) / size, over.of(digit) / size, over.of(sign) / size, over.of(space) / size,
        over.of(beyond_ascii) / size, over.of(new_line) / size, over.of(change(letter & ~upper, upper)) / size,
        (over.of(change(letter, sign)) + over.of(change(sign, letter))) / size,
        (over.of(change(letter, digit)) + over.of(change(digit, letter))) / size, over.of(changes) / size, scripts,
        token_sums["known"] / word_counts, token_sums["function"] / word_counts, pair_share,
        token_sums["returning"] / word_counts, token_sums["letters"] / word_counts, variety, coherence,
        over.of(program) / size, np.abs(over.of(opened) - over.of(closed)) / size, counts / size,
        token_sums["single"] / counts, least - rest_least, rest_least, rest_unseen,
        pair_share - (pair_share.mean() if len(pair_share) else 0.0),
    )  # fmt: skip
    return starts, ends, np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1)


def _token_features(
    tokens: list[str],
    places: list[tuple[int, int]],
    starts: I64,
    ends: I64,
    statistics: Statistics,
    embedding: StaticEmbedding,
) -> tuple[dict[str, F32], F32, F32, F32]:
    """Sums over the tokens that begin in each window; share of known pairs; mean cosine of neighbouring words; distinct
    signs over signs.
    """
    begin = np.array([start for start, _ in places], dtype=np.int64)
    first, last = np.searchsorted(begin, starts), np.searchsorted(begin, ends)
    over = _Sums(first, last)
    word = np.fromiter((token[0].isalpha() for token in tokens), dtype=bool, count=len(tokens))
    plain = np.fromiter((token.isascii() for token in tokens), dtype=bool, count=len(tokens)) & word
    long = np.fromiter((len(token) for token in tokens), dtype=np.int64, count=len(tokens))
    rows = [embedding.word_rows(token) if is_plain else () for token, is_plain in zip(tokens, plain, strict=True)]
    whole = np.fromiter((len(row) == 1 for row in rows), dtype=bool, count=len(tokens))
    frequency = Counter(tokens)
    returning = np.fromiter(
        (frequency[token] > 1 and len(token) > 2 for token in tokens), dtype=bool, count=len(tokens)
    )
    function = np.fromiter((token in FUNCTION_WORDS for token in tokens), dtype=bool, count=len(tokens))
    sums = {
        "tokens": over.of(np.ones(len(tokens))), "words": over.of(word), "known": over.of(whole | (word & ~plain)),
        "function": over.of(function), "returning": over.of(returning & word), "letters": over.of(long * word),
        "single": over.of(np.asarray(long == 1)),
    }  # fmt: skip
    if len(tokens) < 2:
        nothing = np.zeros(len(starts), dtype=np.float32)
        return sums, nothing, nothing, nothing
    pairs = np.concatenate([[False], statistics.pairs_seen(token_hashes(tokens))])
    share = np.asarray(over.of(pairs) / np.maximum(over.of(np.ones(len(tokens))), 1), dtype=np.float32)
    content = np.flatnonzero(whole & ~function & (long > 2))
    near = np.zeros(len(tokens), dtype=np.float32)
    counted = np.zeros(len(tokens), dtype=np.float32)
    if len(content) > 1:
        vectors = embedding.vectors([rows[index][0] for index in content])
        near[content[1:]] = (vectors[1:] * vectors[:-1]).sum(axis=1)
        counted[content[1:]] = 1.0
    coherence = over.of(near) / np.maximum(over.of(counted), 1)
    signs = [token if not token[0].isalnum() else "" for token in tokens]
    distinct = np.fromiter(
        (len(set(signs[a:b])) for a, b in zip(first.tolist(), last.tolist(), strict=True)),
        dtype=np.float32,
        count=len(starts),
    )
    variety = distinct / np.maximum(over.of(np.asarray(~word & (long == 1))), 1)
    return sums, share, np.asarray(coherence, dtype=np.float32), np.asarray(variety, dtype=np.float32)


def smoothed(margins: F32) -> F32:
    """Each window's margin averaged with those of its neighbours: they overlap, so one that stands alone is chance."""
    if len(margins) < 3:
        return margins
    padded = np.concatenate([margins[:1], margins, margins[-1:]])
    return np.asarray((padded[:-2] + padded[1:-1] + padded[2:]) / 3, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Trees:
    """Gradient-boosted trees as arrays of shape (trees, nodes); a leaf points to itself, its `value` is what it adds."""

    feature: npt.NDArray[np.int16]
    threshold: F32
    left: npt.NDArray[np.int16]
    right: npt.NDArray[np.int16]
    value: F32
    bias: float
    depth: int
    version: str

    @classmethod
    def load(cls, path: Path) -> "Trees":
        """Read `<path>.npz` and `<path>.json`."""
        metadata = json.loads(path.with_suffix(".json").read_text("utf-8"))
        if metadata["features"] != list(FEATURES):
            raise ValueError(f"{path}.json names other features than this code computes: train it again")
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            return cls(
                arrays["feature"], arrays["threshold"], arrays["left"], arrays["right"], arrays["value"],
                float(metadata["bias"]), int(metadata["depth"]), str(metadata["version"]),
            )  # fmt: skip

    def margins(self, rows: F32) -> F32:
        """Sum of the leaves that each row falls into, plus the bias, shape (rows,)."""
        count, width = self.feature.shape
        begin = (np.arange(count, dtype=np.int32) * width)[None, :]
        lines = (np.arange(len(rows), dtype=np.int32) * rows.shape[1])[:, None]
        values = np.ascontiguousarray(rows).ravel()
        feature, threshold = self.feature.ravel(), self.threshold.ravel()
        left, right = self.left.ravel(), self.right.ravel()
        node = np.repeat(begin, len(rows), axis=0)
        for _ in range(self.depth):
            goes_left = values.take(lines + feature.take(node)) <= threshold.take(node)
            node = begin + np.where(goes_left, left.take(node), right.take(node))
        return np.asarray(self.value.ravel().take(node).sum(axis=1) + self.bias, dtype=np.float32)

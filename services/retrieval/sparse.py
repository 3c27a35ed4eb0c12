"""Sparse vectors of words for BM25 (Robertson and Zaragoza 2009), in the form that Qdrant stores. Pure.

A chunk's vector holds the term-frequency part of BM25, f (k1 + 1) / (f + k1 (1 - b + b n / average)), of each of its
terms; the inverse document frequency is applied by the store at the query, as it changes with every document. The average
length is a constant, as in Qdrant's own BM25, so that a vector never needs to be computed again.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["MAX_TERM_WEIGHT", "SparseVector", "chunk_vector", "query_vector", "terms"]

_K1 = 1.2
_B = 0.75
# Terms of a chunk that is full, without stop words.
_AVERAGE_TERMS = 100

MAX_TERM_WEIGHT = _K1 + 1
"""What the weight of a term in a chunk approaches as it is repeated."""

_WORD = re.compile(r"\w+")
# Scripts written without spaces: their words are indexed as overlapping pairs of characters.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_STOP_WORDS = frozenset(
    "a about an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its may me my not of on or our should so such than that the their them then there these they this those to was we "
    "were what when where which while who whom whose why will with would you your".split()
)
# Plural and inflection endings with their replacement, longest first: a light stemmer in the manner of Harman's S-stemmer,
# extended by -ing, -ed and -ly. It is applied to chunks and queries alike, so a wrong stem costs little.
_ENDINGS = (
    ("ization", "ize"), ("ational", "ate"), ("ments", "ment"), ("ingly", ""), ("sses", "ss"), ("edly", ""), ("ies", "y"),
    ("ing", ""), ("ed", ""), ("es", "e"), ("ly", ""), ("s", ""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SparseVector:
    """``indices`` are ascending 32-bit hashes of terms, ``values`` their weights."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


def terms(text: str) -> list[str]:
    """Return the stemmed words of ``text`` in order, without stop words; case and accents are ignored."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    folded = "".join(char for char in folded if not unicodedata.combining(char))
    found: list[str] = []
    for word in _WORD.findall(folded):
        if _UNSPACED.search(word):
            for part in _UNSPACED.findall(word):
                found.extend([part] if len(part) == 1 else [part[n : n + 2] for n in range(len(part) - 1)])
            found.extend(_stem(rest) for rest in _UNSPACED.split(word) if rest)
            continue
        if word not in _STOP_WORDS:
            found.append(_stem(word))
            if "_" in word:  # an identifier is found by its parts, too
                found.extend(_stem(part) for part in word.split("_") if len(part) > 1 and part not in _STOP_WORDS)
    return found


def chunk_vector(text: str) -> SparseVector:
    """Return the BM25 vector of a chunk."""
    counts = Counter(terms(text))
    length = sum(counts.values())
    norm = _K1 * (1 - _B + _B * length / _AVERAGE_TERMS)
    return _vector({term: count * (_K1 + 1) / (count + norm) for term, count in counts.items()})


def query_vector(text: str) -> SparseVector:
    """Return the vector of a question: 1 for each of its terms."""
    return _vector(dict.fromkeys(terms(text), 1.0))


def _vector(weights: dict[str, float]) -> SparseVector:
    by_index: dict[int, float] = {}
    for term, weight in weights.items():
        index = _index(term)
        by_index[index] = max(weight, by_index.get(index, 0.0))
    ordered = sorted(by_index.items())
    return SparseVector(tuple(index for index, _ in ordered), tuple(weight for _, weight in ordered))


@lru_cache(maxsize=65_536)
def _index(term: str) -> int:
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    for ending, replacement in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            if ending == "s" and word.endswith(("ss", "us", "is")):
                break
            word = word[: -len(ending)] + replacement
            break
    if len(word) > 4 and word.endswith("e"):
        word = word[:-1]
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word

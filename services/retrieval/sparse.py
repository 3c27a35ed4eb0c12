"""Sparse vectors of words for BM25 (Robertson and Zaragoza 2009), in the form that Qdrant stores. Pure.

A chunk's vector holds the term-frequency part of BM25, f (k1 + 1) / (f + k1 (1 - b + b n / average)), of each of its
terms; the inverse document frequency is applied by the store at the query, as it changes with every document. The average
length is a constant, as in Qdrant's own BM25, so that a vector never needs to be computed again.

A term is the stem of a word (Porter 2001, "Snowball: A language for stemming algorithms"). Which stemmer a word is given
to follows from its script alone, so that a question and a chunk always agree, be the question too short to tell its
language.
"""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import Stemmer  # type: ignore[import-not-found]

__all__ = ["MAX_TERM_WEIGHT", "TERMS_VERSION", "SparseVector", "chunk_vector", "query_vector", "terms"]

TERMS_VERSION = 2
"""Goes up when terms or their weights change: chunks whose vectors were made by another version are made anew."""

# Low, so that a long passage is not put behind short ones: the values that Anserini searches passages with (Lin et al.
# 2021, "Pyserini").
_K1 = 0.9
_B = 0.4
# Terms of a chunk that is full, without stop words.
_AVERAGE_TERMS = 100

MAX_TERM_WEIGHT = _K1 + 1
"""What the weight of a term in a chunk approaches as it is repeated."""

# Marks that follow a letter belong to its word, which \w alone would end: vowel signs, accents that do not compose.
_MARKS = "".join(re.escape(chr(code)) for code in range(0x10000) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
_WORD = re.compile(rf"\w[\w{_MARKS}]*")
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
# Scripts written without spaces, and Korean with its particles: indexed as overlapping pairs of characters.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_STOP_WORDS = frozenset(
    "a about an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its may me my not of on or our should so such than that the their them then there these they this those to was we "
    "were what when where which while who whom whose why will with would you your".split()
)
# First letters of the scripts that have a stemmer of their own, and its language; anything else is stemmed as English.
_SCRIPTS = (
    ("\u0370", "\u03ff", "greek"), ("\u0400", "\u04ff", "russian"), ("\u0530", "\u058f", "armenian"),
    ("\u0600", "\u06ff", "arabic"), ("\u0900", "\u097f", "hindi"), ("\u0b80", "\u0bff", "tamil"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SparseVector:
    """``indices`` are ascending 32-bit hashes of terms, ``values`` their weights."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


def terms(text: str) -> list[str]:
    """Return the stemmed words of ``text`` in order, without stop words; case and accents are ignored."""
    folded = text.casefold()
    ascii_only = folded.isascii()
    found: list[str] = []
    for word in (_ASCII_WORD if ascii_only else _WORD).findall(unicodedata.normalize("NFKC", folded)):
        if not ascii_only and _UNSPACED.search(word):
            for part in _UNSPACED.findall(word):
                found.extend([part] if len(part) == 1 else [part[n : n + 2] for n in range(len(part) - 1)])
            found.extend(_stem(rest) for rest in _UNSPACED.split(word) if rest)
            continue
        if "_" in word:  # an identifier is found by its parts, too
            found.append(word)
            found.extend(_stem(part) for part in word.split("_") if len(part) > 1 and part not in _STOP_WORDS)
        elif word not in _STOP_WORDS:
            found.append(_stem(word))
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


def _index(term: str) -> int:
    return _kept_index(term) if len(term) <= _LONGEST_KEPT else _index_of(term)


def _index_of(term: str) -> int:
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


def _stem(word: str) -> str:
    """Return the stem of a word in lower case, without accents."""
    return _kept_stem(word) if len(word) <= _LONGEST_KEPT else _stem_of(word)


def _stem_of(word: str) -> str:
    bare = _without_marks(word)
    if bare.isascii():
        return _stemmed(bare, "english")
    # Endings of other scripts are told by their marks, too, which go afterwards.
    language = next((name for first, last, name in _SCRIPTS if first <= word[0] <= last), "english")
    return _without_marks(_stemmed(word if language != "english" else bare, language))


# A longer word is no word, and is not kept: those of questions that are made up would take a gigabyte.
_LONGEST_KEPT = 64
_kept_index = lru_cache(maxsize=65_536)(_index_of)
_kept_stem = lru_cache(maxsize=65_536)(_stem_of)


def _without_marks(word: str) -> str:
    if word.isascii():
        return word
    return "".join(char for char in unicodedata.normalize("NFKD", word) if not unicodedata.combining(char))


_LOCAL = threading.local()


def _stemmed(word: str, language: str) -> str:
    # A stemmer is not made for several threads; these ones have no cache of their own, as _stem has one.
    stemmers: dict[str, Stemmer.Stemmer] = _LOCAL.__dict__
    if language not in stemmers:
        stemmers[language] = Stemmer.Stemmer(language, 0)
    stem: str = stemmers[language].stemWord(word)
    return stem

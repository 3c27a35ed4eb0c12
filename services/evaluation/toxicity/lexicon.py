"""What the classifier knows of single words: their class, how pleasant they are, and how they read in disguise.

The classes are hand-written (``models/toxicity_lexicon.json``): who is spoken of (identities, slurs, insults, things), what
is said (hatred, violence, exclusion, respect) and the small words that turn a sentence around (negation, report, quotation).
"""

from __future__ import annotations

import itertools
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "MODELS", "Lexicon", "Word"]

MODELS = Path(__file__).parent.parent / "models"

CLASSES = (
    "other", "identity", "slur", "insult", "insulting", "obscene", "low", "hate", "violence", "exclude", "negator",
    "condemn", "support", "report", "threat", "ought", "be", "first", "second", "third", "all", "person",
    "unprotected", "question", "but", "intensifier", "pleasant", "unpleasant", "exclamation", "quote", "end", "name",
)  # fmt: skip
"""Classes of words; the place of a class is its code, below 32."""

# Where a word is in several classes, the first of these counts.
_PRECEDENCE = (
    "identity", "slur", "insult", "hate", "negator", "obscene", "insulting", "low", "violence", "unprotected", "condemn",
    "exclude", "support", "report", "ought", "threat", "be", "first", "second", "third", "all", "person", "question",
    "but", "intensifier",
)  # fmt: skip
# What people disguise, and what a disguise may therefore stand for.
_DISGUISED = ("identity", "slur", "insult", "insulting", "obscene", "low", "hate", "violence")
_MARKS = {"!": "exclamation", '"': "quote", "`": "quote", ".": "end", "?": "question"}
_LEET = str.maketrans("01345678@$!+|", "oieasgtbasitl")
_LEET_L = str.maketrans("01345679@$!+|", "oleasgtgaslti")
_MASK = re.compile(r"[*#@$!+.\-_'|%&0-9]")
_GRAM_ORDERS = (3, 4, 5)
_LONGEST = 48
_REMEMBERED = 65_536
_PLEASANT = 1.5
_STANDS_FOR_ONE = "muslim"
_STANDS_FOR_MANY = "muslims"


@dataclass(frozen=True, slots=True)
class Word:
    """A word as read.

    Attributes:
        surface: the word, disguises undone.
        text: what the classifier sees of it: all names of identities are one.
        hash: of ``text``.
        code: place of its class in :data:`CLASSES`.
        grams: hashes of its character n-grams, ascending.
    """

    surface: str
    text: str
    hash: int
    code: int
    grams: NDArray[np.uint32]


class Lexicon:
    """Words and their classes; immutable but for a bounded memory of words that were looked up.

    Args:
        classes: words by name of class.
        phrases: one word for each phrase of several, e.g. ``middle eastern``.
        common: common words, the commonest first: what is among them is no disguise.
        valence: how pleasant words are, from -4 to 4.
        mask_identities: read every name of an identity as the same one.
    """

    def __init__(
        self,
        classes: Mapping[str, Iterable[str]],
        phrases: Mapping[str, str],
        common: Iterable[str] = (),
        valence: Mapping[str, float] | None = None,
        mask_identities: bool = True,
    ) -> None:
        self._one = frozenset(classes["identity_one"])
        self._many = frozenset(classes["identity_many"])
        self._mask = mask_identities
        groups = {**classes, "identity": self._one | self._many}
        self._class: dict[str, int] = {}
        for name in reversed(_PRECEDENCE):
            self._class.update(dict.fromkeys(groups[name], CLASSES.index(name)))
        for word, value in (valence or {}).items():
            if abs(value) >= _PLEASANT and word not in self._class:
                self._class[word] = CLASSES.index("pleasant" if value > 0 else "unpleasant")
        self._cost = {word: math.log((rank + 2) * 12.0) for rank, word in enumerate(common)}
        for word in self._class:
            self._cost.setdefault(word, 9.0)
        self._disguised = frozenset(word for name in _DISGUISED for word in groups[name] if len(word) > 3)
        self._near = _deletions(word for word in self._disguised if len(word) > 4)
        self._by_length: dict[int, list[str]] = {}
        for word in sorted(self._disguised, key=lambda word: (self._cost[word], word)):
            self._by_length.setdefault(len(word), []).append(word)
        self._phrase = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, phrases), key=len, reverse=True)) + r")\b")
        self._phrases = dict(phrases)
        self._words: dict[str, tuple[Word, ...]] = {}

    @classmethod
    def load(cls, folder: Path = MODELS, mask_identities: bool = True) -> Lexicon:
        """Read ``toxicity_lexicon.json`` and ``toxicity_words.json``.

        Raises:
            FileNotFoundError: a file is missing.
        """
        written = json.loads((folder / "toxicity_lexicon.json").read_text("utf-8"))
        counted = json.loads((folder / "toxicity_words.json").read_text("utf-8"))
        return cls(
            written["classes"], written["phrases"], counted["common"].split(), counted["valence"], mask_identities
        )

    def one_word(self, text: str) -> str:
        """Return ``text`` with the phrases that stand for one word as that word."""
        return self._phrase.sub(lambda match: self._phrases[match.group()], text)

    def words(self, token: str) -> tuple[Word, ...]:
        """Return what a token of a cleaned text reads as: itself mostly, several words where they are run together."""
        found = self._words.get(token)
        if found is None:
            found = tuple(map(self._word, self._read(token)))
            if len(self._words) < _REMEMBERED:
                self._words[token] = found
        return found

    def known(self, word: str) -> bool:
        """Return whether the word is a common one or has a class."""
        return word in self._cost

    def _word(self, text: str) -> Word:
        code = CLASSES.index(_MARKS[text]) if text in _MARKS else self._class.get(text, 0)
        shown = text
        if self._mask and code == 1:
            shown = _STANDS_FOR_MANY if text in self._many else _STANDS_FOR_ONE
        return Word(text, shown, zlib.crc32(shown.encode("utf-8", "surrogatepass")), code, _grams(shown[:_LONGEST]))

    def _read(self, token: str) -> tuple[str, ...]:
        if token in self._cost or len(token) > _LONGEST or not any(map(str.isalpha, token)):
            return (token,)
        if token.endswith("'s") and token[:-2] in self._cost:
            return (token[:-2],)
        if not token.isalpha():
            if (plain := self._plain(token)) is not None:
                return plain
            parts = [part for part in re.split(r"[^\w']+|_", token) if part]
            if len(parts) > 1:
                return tuple(itertools.chain.from_iterable(self._read(part) for part in parts))
            return (token,)
        if len(token) > 5 and (found := self._corrected(token)):
            return found
        return self._cut(token) or self._corrected(token) or (token,)

    def _plain(self, token: str) -> tuple[str, ...] | None:
        """Return the letters that the digits and signs in a token stand for, ``None`` where it makes no word."""
        for table in (_LEET, _LEET_L):
            plain = re.sub(r"[^a-z']", "", token.translate(table))
            if plain in self._cost:
                return (plain,)
            if (
                len(plain) > 3
                and any(map(str.isdigit, token))
                and (found := self._cut(plain) or self._corrected(plain))
            ):
                return found
        bare = re.sub(r"[^a-z]", "", token)
        if bare in self._disguised:
            return (bare,)
        if not any(map(str.isdigit, token)):
            pattern = re.compile("".join("." if _MASK.match(char) else re.escape(char) for char in token))
            loose = re.compile(re.sub(r"\.+", ".+", pattern.pattern))
            for word in self._by_length.get(len(token), ()):
                if pattern.fullmatch(word):
                    return (word,)
            if len(bare) > 1:
                for words in self._by_length.values():
                    for word in words:
                        if abs(len(word) - len(token)) < 3 and loose.fullmatch(word):
                            return (word,)
        return None

    def _cut(self, token: str) -> tuple[str, ...] | None:
        """Return the words of a token that is several run together, where one of them is worth disguising.

        Two words run together must both have a class: else cocktails would be two.
        """
        if len(token) < 5:
            return None
        best: list[tuple[float, int]] = [(0.0, 0)]
        for end in range(1, len(token) + 1):
            options = [
                (best[start][0] + self._cost[token[start:end]] + 2.0, start)
                for start in range(max(0, end - 16), end)
                if token[start:end] in self._cost and (end - start > 1 or token[start:end] in "ia")
            ]
            best.append(min(options, default=(math.inf, 0)))
        if best[-1][0] == math.inf:
            return None
        words, end = [], len(token)
        while end:
            start = best[end][1]
            words.append(token[start:end])
            end = start
        words.reverse()
        short = sum(len(word) < 3 for word in words)
        likely = short * 2 <= len(words) if len(token) > 6 else max(map(len, words)) > 3
        classed = len(words) > 2 or all(word in self._class for word in words)
        return tuple(words) if likely and classed and self._disguised.intersection(words) else None

    def _corrected(self, token: str) -> tuple[str, ...] | None:
        """Return the disguised word that a token is one slip away from: a letter left out, doubled, changed or swapped."""
        if len(token) < 4:
            return None
        for i in range(len(token) - 1):
            swapped = token[:i] + token[i + 1] + token[i] + token[i + 2 :]
            if swapped in self._disguised:
                return (swapped,)
        if (found := self._near.get(token)) is not None:
            return (found,)
        if len(token) > 4:
            for i in range(1, len(token)):
                shorter = token[:i] + token[i + 1 :]
                if len(shorter) > 4 and shorter in self._disguised:
                    return (shorter,)
                if len(token) > 5 and (found := self._near.get(shorter)) is not None and len(found) == len(token):
                    return (found,)
        return None


def _deletions(words: Iterable[str]) -> dict[str, str]:
    """Return each word by its forms with one letter left out, but the first."""
    return {word[:i] + word[i + 1 :]: word for word in sorted(words, reverse=True) for i in range(1, len(word))}


def _grams(word: str) -> NDArray[np.uint32]:
    bounded = f"<{word}>".encode("utf-8", "surrogatepass")
    found = [
        zlib.crc32(bounded[start : start + order])
        for order in _GRAM_ORDERS
        for start in range(len(bounded) - order + 1)
    ]
    return np.array(sorted(set(found)), dtype=np.uint32)

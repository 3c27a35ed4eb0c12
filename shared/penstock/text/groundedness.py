"""How much of an answer stands in the passages it was made from.

Word overlap, in one pass: no model, any language that writes words or syllables. It sees what an answer adds (names,
numbers, remarks of its own), not what it denies or joins wrongly out of words that the passages hold.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["VERSION", "Sentence", "Support", "support"]

VERSION = "overlap-2"

# Scripts without spaces count by the character.
_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")
_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0\u202f](?=\d{3}(?!\d))")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|[。！？।]|\n+")
_NUMBER_WORDS = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve".split(),
        map(str, range(13)),
        strict=True,
    )
)
# Words that say nothing about whether a statement is supported.
_FUNCTION_WORDS = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing don during each either else few for from further had has have having he her
    here hers him his how i if in into is it its itself just let like ll may me might more most much must my myself
    neither no nor not now of off on once only or other our ours out over own per rather re same shall she should
    so some such t than that the their theirs them then there these they this those through to too under until up
    upon us ve very was we well were what when where which while who whom whose why will with within without would
    yes yet you your yours s d m""".split()
)
_PERSONAL = frozenset("i me my mine myself we our us you your im am".split())
# Set by hand; the AUC on labelled answers stays within 0.005 when any one of them is halved or doubled.
_TELLING = 2.0
"""Weight of a number or a name among content words."""
_REMARK = 0.8
"""Taken off for each word about speaker or listener that the passages do not hold, by its share of all words."""
_QUESTION = 0.15
"""Taken off for asking back."""
_WEAKEST = 0.25
"""Share of the least supported sentence in the whole answer's support: one invention among many quotes."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Code points `start` to `end` of the answer, and how well the passages support them, from 0 to 1."""

    start: int
    end: int
    support: float


@dataclass(frozen=True, slots=True)
class Support:
    """How well the passages support an answer, from 0 (not at all) to 1 (it repeats them), and its sentences in order."""

    score: float
    sentences: tuple[Sentence, ...]

    @property
    def weakest(self) -> Sentence:
        """The least supported sentence, the first of equals."""
        return min(self.sentences, key=lambda sentence: sentence.support)


@dataclass(slots=True)
class _Tally:
    """What a stretch of the answer holds: weights of words, and of those that the passages support."""

    words: int = 0
    known: int = 0
    content: float = 0.0
    supported: float = 0.0
    in_runs: int = 0
    personal: int = 0
    questions: int = 0

    def add(self, other: _Tally) -> None:
        for name in _Tally.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def support(self) -> float:
        content = self.supported / self.content if self.content else self.known / self.words
        share = (content + self.known / self.words + self.in_runs / self.words) / 3
        share -= _REMARK * self.personal / self.words + (_QUESTION if self.questions else 0.0)
        return min(1.0, max(0.0, share))


def support(answer: str, passages: Iterable[str]) -> Support | None:
    """Judge ``answer`` by ``passages``. None where the answer holds no content word: there is nothing to support.

    The support of a stretch is the mean of three shares: of its content words that stand in the passages (numbers and
    names count double), of all its words that do, and of words in runs of two or more that stand there in that order;
    less a part for remarks about speaker and listener and for asking back. The answer's support is three quarters that
    of all its words, and a quarter that of its weakest sentence.
    """
    known: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for passage in passages:
        words = [_stem(word) for word in _WORD.findall(_folded(passage))]
        known.update(words)
        pairs.update(itertools.pairwise(words))
    total = _Tally()
    sentences = []
    for start, end in _sentences(answer):
        tally = _tally(answer[start:end], known, pairs)
        if tally.words:
            total.add(tally)
            if tally.content:
                sentences.append(Sentence(start, end, tally.support()))
    if not sentences:
        return None
    weakest = min(sentence.support for sentence in sentences)
    return Support((1 - _WEAKEST) * total.support() + _WEAKEST * weakest, tuple(sentences))


def _tally(sentence: str, known: set[str], pairs: set[tuple[str, str]]) -> _Tally:
    tally = _Tally(questions=sentence.count("?") > 0)
    words: list[str] = []
    for index, match in enumerate(_WORD.finditer(_without_thousands(sentence))):
        written = match.group()
        lowered = _folded(written)
        word = _stem(lowered)
        words.append(word)
        stands = word in known
        tally.known += stands
        if lowered in _FUNCTION_WORDS:
            tally.personal += lowered in _PERSONAL and not stands
            continue
        telling = any(map(str.isdigit, word)) or (index > 0 and written[0].isupper())
        weight = _TELLING if telling else 1.0
        tally.content += weight
        tally.supported += weight * stands
    tally.words = len(words)
    previous = False
    for pair in itertools.pairwise(words):
        if pair in pairs:
            tally.in_runs += 1 if previous else 2
            previous = True
        else:
            previous = False
    if len(words) == 1:
        tally.in_runs = tally.known
    return tally


def _sentences(text: str) -> Iterable[tuple[int, int]]:
    start = 0
    for match in _SENTENCE_END.finditer(text):
        yield _trimmed(text, start, match.end())
        start = match.end()
    yield _trimmed(text, start, len(text))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _without_thousands(text: str) -> str:
    return _THOUSANDS.sub("", text)


def _folded(text: str) -> str:
    """Lower case without accents; ASCII costs one `lower()`."""
    text = _without_thousands(text).lower()
    if text.isascii():
        return text
    return unicodedata.normalize(
        "NFC", "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    )


def _stem(word: str) -> str:
    """Take the commonest English endings off, so that number and tense do not count as invention."""
    if not word.endswith("ss"):
        for ending in ("ing", "ed", "es", "s"):
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word[: -len(ending)]
                break
    word = _NUMBER_WORDS.get(word, word)
    return word.removesuffix("e") if len(word) > 3 else word

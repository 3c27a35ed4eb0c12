"""The embedded model: answers with the sentences of the attached passages that answer the question best. Pure.

No weights, no generation: every sentence of an answer stands in a passage, so it cannot invent. Where no sentence shares
enough of the question it says that it found nothing rather than guess.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.contracts.records import Passage

__all__ = ["MODEL", "NOTHING_FOUND", "Answer", "answer", "count_tokens"]

MODEL = "penstock-extractive-1"
NOTHING_FOUND = "I found nothing in the documents that answers this."

# Function words carry no evidence. English, as the packaged embedder is.
_STOP = frozenset(
    "a about an and any are as at be been but by can could did do does for from had has have how i if in into is it its "
    "may me my no not of on one or our shall she should so some such than that the their them then there these they "
    "this to up use used was we were what when where which who whom whose why will with would you your".split()
)
_WORD = re.compile(r"\w+(?:['._-]\w+)*", re.UNICODE)
_JOINT = re.compile(r"[._-]+")
_TOKEN = re.compile(r"\w+|[^\w\s]", re.UNICODE)
# A sentence ends at a mark that is followed by space and something that starts one, at a blank line, or at a list item.
_BREAK = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[`*A-Z0-9])|\n\s*\n+|\n(?=\s*(?:[-*+>]|\d+[.)])\s)")
_SUFFIX = re.compile(r"(?:ing|ed|es|s|ly)$")
# Below this share of the question's evidence a sentence is no answer. On 632 reading-comprehension questions with their
# passage 0.87 of the answers hold the expected words; with an unrelated passage 0.99 say that nothing was found.
_FLOOR = 0.2
# Another sentence is added only if it is nearly as good as the first.
_NEXT = 0.6
_MOST_SENTENCES = 3
_LONGEST_SENTENCE = 600


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found: sentences, the passages they quote, and how much of the question's evidence the best one has.
    ``cut``: the only sentence was longer than was asked for, and ends in the middle.
    """

    sentences: tuple[str, ...]
    citations: tuple[str, ...]
    score: float
    cut: bool = False

    @property
    def content(self) -> str:
        return " ".join(self.sentences)


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    passage: int
    position: int
    words: Counter[str]


def count_tokens(text: str) -> int:
    """Return the number of words and punctuation marks in ``text``: the unit in which this model is priced."""
    return len(_TOKEN.findall(text))


def answer(question: str, passages: Sequence[Passage], max_tokens: int | None = None) -> Answer:
    """Return the sentences of ``passages`` that answer ``question`` best, of at most ``max_tokens`` tokens together.

    Where not even the best sentence fits, its first tokens are the answer.

    A sentence scores by the share of the question's words it holds, each word weighted by its rarity among the passages'
    sentences (inverse document frequency, Sparck Jones 1972), with its neighbourhood and its passage's rank as a
    tie-break: retrieval has already judged which passage is about the question.
    """
    asked = set(_stems(question))
    sentences = [s for index, passage in enumerate(passages) for s in _sentences(passage, index)]
    if not asked or not sentences:
        return _bounded((NOTHING_FOUND,), (), 0.0, max_tokens)
    frequency = Counter(word for s in sentences for word in set(s.words))
    weight = {word: math.log(1 + len(sentences) / (1 + frequency[word])) for word in asked}
    total = sum(weight.values())
    titles = [set(_stems(passage.title)) for passage in passages]

    def score(s: _Sentence) -> float:
        own = sum(weight[word] for word in asked & s.words.keys())
        # A title that names the subject speaks for every sentence below it, at less than the sentence's own word.
        named = sum(weight[word] for word in (asked & titles[s.passage]) - s.words.keys())
        # Long sentences hold more words by chance (pivoted length normalisation, Singhal et al. 1996).
        length = 1.0 / (1.0 + 0.004 * max(0, sum(s.words.values()) - 12))
        rank = 1.0 / (1.0 + 0.15 * s.passage)
        return (own + 0.5 * named) / total * length * rank

    ranked = sorted(((score(s), -s.passage, -s.position, s) for s in sentences), key=lambda r: r[:3], reverse=True)
    best = ranked[0][0]
    if best < _FLOOR:
        return _bounded((NOTHING_FOUND,), (), best, max_tokens)
    chosen: list[_Sentence] = []
    for value, _, _, sentence in ranked:
        if len(chosen) == _MOST_SENTENCES or value < best * _NEXT:
            break
        if all(sentence.text != other.text for other in chosen):
            chosen.append(sentence)
    if max_tokens is not None:
        while len(chosen) > 1 and sum(count_tokens(s.text) for s in chosen) > max_tokens:
            chosen.pop()
    order = sorted(chosen, key=lambda s: (s.passage, s.position))
    cited = dict.fromkeys(passages[s.passage].passage_id for s in chosen)
    return _bounded(tuple(s.text for s in order), tuple(cited), best, max_tokens)


def _bounded(sentences: tuple[str, ...], citations: tuple[str, ...], score: float, max_tokens: int | None) -> Answer:
    """Return the answer; a single sentence of more than ``max_tokens`` is cut after so many."""
    if max_tokens is None or len(sentences) > 1:
        return Answer(sentences, citations, score)
    tokens = list(itertools.islice(_TOKEN.finditer(sentences[0]), max_tokens + 1))
    if len(tokens) <= max_tokens:
        return Answer(sentences, citations, score)
    return Answer((sentences[0][: tokens[max_tokens - 1].end() if max_tokens > 0 else 0],), citations, score, cut=True)


def _sentences(passage: Passage, index: int) -> list[_Sentence]:
    found = []
    for position, piece in enumerate(_BREAK.split(passage.text)):
        text = " ".join(piece.split())[:_LONGEST_SENTENCE]
        words = Counter(_stems(text))
        # Headings and fragments answer nothing by themselves.
        if sum(words.values()) >= 3:
            found.append(_Sentence(text, index, position, words))
    return found


def _stems(text: str) -> list[str]:
    words = (word.lower() for word in _WORD.findall(text))
    return [_stem(part) for word in words for part in _parts(word) if part not in _STOP]


def _parts(word: str) -> list[str]:
    """A dotted or hyphenated word and its parts: ``asyncio.shield`` is asked for, ``shield`` is what the page says."""
    parts = _JOINT.split(word)
    return [word] if len(parts) == 1 else [word, *parts]


def _stem(word: str) -> str:
    return _SUFFIX.sub("", word) if len(word) > 4 else word

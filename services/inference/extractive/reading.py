"""What the extractive model reads: the sentences of the passages, and the question. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from penstock.contracts.records import Passage
from penstock.text.groundedness_words import words_of

__all__ = ["Asked", "Question", "Read", "Sentence", "count_tokens", "question_of", "sentences_of", "title_stems"]

_TOKEN = re.compile(r"\w+|[^\w\s]", re.UNICODE)
# A sentence ends at a mark that is followed by space and something that starts one, at a blank line, or at a list item.
_BREAK = re.compile(
    r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[`*]?[^\sa-z])|(?<=[。！？।])\s*|\n\s*\n|\n(?=\s*(?:[-*+>•]|\d+[.)])\s)"
)
# Headings: lines of hashes, and lines behind a blank one that a rule follows, as Markdown and reStructuredText have them.
# What a fence holds is passed over: a hash there begins a remark.
_FENCE_OR_HEADING = re.compile(
    r"^ {0,3}(?P<fence>```|~~~)(?s:.*?)(?:^ {0,3}(?P=fence)|\Z)"
    r"|^ {0,3}#{1,6}[ \t]+(?P<hashed>\S[^\n]*)$"
    r"|(?:\A|(?<=\n\n))(?:([=\-~^\"'`*+#])\3{2,}[ \t]*\n)?(?P<ruled>[^\s\n][^\n]{0,119}(?<![.!?…,:;]))"
    r"\n([=\-~^\"'`*+#])\5{2,}[ \t]*$",
    re.MULTILINE,
)
_STOPS = frozenset(".!?…。！？।")
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"“])(?:[A-Z]|[A-Z](?:\.[A-Z])+|Mr|Mrs|Ms|Dr|St|Prof|Sen|Rep|Gov|Gen|Col|Lt|Sgt|Rev|Jr|Sr|vs|No|approx"
    r"|c|ca|cf|fig|e\.g|i\.e)\.$"
)
_LONGEST_SENTENCE = 600
# Passages that are remembered as they were read, since the same ones are attached to many requests, and their longest text.
_REMEMBERED, _LONGEST_REMEMBERED = 512, 8_000
# Fragments answer nothing by themselves; a sentence that is ended as one may be short.
_FEWEST_WORDS, _FEWEST_WORDS_ENDED = 3, 2
# Characters of a question that are read, half from each end: a longer one carries data.
_LONGEST_QUESTION = 8_000

# Words by which one asks, not what one asks about; as words_of stems them.
_ASKING = frozenset(
    "pleas thank hi hello hey dear tell explain describ know find give want wonder need help show question answer say "
    "mention kindli curiou inform lot".split()
)


@dataclass(frozen=True, slots=True)
class Read:
    """A sentence as it was read.

    Attributes:
        stems: its content words in order, as ``words_of`` stems them.
        words: these words as they are written, in lower case and without accents.
        numbers: stems that are numbers; ``names``: those written like a name.
        is_heading: it says what the sentences behind it are about, and answers nothing itself.
    """

    text: str
    stems: tuple[str, ...]
    words: tuple[str, ...]
    numbers: frozenset[str]
    names: frozenset[str]
    is_heading: bool = False


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, the index of its passage, and its position among the passage's sentences, from 0."""

    read: Read
    passage: int
    position: int


class Asked(Enum):
    """What kind of words the answer to a question has."""

    NAME = "name"
    DATE = "date"
    NUMBER = "number"
    REASON = "reason"
    OTHER = "other"


_ASKS: tuple[tuple[Asked, re.Pattern[str]], ...] = (
    (Asked.NAME, re.compile(r"\b(?:who|whom|whose)\b")),
    (
        Asked.DATE,
        re.compile(
            r"\bwhen\b"
            r"|\b(?:what|which) (?:\w+ )?(?:years?|dates?|days?|months?|decades?|century|centuries|season|time|era)\b"
        ),
    ),
    (
        Asked.NUMBER,
        re.compile(
            r"\bhow (?:many|much|long|old|tall|high|big|large|far|often|fast|wide|deep|heavy|few)\b"
            r"|\b(?:what|which) (?:\w+ )?(?:percent|percentage|number|amount|proportion|fraction|share|size|height|distance"
            r"|age|population|portion)\b|\b(?:number|percentage|population) of\b"
        ),
    ),
    (
        Asked.NAME,
        re.compile(
            r"\bwhere\b|\b(?:what|which) (?:\w+ )?(?:city|country|state|place|town|county|nation|continent|river|island"
            r"|company|team|person|president|king|queen|book|film|movie|album|school|university|organi[sz]ation|player|church"
            r"|author|war)\b|\b(?:what|which) (?:is|was|are|were) the (?:\w+ ){0,2}(?:name|title)s?\b"
        ),
    ),
    (Asked.REASON, re.compile(r"\bwhy\b|\b(?:what|which) (?:\w+ )?(?:reasons?|causes?|caused)\b")),
)
_SPACES = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Question:
    """A question without the words that only ask.

    Attributes:
        stems: its content words in order.
        words: one written form of each stem, in lower case and without accents.
        particular: stems that are numbers or written like a name.
        asked: what kind of words answer it.
    """

    stems: tuple[str, ...]
    words: dict[str, str]
    particular: frozenset[str]
    asked: Asked


def count_tokens(text: str) -> int:
    """Return the number of words and punctuation marks in ``text``: the unit in which this model is priced."""
    return len(_TOKEN.findall(text))


def question_of(text: str) -> Question:
    """Read a question; of one over 8,000 characters its two ends."""
    if len(text) > _LONGEST_QUESTION:
        text = f"{text[: _LONGEST_QUESTION // 2]}\n{text[-_LONGEST_QUESTION // 2 :]}"
    stems: list[str] = []
    words: dict[str, str] = {}
    particular: set[str] = set()
    for part in words_of(text, 0, len(text)):
        for stem, content, number, name, (start, end) in zip(
            part.stems, part.content, part.number, part.capital, part.spans, strict=True
        ):
            if content and stem not in _ASKING:
                stems.append(stem)
                words.setdefault(stem, _folded(text[start:end]))
                if number or name:
                    particular.add(stem)
    plain = _SPACES.sub(" ", text.lower())
    asked = next((kind for kind, pattern in _ASKS if pattern.search(plain)), Asked.OTHER)
    return Question(tuple(stems), words, frozenset(particular), asked)


def title_stems(title: str) -> frozenset[str]:
    """Return the content words of a title."""
    title = title.replace("_", " ")
    return frozenset(
        stem
        for part in words_of(title, 0, len(title))
        for stem, content in zip(part.stems, part.content, strict=True)
        if content
    )


def sentences_of(passages: Sequence[Passage]) -> list[Sentence]:
    """Return the sentences and headings of ``passages`` in order, each cut after 600 characters, without fragments of under
    three content words; a heading may have one.
    """
    return [
        Sentence(read, index, position)
        for index, passage in enumerate(passages)
        for position, read in enumerate(_remembered(passage.text))
    ]


def _remembered(text: str) -> tuple[Read, ...]:
    return _recently_read(text) if len(text) <= _LONGEST_REMEMBERED else _read(text)


def _read(text: str) -> tuple[Read, ...]:
    found: list[Read] = []
    for stretch, is_heading in _stretches(text):
        pieces = (stretch,) if is_heading else _pieces(stretch)
        found += (_sentence(" ".join(piece.split())[:_LONGEST_SENTENCE], is_heading) for piece in pieces)
    return tuple(sentence for sentence in found if _says_something(sentence))


def _stretches(text: str) -> Iterator[tuple[str, bool]]:
    """Yield what stands between headings, and the headings, without the signs that mark them."""
    start = 0
    for match in _FENCE_OR_HEADING.finditer(text):
        if match["fence"]:
            continue
        yield text[start : match.start()], False
        yield (match["ruled"] or match["hashed"].rstrip("# \t")), True
        start = match.end()
    yield text[start:], False


def _says_something(sentence: Read) -> bool:
    if sentence.is_heading:
        return bool(sentence.stems)
    return len(sentence.stems) >= (_FEWEST_WORDS_ENDED if sentence.text[-1:] in _STOPS else _FEWEST_WORDS)


_recently_read = lru_cache(maxsize=_REMEMBERED)(_read)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    for match in _BREAK.finditer(text):
        if "\n" not in match.group() and _ABBREVIATED.search(text, max(start, match.start() - 12), match.start()):
            continue
        yield text[start : match.end()]
        start = match.end()
    yield text[start:]


def _sentence(text: str, is_heading: bool) -> Read:
    stems: list[str] = []
    words: list[str] = []
    numbers: set[str] = set()
    names: set[str] = set()
    for part in words_of(text, 0, len(text)):
        for stem, content, number, name, (start, end) in zip(
            part.stems, part.content, part.number, part.capital, part.spans, strict=True
        ):
            if content:
                stems.append(stem)
                words.append(_folded(text[start:end]))
                if number:
                    numbers.add(stem)
                elif name:
                    names.add(stem)
    return Read(text, tuple(stems), tuple(words), frozenset(numbers), frozenset(names), is_heading)


def _folded(word: str) -> str:
    lowered = word.lower()
    if lowered.isascii():
        return lowered
    return "".join(char for char in unicodedata.normalize("NFKD", lowered) if not unicodedata.combining(char))

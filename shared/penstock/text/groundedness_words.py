"""Sentences and words of a text, in the form in which answers are compared with passages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["NEGATIONS", "PERSONAL", "Words", "sentence_spans", "words_of"]

# A sentence ends at its stop, unless that stop ends an initial or a common abbreviation. CJK stops need no space.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|[。！？।]|\n+")
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"“])(?:[A-Z]|[A-Z](?:\.[A-Z])+|Mr|Mrs|Ms|Dr|St|Prof|Sen|Rep|Gov|Gen|Col|Lt|Sgt|Rev|Jr|Sr|vs|No|approx|e\.g|i\.e)"
    r"\.$"
)
_SENTENCE_WORDS = 60
"""A longer sentence is judged in parts: what is repeated stands in it many times, and its time grows with the square."""

# Scripts without spaces count by the character; n't is a word of its own, and so are % and numbers with their points.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
    r"|(?:[A-Za-z]\.){2,}|\d+(?:[.,\u00a0\u202f]\d+)*|n['’]t\b|[^\W\d_]+?(?=n['’]t\b)|[^\W\d_]+|%|[½¼¾]"
)
_THOUSANDS = re.compile(r"[,\u00a0\u202f](?=\d{3}(?!\d))")
_CITATION_MARK = re.compile(r"\[\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*\]|【[^】]{1,20}】")

NEGATIONS = frozenset("not no never none neither nor without cannot nobody nothing nowhere n't hardly".split())
PERSONAL = frozenset("i me my mine myself we our us you your im am".split())
# Words that say nothing about whether a statement is supported.
_FUNCTION_WORDS = PERSONAL | frozenset(
    """a about above after again all also an and any are as at be because been before being below between both but
    by can could did do does doing don during each either else few for from further had has have having he her
    here hers him his how if in into is it its itself just let like ll may might more most much must
    now of off on once only or other ours out over own per rather re same shall she should
    so some such t than that the their theirs them then there these they this those through to too under until up
    upon ve very was well were what when where which while who whom whose why will with within would
    yes yet yours s d m wo ca n st nd rd th""".split()
)
_SAME = dict(
    zip("zero one two three four five six seven eight nine ten eleven twelve".split(), map(str, range(13)), strict=True)
) | {
    "thirteen": "13", "fourteen": "14", "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18",
    "nineteen": "19", "twenty": "20", "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70",
    "eighty": "80", "ninety": "90", "half": "½",
    "%": "percent", "bn": "billion", "jan": "january", "feb": "february", "aug": "august", "sept": "september",
    "sep": "september", "oct": "october", "nov": "november", "dec": "december", "n't": "not", "n’t": "not",
    "cannot": "not",
}  # fmt: skip


_IRREGULAR = {
    form: verb
    for verb, forms in (
        pair.split(":")
        for pair in """become:became begin:began,begun break:broke,broken bring:brought build:built buy:bought
        catch:caught choose:chose,chosen come:came cost:costs deal:dealt draw:drew,drawn drive:drove,driven eat:ate,eaten
        fall:fell,fallen feel:felt fight:fought find:found fly:flew,flown forget:forgot,forgotten freeze:froze,frozen
        give:gave,given grow:grew,grown hear:heard hide:hid,hidden hold:held keep:kept know:knew,known lead:led
        leave:left lend:lent lose:lost make:made mean:meant meet:met pay:paid ride:rode,ridden rise:rose,risen
        run:ran see:saw,seen seek:sought sell:sold send:sent shake:shook,shaken shoot:shot show:shown sing:sang,sung
        sink:sank,sunk sleep:slept speak:spoke,spoken spend:spent stand:stood steal:stole,stolen strike:struck
        swear:swore,sworn swim:swam,swum take:took,taken teach:taught tell:told think:thought throw:threw,thrown
        wake:woke,woken wear:wore,worn win:won write:wrote,written say:said go:went,gone man:men woman:women
        child:children person:people foot:feet life:lives wife:wives half:halves leaf:leaves""".split()
    )
    for form in forms.split(",")
}


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one sentence, in order: parallel sequences.

    Attributes:
        stems: folded, without endings; numbers normalised (1,240 and 1240, ten and 10 are one).
        content: whether the word says something.
        number: whether it is a number.
        capital: whether it is written like a name where a common word would not be.
        spans: (start, end) of each in the text.
    """

    stems: tuple[str, ...]
    content: tuple[bool, ...]
    number: tuple[bool, ...]
    capital: tuple[bool, ...]
    spans: tuple[tuple[int, int], ...]


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence of ``text``, without the space around it, none of them empty."""
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if "\n" not in match.group() and _ABBREVIATED.search(text, max(start, match.start() - 12), match.start()):
            continue
        yield from _trimmed(text, start, match.end())
        start = match.end()
    yield from _trimmed(text, start, len(text))


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    first, last = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
    if first < last:
        yield first, last


def words_of(text: str, start: int, end: int) -> Iterator[Words]:
    """Yield the words of ``text[start:end]``, one sentence, in parts of at most 60; marks such as [1] are left out."""
    matches = list(_WORD.finditer(text, start, end))
    if "[" in text or "【" in text:
        marks = [mark.span() for mark in _CITATION_MARK.finditer(text, start, end)]
        if marks:
            matches = [one for one in matches if not any(first <= one.start() < last for first, last in marks)]
    for first in range(0, len(matches), _SENTENCE_WORDS):
        part = matches[first : first + _SENTENCE_WORDS]
        stems, content, number, capital = zip(*[_form(match.group()) for match in part], strict=True)
        # The first word of a sentence has a capital whatever it is.
        yield Words(stems, content, number, (False, *capital[1:]), tuple([match.span() for match in part]))


@lru_cache(maxsize=65_536)
def _form(written: str) -> tuple[str, bool, bool, bool]:
    """Return the stem of a word, whether it is a content word, a number, and a content word with a capital."""
    if written[0].isdigit():
        return _THOUSANDS.sub("", written), True, True, False
    if written == "US" or written[1:2] == ".":
        letters = written.replace(".", "").lower()
        return ("u.s" if letters == "us" else letters), True, False, written[0].isupper()
    lowered = written.lower()
    word = lowered if lowered.isascii() else _folded(lowered)
    if word in _FUNCTION_WORDS or (len(word) == 1 and word.isascii() and word.isalpha()):
        return word, False, False, False
    stem = _stem(_SAME.get(word, word)) if word else lowered
    number = stem[0].isdigit() or stem == "½"
    return stem, True, number, not number and written[0].isupper()


def _folded(word: str) -> str:
    """Without accents."""
    return unicodedata.normalize(
        "NFC", "".join(char for char in unicodedata.normalize("NFKD", word) if not unicodedata.combining(char))
    )


def _stem(word: str) -> str:
    """Take the commonest English endings off, so that number and tense do not count as invention."""
    if word in NEGATIONS or len(word) < 4:
        return word
    word = _IRREGULAR.get(word, word)
    if not word.endswith("ss"):
        for ending in ("ing", "ed", "es", "s"):
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word[: -len(ending)]
                if ending in ("ing", "ed") and word[-1] == word[-2] and word[-1] not in "aeiouls":
                    word = word[:-1]
                break
    word = _SAME.get(word, word)
    if len(word) > 5 and word.endswith("ly"):
        word = word[:-2]
    if len(word) > 3:
        word = word[:-1] + "i" if word[-1] == "y" else word.removesuffix("e")
    return word

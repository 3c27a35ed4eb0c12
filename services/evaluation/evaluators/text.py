"""Words and sentences, as evaluators count them."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["FUNCTION_WORDS", "content_words", "folded", "prose", "sentences", "words"]

# Scripts without spaces count by the character.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+(?:['’][^\W_]+)*"
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？।])|\n+")
_ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|dr|mr|mrs|ms|prof|st|no|fig|approx|inc|ltd|co|[a-z])\.)$", re.I)
_FENCED = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_MARKUP = re.compile(r"(?m)^\s*(?:#{1,6}\s+|[-*•+]\s+|\d{1,3}[.)]\s+|>\s?)|[*_`|]{1,3}")

FUNCTION_WORDS = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing don during each either else few for from further had has have having he her
    here hers him his how i if in into is it its itself just let like may me might more most much must my myself
    neither no nor not now of off on once only or other our ours out over own per please rather re same shall she should
    so some such t tell than that the their theirs them then there these they this those through to too under until up
    upon us ve very was we well were what when where which while who whom whose why will with within without would
    yes yet you your yours s d m ll give explain describe does it's that's there's what's i'm don't""".split()
)
"""English words that carry no topic. In other languages every word counts, which weakens lexical figures there."""


def folded(text: str) -> str:
    """Return ``text`` in lower case and without accents."""
    lowered = text.lower().replace("’", "'")
    if lowered.isascii():
        return lowered
    return "".join(char for char in unicodedata.normalize("NFKD", lowered) if not unicodedata.combining(char))


def words(text: str) -> list[str]:
    """Return the words of ``text``, folded; a character each where a script writes no spaces."""
    return _WORD.findall(folded(text))


def content_words(text: str) -> list[str]:
    """Return the stems of the words of ``text`` that carry its topic."""
    return [_stem(word) for word in words(text) if word not in FUNCTION_WORDS]


def prose(text: str) -> str:
    """Return ``text`` without code blocks and without the marks of lists, headings and emphasis."""
    return _MARKUP.sub("", _FENCED.sub("\n", text))


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text`` in order, trimmed; lines end sentences too."""
    found: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        piece = text[start : match.end()].strip()
        if "\n" not in match.group() and _ABBREVIATED.search(piece):
            continue
        if piece:
            found.append(piece)
        start = match.end()
    if last := text[start:].strip():
        found.append(last)
    return found


def _stem(word: str) -> str:
    """Take the commonest English endings off, so that number and tense do not count as another word."""
    word = word.removesuffix("'s").removesuffix("'")
    for ending in ("ing", "edly", "ed", "ies", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word.removesuffix("e") if len(word) > 4 else word

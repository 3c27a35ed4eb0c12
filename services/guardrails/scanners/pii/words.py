"""The words of a text as evidence for names: where they stand, how they are written, which lists hold them."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from services.guardrails.scanners.pii import cues
from services.guardrails.scanners.pii.lexicon import Lexicon, fold

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_POSSESSIVE = frozenset({"'s", "’s", "'S", "’S"})
_OPENING_MARKS = ('"', "“", "(")
_SENTENCE_END = re.compile(r"(?:^|[.!?:;\n•*\"“(\[>|-])[\s\"'“”‘’(\[*]*$")
CHECKPOINT_EVERY = 2_048
MOSTLY = 0.8
"""Share of letters in one case from which the case of a text says nothing about names."""


class Word(NamedTuple):
    """One word without its possessive ending. `opening` is the first of a sentence, a line or a quotation, where a
    capital says nothing.
    """

    text: str
    folded: str
    start: int
    end: int
    possessive: bool
    capital: bool
    opening: bool
    given: bool
    family: bool
    place: bool
    common: bool
    caseless: bool
    """Whether capitals say nothing in this text."""

    @property
    def initial(self) -> bool:
        return self.end - self.start == 1 and self.capital and self.text not in ("I", "i", "a")

    @property
    def unknown(self) -> bool:
        """On no list: an English word it is not."""
        return not (self.given or self.family or self.place or self.common) and self.end - self.start > 1

    @property
    def sure_given(self) -> bool:
        """A given name that is neither a word nor a place."""
        return self.given and not self.common and not self.place and self.folded not in cues.NOT_NAMES


def split_words(text: str, lexicon: Lexicon, checkpoint: Callable[[], None] = lambda: None) -> list[Word]:
    """The words in order. In a text all in capitals, or all without, words that are no English words count as
    capitalised if a list has them as names. Raises whatever `checkpoint` raises, which is called now and then.
    """
    caseless = is_caseless(text)
    words: list[Word] = []
    previous_end = 0
    for match in _WORD.finditer(text):
        if not len(words) % CHECKPOINT_EVERY:
            checkpoint()
        start, end = match.span()
        value = match[0]
        possessive = value[-2:] in _POSSESSIVE
        if possessive:
            value, end = value[:-2], end - 2
        folded = fold(value)
        given, family = _listed(folded, lexicon)
        place = folded in lexicon.places
        common = folded in lexicon.common or (folded[-1] == "s" and folded[:-1] in lexicon.common and not family)
        between = text[previous_end:start]
        opening = between != " " and (
            not words
            or (len(between) > 1 and _SENTENCE_END.search(between) is not None)
            or between[:1] in _OPENING_MARKS
        )
        capital = _would_be_capital(value, given or family, place, common) if caseless else value[0].isupper()
        words.append(
            Word(value, folded, start, end, possessive, capital, opening, given, family, place, common, caseless)
        )
        previous_end = match.end()
    return words


def _listed(folded: str, lexicon: Lexicon) -> tuple[bool, bool]:
    """Whether it is a given name, a family name: of one joined by hyphens all parts, any part."""
    if "-" not in folded and "'" not in folded and "’" not in folded:
        return folded in lexicon.given, folded in lexicon.family
    parts = folded.replace("’", "'").split("-")
    given = all(part in lexicon.given for part in parts)
    return given, any(part.removeprefix("o'").removeprefix("d'") in lexicon.family for part in parts)


def _would_be_capital(value: str, named: bool, place: bool, common: bool) -> bool:
    """Whether a word of a caseless text may be one that is written with a capital."""
    return (not common and (named or not place)) or (len(value) == 1 and value not in "aiAI")


def is_caseless(text: str) -> bool:
    """Whether nearly all letters have the same case."""
    upper = sum(map(str.isupper, text))
    lower = sum(map(str.islower, text))
    letters = upper + lower
    if not letters:
        return False
    return upper == 0 or (letters > 12 and upper / letters >= MOSTLY)


def recased(text: str, words: list[Word]) -> str:
    """A caseless text with capitals where names may stand, of the same length; any other text as it is."""
    if not is_caseless(text):
        return text
    pieces, position = [], 0
    for word in words:
        value = text[word.start : word.end].lower()
        named = word.capital and (word.given or word.family or word.place or word.unknown)
        shown = value[:1].upper() + value[1:] if named or word.opening or value == "i" else value
        same_length = len(shown) == word.end - word.start
        pieces += [text[position : word.start], shown if same_length else text[word.start : word.end]]
        position = word.end
    return "".join([*pieces, text[position:]])


def may_name(words: Iterable[Word]) -> bool:
    """Whether any capital is not only the sentence's own: without one a model has nothing to look for."""
    return any(word.capital and not (word.opening and word.common) for word in words)

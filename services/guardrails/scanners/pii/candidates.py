"""Runs of words that may be a person's name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.guardrails.scanners.pii import cues
from services.guardrails.scanners.pii.words import Word

MAX_WORDS = 6
"""Of one name."""
_AMBIGUOUS_TITLES = frozenset({"don", "pan", "sir", "mag", "hr", "major", "judge", "father", "sister"})
"""Names or words as well: a title only where a name follows in the same run."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Words `first` to `last` (half-open); `title` is whether one stands before them."""

    first: int
    last: int
    title: bool


def candidates(text: str, words: Sequence[Word]) -> Iterator[Candidate]:
    """Maximal runs of capitalised words with the initials and particles between them, without titles, and cut at words
    that are English and no names.
    """
    at = 0
    while at < len(words):
        if not words[at].capital:
            at += 1
            continue
        last = at + 1
        while last < len(words) and last - at < MAX_WORDS and _continues(text, words, last):
            last += 1
        while last - at > 1 and words[last - 1].folded in cues.PARTICLES and not words[last - 1].capital:
            last -= 1
        first = at
        title = at > 0 and _is_title(text, words, at - 1)
        while first + 1 < last and words[first].folded in cues.TITLES:
            title = True
            first += 1
        yield from _trimmed(words, first, last, title)
        at = last


def _is_title(text: str, words: Sequence[Word], at: int) -> bool:
    word = words[at]
    if word.folded not in cues.TITLES or word.folded in _AMBIGUOUS_TITLES:
        return False
    return text[word.end : words[at + 1].start] in (" ", ". ", ".")


def _continues(text: str, words: Sequence[Word], at: int) -> bool:
    """Whether the word goes on from the one before it."""
    before, word = words[at - 1], words[at]
    if before.possessive:
        return False
    between = text[before.end : word.start]
    after_dot = before.initial or before.folded in cues.TITLES or before.folded in ("st", "jr")
    if between not in (" ", "  ") and not (after_dot and between in (". ", ".")):
        return False
    if word.capital:
        return True
    following = words[at + 1] if at + 1 < len(words) else None
    if following is None or text[word.end : following.start] not in (" ", ". "):
        return False
    joins = word.folded in cues.PARTICLES and word.folded not in ("to", "y", "e")
    return joins and (following.capital or following.folded in cues.PARTICLES)


def _trimmed(words: Sequence[Word], first: int, last: int, title: bool) -> Iterator[Candidate]:
    start = first
    for at in range(first, last + 1):
        if at < last and not _no_name(words, at, start, last, title):
            continue
        begin, end = start, at
        while end > begin and words[end - 1].folded in cues.PARTICLES and (words[end - 1].common or end == at < last):
            end -= 1
        while end > begin and words[begin].initial and all(word.initial for word in words[begin:end]):
            begin = end
        if end > begin:
            yield Candidate(begin, end, title and begin == first)
        start = at + 1


def _no_name(words: Sequence[Word], at: int, start: int, last: int, title: bool) -> bool:
    """Whether the word cannot be part of the name that it stands in."""
    word = words[at]
    if word.initial or (at > start and word.folded in cues.PARTICLES | cues.SUFFIXES):
        return False
    following = words[at + 1] if at + 1 < last else None
    if word.folded in cues.NOT_NAMES:
        return not (word.given and following is not None and following.family and not following.common)
    if not word.common:
        return False
    if not (word.given or word.family):
        return True
    if title or (not word.opening and not word.caseless):
        return False  # a capital within a sentence: the judge wants more evidence
    preceding = next((other for other in reversed(words[start:at]) if not other.initial), None)
    if preceding is not None and (preceding.given or preceding.unknown):
        return False
    surnamed = following is not None and not following.common and (following.family or following.initial)
    return not (word.given and surnamed)

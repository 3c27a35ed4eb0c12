"""Texts that say one thing over and over, to use up a model's context or to derail it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from services.guardrails.findings import Reference, Rule, Span

# Signs that rules, leaders, empty tables and arrays are made of.
_DIVIDERS = r"\-=_*#.~+|&,:;<>/\\0─━═│·•…\u2000-\u206f"
_SAME = re.compile(r"(\S)\1{31,}")
_DIVIDER = re.compile(f"[{_DIVIDERS}]")
_BLANK = re.compile(r"\s{256,}")
_SPACED_SIGN = re.compile(rf"(?<!\S)([^\w\s{_DIVIDERS}])(?:[ \t]+\1){{7,}}(?!\S)")
_WORD = re.compile(r"\S+")
_NUMBER = re.compile(r"[\W\d]*|(?i:nan|null|none|na|inf|true|false)[\W]*")
BLOCKS = (128, 256, 512, 1024)
"""Words looked at together: the first sees a short unit repeated, the last one of up to a hundred words."""
NUMBERS = 1024
"""Fewest words of a flood of numbers: a sparse matrix is no flood."""
ORDER = 4
"""Words in a row that are compared."""
LONG_WORD = 512
"""Characters of a word from which it is looked at by character; scripts without spaces write such words."""
CHAR_ORDER = 8


class TokenFloodScanner:
    """Finds repetition: of one sign, of one word, or of a run of words.

    A block of words scores 1 - 4 d, where d is the share of distinct runs of four words in it: prose and code lie at 0,
    tables with equal cells below 0.4, a unit that occurs eight times at 0.5. One sign in a row scores by the logarithm
    of its count, 0.5 at 256 (of dividers at 4,096); single signs set apart (`! ! !`) 0.5 at 16; one word 0.5 at 32.
    """

    name = "token_flood"
    version = "2"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        found = max(self._candidates(text, reference), key=lambda span: span.score, default=None)
        return [found] if found else []

    def _candidates(self, text: str, reference: Reference) -> Iterator[Span]:
        for match in _SAME.finditer(text):
            count = match.end() - match.start()
            late = 4 if _DIVIDER.match(match.group(1)) else 0
            if (score := (count.bit_length() - 1 - late) / 16) > 0:
                yield Span("REPETITION", *match.span(), min(1.0, score))
        for match in _BLANK.finditer(text):
            yield Span("REPETITION", *match.span(), min(1.0, (match.end() - match.start()) / 8192))
        for match in _SPACED_SIGN.finditer(text):
            yield Span("REPETITION", *match.span(), min(1.0, len(match.group().split()) / 32))
        words = text.split()
        reference.checkpoint()
        for first, last, score in _floods(words):
            yield Span("REPETITION", *_place(text, first, last), score)
        reference.checkpoint()
        if max(map(len, words), default=0) >= LONG_WORD:
            for match in _WORD.finditer(text):
                if match.end() - match.start() >= LONG_WORD:
                    yield from _in_word(match.group(), match.start())


def _floods(words: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """(first, last, score) of the surest stretch of words by each rule."""
    if len(words) < 16:
        return
    start, length = _longest_run(words)
    if length >= 16 and not _NUMBER.fullmatch(words[start]):
        yield start, start + length - 1, min(1.0, length / 64)
    for size in BLOCKS:
        best = (0, 0.0)
        for first in range(0, len(words) - size + 1, size // 2):
            block = words[first : first + size]
            distinct = len(set(block))
            if distinct * 4 > size:
                continue
            if distinct > size // 16:
                distinct = len(set(zip(block, block[1:], block[2:], block[3:], strict=False)))
            score = max(0.0, 1 - 4 * distinct / size)
            if score > 0.5 and sum(_DIVIDER.fullmatch(word) is not None for word in block) * 2 > size:
                score /= 2  # leaders of a table of contents, an empty table
            if score > best[1] and (size >= NUMBERS or not _of_numbers(block)):
                best = (first, score)
        if best[1]:
            yield best[0], best[0] + size - 1, best[1]


def _of_numbers(block: Sequence[str]) -> bool:
    """Whether three quarters of the words are numbers, signs or missing values."""
    return sum(_NUMBER.fullmatch(word) is not None for word in block) * 4 >= 3 * len(block)


def _longest_run(words: Sequence[str]) -> tuple[int, int]:
    """Index and length of the longest run of one word."""
    best, start = (0, 1), 0
    for index in range(1, len(words) + 1):
        if index == len(words) or words[index] != words[start]:
            if index - start > best[1]:
                best = (start, index - start)
            start = index
    return best


def _in_word(word: str, offset: int) -> Iterator[Span]:
    """The surest block of a long word, by its runs of eight characters."""
    best = (0, 0.0)
    for first in range(0, len(word) - LONG_WORD + 1, LONG_WORD // 2):
        block = word[first : first + LONG_WORD]
        distinct = len({block[i : i + CHAR_ORDER] for i in range(LONG_WORD - CHAR_ORDER + 1)})
        score = max(0.0, 1 - 4 * distinct / LONG_WORD)
        if score > best[1] and not _NUMBER.fullmatch(block):
            best = (first, score)
    if best[1]:
        yield Span("REPETITION", offset + best[0], offset + best[0] + LONG_WORD, best[1])


def _place(text: str, first: int, last: int) -> tuple[int, int]:
    """Code points that the words numbered ``first`` to ``last`` take up."""
    start = 0
    for index, match in enumerate(_WORD.finditer(text)):
        if index == first:
            start = match.start()
        if index == last:
            return start, match.end()
    raise AssertionError("the words are those of the text")

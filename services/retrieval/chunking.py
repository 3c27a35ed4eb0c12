"""Cuts a cleaned document into chunks that fit the embedder. Pure.

A chunk is one contiguous stretch of the cleaned text. Cuts fall between sections first, then between blocks, sentences or
lines, and within one only where it alone is too long. Chunks of one section overlap by whole sentences.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from penstock.money.bounds import BYTES_A_TOKEN

from services.retrieval.cleaning import Block, CleanDocument

__all__ = ["Chunk", "ChunkLimits", "TokenSpans", "chunk_document"]

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]
"""Gives the (start, end) offsets of the tokens of a text, as the embedder counts them."""

_SLICE = 65_536  # characters

# A word that the embedder does not know is one token however long. One that is longer than any it knows counts as a token
# for so many bytes as admission takes a token for: else a page in a script without spaces would be one chunk of one token.
_LONGEST_TOKEN = 32  # characters

# The end of a sentence: a terminator, closing quotes or brackets, then space; also those of Arabic and Urdu. Terminators
# of CJK, Devanagari, Khmer, Burmese, Ethiopic, Armenian and Tibetan need no space.
_SENTENCE_END = re.compile(
    r"[.!?…\u061f\u06d4](?:[\"'”’)\]]|\s?»)*\s+(?=[\"'“‘«(\[]?[^\sa-z])"
    r"|[。！？｡]+[」』）】〉》”’]*\s*"
    r"|[\u0964\u0965\u17d4\u17d5\u104b\u1362\u1367\u1368\u0589\u0f0d\u0f0e]+\s*"
    r"|\n{2,}"
)
_VIRAMA = 9  # canonical combining class: joins the consonant before it to the one behind


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Sizes in tokens of the embedder."""

    max_tokens: int = 220
    overlap_tokens: int = 40
    # A section shorter than this is joined with the next one instead of standing alone.
    min_tokens: int = 60

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_tokens < self.max_tokens or not 0 <= self.min_tokens <= self.max_tokens:
            raise ValueError(f"chunk limits do not fit together: {self}; overlap and minimum must be below the maximum")


@dataclass(frozen=True, slots=True)
class Chunk:
    """``text`` is the cleaned document's characters from ``start`` to ``end``; ``heading`` the path it begins under.

    ``page`` is the number of the page that it begins on, from 1; None where the text came without pages.
    """

    ordinal: int
    start: int
    end: int
    text: str
    heading: tuple[str, ...]
    tokens: int
    page: int | None = None


@dataclass(frozen=True, slots=True)
class _Unit:
    start: int
    end: int
    tokens: int
    opens_section: bool
    path: tuple[str, ...]


def chunk_document(document: CleanDocument, token_spans: TokenSpans, limits: ChunkLimits) -> list[Chunk]:
    """Return the chunks of ``document`` in order; empty where it has no text.

    Every character of the document that is not white space is in at least one chunk, and no chunk has more than
    ``limits.max_tokens`` tokens.
    """
    starts = _token_starts(document.text, token_spans)
    spans: list[tuple[int, int, tuple[str, ...]]] = []
    held: list[_Unit] = []
    held_tokens = 0
    fresh = 0  # how many of the held units are not an overlap

    def close() -> None:
        if fresh:
            spans.append((held[0].start, held[-1].end, _own_path(held)))

    for unit in _units(document, starts, limits.max_tokens):
        section_break = unit.opens_section and held_tokens >= limits.min_tokens
        if held and (section_break or held_tokens + unit.tokens > limits.max_tokens):
            close()
            room = 0 if unit.opens_section else min(limits.overlap_tokens, limits.max_tokens - unit.tokens)
            held = _tail(held, room)
            held_tokens, fresh = sum(entry.tokens for entry in held), 0
        held.append(unit)
        held_tokens += unit.tokens
        fresh += 1
    close()
    return [
        Chunk(ordinal, start, end, document.text[start:end], path, _count(starts, start, end), document.page_of(start))
        for ordinal, (start, end, path) in enumerate(spans)
    ]


def _token_starts(text: str, token_spans: TokenSpans) -> Sequence[int]:
    """Return where each token begins. Read in slices: the spans of megabytes at once would take hundreds of them."""
    starts = array("L")
    at = 0
    while at < len(text):
        end = min(at + _SLICE, len(text))
        while end < len(text) and end > at + _SLICE // 2 and not text[end - 1].isspace():
            end -= 1
        for start, last in token_spans(text[at:end]):
            if last - start > _LONGEST_TOKEN:
                starts.extend(range(at + start, at + last, _step(text[at + start : at + last])))
            elif last > start:
                starts.append(at + start)
        at = end
    return starts


def _step(token: str) -> int:
    """Return how many characters of a ``token`` that is too long count as one."""
    return max(1, BYTES_A_TOKEN * len(token) // len(token.encode("utf-8", "replace")))


def _own_path(units: Sequence[_Unit]) -> tuple[str, ...]:
    """Return the longest path that all of the chunk's units share: what its beginning and its end stand under."""
    path = units[0].path
    for unit in units[1:]:
        shared = 0
        while shared < min(len(path), len(unit.path)) and path[shared] == unit.path[shared]:
            shared += 1
        path = path[:shared]
    return path or units[0].path


def _tail(units: Sequence[_Unit], room: int) -> list[_Unit]:
    """Return the last units of at most ``room`` tokens together."""
    kept: list[_Unit] = []
    for unit in reversed(units):
        room -= unit.tokens
        if room < 0:
            break
        kept.append(unit)
        if unit.opens_section:
            break
    return kept[::-1]


def _units(document: CleanDocument, starts: Sequence[int], max_tokens: int) -> Iterator[_Unit]:
    for block in document.blocks:
        opens = block.kind == "heading"
        for start, end in _pieces(document.text, block):
            for first, last in _fitting(document.text, starts, start, end, max_tokens):
                yield _Unit(first, last, _count(starts, first, last), opens, block.path)
                opens = False


def _pieces(text: str, block: Block) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of the sentences of prose, the lines of lines, or a heading as a whole."""
    if block.kind == "heading":
        yield block.start, block.end
        return
    ends = (
        re.compile("\n").finditer(text, block.start, block.end)
        if block.kind == "lines"
        else _SENTENCE_END.finditer(text, block.start, block.end)
    )
    start = block.start
    for match in ends:
        yield from _not_blank(text, start, match.end())
        start = match.end()
    yield from _not_blank(text, start, block.end)


def _not_blank(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        yield start, end


def _fitting(text: str, starts: Sequence[int], start: int, end: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield pieces of ``start`` to ``end`` of at most ``most`` tokens; they cover it without gaps."""
    first, last = bisect.bisect_left(starts, start), bisect.bisect_left(starts, end)
    while last - first > most:
        first = _cut(text, starts, first, first + most)
        yield start, starts[first]
        start = starts[first]
    yield start, end


def _cut(text: str, starts: Sequence[int], first: int, last: int) -> int:
    """Return the token to cut before, after ``first`` and up to ``last``: between words if one ends in the last quarter,
    else where no letter is parted from its marks."""
    for at in range(last, last - (last - first) // 4, -1):
        if text[starts[at] - 1].isspace():
            return at
    return next((at for at in range(last, first, -1) if _between_letters(text, starts[at])), last)


def _between_letters(text: str, at: int) -> bool:
    before, behind = text[at - 1], text[at]
    return not (
        unicodedata.category(behind).startswith("M")
        or behind in "\u200c\u200d"
        or before == "\u200d"
        or unicodedata.combining(before) == _VIRAMA
    )


def _count(starts: Sequence[int], start: int, end: int) -> int:
    return bisect.bisect_left(starts, end) - bisect.bisect_left(starts, start)

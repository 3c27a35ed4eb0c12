"""Cut a text into the pieces that are scored one by one."""

import re
from collections.abc import Iterator

MAX_SEGMENT = 600
"""Longest piece, in characters: a document without full stops is cut at spaces."""
# A line that goes on in lower case is wrapped, not ended. A list, a table or a heading begins otherwise.
_BREAK = re.compile(r"\n[ \t\r]*\n\s*|\n(?![ \t]*[a-z])|(?<=[.!?:;])[\"')\]]*\s+|(?<=[。！？])")
_WRAP = re.compile(r"(?<!\n)[ \t\r]*\n[ \t\r]*(?!\s)")


def sentences(text: str, max_chars: int = MAX_SEGMENT) -> Iterator[tuple[int, int]]:
    """(start, end) of every sentence or line that is not blank, white space trimmed, none longer than `max_chars`."""
    start = 0
    for match in _BREAK.finditer(text):
        yield from _pieces(text, start, match.start(), max_chars)
        start = match.end()
    yield from _pieces(text, start, len(text), max_chars)


def windows(text: str, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of runs of whole sentences, each as long as it can be without exceeding `size` characters."""
    begin = stop = -1
    for start, end in sentences(text, size):
        if begin < 0:
            begin = start
        elif end - begin > size:
            yield begin, stop
            begin = start
        stop = end
    if begin >= 0:
        yield begin, stop


def unwrapped(text: str) -> str:
    """The text with single line feeds as spaces, so that a phrase is found over the end of a line; paragraphs stay apart."""
    return _WRAP.sub(" ", text) if "\n" in text else text


def _pieces(text: str, start: int, end: int, max_chars: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = end
        if end - start > max_chars:
            space = text.rfind(" ", start + max_chars // 2, start + max_chars)
            stop = space if space > 0 else start + max_chars
        left, right = start, stop
        while left < right and text[left].isspace():
            left += 1
        while right > left and text[right - 1].isspace():
            right -= 1
        if left < right:
            yield left, right
        start = stop

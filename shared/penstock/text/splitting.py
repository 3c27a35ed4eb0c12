"""A long text in parts that can be read by themselves: cut at headings, else between paragraphs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import NamedTuple

from penstock.text.headings import atx_heading

__all__ = ["split_text"]

_LINE = re.compile(r"[^\n]*\n?")
_FENCE = re.compile(r" {0,3}(```|~~~)")


class _Heading(NamedTuple):
    at: int
    level: int
    line: str


def split_text(text: str, most: int, *, markdown: bool) -> list[str]:
    """Return ``text`` in parts of about ``most`` characters; one that is no longer than that is one part.

    A part is cut in its second half: before the heading of the highest level there (of Markdown), else between two
    paragraphs, two lines, two words, or where ``most`` characters end. A part that begins below headings repeats them, so
    that each stands under what it belongs to; those come on top of ``most``. Without them the parts together are the text.

    Raises:
        ValueError: ``most`` is below 2.
    """
    if most < 2:
        raise ValueError(f"a part of {most} characters can hold nothing")
    headings = list(_headings(text)) if markdown else []
    parts: list[str] = []
    path: list[_Heading] = []
    start, passed = 0, 0
    while start < len(text):
        while passed < len(headings) and headings[passed].at < start:
            path = _below(path, headings[passed])
            passed += 1
        opening = headings[passed] if passed < len(headings) and headings[passed].at == start else None
        above = path if opening is None else _below(path, opening)[:-1]
        end = _end(text, start, most, headings, passed)
        parts.append("".join(f"{heading.line}\n\n" for heading in above) + text[start:end])
        start = end
    return parts or [text]


def _end(text: str, start: int, most: int, headings: list[_Heading], passed: int) -> int:
    """Return where the part that begins at ``start``, behind ``passed`` headings, ends."""
    last = start + most
    if last >= len(text):
        return len(text)
    middle = start + most // 2
    inside = takewhile(lambda heading: heading.at <= last, islice(headings, passed, None))
    best = min((each for each in inside if each.at > middle), key=lambda each: (each.level, -each.at), default=None)
    if best is not None:
        return best.at
    for gap in ("\n\n", "\n", " "):
        at = text.rfind(gap, middle, last)
        if at >= 0:
            return at + len(gap)
    return last


def _below(path: list[_Heading], heading: _Heading) -> list[_Heading]:
    """Return the headings that what follows ``heading`` stands under, where it comes behind ``path``."""
    return [*(each for each in path if each.level < heading.level), heading]


def _headings(text: str) -> Iterator[_Heading]:
    fence = ""
    for match in _LINE.finditer(text):
        line = match[0].rstrip("\n")
        opened = _FENCE.match(line)
        if opened and fence in ("", opened[1]):
            fence = "" if fence else opened[1]
        elif not fence and (heading := atx_heading(line)):
            yield _Heading(match.start(), heading[0], f"{'#' * heading[0]} {heading[1]}")

"""Markdown's headings."""

from __future__ import annotations

import re

__all__ = ["atx_heading"]

_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+")


def atx_heading(line: str) -> tuple[int, str] | None:
    """Return the level, 1 to 6, and the text of a heading of hashes; None where ``line`` is none (CommonMark, 4.2).

    In time linear in the line, however many spaces and hashes it has.
    """
    opening = _ATX.match(line)
    if opening is None:
        return None
    text = line[opening.end() :].strip()
    open_end = text.rstrip("#")
    closed = open_end != text and (not open_end or open_end[-1] in " \t")
    return len(opening[1]), open_end.rstrip() if closed else text

"""What a page's text is once the page is taken away: words joined that its lines cut, its running heads left out. Pure."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

__all__ = ["tidy_pages", "tidy_title", "with_headings"]

_LEAST_PAGES = 4
"""Fewer pages do not tell a running head from what happens to stand first twice."""
_SHARE_OF_PAGES = 0.6
_HEAD_CHARACTERS = 120
_LINES = 2
"""Lines at the top and at the bottom of a page that may be running heads: a title and a number under it."""
_NUMBER = re.compile(
    r"\W*(?:p|pp|pg|page|seite|página|pagina|pág|side|sida|strona|страница|стр|صفحة|第)?\W*(?:\d{1,5}|[ivxlc]{1,8})"
    r"(?:\s*(?:/|\||of|von|de|di|sur|av|z|из)\s*\d{1,5})?\s*(?:页|頁|ページ|쪽)?\W*",
    re.IGNORECASE,
)
_WORD = r"(?<![^\W\d_])[^\W\d_]++"  # from its beginning, and in one go: a file may be one word of megabytes
_CUT = re.compile(rf"({_WORD})([-\u2010\u00ad])[ \t]*\n[ \t]*(?=([^\W\d_]++))")
_LEADER = re.compile(r"(?:[ \t]?\.){5,}+")  # of a table of contents: the embedder would read every dot
_COMPOUND = re.compile(rf"{_WORD}-[^\W\d_]++")
_RULES = "=-~^\"'"
_NUMBERED = re.compile(
    r"^(?:(?:chapter|section|part|kapitel|chapitre|capítulo)\s+)?(?:\d+(?:\.\d+)*|[ivxlc]+)[.:)]?\s+", re.IGNORECASE
)
_NO_TITLE = re.compile(
    r"untitled|(?:microsoft )?(?:word|powerpoint|excel) - .*|"
    r".*\.(?:docx?|odt|rtf|pptx?|xlsx?|pdf|indd|tex|dvi|ps|qxd|pages)",
    re.IGNORECASE,
)


def tidy_pages(pages: Sequence[str]) -> list[str]:
    """Return ``pages`` without running heads and page numbers, and with words whole that a hyphen at a line's end cut.

    A hyphen stays where the same word stands with it within a line somewhere, and before a capital or a digit.
    """
    lines = [page.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").split("\n") for page in pages]
    heads = _running_heads(lines)
    texts = [_LEADER.sub(" …", "\n".join(_without_heads(page, heads))) for page in lines]
    compounds = {match.lower() for text in texts for match in _COMPOUND.findall(text)}
    return [_CUT.sub(lambda cut: _joint(cut, compounds), text) for text in texts]


def with_headings(pages: Sequence[str], outline: Sequence[tuple[int, int, str]]) -> list[str]:
    """Return ``pages`` with a rule under each line that is a heading by ``outline`` (page from 0, level from 1, title), as
    plain text marks headings, one sign for each level. A number before a heading may be missing from the outline, and the
    heading may take two lines; one that is not found on its page is left out.
    """
    texts = list(pages)
    for number, entries in groupby(sorted(outline, key=lambda entry: entry[0]), key=lambda entry: entry[0]):
        if 0 <= number < len(texts):
            texts[number] = _ruled(texts[number].split("\n"), [(level, title) for _, level, title in entries])
    return texts


def _ruled(lines: Sequence[str], entries: Sequence[tuple[int, str]]) -> str:
    places: dict[str, list[tuple[int, int]]] = {}
    for start in range(len(lines)):
        for took in (1, 2)[: len(lines) - start]:
            places.setdefault(_named(" ".join(lines[start : start + took])), []).append((start, took))
    out: list[str] = []
    at = 0
    for level, title in entries:
        wanted = _named(title)
        found = places.get(wanted, []) if wanted else []
        place = bisect.bisect_left(found, (at, 0))
        if place < len(found):
            start, took = found[place]
            heading = " ".join(" ".join(lines[start : start + took]).split())
            out += [*lines[at:start], "", heading, _RULES[min(level, len(_RULES)) - 1] * len(heading), ""]
            at = start + took
    return "\n".join([*out, *lines[at:]])


def _named(line: str) -> str:
    """Return what a heading is compared by; empty for what is too long for one."""
    plain = " ".join(line[: 4 * _HEAD_CHARACTERS].split())
    return _NUMBERED.sub("", plain).casefold() if len(plain) <= _HEAD_CHARACTERS else ""


def tidy_title(title: str) -> str:
    """Return a title that a file gives itself; empty where a program named the file instead of a person."""
    plain = " ".join(title.split())
    return "" if _NO_TITLE.fullmatch(plain) else plain


def _running_heads(pages: Sequence[Sequence[str]]) -> frozenset[str]:
    """Return the lines that stand at the edge of most pages, those of a number alone as one.

    A line with another number on every page is none: it may be what the page is about ("Exercise 3").
    """
    if len(pages) < _LEAST_PAGES:
        return frozenset()
    counts = Counter(shape for page in pages for shape in {_shape(page[at]) for at in _edges(page)})
    return frozenset(shape for shape, count in counts.items() if count >= _SHARE_OF_PAGES * len(pages))


def _without_heads(page: Sequence[str], heads: frozenset[str]) -> list[str]:
    left_out = {at for at in _edges(page) if _shape(page[at]) in heads}
    return [line for at, line in enumerate(page) if at not in left_out]


def _edges(page: Sequence[str]) -> set[int]:
    written = [at for at, line in enumerate(page) if line.strip()]
    return {at for at in (*written[:_LINES], *written[-_LINES:]) if len(page[at].strip()) <= _HEAD_CHARACTERS}


def _shape(line: str) -> str:
    plain = " ".join(line.split()).lower()
    return "#" if _NUMBER.fullmatch(plain) else plain


def _joint(cut: re.Match[str], compounds: set[str]) -> str:
    """Return the first half of a word with what stays of the hyphen behind it: nothing, or the hyphen."""
    before, hyphen, after = cut.groups()
    if hyphen == "\u00ad":
        return before
    whole = after[0].islower() and f"{before}-{after}".lower() not in compounds
    return before if whole else f"{before}-"

"""From what was uploaded to clean text with its structure. Pure.

Text is normalised (NFC, line ends, no control or zero-width characters) and what a reader would not see is dropped:
scripts, comments, hidden elements. Offsets of blocks and chunks count characters of the cleaned text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

__all__ = ["Block", "CleanDocument", "UnsupportedType", "clean_document", "clean_text"]

BlockKind = Literal["heading", "prose", "lines"]


class UnsupportedType(Exception):
    """The content type is none that can be read as text."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the cleaned text: a heading, a paragraph of prose, or lines to keep whole (code, list, table).

    ``path`` holds the headings it stands under, outermost first; a heading's own path ends with itself.
    """

    start: int
    end: int
    kind: BlockKind
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CleanDocument:
    """The cleaned text, its blocks in order, and the title it gives itself (empty where it gives none)."""

    text: str
    blocks: tuple[Block, ...]
    title: str


# Left to right: soft hyphen, zero-width characters, directional overrides and isolates, BOM, and Unicode tag characters,
# all invisible and used to hide instructions. The zero-width (non-)joiners stay: scripts and emoji need them.
_INVISIBLE = re.compile("[\u00ad\u180e\u200b\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


def clean_text(raw: str) -> str:
    """Return ``raw`` in NFC, with "\\n" line ends (two in a row at most) and no invisible or control characters."""
    text = raw.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = _INVISIBLE.sub("", _CONTROL.sub("", text))
    text = unicodedata.normalize("NFC", _SPACES.sub(" ", text))
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text)).strip("\n")


def clean_document(content: str, content_type: str) -> CleanDocument:
    """Return the cleaned text of ``content`` and its structure.

    Args:
        content_type: text/plain (reStructuredText's underlined headings are recognised), text/markdown, text/x-rst or
            text/html; parameters such as charset are ignored.

    Raises:
        UnsupportedType: for any other type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/html":
        from services.retrieval.html_text import html_to_markdown

        title, text = html_to_markdown(content)
        return _structured(clean_text(text), title, markdown=True)
    if kind == "text/markdown":
        return _structured(clean_text(_plain_markdown(content)), "", markdown=True)
    if kind in ("text/plain", "text/x-rst", ""):
        return _structured(clean_text(content), "", markdown=False)
    raise UnsupportedType(
        f"content_type {content_type!r} cannot be indexed; send text/plain, text/markdown or text/html"
    )


_FRONT_MATTER = re.compile(r"\A---\s*\n.*?\n---\s*\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_IMAGE = re.compile(r"!\[([^\]\n]*)\]\([^)\n]*\)")
_LINK = re.compile(r"\[([^\]\n]+)\]\([^)\n]*\)")


def _plain_markdown(content: str) -> str:
    """Drop front matter and comments; leave of links and images their text."""
    text = _COMMENT.sub("", _FRONT_MATTER.sub("", content.replace("\r\n", "\n")))
    return _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))


_ATX = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_RULE = re.compile(r"^([=\-`'\"~^_*+#])\1{2,}\s*$")
_LINE_LIKE = re.compile(r"^(?:\s{2,}|[-*+•]\s|\d+[.)]\s|\|)")


def _structured(text: str, title: str, markdown: bool) -> CleanDocument:
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    blocks: list[Block] = []
    path: list[tuple[int, str]] = []  # (level, heading) from the outermost in
    levels: list[str] = []  # underline characters by level, as reStructuredText assigns them: in order of appearance
    at = 0

    def add(first: int, last: int, kind: BlockKind) -> None:
        blocks.append(Block(starts[first], starts[last] - 1, kind, tuple(name for _, name in path)))

    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
            continue
        if markdown and (fence := _FENCE.match(line)):
            end = at + 1
            while end < len(lines) and not lines[end].lstrip().startswith(fence[1][:3]):
                end += 1
            end = min(end + 1, len(lines))
            add(at, end, "lines")
            at = end
            continue
        heading = _heading(lines, at, markdown, levels)
        if heading is not None:
            level, name, count = heading
            while path and path[-1][0] >= level:
                path.pop()
            path.append((level, name))
            title = title or name
            add(at, at + count, "heading")
            at += count
            continue
        end = at + 1
        while end < len(lines) and lines[end].strip() and not _starts_block(lines, end, markdown, levels):
            end += 1
        paragraph = lines[at:end]
        line_like = sum(1 for entry in paragraph if _LINE_LIKE.match(entry))
        add(at, end, "lines" if line_like * 2 > len(paragraph) else "prose")
        at = end
    return CleanDocument(text, tuple(blocks), title)


def _starts_block(lines: list[str], at: int, markdown: bool, levels: list[str]) -> bool:
    if markdown and _FENCE.match(lines[at]):
        return True
    return _heading(lines, at, markdown, list(levels)) is not None


def _heading(lines: list[str], at: int, markdown: bool, levels: list[str]) -> tuple[int, str, int] | None:
    """Return (level, text, lines taken) where a heading starts at line ``at``. New underlines are added to ``levels``."""
    if markdown and (atx := _ATX.match(lines[at])):
        return len(atx[1]), atx[2], 1
    following = lines[at + 1] if at + 1 < len(lines) else ""
    line = lines[at]
    over = _RULE.match(line)
    if not markdown and over and at + 2 < len(lines) and following.strip() and lines[at + 2].rstrip() == line.rstrip():
        return _underlined(over[1] * 2, levels), following.strip(), 3
    under = _RULE.match(following)
    if over or under is None or not line.strip() or line[:1].isspace() or len(line) > 120:
        return None
    if markdown:
        return ((1 if under[1] == "=" else 2), line.strip(), 2) if under[1] in "=-" else None
    if len(following.rstrip()) < min(len(line), 4) or len(following.rstrip()) < len(line) * 0.7:
        return None
    return _underlined(under[1], levels), line.strip(), 2


def _underlined(style: str, levels: list[str]) -> int:
    if style not in levels:
        levels.append(style)
    return levels.index(style) + 1

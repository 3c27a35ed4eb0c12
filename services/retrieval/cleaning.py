"""From what was uploaded to clean text with its structure. Pure.

Text is normalised (NFC, line ends, no control or zero-width characters) and what a reader would not see is dropped:
scripts, comments, hidden elements. Offsets of blocks and chunks count characters of the cleaned text.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

from penstock.text.headings import atx_heading
from penstock.text.language import WORD, LanguageModelMissing, as_prose, identify, tells, without_code

__all__ = [
    "PAGED_TEXT", "PAGE_BREAK", "TEXT_TYPES", "Block", "CleanDocument", "UnsupportedType", "clean_document", "clean_text",
    "language_found",
]  # fmt: skip

PAGE_BREAK = "\f"
"""Between the pages of a paged text, as a printer takes it."""
PAGED_TEXT = "text/plain; format=paged"
"""Content type of a text that was taken from pages: those of its passages can be told."""
TEXT_TYPES = ("text/plain", "text/markdown", "text/html", "text/x-rst")
"""Content types, without parameters, that are read as text."""

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
    """The cleaned text, its blocks in order, and the title it gives itself (empty where it gives none).

    ``pages`` holds where each page begins; it is empty where the text came without pages.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str
    pages: tuple[int, ...] = ()

    def page_of(self, offset: int) -> int | None:
        """Return the number of the page, from 1, that the character at ``offset`` stands on; None without pages."""
        return bisect.bisect_right(self.pages, offset) if self.pages else None


_TELLING_CHARACTERS, _SURE = 600, 0.5
# Left to right: soft hyphen, Arabic letter mark, zero-width space, directional marks, joiner of words, directional overrides
# and isolates, BOM, and Unicode tag characters, all invisible: they keep words from being found, and hide instructions.
# The zero-width (non-)joiners stay: scripts and emoji need them.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
# Letters in the shape that a page gave them, as PDFs hold them: ligatures, Hebrew and Arabic presentation forms, radicals
# for characters, letters and digits of full width and kana of half. Nobody types them into a question.
_SHAPED = re.compile(
    "[\u2f00-\u2fd5\ufb00-\ufb06\ufb13-\ufb17\ufb1d-\ufb4f\ufb50-\ufd3d\ufd50-\ufdfc\ufe70-\ufefc"
    "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9f]+"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
# These and the patterns below never read a stretch twice (++ gives nothing back, a character that would begin another match
# ends one): a document is anybody's, and 20,000 spaces or brackets would hold everything up for minutes else.
_TRAILING = re.compile(r"(?<![ \t])[ \t]++$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


def clean_text(raw: str) -> str:
    """Return ``raw`` in NFC, with "\\n" line ends (two in a row at most) and no invisible or control characters.

    Letters that stand in the shape of a printed page (ligatures, presentation forms) become the letters themselves.
    """
    text = raw.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = _INVISIBLE.sub("", _CONTROL.sub("", text))
    text = _SHAPED.sub(lambda shaped: unicodedata.normalize("NFKC", shaped[0]), text)
    text = unicodedata.normalize("NFC", _SPACES.sub(" ", text))
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text)).strip("\n")


def clean_document(content: str, content_type: str) -> CleanDocument:
    """Return the cleaned text of ``content`` and its structure.

    Args:
        content_type: text/plain (reStructuredText's underlined headings are recognised), text/markdown, text/x-rst or
            text/html; of parameters ``format=paged`` says that form feeds part pages, others are ignored.

    Raises:
        UnsupportedType: for any other type.
    """
    kind, _, parameters = (part.strip().lower() for part in content_type.partition(";"))
    if kind == "text/html":
        from services.retrieval.html_text import html_to_markdown

        title, text = html_to_markdown(content)
        return _structured(clean_text(text), title, markdown=True)
    if kind == "text/markdown":
        return _structured(clean_text(_plain_markdown(content)), "", markdown=True)
    if kind == "text/plain" and parameters == "format=paged":
        text, pages = _without_breaks(content)
        # Its first heading is that of a chapter; what it is called as a whole stands in the event.
        return replace(_structured(text, "", markdown=False), title="", pages=pages)
    if kind in ("text/plain", "text/x-rst", ""):
        return _structured(clean_text(content), "", markdown=False)
    raise UnsupportedType(
        f"content_type {content_type!r} cannot be indexed as text; send text/plain, text/markdown or text/html, or the "
        "file itself as data"
    )


def language_found(document: CleanDocument) -> str | None:
    """Return the language that the prose of ``document`` is in, ISO 639-1 (639-3 where it has none there).

    It is told by the first 600 characters of paragraphs, else by those of the second half; None where neither tells, or
    where the model that tells it is not installed.
    """
    prose = [document.text[block.start : block.end] for block in document.blocks if block.kind == "prose"]
    for part in (prose, prose[len(prose) // 2 :]):
        words = WORD.findall(without_code("\n".join(part)[:_TELLING_CHARACTERS]))
        if tells(words):
            try:
                code, confidence = identify(as_prose(words))
            except LanguageModelMissing:
                return None
            if confidence >= _SURE:
                return code
    return None


_SENTENCE_ENDS = ".!?…:。！？؟۔।"


def _without_breaks(content: str) -> tuple[str, tuple[int, ...]]:
    """Return the cleaned text of all pages and where each begins. A sentence goes on across the break of a page."""
    parts: list[str] = []
    pages: list[int] = []
    size = 0
    for page in map(clean_text, content.split(PAGE_BREAK)):
        if parts and page:
            goes_on = page[0].islower() and parts[-1][-1] not in _SENTENCE_ENDS
            parts.append("\n" if goes_on else "\n\n")
            size += len(parts[-1])
        pages.append(size)
        if page:
            parts.append(page)
            size += len(page)
    return "".join(parts), tuple(pages)


# YAML between two lines of dashes at the very beginning: keys, items, remarks, and what is indented below them. Two rules
# with prose between them are text.
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?![ \t]*\n)"
    r"(?:(?!---[ \t]*$)(?:[ \t][^\n]*|-[ \t][^\n]*|#[^\n]*|[^\s#][^\n]*?:(?:[ \t][^\n]*)?|)\n)*+---[ \t]*(?:\n|\Z)",
    re.MULTILINE,
)
_FENCE = re.compile(r"^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,})", re.MULTILINE)
# A fence (group 1) with what it holds up to one that is as long, or a comment.
_FENCED_OR_COMMENT = re.compile(
    rf"{_FENCE.pattern}[^\n]*(?:\n(?![ \t]*\1[`~]*[ \t]*$)[^\n]*)*+(?:\n[^\n]*)?|<!--(?s:.*?)(?:-->|\Z)", re.MULTILINE
)
_ADDRESS = r"\((?:[^()\[\n]|\([^()\[\n]*\))*+\)"
_IMAGE = re.compile(rf"!\[([^\[\]\n]*)\]{_ADDRESS}")
_LINK = re.compile(rf"\[([^\[\]\n]+)\]{_ADDRESS}")


def _plain_markdown(content: str) -> str:
    """Drop front matter and comments; leave of links and images their text. What a fence holds stays as it is."""
    text = content.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = _FRONT_MATTER.sub("", text)
    parts: list[str] = []
    at = 0
    for match in _FENCED_OR_COMMENT.finditer(text):
        parts += (_unlinked(text[at : match.start()]), match[0] if match[1] else "")
        at = match.end()
    return "".join((*parts, _unlinked(text[at:])))


def _unlinked(text: str) -> str:
    return _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))


_RULE = re.compile(r"^([=\-`'\"~^_*+#])\1{2,}\s*$")
# Every chunk below a heading is stored with it: a line of megabytes would be stored thousands of times.
_HEADING_CHARACTERS = 400
_NO_HEADING = re.compile(r"[-*+•]\s|[|>]")
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
            while end < len(lines) and not _ends_fence(lines[end], fence[1]):
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
            path.append((level, name[:_HEADING_CHARACTERS]))
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


def _ends_fence(line: str, fence: str) -> bool:
    """Return whether ``line`` is a fence of the same sign that is at least as long (CommonMark, 4.5)."""
    text = line.strip()
    return text.startswith(fence) and not text.strip(fence[0])


def _starts_block(lines: list[str], at: int, markdown: bool, levels: list[str]) -> bool:
    if markdown and _FENCE.match(lines[at]):
        return True
    return _heading(lines, at, markdown, list(levels)) is not None


def _heading(lines: list[str], at: int, markdown: bool, levels: list[str]) -> tuple[int, str, int] | None:
    """Return (level, text, lines taken) where a heading starts at line ``at``. New underlines are added to ``levels``."""
    if markdown and (heading := atx_heading(lines[at])):
        return *heading, 1
    following = lines[at + 1] if at + 1 < len(lines) else ""
    line = lines[at]
    over = _RULE.match(line)
    if not markdown and over and at + 2 < len(lines) and following.strip() and lines[at + 2].rstrip() == line.rstrip():
        return _underlined(over[1] * 2, levels), following.strip(), 3
    under = _RULE.match(following)
    if over or under is None or not line.strip() or line[:1].isspace() or len(line) > 120:
        return None
    if markdown and _NO_HEADING.match(line):
        return None  # a rule behind an item, a row or a quotation
    if markdown:
        return ((1 if under[1] == "=" else 2), line.strip(), 2) if under[1] in "=-" else None
    if len(following.rstrip()) < min(len(line), 4) or len(following.rstrip()) < len(line) * 0.7:
        return None
    return _underlined(under[1], levels), line.strip(), 2


def _underlined(style: str, levels: list[str]) -> int:
    if style not in levels:
        levels.append(style)
    return levels.index(style) + 1

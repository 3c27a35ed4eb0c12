"""HTML to text with Markdown's headings, lists and code fences, leaving out what a browser would not show. Pure."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

__all__ = ["html_to_markdown"]

_SKIPPED = frozenset(
    {"script", "style", "template", "noscript", "head", "svg", "math", "iframe", "object", "nav", "button", "select"}
)
_BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "figcaption", "figure",
        "footer", "header", "hr", "main", "ol", "p", "section", "summary", "table", "tbody", "tfoot", "thead", "ul",
    }
)  # fmt: skip
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_OF_HEAD = frozenset({"base", "link", "meta", "noscript", "script", "style", "template", "title"})
_END_P = _BLOCKS - {"body", "dd", "dt", "tbody", "tfoot", "thead", "summary"} | {
    *_HEADINGS,
    "fieldset",
    "form",
    "menu",
    "pre",
}
_ROWS = frozenset({"thead", "tbody", "tfoot", "tr", "td", "th"})
# What a start tag ends of that stands open, and the elements beyond which it does not reach.
_ENDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    **dict.fromkeys(_END_P, (frozenset({"p"}), frozenset({"button", "caption", "object", "table", "td", "template", "th"}))),
    "li": (frozenset({"li"}), frozenset({"menu", "ol", "ul", "table", "td", "th"})),
    **dict.fromkeys(("dt", "dd"), (frozenset({"dt", "dd"}), frozenset({"dl", "table", "td", "th"}))),
    **dict.fromkeys(("td", "th"), (frozenset({"td", "th"}), frozenset({"table", "tr"}))),
    "tr": (_ROWS - {"thead", "tbody", "tfoot"}, frozenset({"table", "thead", "tbody", "tfoot"})),
    **dict.fromkeys(("thead", "tbody", "tfoot"), (_ROWS, frozenset({"table"}))),
    "option": (frozenset({"option"}), frozenset({"datalist", "select"})),
    "body": (frozenset({"head"}), frozenset()),
}  # fmt: skip
"""The end tags that HTML lets its writers leave out (HTML Standard, 13.1.2.4)."""
_ITEM_START, _ROW_START, _CELL_END = "\n- ", "\n| ", " | "
_LOOKED_AT = 64
"""Open elements that are looked through for one that a start tag ends: more would take the square of a hostile nesting."""
_CODE = re.compile(r"<(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_REMARK = re.compile(r"<!--.*?(?:--!?>|\Z)", re.DOTALL)
_DECLARATION = re.compile(r"<![^>]*(?:>|\Z)")
_HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|opacity\s*:\s*0(?:\.0*)?\s*(?:[;!]|$)"
    r"|font-size\s*:\s*0(?:px|em|pt|rem|%)?\s*(?:[;!]|$)",
    re.IGNORECASE,
)


def html_to_markdown(html: str) -> tuple[str, str]:
    """Return (title, text). Malformed HTML is read as browsers do, as far as it goes; nothing is raised."""
    parser = _Reader()
    parser.feed(_plain(html))
    parser.close()
    return parser.title(), parser.text()


def _plain(html: str) -> str:
    """Return ``html`` without what the parser would read again and again, or not at all: in time linear in its length.

    Scripts, styles, comments and declarations go, and a tag that nothing ends is text.
    """
    text = _DECLARATION.sub("", _REMARK.sub("", _CODE.sub("", html)))
    ended = text.rfind(">") + 1
    return text[:ended] + text[ended:].replace("<", "&lt;")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._title: list[str] = []
        self._in_title = False
        self._pre = 0
        # Open elements that are not void, how many of them hide their content, and how many are headings: one line each.
        self._open: list[tuple[str, bool]] = []
        self._count: Counter[str] = Counter()
        self._hidden = 0
        self._in_line = 0

    def title(self) -> str:
        return " ".join("".join(self._title).split())

    def text(self) -> str:
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and not self._title and not self._count["svg"]:
            self._in_title = True
        if self._in_head() and tag not in _OF_HEAD:
            self._end(len(self._open) - 1)
        if tag in _ENDS:
            self._end_implied(*_ENDS[tag])
        if tag in _VOID:
            if tag in ("br", "hr") and not self._hidden:
                self._out.append(" " if self._in_line else "\n")
            return
        hides = tag in _SKIPPED or _is_hidden(dict(attrs))
        self._open.append((tag, hides))
        self._count[tag] += 1
        self._hidden += hides
        if not self._hidden:
            self._begin(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """``<svg/>`` has no content. Of an element of HTML the slash means nothing: what follows a hidden one is hidden. One
        whose content would be skipped ends all the same, as those who write XHTML mean it."""
        self.handle_starttag(tag, attrs)
        if tag not in _VOID and (tag in _SKIPPED or not _is_hidden(dict(attrs))):
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if not self._count[tag]:
            return
        place = next(place for place in range(len(self._open) - 1, -1, -1) if self._open[place][0] == tag)
        self._end(place)

    def _in_head(self) -> bool:
        return bool(self._open) and self._open[-1][0] == "head"

    def _end_implied(self, ended: frozenset[str], beyond: frozenset[str]) -> None:
        """End the outermost of the elements that HTML lets stand open until such a tag, with all that is in it."""
        if not any(self._count[name] for name in ended):
            return
        found = None
        for place in range(len(self._open) - 1, max(-1, len(self._open) - 1 - _LOOKED_AT), -1):
            name = self._open[place][0]
            if name in beyond:
                break
            if name in ended:
                found = place
        if found is not None:
            self._end(found)

    def _end(self, place: int) -> None:
        """End the open element at ``place`` and those in it."""
        while len(self._open) > place:
            name, hides = self._open.pop()
            self._count[name] -= 1
            if not self._hidden:
                self._finish(name)
            self._hidden -= hides

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._title.append(data)
            return
        if self._in_head() and data.strip():
            self._end(len(self._open) - 1)
        text = "" if self._hidden else data if self._pre else self._collapsed(data)
        if text:
            self._out.append(text)

    def _collapsed(self, data: str) -> str:
        text = re.sub(r"\s+", " ", data)
        at_line_start = not self._out or self._out[-1].endswith(("\n", " "))
        return text.lstrip(" ") if at_line_start else text

    def _begin(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._out.append("\n\n" + "#" * _HEADINGS[tag] + " ")
            self._in_line += 1
        elif self._in_line and tag in (*_BLOCKS, "pre", "li", "tr"):
            self._part(" ")
        elif tag == "pre":
            self._pre += 1
            self._out.append("\n\n```\n")
        elif tag == "li":
            self._out.append(_ITEM_START)
        elif tag == "tr":
            self._out.append(_ROW_START)
        elif tag in _BLOCKS and not self._at_start():
            self._out.append("\n\n")

    def _finish(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._in_line -= 1
            self._out.append("\n\n")
        elif self._in_line and tag in (*_BLOCKS, "pre", "td", "th"):
            self._part(" ")
        elif tag == "pre":
            self._pre -= 1
            self._out.append("\n```\n\n")
        elif tag in ("td", "th"):
            # A paragraph in a cell ends with it: its row stays one line.
            while self._out and self._out[-1] == "\n\n":
                self._out.pop()
            self._out.append(_CELL_END)
        elif tag in _BLOCKS:
            self._out.append("\n\n")

    def _part(self, space: str) -> None:
        if self._out and not self._out[-1].endswith((" ", "\n")):
            self._out.append(space)

    def _at_start(self) -> bool:
        """Return whether nothing stands yet in a cell or an item: a block there begins on its line."""
        return bool(self._out) and self._out[-1] in (_ITEM_START, _ROW_START, _CELL_END)


def _is_hidden(attrs: dict[str, str | None]) -> bool:
    return (
        "hidden" in attrs
        or "headerlink" in (attrs.get("class") or "").split()  # the pilcrow that Sphinx puts behind headings
        or (attrs.get("aria-hidden") or "").lower() == "true"
        or _HIDDEN_STYLE.search(attrs.get("style") or "") is not None
    )

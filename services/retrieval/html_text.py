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
_CODE = re.compile(r"<(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_REMARK = re.compile(r"<!--.*?(?:--!?>|\Z)", re.DOTALL)
_DECLARATION = re.compile(r"<![^>]*(?:>|\Z)")
_HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|opacity\s*:\s*0(?:\.0*)?\s*(?:;|$)|font-size\s*:\s*0(?:px|em|pt|rem|%)?\s*(?:;|$)",
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
        # Open elements that are not void, and how many of them hide their content.
        self._open: list[tuple[str, bool]] = []
        self._count: Counter[str] = Counter()
        self._hidden = 0

    def title(self) -> str:
        return " ".join("".join(self._title).split())

    def text(self) -> str:
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and not self._title:
            self._in_title = True
        if tag in _VOID:
            if tag in ("br", "hr") and not self._hidden:
                self._out.append("\n")
            return
        if tag in ("p", "li", "tr", "td", "th", "dt", "dd", "option"):
            self._close_implied(tag)
        hides = tag in _SKIPPED or _is_hidden(dict(attrs))
        self._open.append((tag, hides))
        self._count[tag] += 1
        self._hidden += hides
        if not self._hidden:
            self._begin(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if not self._count[tag]:
            return
        while self._open:
            name, hides = self._open.pop()
            self._count[name] -= 1
            if not self._hidden:
                self._finish(name)
            self._hidden -= hides
            if name == tag:
                break

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._title.append(data)
        elif not self._hidden:
            self._out.append(data if self._pre else self._collapsed(data))

    def _collapsed(self, data: str) -> str:
        text = re.sub(r"\s+", " ", data)
        at_line_start = not self._out or self._out[-1].endswith(("\n", " "))
        return text.lstrip(" ") if at_line_start else text

    def _close_implied(self, tag: str) -> None:
        """Close an element that HTML lets stand open until its sibling starts."""
        if self._open and self._open[-1][0] == tag:
            self.handle_endtag(tag)

    def _begin(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._out.append("\n\n" + "#" * _HEADINGS[tag] + " ")
        elif tag == "pre":
            self._pre += 1
            self._out.append("\n\n```\n")
        elif tag == "li":
            self._out.append("\n- ")
        elif tag == "tr":
            self._out.append("\n| ")
        elif tag in _BLOCKS:
            self._out.append("\n\n")

    def _finish(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._out.append("\n\n")
        elif tag == "pre":
            self._pre -= 1
            self._out.append("\n```\n\n")
        elif tag in ("td", "th"):
            self._out.append(" | ")
        elif tag in _BLOCKS:
            self._out.append("\n\n")


def _is_hidden(attrs: dict[str, str | None]) -> bool:
    return (
        "hidden" in attrs
        or "headerlink" in (attrs.get("class") or "").split()  # the pilcrow that Sphinx puts behind headings
        or (attrs.get("aria-hidden") or "").lower() == "true"
        or _HIDDEN_STYLE.search(attrs.get("style") or "") is not None
    )

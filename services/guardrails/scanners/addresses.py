"""Find what reads as an address in prose, Markdown and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import re2

__all__ = ["ACTIVE_DATA", "CODE_SCHEMES", "SCHEME", "addresses"]

_BARE_SUFFIXES = (
    "com|net|org|info|biz|edu|gov|mil|io|co|me|tv|cc|app|dev|ai|xyz|top|click|link|site|online|shop|store|live|icu|club"
    "|work|tk|ml|ga|cf|gq|ru|cn|su|uk|de|fr|it|es|nl|pl|eu|us|ca|au|in|jp|br|ch|at|se|no|dk|fi|be|cz|example|test"
)
_URL = re2.compile(
    r"(?i)(\b[a-z][a-z0-9+.-]{1,20}:(?:/{1,3}|\\{1,3})[^\s<>\"'`]+"
    r"|\b(?:javascript|vbscript|livescript|ms-[a-z]{2,20}|search-ms):[^\s\"'`<>]+"
    r"|\bdata:(?:[a-z]+/[a-z0-9.+-]+)?(?:;[a-z0-9=-]+)*,[^\s\"'`<>]*"
    r"|\bhttps?(?:;/{2}|//|:\s/{2})[^\s<>\"'`]+|\bjndi:[a-z]+://[^\s<>\"'`]+"
    r"|\\\\[\w-]+(?:\.[\w-]+)+\\[^\s<>\"'`]+"
    r"|\bwww\.[^\s<>\"'`]+"
    r"|\b[a-z0-9-]+\.(?:ly|gl|gd|gg|im|to|cl|is|sh|id|mp|gy|ee|la|by)/[^\s<>\"'`]+"
    r"|(?:[\pL\pN][\pL\pN-]*\.)+(?:" + _BARE_SUFFIXES + r")\b(?::\d{1,5})?(?:[/?#][^\s<>\"'`]*)?)"
)
_ATTRIBUTE = re2.compile(
    r"(?i)\b(?:href|src|action|formaction|data|srcdoc)\s*=\s*(?:\"([^\"]+)\"|'([^']+)'|([^\s\"'>]+))"
    r"|\]\(\s*<?([^)\n]+)"
)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:)")
_UNSEEN_IN_SCHEMES = re.compile(r"[\x00-\x20\u200b-\u200f\u2060\ufeff]+")
CODE_SCHEMES = frozenset({"javascript", "vbscript", "livescript"})
ACTIVE_DATA = re.compile(r"data:(?:text/(?:html|javascript|xml)|application/(?:javascript|xhtml|x-)|image/svg)", re.I)


def addresses(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, address) of everything that reads as one."""
    for match in _URL.finditer(text):
        start, end = match.span()
        # The domain of an e-mail address, or the tail of a longer name.
        if start and text[start - 1] in "@.-_/\\" and "://" not in match.group():
            continue
        if start and text[start - 1].isalnum():
            continue
        end = _trimmed(text, start, end)
        yield start, end, text[start:end]
    if "&" in text or "\t" in text or "=" in text or "](" in text:
        # An attribute may spell its scheme with entities and line breaks, which a browser leaves out.
        for match in _ATTRIBUTE.finditer(text):
            index = match.lastindex or 0
            value = _UNSEEN_IN_SCHEMES.sub("", html.unescape(match.group(index)[:200])).lower()
            scheme = SCHEME.match(value)
            if (
                scheme
                and value[:5] != text[match.start(index) : match.start(index) + 5].lower()
                and (scheme.group() in CODE_SCHEMES or ACTIVE_DATA.match(value))
            ):
                yield (*match.span(index), scheme.group() + ":alert(")


def _trimmed(text: str, start: int, end: int) -> int:
    """Where the address ends: punctuation of the sentence and brackets that it does not open are not part of it."""
    while end > start:
        last = text[end - 1]
        if last in ".,;:!?*_~|…\"'”’。，、" or (last in ")]}" and _unopened(text, start, end, last)):
            end -= 1
        else:
            break
    for closing in ")]":
        # A Markdown link ends at its bracket whatever follows.
        cut = text.find(closing, start, end)
        if cut > 0 and ("(" if closing == ")" else "[") not in text[start:cut] and start and text[start - 1] in "([<":
            end = min(end, cut)
    return end


def _unopened(text: str, start: int, end: int, closing: str) -> bool:
    opening = {")": "(", "]": "[", "}": "{"}[closing]
    window = text[max(start, end - 400) : end]
    return window.count(opening) < window.count(closing)

"""Where a text that is still growing may be cut, so that what is released is never the beginning of a find. Pure."""

from __future__ import annotations

import re

__all__ = ["image_uses", "last_boundary", "last_sentence_end", "left_open", "next_boundary", "open_construct"]

_SENTENCE_END = re.compile(r"[.!?\u2026][\"')\]\u201d\u2019]*\s|[\u3002\uff01\uff1f]|\n")
_OPEN_TAG = re.compile(r"(?i)<(?:img|a|iframe|script|link|source|video|audio|object|embed|form|style|svg)\b")
_LINK_TEXT = 300
"""Longest text of a link that the scanners read."""
_DEFINITION = re.compile(r"(?m)^\s{0,3}(\[[^\]\n]{1,100}\]):")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.S)
_KEY_BEGINS, _KEY_ENDS = "-----BEGIN", "-----END"
_FENCE = "```"


def _is_unspaced(char: str) -> bool:
    """Whether ``char`` belongs to a script that sets no spaces between words: Thai to Khmer, kana, Han, full width."""
    return char >= "\u0e00" and (
        char <= "\u0eff"
        or "\u1000" <= char <= "\u109f"
        or "\u1780" <= char <= "\u17ff"
        or "\u2e80" <= char <= "\u9fff"
        or "\uf900" <= char <= "\ufaff"
        or "\uff00" <= char <= "\uffef"
        or "\U00020000" <= char <= "\U0003ffff"
    )


def _is_boundary(text: str, at: int) -> bool:
    """Whether no token goes on over ``at``: after white space, or beside a letter of a script without spaces."""
    return text[at - 1].isspace() or _is_unspaced(text[at - 1]) or (at < len(text) and _is_unspaced(text[at]))


def last_boundary(text: str, lowest: int, highest: int) -> int:
    """Return the last place after ``lowest`` and up to ``highest`` where no token goes on, else ``lowest``."""
    for at in range(min(highest, len(text)), lowest, -1):
        if _is_boundary(text, at):
            return at
    return lowest


def next_boundary(text: str, lowest: int) -> int:
    """Return the first place from ``lowest`` on where no token goes on; ``lowest`` where there is none."""
    for at in range(max(lowest, 1), len(text)):
        if _is_boundary(text, at):
            return at
    return lowest


def last_sentence_end(text: str, lowest: int, highest: int) -> int:
    """Return the last end of a sentence or line after ``lowest`` and up to ``highest``, else ``lowest``."""
    end = lowest
    for match in _SENTENCE_END.finditer(text, lowest, highest):
        end = match.end()
    return end


def open_construct(text: str, lowest: int, *, fences: bool) -> int | None:
    """Return where the first construct from ``lowest`` on begins that the text's end leaves open, or None.

    A link or an image in Markdown, an HTML tag that loads something, a private key, and where ``fences`` count a fenced
    block of code that does not begin in front of ``lowest`` already.
    """
    starts = []
    if (link := _open_link(text, max(text.rfind("\n") + 1, lowest))) >= 0:
        starts.append(link)
    if tag := _OPEN_TAG.search(text, max(text.rfind(">") + 1, lowest)):
        starts.append(tag.start())
    key = text.find(_KEY_BEGINS, max(text.rfind(_KEY_ENDS), lowest))
    if key >= 0:
        starts.append(key)
    if fences and text.find(_FENCE, lowest) >= 0 and text.count(_FENCE) % 2:
        starts.append(text.rfind(_FENCE))
    return min(starts, default=None)


def left_open(before: str) -> str:
    """Return what must stand in front of a text for it to be read as it is behind ``before``: the first line of the
    fenced block that it lies in, or the mark of the code that it goes on with.
    """
    rest = before
    for match in _CODE.finditer(before):
        code, rest = match.group(), before[match.end() :]
        if code.startswith(_FENCE) and not (len(code) >= 2 * len(_FENCE) and code.endswith(_FENCE)):
            line = before[before.rfind("\n", 0, match.start()) + 1 : match.start()]
            # Some scanners read a block only where a line begins with it.
            return ("" if not line.strip() else "- ") + code.partition("\n")[0][:40] + "\n"
    mark = rest.rfind("`")
    # The space keeps it apart from a mark that follows.
    return "` " if mark >= 0 and "\n" not in rest[mark:] else ""


def image_uses(text: str) -> str:
    """Return a line in which every address that ``text`` gives a name to is an image's, which is fetched without a click:
    the image may stand anywhere in the answer, and what is released cannot be taken back.
    """
    names = dict.fromkeys(_DEFINITION.findall(text)) if "]:" in text else ()
    return " ".join(f"!{name}" for name in names) + "\n" if names else ""


def _open_link(text: str, lowest: int) -> int:
    """Return where the link begins whose text or target the end leaves open, or -1."""
    # What cannot stand in an address ends a link, but for the space in front of one.
    stop = text.rfind(" ", lowest) + 1
    for mark in ("\t", ")", ">"):
        stop = max(stop, text.rfind(mark, lowest) + 1)
    spaced = text[lowest:stop].rstrip().removesuffix("<")
    if spaced.endswith(("](", "]:")):
        end = lowest + len(spaced) - 2
    else:
        target = text.find("](", max(stop, lowest))
        end = target if target >= 0 else len(text) - text.endswith("]")
    begins = text.find("[", max(lowest, end - _LINK_TEXT - 1, text.rfind("]", lowest, end) + 1), end)
    return begins - 1 if begins > lowest and text[begins - 1] == "!" else begins

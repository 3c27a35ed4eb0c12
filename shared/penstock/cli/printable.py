"""Texts of others on a terminal: what they hold must not steer it, nor read otherwise than it is."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return ``text`` with control, invisible and bidirectional characters written as escapes; line feeds and tabs stay.

    Example:
        >>> printable("approve\x1b[2Jme\u202e")
        'approve\\x1b[2Jme\\u202e'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else char
        for char in text
    )

"""The marker of the system's instructions in an answer, as it is or disguised."""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from urllib.parse import unquote

from services.guardrails.findings import Reference, Rule, Span

MIN_LENGTH = 6
"""Letters and digits of a canary from which it is sought in disguise: a shorter one occurs by chance."""
PART = 8
"""Letters and digits in a row of a canary that do not occur by chance."""
_NOT_ALNUM = re.compile(r"[\W_]+")
_SPACE = re.compile(r"\s+")
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")


class CanaryScanner:
    """Finds the reference's canary: in any case, its characters set apart by signs, spaces or line breaks, reversed, in
    base64, hexadecimal, ROT13 or percent encoding (score 1), or parts of it of at least eight characters (0.6, and 0.8
    where they are most of it).
    """

    name = "canary"
    version = "1"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        canary = reference.canary
        if not canary or not text:
            return []
        if canary in text:
            return [Span("CANARY", place, place + len(canary), 1.0) for place in _places(text, canary)]
        forms = _forms(canary)
        if not forms.bare:
            return []
        reference.checkpoint()
        bare = _NOT_ALNUM.sub("", text.lower())
        for form in forms.bare:
            if form in bare:
                return [Span("CANARY", *_unsqueezed(text, form, _alnum_lower), 1.0)]
        joined = _SPACE.sub("", text)
        for form in forms.exact:
            if form in joined:
                return [Span("CANARY", *_unsqueezed(text, form, _not_space), 1.0)]
        if "%" in text and _PERCENT.search(text):
            # Twice: an address inside an address is encoded once more.
            plain = _NOT_ALNUM.sub("", unquote(unquote(text, errors="ignore"), errors="ignore").lower())
            if any(form in plain for form in forms.bare):
                places = [match.span() for match in _PERCENT.finditer(text)]
                return [Span("CANARY", places[0][0], places[-1][1], 1.0)]
        parts = [part for part in forms.parts if part in bare]
        if not parts:
            return []
        places = [_unsqueezed(text, part, _alnum_lower) for part in (parts[0], parts[-1])]
        score = 0.8 if 2 * len(parts) > len(forms.parts) - PART else 0.6
        return [Span("CANARY", min(start for start, _ in places), max(end for _, end in places), score)]


class _Forms:
    """What a canary may look like: `bare` in lower-case letters and digits only, `exact` in a text without spaces;
    `parts` are the runs of eight of its letters and digits that are no words.
    """

    __slots__ = ("bare", "exact", "parts")

    def __init__(self, canary: str) -> None:
        plain = _NOT_ALNUM.sub("", canary.lower())
        self.bare: tuple[str, ...] = ()
        self.exact: tuple[str, ...] = ()
        self.parts: tuple[str, ...] = ()
        if len(plain) < MIN_LENGTH:
            return
        written = {canary, canary.lower(), canary.upper()}
        encoded = {form.encode("utf-8", "surrogatepass").hex() for form in written}
        self.bare = (plain, plain[::-1], codecs.encode(plain, "rot13"), *sorted(encoded))
        self.exact = tuple(sorted({part for form in written for part in _base64_parts(form)}))
        runs = (plain[i : i + PART] for i in range(len(plain) - PART + 1))
        self.parts = tuple(run for run in runs if sum(map(str.isdigit, run)) >= 2) if len(plain) >= 2 * PART else ()


@lru_cache(maxsize=1024)
def _forms(canary: str) -> _Forms:
    return _Forms(canary)


def _base64_parts(value: str) -> Iterator[str]:
    """What base64 of any text that holds ``value`` contains, by the three places it may begin at within a group."""
    raw = value.encode("utf-8", "surrogatepass")
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        # The first group mixes in what stands before, the last one what stands behind.
        part = encoded[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        yield part
        yield part.translate({ord("+"): "-", ord("/"): "_"})


def _places(text: str, value: str) -> Iterator[int]:
    place = text.find(value)
    while place >= 0:
        yield place
        place = text.find(value, place + len(value))


def _alnum_lower(char: str) -> str:
    return "" if _NOT_ALNUM.match(char) else _NOT_ALNUM.sub("", char.lower())


def _not_space(char: str) -> str:
    return "" if char.isspace() else char


def _unsqueezed(text: str, form: str, squeeze: Callable[[str], str]) -> tuple[int, int]:
    """Where ``form``, found in the squeezed text, stands in the text itself."""
    kept: list[str] = []
    origin: list[int] = []
    for index, char in enumerate(text):
        for piece in squeeze(char):
            kept.append(piece)
            origin.append(index)
    place = "".join(kept).find(form)
    if place < 0:  # a character whose lower case depends on its neighbours
        return 0, len(text)
    return origin[place], origin[place + len(form) - 1] + 1

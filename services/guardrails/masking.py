"""Replace what was found: by typed numbers, by keyed hashes, or by pseudonyms that can be taken back."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

__all__ = [
    "Masked", "Numbering", "Stretch", "agreed", "fingerprint", "has_pseudonyms", "mask_texts", "named",
    "restore", "restoring", "unambiguous",
]  # fmt: skip

_STRENGTH = ("pseudonymise", "hash", "mask")
"""Of finds that overlap the strictest replacement counts: what one rule wants gone for good does not come back."""

# Bare and in any case: a model may drop the brackets, and then a text's own PERSON_1 must not be taken for ours.
_NUMBERED = re.compile(r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9_:+\-]{0,63})_(\d{1,6})(?!\d)")
_RESTORABLE = re.compile(r"(<|\[|&lt;)?(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9_:+\-]{0,63}_\d{1,6})(?!\d)(>|\]|&gt;)?")
_CLOSING = {"<": ">", "[": "]", "&lt;": "&gt;"}
# Whoever writes PERSON_999999 must not drive the numbers out of what is read back.
_HIGHEST_COUNTED = 900_000
_ADDRESS = re.compile(r"//\S+")
_BESIDE_ADDRESS = ".,;:!?)>]}'\"*`"


@dataclass(frozen=True, slots=True)
class Stretch:
    """What to replace: code points ``start`` to ``end`` of text number ``segment``; ``removed`` leaves nothing there."""

    segment: int
    start: int
    end: int
    kind: str
    score: float
    action: str
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Numbering:
    """What the parts of a text that is masked bit by bit have in common: the highest number of every kind, in lower
    case, and the name of every value that was replaced, by kind, value and action.
    """

    highest: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[tuple[str, str, str], str] = field(default_factory=dict, repr=False)

    def seen(self, text: str) -> Numbering:
        """Return the numbering after ``text``, whose own numbers must not be given again."""
        return Numbering(_highest(self.highest, _numbers([text])), self.names) if "_" in text else self


@dataclass(frozen=True, slots=True)
class Masked:
    """The texts with everything replaced, what each pseudonym stands for, and the numbering to go on with."""

    texts: tuple[str, ...]
    pseudonyms: Mapping[str, str] = field(default_factory=dict, repr=False)
    numbering: Numbering = field(default_factory=Numbering)


def mask_texts(
    texts: Sequence[str],
    stretches: Iterable[Stretch],
    reserved: str,
    key: bytes,
    numbering: Numbering = Numbering(),
) -> Masked:
    """Return ``texts`` with every stretch replaced; stretches that overlap become one, so nothing stays readable.

    A value has one number in all the texts, ``<EMAIL_ADDRESS_1>``, counted on from the numbers that the texts and
    ``reserved`` already hold, so that none is taken for another, and from ``numbering`` where the texts are the next
    part of a longer one. A hash is the value's fingerprint under ``key``.
    """
    by_segment: dict[int, list[Stretch]] = {}
    for stretch in stretches:
        by_segment.setdefault(stretch.segment, []).append(stretch)
    if not by_segment:
        return Masked(tuple(texts), numbering=numbering)
    taken = _highest(numbering.highest, _numbers([*texts, reserved]))
    names = dict(numbering.names)
    pseudonyms: dict[str, str] = {}
    masked = list(texts)
    for index in sorted(by_segment):
        text = texts[index]
        pieces, position = [], 0
        for start, end, surest, action in _merged(by_segment[index]):
            pieces.append(text[position:start])
            value = text[start:end]
            if action == "hash":
                pieces.append(f"<{surest.kind}:{fingerprint(key, surest.kind, value)}>")
            elif not surest.removed:
                # What is taken back must come back as it was written; else one value in any case has one number.
                same = (surest.kind, value if action == "pseudonymise" else value.casefold(), action)
                name = names.get(same)
                if name is None:
                    number = taken[surest.kind.lower()] = taken.get(surest.kind.lower(), 0) + 1
                    name = names[same] = f"<{surest.kind}_{number}>"
                if action == "pseudonymise":
                    pseudonyms[name] = value
                pieces.append(name)
            position = end
        masked[index] = "".join([*pieces, text[position:]])
    return Masked(tuple(masked), pseudonyms, Numbering(taken, names))


def restore(text: str, pseudonyms: Mapping[str, str], asked: str | None = None, *, in_json: bool = False) -> str:
    """Return ``text`` with every pseudonym replaced by what it stands for.

    A model may have dropped or changed the brackets or, between brackets, the case: ``<PERSON_1>``, ``PERSON_1``,
    ``[person_1]`` and ``&lt;PERSON_1&gt;`` are all read; a bare ``person_1`` is taken for a name in code.

    Where ``asked`` is given, the conversation, an address that it does not hold keeps its pseudonyms: the addresses of
    an answer were judged without the data, which they could carry away. ``in_json`` escapes what is put back, for a
    text whose JSON must stay JSON.
    """
    return restoring(pseudonyms, asked, in_json=in_json)(text)


def restoring(
    pseudonyms: Mapping[str, str], asked: str | None = None, *, in_json: bool = False
) -> Callable[[str], str]:
    """Return what does :func:`restore` for one text after another: a call of a tool has many, of one conversation."""
    values = {name[1:-1].lower(): value for name, value in pseudonyms.items()}
    exact = {name[1:-1] for name in pseudonyms}

    @cache
    def known() -> frozenset[str]:
        return frozenset(match.group().rstrip(_BESIDE_ADDRESS) for match in _ADDRESS.finditer(asked or ""))

    def restored(text: str) -> str:
        if not pseudonyms or not has_pseudonyms(text):
            return text
        kept = [] if asked is None or "//" not in text else _foreign_addresses(text, known())
        ends = [end for _, end in kept]

        def back(match: re.Match[str]) -> str:
            value = values.get(match[2].lower())
            before, after = match[1] or "", match[3] or ""
            bracketed = _CLOSING.get(before) == after
            if value is None or not (bracketed or match[2] in exact):
                return match[0]
            place = bisect_right(ends, match.start(2))
            if place < len(kept) and kept[place][0] <= match.start(2):
                return match[0]
            if in_json:
                value = json.dumps(value, ensure_ascii=False)[1:-1]
            return value if bracketed else before + value + after

        return _RESTORABLE.sub(back, text)

    return restored


def unambiguous(pseudonyms: Mapping[str, str], texts: Iterable[str]) -> Mapping[str, str]:
    """Return the pseudonyms that ``texts`` do not hold too: nobody could tell what an answer means by the others."""
    if not pseudonyms:
        return pseudonyms
    foreign = named(texts)
    return {name: value for name, value in pseudonyms.items() if name[1:-1].lower() not in foreign}


def named(texts: Iterable[str]) -> frozenset[str]:
    """Return everything in ``texts`` that reads like a pseudonym, in lower case and without brackets."""
    return frozenset(match[2].lower() for text in texts if "_" in text for match in _RESTORABLE.finditer(text))


def agreed(before: Mapping[str, str], now: Mapping[str, str]) -> Mapping[str, str]:
    """Return what two maskings of one request call alike: under a new policy the same name may mean another value, and
    an answer to either masking may come.
    """
    both = {**before, **now}
    return {name: value for name, value in both.items() if before.get(name, value) == now.get(name, value)}


def _foreign_addresses(text: str, known: Container[str]) -> list[tuple[int, int]]:
    """Where ``text`` holds an address with a pseudonym that is none of the ``known`` ones, in order."""
    return [
        match.span()
        for match in _ADDRESS.finditer(text)
        if has_pseudonyms(match.group()) and match.group().rstrip(_BESIDE_ADDRESS) not in known
    ]


def has_pseudonyms(text: str) -> bool:
    """Return whether ``text`` holds anything that reads like a pseudonym."""
    return "_" in text and _RESTORABLE.search(text) is not None


def fingerprint(key: bytes, kind: str, value: str) -> str:
    """First 16 hex digits of HMAC-SHA256 under ``key``: equal finds are recognised, and without the key nothing is
    guessed back.
    """
    if not value:
        return ""
    return hmac.new(key, f"{kind}\0{value.casefold()}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[
        :16
    ]


def _numbers(texts: Iterable[str]) -> dict[str, int]:
    """The highest number of every kind, in lower case, that the texts hold."""
    taken: dict[str, int] = {}
    for text in texts:
        for match in _NUMBERED.finditer(text) if "_" in text else ():
            kind, number = match[1].lower(), int(match[2])
            if number <= _HIGHEST_COUNTED:
                taken[kind] = max(taken.get(kind, 0), number)
    return taken


def _highest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {kind: max(one.get(kind, 0), other.get(kind, 0)) for kind in {**one, **other}}


def _merged(stretches: Iterable[Stretch]) -> list[tuple[int, int, Stretch, str]]:
    """(start, end, surest find, strictest action) of every run of overlapping stretches, in order."""
    merged: list[tuple[int, int, Stretch, str]] = []
    for stretch in sorted(stretches, key=lambda s: (s.start, -s.end)):
        if merged and stretch.start < merged[-1][1]:
            start, end, surest, action = merged[-1]
            merged[-1] = (
                start,
                max(end, stretch.end),
                stretch if (not stretch.removed, stretch.score) > (not surest.removed, surest.score) else surest,
                max(action, stretch.action, key=_STRENGTH.index),
            )
        else:
            merged.append((stretch.start, stretch.end, stretch, stretch.action))
    return merged

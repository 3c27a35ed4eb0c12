"""Dates of birth and ages. A date that nothing calls a birthday stays below the default threshold: most are not."""

import re
from collections.abc import Iterator

from services.guardrails.findings import Span
from services.guardrails.scanners.pii.anchors import Anchor, before, words

BIRTH_SCORE = 0.75
DATE_SCORE = 0.3
AGE_SCORE = 0.5

_MONTH = (
    r"(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|février|mar(?:ch|s|zo)?|märz|apr(?:il)?|avril|abril|may|mai|mayo"
    r"|june?|juin|juni|junio"
    r"|july?|juillet|juli|julio|aug(?:ust)?|août|agosto|sept?(?:ember|embre|iembre)?|oct(?:ober|obre|ubre)?|oktober"
    r"|nov(?:ember|embre|iembre)?|dec(?:ember)?|décembre|dezember|diciembre|enero|febrero)\.?"
)
DATE = (
    r"(?i)\b(?:\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})|(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2}"
    rf"|\d{{1,2}}(?:st|nd|rd|th|\.)?(?: of| de)?[ -]{_MONTH},?(?: of| de)?[ -]\d{{2,4}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})\b"
)
_BIRTH_WORDS = (
    "born", "birth", "birthday", "birthdate", "birth date", "date of birth", "dob", "d.o.b", "b-day", "bday",
    "geboren", "geb", "geburtsdatum", "geburtstag", "né le", "née le", "né", "née", "naissance", "nacido", "nacida",
    "nacimiento", "nacimento", "nascido", "nascita", "nato il", "nata il", "geboortedatum", "födelsedatum", "née en",
)  # fmt: skip
_BIRTH = re.compile(
    rf"(?i)(?<!\w)(?:{'|'.join(re.escape(word) for word in sorted(_BIRTH_WORDS, key=len, reverse=True))})(?!\w)"
)
_YEAR = r"(?i)\b(?:born|birth|geboren|né|née|nacid[oa]|nat[oa]|nascid[oa])\b[^.\n\d]{0,40}?\b((?:19|20)\d\d)\b"
_AGE = (
    r"(?i)\b(?:(\d{1,3})[ -]?(?:years?|yrs?)[ -](?:old|of age)|(\d{1,3})[ -]?(?:y/o|y\.o\.|yo)\b"
    r"|(?:(?:just|recently|has|have|i|he|she|i'll|he'll|she'll|soon) turn(?:ed|s|ing)?|i'll turn|turning|age of"
    r"|aged?:?|is aged"
    r"|i am|i'm|he is|she is|he's|she's|was) (\d{1,3})\b(?:[.,;!?)]|$| and\b| years old| but\b| now\b|\n)"
    r"|\b[A-Z](?:\pL|['’-])+ [A-Z](?:\pL|['’-])+, (\d{2}),)"
)
_AGED = re.compile(_AGE.replace(r"\pL", r"[^\W\d_]"))
_OF_THINGS = re.compile(
    r"(?i)\b(?:building|house|car|wine|whisky|bottle|tree|company|software|code|bug|system|laptop|version)\b"
)
_STREETS = frozenset(
    "Street St Road Rd Avenue Ave Lane Drive Square Court Place January February March April May June July August".split()
)
NAMED_AGE = 4
"""Group of "Ann Smith, 45," in the expression of ages."""


def anchors() -> tuple[Anchor, ...]:
    return (
        Anchor("date", DATE, _date),
        Anchor("birth_year", _YEAR, _birth_year, context=words("born", "birth", "geboren", "né", "née", "nacid*",
            "nat*", "nascid*")),
        Anchor("age", _AGE.replace(r"(\d", r"(?:\d"), _age),
    )  # fmt: skip


def _date(text: str, start: int, end: int) -> Iterator[Span]:
    if (start and text[start - 1] in "-/._") or text[end : end + 1] in ("-", "/", "_"):
        return
    lead = before(text, start)
    birth = _BIRTH.search(lead.rpartition("\n")[2] or lead) or _BIRTH.search(text[end : end + 24].partition("\n")[0])
    yield Span("DATE_TIME", start, end, BIRTH_SCORE if birth else DATE_SCORE)


def _birth_year(text: str, start: int, end: int) -> Iterator[Span]:
    yield Span("DATE_TIME", start, end, 0.5)


def _age(text: str, start: int, end: int) -> Iterator[Span]:
    """The number alone: a whole phrase with it gone would no longer read."""
    match = _AGED.match(text, start, end)
    group = next((number for number in (1, 2, 3, 4) if match and match[number]), 0)
    if text[end - 1] in ".," and text[end : end + 1].isdigit():
        return  # a decimal number
    if not match or not group or not 0 < int(match[group]) < 120:
        return
    if group == NAMED_AGE and (int(match[group]) < 14 or text[start:end].split(",")[0].split()[-1] in _STREETS):
        return
    thing = _OF_THINGS.search(text[end : end + 24])
    yield Span("AGE", *match.span(group), 0.3 if thing else AGE_SCORE)

"""Organisations whose name says so: a legal form, or a word that only organisations bear."""

from collections.abc import Iterator

from services.guardrails.findings import Span
from services.guardrails.scanners.pii.anchors import WORD_START, Anchor

ORGANISATION_SCORE = 0.5

_NAME = r"(?:\p{Lu}[\pL\pN&'’.-]*|\d{1,3}\pL+)"
_LINK = r"(?:&|and|und|et|y|e|of|the|de|for|von|van|der)"
_LEGAL_FORM = (
    r"(?:Inc|Incorporated|Ltd|Limited|LLC|L\.L\.C|LLP|PLC|plc|Corp|Corporation|Co|GmbH(?: & Co\.? KGa?A?)?|gGmbH|mbH"
    r"|AG|KG|KGaA|OHG|UG|SE|e\.V"
    r"|S\.?A\.?R\.?L|SARL|SAS|SASU|S\.?A|S\.?L\.?U?|S\.?p\.?A|S\.?r\.?l|B\.?V|N\.?V|A/S|ApS|AS|ASA|AB|Oy|Oyj|OÜ|SIA"
    r"|UAB|d\.o\.o|d\.d|s\.r\.o|a\.s"
    r"|Sp\. z o\.o|Kft|Zrt|Nyrt|Lda|Ltda|Pty Ltd|Pvt\.? Ltd|Pte\.? Ltd|Sdn\.? Bhd|K\.K|Co\., Ltd)"
)
_KIND_WORD = (
    r"(?:Corporation|Company|Technologies|Solutions|Industries|Holdings|Associates|Partners|Ventures|Consulting"
    r"|Logistics|Pharmaceuticals"
    r"|Enterprises|Laboratories|Semiconductors|Bancorp|Foundation|Group)"
)


def anchors() -> tuple[Anchor, ...]:
    name = rf"{_NAME}(?:,? (?:{_LINK} )?{_NAME}){{0,4}}"
    return (
        Anchor("legal_form", rf"{WORD_START}({name},? {_LEGAL_FORM})(?:[^\pL\pN]|$)", _organisation),
        Anchor("organisation_word", rf"{WORD_START}({name} {_KIND_WORD})(?:[^\pL\pN]|$)", _organisation),
        # Two names joined by a hyphen or "and" stand for a firm where something is said to come from it.
        Anchor(
            "firm",
            rf"(?i:works? (?:for|at)|working (?:for|at)|employed (?:by|at)|employee of|(?:is|am|was) from"
            rf"|on behalf of|recorded for)"
            rf" ({_NAME}, {_NAME} and {_NAME}|{_NAME}-{_NAME})",
            _organisation,
        ),
    )  # fmt: skip


# Sentences start with a capital too.
_OPENING = frozenset(
    "The A An My Our Your His Her Their This That At In For From With We I Is Was And But Or If When Dear Hi Hello".split()
)
# Legal forms that are also words or abbreviations: they need to stand after a name, not end a phrase in capitals.
_AMBIGUOUS_FORMS = frozenset({"AS", "SE", "AG", "AB", "SA", "Co", "SL", "NV", "BV", "KG", "UG"})


def _organisation(text: str, start: int, end: int) -> Iterator[Span]:
    words = text[start:end].split(" ")
    while len(words) > 1 and words[0] in _OPENING:
        start += len(words.pop(0)) + 1
    if len(words) < 2 and "-" not in words[0]:
        return
    shouted = text[start:end].isupper()
    if words[-1].strip(".,") in _AMBIGUOUS_FORMS and shouted:
        return
    yield Span("ORGANIZATION", start, end, ORGANISATION_SCORE)

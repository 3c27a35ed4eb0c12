"""Values that the text itself names: "passport no. ...", "driver's licence: ...", "account number is ...".

What has no check digit, or one that the scanner does not know, is found by its label alone.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.guardrails.findings import Span
from services.guardrails.scanners.pii.anchors import WORD_START, Anchor

_NUMBER = r"(?:[\s-]*(?:numbers?|num|no|nr|nos|id|#|code|№|n°|nummer|numéro|número|registration)\b\.?)?"
_JOIN = r"(?:\s*(?:\((?:\pL|[ .-]){1,24}\)\s*)?(?:is now|is|was|are|reads|ist|est|es|=|:|-|–|#)?\s*[:#]?\s*[\"'(]?)"
"""What stands between a label and its value: "is", a colon, a remark in brackets."""


@dataclass(frozen=True, slots=True)
class Label:
    """`words` (RE2) name what follows; `value` (RE2) is how it is written; it has at least `digits` digits."""

    kind: str
    words: str
    value: str
    digits: int
    score: float


LABELS: tuple[Label, ...] = (
    Label("US_DRIVER_LICENSE",
        r"driv(?:er|ing|ers|er'?s|er’s|ers')[ -]?(?:'s )?licen[cs]es?|\bdl|driver'?s permit|licen[cs]e number"
        r"|führerschein|permis de conduire",
          r"[A-Z0-9][A-Z0-9]*(?:[ -][A-Z0-9]{2,}){0,4}", 4, 0.75),
    Label("US_SSN", r"ssns?|social security|social sec(?:urity)?|soc sec", r"\d{3}[-. ]?\d{2}[-. ]?\d{4}", 9, 0.85),
    Label("PASSPORT", r"passport|reisepass|passeport|pasaporte|passaporto",
        r"[A-Z0-9]{1,3}[ -]?\d{5,9}[A-Z]?|[A-Z][A-Z0-9]{8}|\d{2}[A-Z]{2}\d{5}", 5, 0.75),
    Label("IBAN_CODE", r"iban", r"[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,4}){3,8}", 6, 0.6),
    Label("CREDIT_CARD", r"(?:credit|debit|payment|bank)[ -]?card|card",
        r"\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,7}|\d{4}[ -]?\d{6}[ -]?\d{4,5}", 12, 0.5),
    Label("CVV", r"cvv2?|cvc2?|security code|card verification(?: value| code)?", r"\d{3,4}", 3, 0.6),
    Label("US_BANK_NUMBER", r"(?:bank )?(?:account|acct|a/c)|kontonummer|compte|cuenta", r"\d[\d -]{5,17}\d", 6, 0.5),
    Label("UK_SORT_CODE", r"sort[ -]?code", r"\d{2}[- ]?\d{2}[- ]?\d{2}", 6, 0.6),
    Label("ABA_ROUTING_NUMBER", r"routing(?: transit)?|aba", r"\d{9}", 9, 0.6),
    Label("TAX_ID",
        r"tax(?:payer)?(?: identification| id(?:entity)?| file| reference)?|steuer(?:nummer|-id)|tin|itin|vat"
        r"|codice fiscale|nif|nie|dni",
          r"[A-Z]{0,3}[ -]?\d[\dA-Z]*(?:[ -./][\dA-Z]+){0,4}", 7, 0.5),
    Label("NATIONAL_ID",
        r"national (?:id|identity|identification|insurance)(?: card)?|identity card|id card|citizen id|personnummer"
        r"|personalausweis|aadhaar|nric|cnic|nin|nhs",
          r"[A-Z]{0,3}[ -]?\d[\dA-Z]*(?:[ -./][\dA-Z]+){0,4}", 5, 0.6),
    Label("MEDICAL_RECORD_NUMBER", r"mrn|medical record|patient(?: record)?|health record|hospital",
        r"[A-Z]{0,4}-?\d{5,12}", 5, 0.6),
    Label("HEALTH_INSURANCE_ID",
        r"(?:health )?insurance(?: member| policy| card)?|member|subscriber|medicare|medicaid|policy(?:holder)?",
          r"[A-Z]{1,5}[ -]?\d[\dA-Z-]{4,14}|\d{8,14}", 5, 0.5),
    Label("LICENSE_PLATE", r"licen[cs]e plate|number plate|registration plate|plate|vehicle registration|kennzeichen",
          r"[A-Z]{1,3}[ -]?[A-Z]{0,2}[ -]?\d{1,4}[ -]?[A-Z]{0,3}|\d{1,4}[ -]?[A-Z]{1,3}[ -]?\d{0,4}", 1, 0.5),
    Label("VEHICLE_ID", r"vin|vehicle identification|chassis", r"[A-HJ-NPR-Z0-9]{17}", 4, 0.85),
    Label("EMPLOYEE_ID", r"employee|staff|personnel|student|badge", r"[A-Z]{0,4}[-_]?\d{4,10}", 4, 0.45),
)  # fmt: skip
_NOT_A_VALUE = re.compile(r"(?i)(?:19|20)\d\d|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|\d{4}-\d\d-\d\d")
# "license" alone, and "member", "plate" and the like, are ordinary words: their number must be called one.
_NEED_NUMBER = frozenset({"HEALTH_INSURANCE_ID", "EMPLOYEE_ID", "MEDICAL_RECORD_NUMBER", "US_BANK_NUMBER", "TAX_ID"})


def anchors() -> tuple[Anchor, ...]:
    return tuple(_anchor(label) for label in LABELS)


def _anchor(label: Label) -> Anchor:
    number = _NUMBER.removesuffix("?") if label.kind in _NEED_NUMBER else _NUMBER
    expression = rf"(?i){WORD_START}(?:{label.words})(?:'s)?{number}{_JOIN}({label.value})(?:[^\pL\pN]|$)"
    return Anchor(f"labelled_{label.kind.lower()}", expression, _with_digits(label))


def _with_digits(label: Label) -> Callable[[str, int, int], Iterator[Span]]:
    def confirm(text: str, start: int, end: int) -> Iterator[Span]:
        value = text[start:end]
        while value and not value[-1].isalnum():
            value = value[:-1]
        # Words that a lax expression took along are not the value: it ends at its last group with a digit.
        groups = re.split(r"([ ])", value)
        while len(groups) > 1 and not any(map(str.isdigit, groups[-1])):
            groups.pop()
        value = "".join(groups).rstrip()
        if sum(map(str.isdigit, value)) >= label.digits and not _NOT_A_VALUE.fullmatch(value):
            yield Span(label.kind, start, start + len(value), label.score)

    return confirm

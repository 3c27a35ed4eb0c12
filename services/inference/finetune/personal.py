"""Personal data that a dataset must not teach: what guardrails mask is masked in it, corrections are as people typed them.

Pure. A check of a few kinds that can be told with near certainty, not a scanner: guardrails have that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.text.checksums import luhn

__all__ = ["personal_data"]

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}\b")
_PHONE = re.compile(r"(?<![\w+])\+[1-9](?:[ ()/.-]{0,2}\d){7,14}(?!\d)")
"""International form (ITU-T E.164: a plus and at most 15 digits); others look like any number."""
_CARD = re.compile(
    r"(?<!\d)(?=(\d{13,19}|\d{4}[ -]\d{6}[ -]\d{4,5}|\d{4}(?:[ -]\d{4}){2}[ -]\d{1,4}(?:[ -]\d{1,3})?)(?!\d))"
)
"""In one, or in the groups that are printed on it; from every group on, since another number may stand before it."""
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


def personal_data(texts: Iterable[str]) -> str | None:
    """Return what kind of personal data one of ``texts`` holds, the first that is found; None for none."""
    for text in texts:
        if "@" in text and _EMAIL.search(text):
            return "an e-mail address"
        if "+" in text and _PHONE.search(text):
            return "a telephone number"
        if any(_is_card(match.group(1)) for match in _CARD.finditer(text)):
            return "a payment card number"
        if any(_mod_97(match.group()) for match in _IBAN.finditer(text)):
            return "an IBAN"
    return None


def _is_card(number: str) -> bool:
    """Whether the check digit of a card number is right, and it is more than zeros. Digits may be those of any script."""
    digits = "".join(str(int(char)) for char in number if char.isdigit())
    return digits.strip("0") != "" and luhn(digits)


def _mod_97(iban: str) -> bool:
    """Whether the check digits of an IBAN are right (ISO 13616)."""
    plain = iban.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1

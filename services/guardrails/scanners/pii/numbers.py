"""Payment cards and telephone numbers: runs of digits, told apart by check digit, numbering plan, writing and context."""

import re
from collections.abc import Iterator

import phonenumbers

from services.guardrails.findings import Span
from services.guardrails.scanners.checksums import is_payment_card
from services.guardrails.scanners.pii.anchors import (
    CONTEXT_BOOST,
    Anchor,
    around,
    before,
    context_words,
)  # fmt: skip

PHONE_REGIONS = ("US", "GB", "DE", "FR", "IN", "CA", "BR", "IT", "ES", "CH")
"""Numbering plans tried for a number without a country code."""
PHONE_CONTEXT_AFTER = 24
WRITTEN_SO = 0.3
CALLED_A_NUMBER = 0.15
"""Added where the text says "number" of one that is grouped as phones are."""
PLAIN_DIGITS_REACH = 40
"""Characters over which a word still names a number that is written without any grouping."""

_CARD_WORDS = context_words(
    "card*", "credit", "debit", "visa", "mastercard", "amex", "american express", "maestro", "discover", "cc", "cvv",
    "cvc", "pan", "karte", "carte", "tarjeta", "kreditkarte",
)  # fmt: skip
_NOT_CARD = re.compile(
    r"(?i)(?<![^\W\d_])(?:imei|ean|isbn|gtin|upc|barcode|tracking|shipment|parcel|serial|iccid|order|invoice"
    r"|timestamp|epoch|ticket"
    r"|transaction|case|sku|part|checksum|article|item|product|reference|batch)(?:\W|number|num|nr|no|id|code|is|was)*$"
)
"""Names another kind of number, right before one that is not called a card."""
_PHONE_WORDS = context_words(
    "phone*", "call", "calls", "called", "calling", "tel", "telephone*", "telefon*", "téléphone", "teléfono",
    "mobile*", "cell*", "fax*",
    "contact*", "whatsapp", "dial*", "ring", "rang", "sms", "text me", "texted", "text", "reach*", "answer*", "handy",
    "voicemail", "hotline", "helpline", "landline", "extension", "ext", "desk", "office", "direct line", "home",
    "rufnummer", "mobil*", "my number", "your number", "his number", "her number", "their number", "our number",
    "new number", "old number", "number is", "numbers are", "registered", "messages to", "message to", "messages from",
    "signal", "viber", "telegram", "pager", "beeper", "toll free", "portable", "cellulare", "celular", "móvil",
    "at the number", "numéro", "nummer ist", "otp", "phoned", "texting", "switchboard", "tty", "direct dial", "line",
)  # fmt: skip
_NOT_PHONE_WORDS = context_words(
    "licen*", "social security", "ssn", "zip", "zip code", "postal", "postcode", "passport", "order", "invoice*",
    "serial",
    "ticket", "isbn", "issn", "ean", "upc", "gtin", "account*", "tracking", "reference", "case", "model", "version",
    "tax",
    "nhs", "insurance", "medicare", "part", "sku", "id", "imei", "vin", "iban", "routing", "claim", "policy", "batch",
    "lot", "booking", "confirmation", "coordinates", "latitude", "longitude", "population", "checksum", "hash", "port",
    "po", "purchase order", "call stack", "has", "counted", "build", "release", "bytes", "pixels", "rfc", "cve", "doi",
    "patent", "pesel", "bsn", "siren", "siret",
    "timestamp", "epoch", "row*", "primes", "digits", "sum", "sequence", "score*", "odds", "equals",
)  # fmt: skip
_NOT_PHONE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d+\.\d+|(?:\d{1,3}\.){3}\d{1,3}"
    r"|\d{1,2}/\d{1,2}/\d{2}"
    r"|\d{4}-\d{3}|(?:\d{1,3}\.){3}\d{1,3}/\d{1,2}|(?:1[5-9]|20)\d\d ?[-–/] ?(?:1[5-9]|20)\d\d|\d{1,3}(?:[ .]000)+"
    r"|97[89][- ]?(?:\d[- ]?){9}\d"
)
_SSN_SHAPE = re.compile(r"\d{3}([-. ])\d{2}\1\d{4}")
_PHONE = r"\+?\(?\d(?:[ ().\-/]{0,3}\d){6,18}(?:[ ]?(?:x|ext\.?) ?\d{1,5})?"
_GROUPS = re.compile(r"\d+")
_DATE_LEAD = re.compile(r"(?:19|20)\d\d[ ./-](?:0[1-9]|1[0-2])[ ./-][0-3]\d\b")
_GROUPED_LIKE_A_PHONE = re.compile(
    r"\(\d{2,5}\)[ .-]?\d|\+|0\d|\d{3}[-. ]\d{3}[-. ]\d{4}|1[-. ]\d{3}[-. ]\d{3}[-. ]\d{4}"
)
_NUMBER_WORD = context_words("number", "numbers", "no.")
_UNIT = re.compile(
    r"(?i)\s?(?:%|€|\$|£|usd|eur|gbp|kg|km|cm|mm|ml|mb|gb|kb|bytes|ms|sec|seconds|hz|rows|people|pieces|pcs)\b"
)


def anchors() -> tuple[Anchor, ...]:
    _load_numbering_plans()
    return (
        Anchor("card", r"\d(?:[ -]?\d){11,18}", _card),
        Anchor("phone", _PHONE, _phone, costly="PHONE_NUMBER", plausible=_may_be_phone),
    )


def _load_numbering_plans() -> None:
    """Now (50 ms), not at the first message with a number."""
    phonenumbers.PhoneMetadata.load_all()
    for region in PHONE_REGIONS:
        phonenumbers.is_valid_number(phonenumbers.parse("2025550123", region))


def _card(text: str, start: int, end: int) -> Iterator[Span]:
    """ISO/IEC 7812: a network's prefix and length, a right check digit, one way of grouping."""
    if not _stands_alone(text, start, end, "_.$€£-+"):
        return
    value = text[start:end]
    digits = value.replace(" ", "").replace("-", "")
    if ("-" in value and " " in value) or not is_payment_card(digits):
        return
    named = _CARD_WORDS.search(around(text, start, end)) is not None
    if not named and _NOT_CARD.search(before(text, start, 32)):
        yield Span("CREDIT_CARD", start, end, 0.3)
    elif not named and len(digits) in (12, 13, 14) and value.isdigit():
        yield Span("CREDIT_CARD", start, end, 0.45)  # one in ten product codes and timestamps has such a check digit
    else:
        yield Span("CREDIT_CARD", start, end, 1.0)


def _phone(text: str, start: int, end: int) -> Iterator[Span]:
    """A number whose shape, numbering plan, or the words around it say that it is dialled."""
    value = text[start:end]
    if value.count("(") != value.count(")"):
        opening = value.startswith("(") and ")" not in value
        if not opening:
            return
        start, value = start + 1, value[1:]
    lead = _clause(before(text, start))
    dialled, other = _last(_PHONE_WORDS, lead), _last(_NOT_PHONE_WORDS, lead)
    if other > dialled:
        return  # the nearer word names the number
    if dialled >= 0 and value.isdigit() and len(lead) - dialled > PLAIN_DIGITS_REACH:
        dialled = -1
    digits = "".join(char for char in value.split("x")[0].split("e")[0] if char.isdecimal())
    score = phone_score(value, digits)
    if score and (dialled >= 0 or _PHONE_WORDS.search(text[end : end + PHONE_CONTEXT_AFTER])):
        score = min(1.0, score + CONTEXT_BOOST)
    elif score >= WRITTEN_SO and not value.isdigit() and _last(_NUMBER_WORD, lead) >= 0:
        score += CALLED_A_NUMBER
    if score:
        yield Span("PHONE_NUMBER", start, end, score)


def _is_listed(text: str, start: int, value: str) -> bool:
    """Whether it is part of a list of numbers, or a round one."""
    if value.isdigit() and value.endswith("00000"):
        return True
    if value[0] not in "+(" and text[max(0, start - 2) : start - 1].isdigit() and text[start - 1 : start] == " ":
        return True
    groups = _GROUPS.findall(value)
    pairs = len(groups) > 2 and max(map(len, groups)) <= 2 and value[0] not in "+("
    return pairs and not (len(groups) == 4 or (len(groups) == 5 and value[0] == "0"))  # DK, NO; FR


def _last(pattern: re.Pattern[str], lead: str) -> int:
    """Where the last match starts, -1 without any."""
    return max((match.start() for match in pattern.finditer(lead)), default=-1)


def _may_be_phone(text: str, start: int, end: int) -> bool:
    """Whether it stands alone, and is no date, amount, network address or part of a list."""
    if not _stands_alone(text, start, end, "_.#$€£-*^"):
        return False
    value = text[start:end]
    other = (
        _NOT_PHONE.fullmatch(value) or _DATE_LEAD.match(value) or _SSN_SHAPE.fullmatch(value) or _UNIT.match(text, end)
    )
    return not other and not _is_listed(text, start, value)


def _clause(lead: str) -> str:
    """What stands before a find in the same line and sentence: another line's label says nothing of it."""
    line = lead.rpartition("\n")[2]
    return re.split(r"[.!?]\s", line)[-1] if line.strip() else lead[-24:]


def phone_score(value: str, digits: str) -> float:
    """0.75 where a numbering plan and the writing agree, 0.3 where only one of them does, 0.1 for any other run of 7 to
    20 digits.
    """
    if not 7 <= len(digits) <= 20:
        return 0.0
    international = value.startswith(("+", "(+")) or digits.startswith("00")
    # Two groups are as often a house number beside a post code; a leading 0 or three groups are how people write phone
    # numbers.
    groups = len(_GROUPS.findall(value))
    written_so = international or digits[0] == "0" or groups >= 3
    if not international and (len(digits) > 13 or groups > 6):
        return 0.0  # no national number is that long: a list of numbers
    dialled = "+" + digits.removeprefix("00") if international else value
    for region in (None,) if international else PHONE_REGIONS:
        try:
            number = phonenumbers.parse(dialled, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            dialled_so = written_so and (international or _GROUPED_LIKE_A_PHONE.match(value) is not None or groups >= 4)
            return 0.75 if dialled_so else 0.3
        if international and phonenumbers.is_possible_number(number):
            return 0.5
    if international:
        return 0.1
    return 0.3 if written_so or groups == 2 else 0.1


def _stands_alone(text: str, start: int, end: int, glue: str) -> bool:
    """Whether neither side goes on as part of a longer token."""
    if start and (text[start - 1].isalnum() or text[start - 1] in glue):
        return False
    return not (end < len(text) and (text[end].isalnum() or text[end] == "_"))

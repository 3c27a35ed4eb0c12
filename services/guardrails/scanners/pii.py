"""Personal data of known shape: Presidio's pattern recognizers and checksums, run only where a cheap anchor says they
may match.

One pass of a compiled RE2 set over the text tells which anchors occur (a clean text costs microseconds); each anchor's
spans are found in linear time, and only a window around a span is shown to Presidio's recognizers, whose backtracking
expressions would otherwise cost milliseconds, or seconds on a hostile text. No NLP engine is loaded: context words are
looked for in the text before a find, as Presidio's LemmaContextAwareEnhancer does with lemmas.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import phonenumbers
from presidio_analyzer import PatternRecognizer
from presidio_analyzer import predefined_recognizers as presidio
from tldextract import TLDExtract

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.checksums import is_payment_card
from services.guardrails.scanners.patterns import PatternSet, without_overlaps

CONTEXT_BEFORE = 56
"""Characters before a find in which a context word counts (Presidio: five words)."""
CONTEXT_AFTER = 16
CONTEXT_BOOST = 0.35
"""As Presidio's context_similarity_factor."""
WITHOUT_CONTEXT = 0.3
"""Highest score of an all-digits identifier without a context word: one in ten random numbers passes a single check
digit.
"""
URL_SCORE = 0.35
"""Below the default threshold: most addresses in prompts are public pages, and masking them breaks the question."""
WINDOW = 24
"""Characters shown to a recognizer on either side of an anchor."""
PHONE_REGIONS = ("US", "GB", "DE", "FR", "IN", "CA", "BR", "IT", "ES", "CH")

_PHONE_WORDS = (
    "phone",
    "call",
    "tel",
    "mobile",
    "cell",
    "fax",
    "contact",
    "whatsapp",
    "dial",
    "ring me",
    "sms",
    "text me",
    "reach",
    "answering",
    "registered",
    "number",
    "handy",
)
_NOT_PHONE_WORDS = (
    "licen", "security", "ssn", "zip", "postal", "passport", "order n", "order #", "order id", "invoice", "serial",
    "ticket", "isbn", "account", "tracking", "reference n", "case n", "model", "version", "tax",
    "nhs", "insurance", "medicare",
)  # fmt: skip
_NOT_PHONE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d+(?:\.\d+){1}|(?:\d{1,3}\.){3}\d{1,3}"
)
_SSN_SHAPE = re.compile(r"\d{3}([-. ])\d{2}\1\d{4}")
_GROUPS = re.compile(r"\d+")
_DATE_LEAD = re.compile(r"(?:19|20)\d\d[ ./-](?:0[1-9]|1[0-2])[ ./-][0-3]\d\b")


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where to look: an RE2 expression, and what confirms a find there. `confirm(text, start, end)` yields spans of
    `text`.
    """

    name: str
    expression: str
    confirm: Callable[[str, int, int], Iterable[Span]]


class PiiScanner:
    """Finds e-mail and network addresses, phone and card numbers, IBANs, URLs and national identifiers."""

    name = "pii"
    version = "1"
    default_threshold = 0.4

    def __init__(self) -> None:
        # An empty list of addresses keeps tldextract off the network: its bundled snapshot of the public suffix list is
        # used.
        self._suffixes = TLDExtract(suffix_list_urls=(), cache_dir=None)
        self._suffixes("example.org")  # reads the snapshot now, not at the first message
        us_ids = (presidio.UsSsnRecognizer(), presidio.UsItinRecognizer(), presidio.UsPassportRecognizer())
        # The card, e-mail and phone rules here replace Presidio's: more card networks, no network access, no scan per
        # region.
        by_anchor: dict[str, tuple[str, Sequence[PatternRecognizer]]] = {
            "iban": (r"(?i)\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,4}){3,9}", (presidio.IbanRecognizer(),)),
            "ipv4": (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", (presidio.IpRecognizer(),)),
            "ipv6": (r"[0-9A-Fa-f]{0,4}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{1,4}", (presidio.IpRecognizer(),)),
            "mac": (
                r"(?i)(?:[0-9A-F]{2}[:-]){5}[0-9A-F]{2}|(?:[0-9A-F]{4}\.){2}[0-9A-F]{4}",
                (presidio.MacAddressRecognizer(),),
            ),
            "crypto": (r"\b(?:bc1|[13])[a-zA-HJ-NP-Z0-9]{25,59}\b", (presidio.CryptoRecognizer(),)),
            "ssn": (r"\b\d{3}[-. ]?\d{2}[-. ]?\d{4}\b", us_ids),
            "uk_nhs": (r"\b\d{3}[ -]?\d{3}[ -]?\d{4}\b", (presidio.NhsRecognizer(),)),
            "digits_9": (r"\b\d{3}[ -]?\d{3}[ -]?\d{3}\b", (presidio.AuTfnRecognizer(), presidio.CaSinRecognizer())),
            "digits_11": (r"\b\d{2}(?:[ -]?\d{3}){3}\b", (presidio.PlPeselRecognizer(), presidio.DeTaxIdRecognizer())),
            "in_aadhaar": (r"\b\d{4}[ :-]?\d{4}[ :-]?\d{4}\b", (presidio.InAadhaarRecognizer(),)),
            "au_medicare": (r"\b[2-6]\d{3} ?\d{5} ?\d\b", (presidio.AuMedicareRecognizer(),)),
            "se_personnummer": (r"\b(?:\d{2})?\d{6}[-+]?\d{4}\b", (presidio.SePersonnummerRecognizer(),)),
            "fi_hetu": (r"\b\d{6}[-+A-FU-Y]\d{3}[0-9A-Z]\b", (presidio.FiPersonalIdentityCodeRecognizer(),)),
            "uk_nino": (r"(?i)\b[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", (presidio.UkNinoRecognizer(),)),
            "es_dni": (r"(?i)\b(?:[XYZ]-?)?\d{7,8}-?[A-Z]\b", (presidio.EsNifRecognizer(), presidio.EsNieRecognizer())),
            "it_fiscal_code": (
                r"(?i)\b[A-Z]{6}[0-9L-V]{2}(?:[A-Z][0-9L-V]{2}){2}[0-9L-V][A-Z]\b",
                (presidio.ItFiscalCodeRecognizer(),),
            ),
            "sg_fin": (r"(?i)\b[STFGM]\d{7}[A-Z]\b", (presidio.SgFinRecognizer(),)),
            "in_pan": (r"(?i)\b[A-Z]{5}\d{4}[A-Z]\b", (presidio.InPanRecognizer(),)),
            "us_licence": (r"(?i)\b[A-Z]\d{7,14}\b", (presidio.UsLicenseRecognizer(), presidio.UsPassportRecognizer())),
        }  # fmt: skip
        self._anchors = [
            Anchor("email", r"[^\s@<>()\[\]\",;:]{1,64}@[^\s@<>()\[\]\",;:]{3,255}", self._email),
            Anchor("url", r"(?i)\b(?:https?://|ftp://|www\.)[^\s<>\"'`)\]}]{3,}", self._url),
            Anchor("number", r"\+?\(?\d(?:[ ().\-/]{0,3}\d){6,18}(?:[ ]?(?:x|ext\.?) ?\d{1,5})?", self._number),
            *(Anchor(name, expression, _presidio(group)) for name, (expression, group) in by_anchor.items()),
        ]
        self._patterns = PatternSet(anchor.expression for anchor in self._anchors)

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        found = [
            span
            for index, start, end in self._patterns.matches(text)
            for span in self._anchors[index].confirm(text, start, end)
        ]
        kinds = rule.kinds
        return without_overlaps(span for span in found if kinds is None or span.kind in kinds)

    def _email(self, text: str, start: int, end: int) -> Iterator[Span]:
        while end > start and not text[end - 1].isalnum():
            end -= 1
        while start < end and text[start] in ".'`*_-/=":
            start += 1
        local, _, domain = text[start:end].rpartition("@")
        if local and "." in domain and self._suffixes(domain).suffix:
            yield Span("EMAIL_ADDRESS", start, end, 1.0)

    def _url(self, text: str, start: int, end: int) -> Iterator[Span]:
        while end > start and text[end - 1] in ".,;:!?":
            end -= 1
        yield Span("URL", start, end, URL_SCORE)

    def _number(self, text: str, start: int, end: int) -> Iterator[Span]:
        """A card if the digits say so, else a phone number if its shape, a numbering plan or the words before it say
        so.
        """
        if (start and (text[start - 1].isalnum() or text[start - 1] in "_.#$€£-")) or (
            end < len(text) and (text[end].isalnum() or text[end] == "_")
        ):
            return
        value = text[start:end]
        digits = "".join(char for char in value if char.isascii() and char.isdigit())
        separators = {char for char in value if not char.isalnum()}
        if 12 <= len(digits) <= 19 and separators <= {" ", "-"} and len(separators) <= 1 and is_payment_card(digits):
            yield Span("CREDIT_CARD", start, end, 1.0)
            return
        if _NOT_PHONE.fullmatch(value) or _DATE_LEAD.match(value):
            return
        if _SSN_SHAPE.fullmatch(value) or _has_context(text, start, end, _NOT_PHONE_WORDS):
            return
        score = self._phone_score(value, digits)
        if score and _has_context(text, start, end, _PHONE_WORDS):
            score = min(1.0, score + CONTEXT_BOOST)
        if score:
            yield Span("PHONE_NUMBER", start, end, score)

    def _phone_score(self, value: str, digits: str) -> float:
        """0.75 where a numbering plan and the writing agree, 0.3 where only one of them does, 0.1 for any other run of
        7 to 20 digits.
        """
        if not 7 <= len(digits) <= 20:
            return 0.0
        international = value.startswith("+") or digits.startswith("00")
        # Two groups are as often a house number beside a post code; a leading 0 or three groups are how people write
        # phone numbers.
        written_so = international or digits[0] == "0" or len(_GROUPS.findall(value)) >= 3
        dialled = "+" + digits.removeprefix("00") if international and not value.startswith("+") else value
        for region in (None,) if international else PHONE_REGIONS:
            try:
                number = phonenumbers.parse(dialled, region)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number):
                return 0.75 if written_so else 0.3
            if international and phonenumbers.is_possible_number(number):
                return 0.5
        if international:
            return 0.1
        return 0.3 if written_so or len(_GROUPS.findall(value)) == 2 else 0.1


def _presidio(recognizers: Sequence[PatternRecognizer]) -> Callable[[str, int, int], Iterator[Span]]:
    """Confirm an anchor by the recognizers, each shown the anchor and a little text around it."""

    def confirm(text: str, start: int, end: int) -> Iterator[Span]:
        left, right = max(0, start - WINDOW), min(len(text), end + WINDOW)
        window = text[left:right]
        for recognizer in recognizers:
            for result in recognizer.analyze(window, recognizer.supported_entities):
                first, last = left + result.start, left + result.end
                if last <= start or first >= end:
                    continue
                score = float(result.score)
                if _has_context(text, first, last, tuple(recognizer.context or ())):
                    score = min(1.0, max(score + CONTEXT_BOOST, 0.4))
                elif result.entity_type != "IP_ADDRESS" and not any(map(str.isalpha, text[first:last])):
                    score = min(score, WITHOUT_CONTEXT if result.entity_type != "US_SSN" else score)
                yield Span(str(result.entity_type), first, last, score)

    return confirm


def _has_context(text: str, start: int, end: int, words: tuple[str, ...]) -> bool:
    around = (text[max(0, start - CONTEXT_BEFORE) : start] + " | " + text[end : end + CONTEXT_AFTER]).lower()
    return any(word in around for word in words)

"""Keys and credentials: formats that their issuers document, and assignments of a value that looks random to a telling
name.
"""

import base64
import binascii
import math
import re
from collections import Counter

from penstock.text.patterns import PatternSet

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.patterns import without_overlaps
from services.guardrails.scanners.secret_formats import ASSIGNMENT, FLAG, GENERIC, ISSUED, NAMED_ISSUERS, SPACED

MIN_ENTROPY = 3.0
"""Bits per character from which the value of an assignment counts as random (Shannon); English words stay below at such
lengths.
"""
MIN_ISSUED_ENTROPY = 2.2
"""Bits per character that the body of an issued key has; repeated letters and runs of zeros stay below."""
_CHANCE_ENTROPY = 3.1
"""Bits per character from which a short word in a value with digits may be there by chance."""
PLACEHOLDER_SCORE = 0.3
CHECKPOINT_EVERY = 64

_PLACEHOLDER = re.compile(
    r"(?i)example|\*\*\*|changeme|change[-_]me|placeholder|dummy|redacted|insert|replace|sample|notreal|not[-_]?a[-_]?real"
    r"|\.\.\.|…|<[a-z_ -]+>|(.)\1{7}"
)
# Four letters come up by chance in one random key of some ten thousand.
_SHORT_PLACEHOLDER = re.compile(r"(?i)your|fake|todo|xxxx")
_SHORT_WORD = re.compile(r"(?i)(?:^|[^a-z0-9])(?:your|fake|todo|x{4,})(?:[^a-z0-9]|$)")
_REFERENCE = re.compile(
    r"(?i)\$\{|\$\(|\{\{|%\(|environ|getenv|process\.env|config\.|settings\.|self\.|secrets?\.|vault:|os\.|\bargs\.|params\.|null$|none$|undefined$|true$|false$"
    r"|^[a-z_]+\.[a-z_.]+$|^[a-z_]\w*\[|^\$\w+$|^%\w+%$|^@\w+$"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_IDENTIFIER = re.compile(r"(?i)id\W*$")
_WORDY = re.compile(r"[a-z]+(?:[-_.][a-z]+)*\d{0,2}", re.IGNORECASE)
_WORDS = ("pass", "secret", "key", "token", "pw", "user", "changeit")

_ISSUED_END = len(ISSUED)
_GENERIC_END = _ISSUED_END + len(GENERIC)
_SPACED = _GENERIC_END + 1


class SecretsScanner:
    """Finds credentials. The generic assignment counts only where the value looks random, or like a password."""

    name = "secrets"
    version = "3"
    default_threshold = 0.5

    def __init__(self) -> None:
        self._kinds = [(kind, score) for kind, score, _ in (*ISSUED, *GENERIC)]
        # Two sets: the loose shapes would multiply the states of the exact ones.
        self._issued = PatternSet((expression for _, _, expression in ISSUED), first_group=True)
        self._loose = PatternSet(
            [*(expression for _, _, expression in GENERIC), NAMED_ISSUERS, SPACED, FLAG, ASSIGNMENT], first_group=True
        )

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        found = []
        matches = [*self._issued.matches(text)]
        matches += [(_ISSUED_END + index, start, end) for index, start, end in self._loose.matches(text)]
        for seen, (index, start, end) in enumerate(matches, start=1):
            if not seen % CHECKPOINT_EVERY:
                reference.checkpoint()
            value = text[start:end]
            kind, score = self._kinds[index] if index < _GENERIC_END else ("CREDENTIAL", 0.0)
            if index < _ISSUED_END:
                score = PLACEHOLDER_SCORE if is_placeholder(kind, value) else score
            elif index < _GENERIC_END:
                score *= generic_share(kind, value)
            elif index <= _SPACED:
                score = 0.75 if looks_random(value) else 0.0
            else:
                end, score = assigned(text, start, end)
            if score > 0:
                found.append(Span(kind, start, end, score))
        return without_overlaps(found)


def is_placeholder(kind: str, value: str) -> bool:
    """Whether a value of an issued shape is an example, or words: `AKIA...EXAMPLE`, `sk-learn-...`."""
    if _is_example(value) or entropy(value) < MIN_ISSUED_ENTROPY:
        return True
    return kind == "OPENAI_API_KEY" and not any(map(str.isdigit, value))


def _is_example(value: str) -> bool:
    """Whether words of ``value`` say that it stands for another."""
    if _PLACEHOLDER.search(value):
        return True
    if not _SHORT_PLACEHOLDER.search(value):
        return False
    return _SHORT_WORD.search(value) is not None or not (
        any(map(str.isdigit, value)) and entropy(value) >= _CHANCE_ENTROPY
    )


def generic_share(kind: str, value: str) -> float:
    """What is left of the score of a loose shape: 0 where it is no credential, less where it is an example."""
    if kind == "PRIVATE_KEY":
        return 1.0
    if kind == "BASIC_AUTH":
        if ":" in value:
            return PLACEHOLDER_SCORE if _is_example(value) or _REFERENCE.search(value) else 1.0
        return 1.0 if _is_basic(value) else 0.0
    if _is_example(value) or _REFERENCE.search(value):
        return PLACEHOLDER_SCORE
    if kind == "URL_CREDENTIALS":
        wordy = not any(map(str.isdigit, value)) and any(word in value.lower() for word in _WORDS)
        if len(value) >= 20 and value.isalpha() and value.islower():
            wordy = True
        return PLACEHOLDER_SCORE if wordy else 1.0
    if kind == "BEARER_TOKEN":
        return 1.0 if looks_random(value) else 0.0
    return 1.0


def _is_basic(value: str) -> bool:
    """Whether base64 gives `user:password` in plain characters (RFC 7617)."""
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return False
    return ":" in decoded and decoded.isprintable()


def looks_random(value: str) -> bool:
    """Letters and digits mixed, with high entropy, and neither a placeholder nor a reference to a value elsewhere."""
    if _is_example(value) or _REFERENCE.search(value) or _UUID.fullmatch(value):
        return False
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and entropy(value) >= MIN_ENTROPY


def assigned(text: str, start: int, end: int) -> tuple[int, float]:
    """(end, score) of a value that is assigned to a telling name: without the punctuation of the sentence around it."""
    while end > start and text[end - 1] in ".!?:*":
        end -= 1
    value = text[start:end]
    if len(value) < 6 or _is_example(value) or _REFERENCE.search(value) or text[end : end + 1] in ("(", "["):
        return end, 0.0
    if _UUID.fullmatch(value):
        return end, 0.0 if _IDENTIFIER.search(text, max(0, start - 16), start) else 0.55
    digits = any(map(str.isdigit, value))
    letters = any(map(str.isalpha, value))
    symbols = any(not char.isalnum() and char not in "-_./" for char in value)
    cases = any(map(str.islower, value)) and any(map(str.isupper, value))
    if not letters or _WORDY.fullmatch(value) or value.startswith(("/", "http", "./", "~")):
        return end, 0.55 if digits and letters and len(value) >= 8 and cases and _long_tail(value) else 0.0
    if not digits:
        return end, 0.55 if symbols and cases and len(value) >= 8 else 0.0
    bits = entropy(value)
    if len(value) < 8:
        return end, 0.55 if symbols or cases else 0.0
    return end, 0.75 if bits >= MIN_ENTROPY else 0.55 if bits >= MIN_ENTROPY - 0.5 else 0.0


def _long_tail(value: str) -> bool:
    """Whether the digits are more than a version or a counter: `Winter2024`, not `TokenType2`."""
    return len(value) - len(value.rstrip("0123456789")) >= 2


def entropy(value: str) -> float:
    """Shannon entropy of the characters, bits per character; 0 for the empty text."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())

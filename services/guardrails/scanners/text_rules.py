"""The plain scanners: banned words, the policy's own expressions, invisible text."""

import re
import unicodedata
from functools import lru_cache

from penstock.text.normalise import canonical
from penstock.text.patterns import PatternSet

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.patterns import without_overlaps

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u3164\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]+"
)
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TAGS = re.compile("[\U000e0000-\U000e007f]")


@lru_cache(maxsize=256)
def _compiled(expressions: tuple[str, ...], first_group: bool = False) -> PatternSet:
    """Compiled once per policy, not per text; the key is the policy's own tuple."""
    return PatternSet(expressions, first_group)


class BannedWordsScanner:
    """Finds the policy's words and phrases as whole words, case, accents and look-alike letters aside."""

    name = "banned_words"
    version = "1"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if not rule.words:
            return []
        patterns = _compiled(tuple(_as_word(word) for word in rule.words), first_group=True)
        folded = canonical(text)
        # Folding may change lengths (ligatures, removed marks); then the places are unknown and the find covers the
        # text.
        aligned = len(folded) == len(text)
        found = [
            Span("BANNED_WORD", start, end, 1.0) if aligned else Span("BANNED_WORD", 0, len(text), 1.0)
            for _, start, end in patterns.matches(folded)
        ]
        return without_overlaps(found)


def _as_word(word: str) -> str:
    """An RE2 expression for a phrase as whole words; any white space fits a space of the phrase."""
    parts = [re.escape(part) for part in canonical(word).split()]
    return r"(?:^|[^\pL\pN_])(" + r"\s+".join(parts) + r")(?:[^\pL\pN_]|$)"


class RegexScanner:
    """Finds the policy's own RE2 expressions: linear in the text, whatever the expression."""

    name = "regex"
    version = "1"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        return without_overlaps(
            Span("REGEX", start, end, 1.0) for _, start, end in _compiled(rule.patterns).matches(text)
        )


class InvisibleTextScanner:
    """Finds zero-width, bidirectional-override and tag characters, which carry text that a person does not see.

    A single joiner inside an emoji or a word of a script that needs one (Arabic, Indic) is ordinary writing and scores
    0.
    """

    name = "invisible_text"
    version = "1"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if text.isascii():
            return []
        found = []
        for number, match in enumerate(_INVISIBLE.finditer(text)):
            if number % 1_000 == 0:
                reference.checkpoint()
            run, start, end = match.group(), match.start(), match.end()
            if _TAGS.search(run):
                if _is_flag(text, start):
                    continue
                found.append(Span("TAG_CHARACTERS", start, end, 1.0))
            elif _OVERRIDES.search(run):
                found.append(Span("BIDI_CONTROL", start, end, 0.9))
            elif not _is_ordinary(text, start, end, run):
                found.append(Span("INVISIBLE_CHARACTERS", start, end, 0.6 if len(run) < 3 else 0.9))
        return found


def _is_flag(text: str, start: int) -> bool:
    """Tag characters after a black flag spell the flag of a region (Unicode UTS #51)."""
    return start > 0 and text[start - 1] == "\U0001f3f4"


def _is_ordinary(text: str, start: int, end: int, run: str) -> bool:
    if len(run) > 2:
        return False
    if run == "\u00ad" or (start == 0 and run == "\ufeff"):
        return True
    before = text[start - 1] if start else ""
    after = text[end] if end < len(text) else ""
    emoji = any(
        (char and unicodedata.category(char) in ("So", "Sk", "Mn", "Me")) or "\ufe00" <= char <= "\ufe0f"
        for char in (before, after)
        if char
    )
    complex_script = any(char and "\u0590" <= char <= "\u109f" for char in (before, after))
    return emoji or complex_script

"""Texts that a text carries encoded, as an attacker hides instructions from whoever reads the bytes.

`decoded_variants` yields them: base64, base32, hexadecimal, binary and decimal character codes, Morse, percent
encoding, quoted-printable, HTML entities, backslash escapes, and bytes smuggled in invisible characters (tags,
variation selectors, zero-width bits); encodings inside encodings up to `MAX_DEPTH`. Every step is linear in the length
of the text and capped.
"""

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from urllib.parse import unquote

from penstock.text.normalise import canonical

MAX_DEPTH = 3
"""Encodings inside encodings are followed this deep."""
MAX_RUNS = 16
"""Encoded runs of one kind that are judged per text."""
MAX_TRIED = 1000
"""Runs of one kind that are tried at all."""
MAX_DECODED = 8192
"""Characters kept of one decoded run: bounds the work that nested encodings can cause."""
MAX_VARIANTS = 64
"""Readings of one text in all, over all kinds and depths."""

_TAGS = re.compile("[\U000e0020-\U000e007e]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_ZERO_WIDTH = re.compile("[\u200b-\u200d\u2060-\u2064\ufeff]{24,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_BASE32 = re.compile(r"[A-Z2-7]{24,}={0,6}")
_HEX = re.compile(r"(?:0x)?(?:[0-9a-fA-F]{2}[ :,]?(?:0x)?){12,}")
_BINARY = re.compile(r"[01]{7,8}(?:[ ,\n]{0,2}[01]{7,8}){4,}")
_DECIMAL = re.compile(r"\d{2,3}(?:[ ,;\n]{1,2}\d{2,3}){7,}")
_MORSE = re.compile(r"[.\-·•−–—]{1,6}(?:[ /|]{1,4}[.\-·•−–—]{1,6}){7,}")
_HEX_DIGITS = re.compile("[^0-9a-fA-F]")
_NUMBER = re.compile(r"\d+")
_MORSE_GAP = re.compile(r" {0,3}[/|] {0,3}| {3,4}")
_MORSE_SIGNS = str.maketrans("·•−–—", "..---")
_MORSE_LETTERS = {
    ".-": "a", "-...": "b", "-.-.": "c", "-..": "d", ".": "e", "..-.": "f", "--.": "g", "....": "h", "..": "i",
    ".---": "j", "-.-": "k", ".-..": "l", "--": "m", "-.": "n", "---": "o", ".--.": "p", "--.-": "q", ".-.": "r",
    "...": "s", "-": "t", "..-": "u", "...-": "v", ".--": "w", "-..-": "x", "-.--": "y", "--..": "z",
    "-----": "0", ".----": "1", "..---": "2", "...--": "3", "....-": "4", ".....": "5", "-....": "6", "--...": "7",
    "---..": "8", "----.": "9", ".-.-.-": ".", "--..--": ",", "..--..": "?", "-.-.--": "!", ".----.": "'",
    "-..-.": "/", "---...": ":",
}  # fmt: skip
"""International Morse code (ITU-R M.1677-1)."""

_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_QUOTED = re.compile(r"=[0-9A-F]{2}")
_ENTITY = re.compile(r"&#(?:\d{1,7}|[xX][0-9a-fA-F]{1,6});?")
_ESCAPE = re.compile(r"\\u\{([0-9a-fA-F]{1,6})\}|(?:\\u|U\+)([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\([0-7]{3})")
_QUOTED_RUN = re.compile(r"(?:=[0-9A-F]{2})+")


@dataclass(frozen=True, slots=True)
class Variant:
    """One hidden reading: `text` is canonical, `trick` names the encoding, `start` and `end` are code points of the
    source text.
    """

    text: str
    trick: str
    start: int
    end: int


def decoded_variants(text: str) -> Iterator[Variant]:
    """The texts that `text` carries encoded: at most `MAX_RUNS` runs of each kind, `MAX_DEPTH` levels deep,
    `MAX_VARIANTS` in all.
    """
    return islice(_variants(text, 0), MAX_VARIANTS)


def _variants(text: str, depth: int) -> Iterator[Variant]:
    for decoded, trick, start, end in _decoded_runs(text):
        yield Variant(canonical(decoded), trick, start, end)
        if depth + 1 < MAX_DEPTH:
            for inner in _variants(decoded, depth + 1):
                yield Variant(inner.text, f"{trick}+{inner.trick}", start, end)


def _decoded_runs(text: str) -> Iterator[tuple[str, str, int, int]]:
    """(decoded, trick, start, end) of every run that decodes to prose."""
    if not text.isascii():
        yield from _smuggled(text)
    for mark, marker, minimum, trick, decode in _ESCAPES:
        if mark in text:
            yield from _unescaped(text, marker, minimum, trick, decode)
    for pattern, trick, decode_run in _RUNS:
        found = 0
        for match in islice(pattern.finditer(text), MAX_TRIED):
            decoded = decode_run(match.group()[: 8 * MAX_DECODED])
            if decoded is not None and is_prose(decoded):
                yield decoded[:MAX_DECODED], trick, *match.span()
                found += 1
                if found == MAX_RUNS:
                    break


def _smuggled(text: str) -> Iterator[tuple[str, str, int, int]]:
    """Texts in characters that nobody sees."""
    tags = list(islice(_TAGS.finditer(text), MAX_DECODED))
    if len(tags) >= 4:
        hidden = "".join(chr(ord(tag.group()) - 0xE0000) for tag in tags)
        yield hidden, "tag-characters", tags[0].start(), tags[-1].end()
    for match in islice(_SELECTORS.finditer(text), MAX_RUNS):
        # Variation selectors 1 to 16 and 17 to 256 as bytes 0 to 255.
        codes = (ord(char) for char in match.group()[:MAX_DECODED])
        hidden = bytes(code - 0xFE00 if code < 0xE0000 else code - 0xE0100 + 16 for code in codes).decode(
            "utf-8", "ignore"
        )
        if is_prose(hidden):
            yield hidden, "variation-selectors", *match.span()
    for match in islice(_ZERO_WIDTH.finditer(text), MAX_RUNS):
        signs = sorted(set(match.group()))
        if len(signs) == 2:
            for zero, one in (signs, signs[::-1]):
                bits = match.group()[: 8 * MAX_DECODED].translate({ord(zero): "0", ord(one): "1"})
                decoded = _from_binary(bits)
                if decoded is not None and is_prose(decoded):
                    yield decoded, "zero-width-bits", *match.span()


def _unescaped(
    text: str, marker: re.Pattern[str], minimum: int, trick: str, decode: Callable[[str], str]
) -> Iterator[tuple[str, str, int, int]]:
    """The stretch from the first escape to the last, with a word on either side, where there are `minimum` escapes."""
    marks = list(islice(marker.finditer(text), MAX_DECODED))
    if len(marks) < minimum:
        return
    start = max(0, marks[0].start() - 40)
    end = min(len(text), marks[-1].end() + 40, start + 8 * MAX_DECODED)
    decoded = decode(text[start:end])
    if is_prose(decoded):
        yield decoded[:MAX_DECODED], trick, start, end


def _from_percent(run: str) -> str:
    return unquote(run.replace("+", " "), errors="ignore")


def _from_quoted(run: str) -> str:
    return _QUOTED_RUN.sub(lambda m: bytes.fromhex(m.group().replace("=", "")).decode("utf-8", "ignore"), run)


def _from_escapes(run: str) -> str:
    def character(match: re.Match[str]) -> str:
        braced, short, byte, octal = match.groups()
        code = int(octal, 8) if octal else int(braced or short or byte, 16)
        return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else ""

    return _ESCAPE.sub(character, run)


def _from_base64(run: str) -> str | None:
    body = run.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    if len(body) % 4 == 1:
        body = body[:-1]
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4)).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def _from_base32(run: str) -> str | None:
    body = run.rstrip("=")
    try:
        return base64.b32decode(body + "=" * (-len(body) % 8)).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def _from_hex(run: str) -> str | None:
    digits = _HEX_DIGITS.sub("", run.replace("0x", ""))
    try:
        return bytes.fromhex(digits[: len(digits) & ~1]).decode("utf-8")
    except (ValueError, UnicodeDecodeError):
        return None


def _from_binary(run: str) -> str | None:
    groups = run.replace(",", " ").split()
    if len(groups) == 1:
        groups = [run[i : i + 8] for i in range(0, len(run) - 7, 8)]
    try:
        return bytes(int(group, 2) for group in groups).decode("utf-8")
    except (ValueError, UnicodeDecodeError):
        return None


def _from_decimal(run: str) -> str | None:
    codes = [int(number) for number in _NUMBER.findall(run)]
    return "".join(map(chr, codes)) if all(32 <= code < 127 or code == 10 for code in codes) else None


def _from_morse(run: str) -> str | None:
    words = _MORSE_GAP.split(run.translate(_MORSE_SIGNS))
    letters = [[_MORSE_LETTERS.get(sign, "") for sign in word.split()] for word in words]
    signs = [letter for word in letters for letter in word]
    if not signs or signs.count("") > len(signs) // 10 or len(set(signs)) < 5:
        return None
    return " ".join("".join(word) for word in letters)


_ESCAPES: tuple[tuple[str, re.Pattern[str], int, str, Callable[[str], str]], ...] = (
    ("%", _PERCENT, 3, "percent", _from_percent),
    ("=", _QUOTED, 6, "quoted-printable", _from_quoted),
    ("&#", _ENTITY, 3, "entities", html.unescape),
    ("\\", _ESCAPE, 4, "escapes", _from_escapes),
    ("U+", _ESCAPE, 4, "escapes", _from_escapes),
)
_RUNS: tuple[tuple[re.Pattern[str], str, Callable[[str], str | None]], ...] = (
    (_BASE64, "base64", _from_base64),
    (_BASE32, "base32", _from_base32),
    (_HEX, "hex", _from_hex),
    (_BINARY, "binary", _from_binary),
    (_DECIMAL, "decimal", _from_decimal),
    (_MORSE, "morse", _from_morse),
)


def is_prose(text: str) -> bool:
    """Whether a decoded run reads as text: printable, and mostly letters and spaces."""
    if len(text) < 6:
        return False
    letters = sum(char.isalpha() or char == " " for char in text)
    return letters >= 0.7 * len(text) and all(char.isprintable() or char in "\n\r\t" for char in text)

"""Undo what an attacker does to a text so that a reader of bytes misses what a reader of glyphs sees.

`canonical` folds a text to one lower-case form: NFKC, invisible and bidirectional characters removed, combining marks
stacked on Latin letters dropped, look-alike letters of other scripts folded to Latin (Unicode UTS #39 "confusables",
the subset that renders alike in common fonts). `decoded_variants` yields the texts that it carries: ASCII smuggled in
Unicode tag characters, base64, hexadecimal and percent encoding. `rewritten` reads letters set apart and leetspeak. All
are linear in the length of the text and capped.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from urllib.parse import unquote

MAX_DEPTH = 3
"""Encodings inside encodings are followed this deep."""
MAX_RUNS = 16
"""Encoded runs of one kind that are judged per text."""
MAX_TRIED = 1000
"""Runs of one kind that are tried at all."""
MAX_DECODED = 8192
"""Characters kept of one decoded run: bounds the work that nested encodings can cause."""

# Letters of other scripts that render like a Latin letter: Cyrillic, Armenian, Greek.
_FOREIGN = (
    "аa бb вb сc ԁd еe ёe ғf ԍg һh нh іi їi ӏl јj кk мm ոn пn оo рp ԛq гr ѕs тt υu цu ѵv ԝw шw хx уy үy ѡw "
    "αa βb εe ηn ιi κk νv οo ρp τt χx γy ωw σo հh օo ցg սu զq"
)
# Letters of the Latin script beside a to z: small capitals, phonetic and turned letters, letters with a stroke.
_LATIN_VARIANTS = (
    "ɑa ɡg ɩi ʟl ᴀa ʙb ᴄc ᴅd ᴇe ꜰf ɢg ʜh ɪi ᴊj ᴋk ᴌl ᴍm ɴn ᴏo ᴘp ʀr ꜱs ᴛt ᴜu ᴠv ᴡw ʏy ᴢz "
    "ɐa ǝe ɟf ɯm ɹr ʇt ʌv ʍw ʎy ƒf łl øo đd ħh ŧt ʐz ıi"
)
_FOLD = {ord(pair[0]): pair[1] for pair in _FOREIGN.split()}
_FOLD_LATIN = {ord(pair[0]): pair[1] for pair in _LATIN_VARIANTS.split()}
_CIRCLED = {0x1F130 + i: chr(97 + i) for i in range(26)} | {0x1F150 + i: chr(97 + i) for i in range(26)}
_CIRCLED |= {0x1F170 + i: chr(97 + i) for i in range(26)} | {0x1F1E6 + i: chr(97 + i) for i in range(26)}
# Typographic signs as the keyboard has them: most prose beyond ASCII holds no more than these.
_TYPOGRAPHY = str.maketrans("‘’‚‛′“”„‟″–—−‐‑…•\u00a0\u2009\u202f", "'''''\"\"\"\"\"-----.*   ")
_LATIN = re.compile("[a-z]")

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_TAGS = re.compile("[\U000e0020-\U000e007e]+")
_WORD = re.compile(r"\w+")

_LEET = str.maketrans("013457@$!|8", "oieastasilb")
_LEET_WORD = re.compile(r"(?<![\w@$!|])(?=[\w@$!|]*[a-z])(?=[\w@$!|]*[013457@$!|8])[\w@$!|]{3,32}")
# A letter is never also a separator (no underscore on the left): two ways to split a run would make this pattern
# exponential.
_SPACED = re.compile(r"(?<!\w)(?:[^\W_][ \t.\-_*·•|/\\,~+]{1,3}){4,}[^\W_](?!\w)")
_SPACED_GAP = re.compile(r"[ \t.\-_*·•|/\\,~+]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:0x)?(?:[0-9a-fA-F]{2}[ :]?){12,}|(?:\\x[0-9a-fA-F]{2}){4,}")
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_HEX_DIGITS = re.compile("[^0-9a-fA-F]")


@dataclass(frozen=True, slots=True)
class Variant:
    """One hidden reading: `text` is canonical, `trick` names the encoding, `start` and `end` are code points of the
    source text.
    """

    text: str
    trick: str
    start: int
    end: int


def strip_invisible(text: str) -> str:
    """The text without zero-width, bidirectional-control, variation-selector and tag characters."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def canonical(text: str) -> str:
    """Lower-case, NFKC, invisible characters removed, look-alikes folded; ASCII input costs one `lower()`."""
    if text.isascii() or (text := text.translate(_TYPOGRAPHY)).isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).translate(_CIRCLED)).lower()
    if folded.isascii():
        return folded
    decomposed = unicodedata.normalize("NFD", folded)
    folded = unicodedata.normalize("NFC", _drop_marks_on_latin(decomposed)).translate(_FOLD_LATIN)
    if folded.isascii():
        return folded
    latin = len(_LATIN.findall(folded))
    mostly_latin = latin * 2 > sum(map(str.isalpha, folded))
    return _WORD.sub(lambda match: _fold_word(match.group(), mostly_latin), folded)


def _drop_marks_on_latin(decomposed: str) -> str:
    kept: list[str] = []
    on_latin = False
    for char in decomposed:
        if unicodedata.combining(char):
            if on_latin:
                continue
        else:
            on_latin = "a" <= char <= "z"
        kept.append(char)
    return "".join(kept)


def _fold_word(word: str, mostly_latin: bool) -> str:
    """Fold look-alikes in a word that mixes scripts, or that is foreign in a Latin text and folds to Latin letters
    only.

    A word of a Russian or Greek text stays as it is: folding it would turn every such text into noise.
    """
    if word.isascii():
        return word
    folded = word.translate(_FOLD)
    if folded == word:
        return word
    return folded if _LATIN.search(word) or (mostly_latin and folded.isascii()) else word


def decoded_variants(text: str, depth: int = 0) -> Iterator[Variant]:
    """The texts that `text` carries encoded: at most `MAX_RUNS` runs of each kind, `MAX_DEPTH` levels deep."""
    if not text.isascii():
        for match in _TAGS.finditer(text):
            hidden = "".join(chr(ord(char) - 0xE0000) for char in match.group())
            if len(hidden) >= 4:
                yield Variant(hidden.lower(), "tag-characters", *match.span())
    if depth < MAX_DEPTH:
        for decoded, trick, start, end in _decoded_runs(text):
            yield Variant(canonical(decoded), trick, start, end)
            for inner in decoded_variants(decoded, depth + 1):
                yield Variant(inner.text, f"{trick}+{inner.trick}", start, end)


def rewritten(folded: str) -> Iterator[tuple[str, str]]:
    """(reading, trick) of a canonical text whose letters are set apart, replaced by digits and signs, or both."""
    joined = join_spaced_letters(folded)
    if joined is not None:
        yield joined, "spaced-letters"
    plain = undo_leetspeak(folded if joined is None else joined)
    if plain is not None:
        yield plain, "leetspeak"


def _decoded_runs(text: str) -> Iterator[tuple[str, str, int, int]]:
    if "%" in text and len(_PERCENT.findall(text[:MAX_DECODED])) >= 3:
        unquoted = unquote(text[:MAX_DECODED], errors="ignore")
        if is_prose(unquoted):
            yield unquoted, "percent", 0, len(text)
    for pattern, trick, decode in ((_BASE64, "base64", _from_base64), (_HEX, "hex", _from_hex)):
        found = 0
        for match in islice(pattern.finditer(text), MAX_TRIED):
            decoded = decode(match.group()[: 2 * MAX_DECODED])
            if decoded is not None and is_prose(decoded):
                yield decoded[:MAX_DECODED], trick, *match.span()
                found += 1
                if found == MAX_RUNS:
                    break


def _from_base64(run: str) -> str | None:
    body = run.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    if len(body) % 4 == 1:
        body = body[:-1]
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4)).decode("utf-8", errors="strict")
    except (binascii.Error, UnicodeDecodeError):
        return None


def _from_hex(run: str) -> str | None:
    digits = _HEX_DIGITS.sub("", run.replace("\\x", "").removeprefix("0x"))
    try:
        return bytes.fromhex(digits[: len(digits) & ~1]).decode("utf-8", errors="strict")
    except (ValueError, UnicodeDecodeError):
        return None


def is_prose(text: str) -> bool:
    """Whether a decoded run reads as text: printable, and mostly letters and spaces."""
    if len(text) < 6:
        return False
    letters = sum(char.isalpha() or char == " " for char in text)
    return letters >= 0.7 * len(text) and all(char.isprintable() or char in "\n\r\t" for char in text)


def join_spaced_letters(base: str) -> str | None:
    """`i g n o r e  t h i s` read as words, or None where no letters are set apart. Wider gaps separate the words."""

    def join(match: re.Match[str]) -> str:
        gaps = _SPACED_GAP.findall(match.group())
        narrow = min(map(len, gaps))
        return _SPACED_GAP.sub(lambda gap: "" if len(gap.group()) == narrow else " ", match.group())

    joined, count = _SPACED.subn(join, base)
    return joined if count else None


def undo_leetspeak(base: str) -> str | None:
    """Letters restored in words that mix letters with the digits and signs used for them, or None where there is none."""
    plain, count = _LEET_WORD.subn(lambda match: match.group().translate(_LEET), base)
    return plain if count >= 2 and plain != base else None

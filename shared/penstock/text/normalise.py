"""Undo what an attacker does to a text so that a reader of bytes misses what a reader of glyphs sees.

`canonical` folds a text to one lower-case form: NFKC, invisible and bidirectional characters removed, combining marks
stacked on Latin letters dropped, look-alike letters of other scripts folded to Latin (Unicode UTS #39 "confusables",
the subset that renders alike in common fonts), Braille letters read. Linear in the length of the text. What it carries
encoded or enciphered is read by `encodings` and `ciphers`.
"""

import re
import unicodedata

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
# Braille's cells for a to z (grade 1, U+2800 and the bits of the raised dots).
_BRAILLE = "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵"
_CIRCLED |= {ord(cell): chr(97 + i) for i, cell in enumerate(_BRAILLE)} | {0x2800: " "}
# Typographic signs as the keyboard has them: most prose beyond ASCII holds no more than these.
_TYPOGRAPHY = str.maketrans("‘’‚‛′“”„‟″–—−‐‑…•\u00a0\u2009\u202f", "'''''\"\"\"\"\"-----.*   ")
_LATIN = re.compile("[a-z]")

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_WORD = re.compile(r"\w+")


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

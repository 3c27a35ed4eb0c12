"""Bytes of a text file to text: which encoding they are in.

What is said counts first: a byte order mark, a declared charset that the bytes keep to. Then UTF-8, which other
encodings do not pass for by chance, with a few broken bytes, too, and UTF-16 by its zeros. What is left is told apart by
script: text of Latin letters by the language that each code page makes of it (see :mod:`penstock.text.language`), since
code pages of Latin letters differ in a few signs only; any other by charset-normalizer.
"""

from __future__ import annotations

import codecs
import re

from penstock.text.language import LanguageModelMissing, as_prose, identify

__all__ = ["NotText", "declared_charset", "decode_text"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LATIN_PAGES = {
    "cp1252": frozenset("en de fr es pt it nl nb sv fi is ca eu id af sq ga oc".split()),
    "cp1250": frozenset("pl cs sk hu ro hr sl".split()),
    "cp1254": frozenset("tr az".split()),
    "cp1257": frozenset("lt lv et".split()),
}
"""Code pages of Latin letters, with the languages (groups of :func:`penstock.text.language.group_of`) written in each."""
# Not guessed: what is told otherwise, and code pages out of use, some of which differ from those in use by capitals alone.
_NO_CODE_PAGES = [
    "utf_7", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be", "johab", "mac_cyrillic", "mac_greek",
    "mac_iceland", "mac_latin2", "mac_roman", "mac_turkish",
]  # fmt: skip
_LEAST_LETTERS = 8
_MOST_BROKEN = 0.2
"""Bytes that are no UTF-8, as a share of the characters beyond ASCII that are: code pages have five times as many."""
_LEAST_KANA = 0.2
_SAMPLE_BYTES = 32_768
_HEAD_BYTES = 4_096
_LEAST_SURE = 0.5
_PARAMETER = re.compile(r";\s*charset\s*=\s*[\"']?([A-Za-z0-9_.:+-]+)", re.IGNORECASE)
_IN_MARKUP = re.compile(
    rb"<meta[^>]+charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)|<\?xml[^>]+encoding\s*=\s*[\"']([A-Za-z0-9_.:-]+)",
    re.IGNORECASE,
)
_RUN = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
_SIGNS = re.compile(rb"[\x80-\xff]+")
_ASCII_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
_CONTROL = re.compile("[\x80-\x9f]")
_WORD = re.compile(r"[^\W\d_]+")


class NotText(ValueError):
    """The bytes are no text."""


def declared_charset(content_type: str) -> str | None:
    """Return the charset that a content type names; None where it names none."""
    match = _PARAMETER.search(content_type)
    return match[1] if match else None


def decode_text(data: bytes, content_type: str = "text/plain") -> str:
    """Return the text of ``data``, without a byte order mark.

    A declared charset that does not exist, or that the bytes do not keep to, is passed over. The last resort is
    Windows-1252, with U+FFFD for what is no character there.

    Args:
        content_type: with the charset as its parameter where one is declared; of HTML the one in its head counts, too.

    Raises:
        NotText: the bytes have zeros that are not those of UTF-16 or UTF-32.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    wide = _without_mark(data)
    if wide is None and b"\0" in data:
        raise NotText("it holds zero bytes, so it is a binary file")
    japanese = "iso2022_jp" if data.isascii() and b"\x1b$" in data else None  # its escapes would pass for ASCII
    for name in (declared_charset(content_type), _of_markup(data, content_type), japanese, "utf-8"):
        text = _strictly(data, name)
        if text is not None and "\0" not in text:
            return text.removeprefix("\ufeff")
    if wide is None and (text := _nearly_utf8(data)) is not None:
        return text
    return data.decode(wide or _guessed(data), "replace")


def _nearly_utf8(data: bytes) -> str | None:
    """Return the text of UTF-8 in which few bytes are broken; None where it is another encoding.

    A line that has no character of UTF-8 beyond ASCII is of the code page that its words tell; elsewhere a broken byte is
    U+FFFD.
    """
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    whole = len(_BEYOND_ASCII.findall(text)) - broken
    if broken > _MOST_BROKEN * whole:
        return None
    return "".join(_line(line) for line in data.splitlines(keepends=True))


def _line(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    if "\ufffd" in text and len(_BEYOND_ASCII.findall(text)) == text.count("\ufffd") > 1:
        return line.decode(_latin_page(line), "replace")
    return text


def _of_markup(data: bytes, content_type: str) -> str | None:
    match = _IN_MARKUP.search(data[:_HEAD_BYTES]) if content_type.lower().startswith("text/html") else None
    return (match[1] or match[2]).decode("ascii") if match else None


def _strictly(data: bytes, encoding: str | None) -> str | None:
    if encoding is None:
        return None
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):  # LookupError: there is no such charset
        return None


def _without_mark(data: bytes) -> str | None:
    """Return the UTF-16 that ``data`` is in by the place of its zeros: every second byte of most ASCII text."""
    head = data[:_HEAD_BYTES]
    if len(head) < 4 or len(data) % 2:
        return None
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) * 4 < len(head) // 2 or min(even, odd) * 20 > max(even, odd):
        return None
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    return encoding if _strictly(data, encoding) is not None else None


def _guessed(data: bytes) -> str:
    sample = _sample(data)
    runs = _RUN.findall(sample)
    beyond = b"".join(runs).translate(None, _ASCII_LETTERS)
    if len(beyond) * 2 < sum(map(len, runs)):
        return _latin_page(sample)
    letters = [byte for byte in beyond if byte >= 0xC0]
    if len(letters) >= _LEAST_LETTERS and min(letters) >= 0xE0 and max(letters) <= 0xFA:
        # Hebrew without points is all in these. Cyrillic and Greek, whose small letters begin there, too, go beyond them
        # to either side, by capitals, accents and letters that few words do without.
        return "cp1255"
    # Kana of EUC-JP: every second or third sign of Japanese, while Korean and Chinese have next to nothing there.
    leads = b"".join(signs[::2] for signs in _SIGNS.findall(sample))
    if leads.count(0xA4) + leads.count(0xA5) > _LEAST_KANA * len(leads) and _strictly(sample, "euc_jp"):
        return "euc_jp"
    import charset_normalizer

    best = charset_normalizer.from_bytes(sample, cp_exclusion=_NO_CODE_PAGES).best()
    return "cp1252" if best is None or _strictly(sample, best.encoding) is None else best.encoding


def _sample(data: bytes) -> bytes:
    """Return the first lines that hold more than ASCII: whole lines, so that no character is cut."""
    if len(data) <= _SAMPLE_BYTES:
        return data
    lines, size = [], 0
    for line in data.splitlines():
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size > _SAMPLE_BYTES:
                break
    return b"\n".join(lines)


def _latin_page(sample: bytes) -> str:
    best, sure = "cp1252", _LEAST_SURE
    for encoding, languages in _LATIN_PAGES.items():
        text = _strictly(sample, encoding)
        if text is None or _CONTROL.search(text):
            continue
        try:
            language, confidence = identify(as_prose(_WORD.findall(text)))
        except LanguageModelMissing:
            return best
        if language in languages and confidence > sure:
            best, sure = encoding, confidence
    if best == "cp1250" and not _CONTROL.search(sample.decode("latin-1")):
        # The letters that differ, and that these languages do not do without for long, lie in cp1250 where ISO 8859-2
        # has control characters.
        return "iso8859_2"
    return best

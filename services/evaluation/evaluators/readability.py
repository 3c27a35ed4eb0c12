"""How easily an answer reads, by the formula of its language."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from penstock.text.language import language_of

from services.evaluation.evaluators.own import evaluator
from services.evaluation.evaluators.protocol import Exchange, Judged
from services.evaluation.evaluators.text import prose, sentences

__all__ = ["Measures", "measures", "readability", "syllables"]

_LONGEST = 20_000
_FEWEST_WORDS = 8
"""The formulas speak of passages; below this a single long word decides."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_VOWELS = re.compile(r"[aeiouyäöüáàâéèêëíìîïóòôúùûœæõãå]+")


@dataclass(frozen=True, slots=True)
class Measures:
    """Means of a text: words a sentence, syllables a word, letters a word."""

    words: float
    syllables: float
    letters: float


# Each grows with ease; about 0 to 100.
_FORMULAS: Mapping[str, Callable[[Measures], float]] = {
    "en": lambda m: 206.835 - 1.015 * m.words - 84.6 * m.syllables,  # Flesch 1948
    "de": lambda m: 180 - m.words - 58.5 * m.syllables,  # Amstad 1978
    "fr": lambda m: 207 - 1.015 * m.words - 73.6 * m.syllables,  # Kandel and Moles 1958
    "es": lambda m: 206.84 - 1.02 * m.words - 60 * m.syllables,  # Fernández Huerta 1959
    "nl": lambda m: 206.835 - 0.93 * m.words - 77 * m.syllables,  # Douma 1960
    "it": lambda m: 89 + 300 / m.words - 10 * m.letters,  # Gulpease, Lucisano and Piemontese 1988
}
_DICTIONARIES = {"en": "en_US", "de": "de_DE", "fr": "fr_FR", "es": "es_ES", "nl": "nl_NL", "it": "it_IT"}


@evaluator("readability", version="flesch-1", threshold=0.3, labels=("difficult", "easy"))
def readability(exchange: Exchange) -> Judged | None:
    """From 0 (hardest) to 1 (easiest to read): a hundredth of the reading ease formula of the answer's language.

    English, German, French, Spanish, Dutch and Italian; nothing is said of others, nor of answers of less than eight words.
    Code is left out. 0.6 to 0.7 is plain English, below 0.3 is for graduates (Flesch 1948). For English the grade of Flesch
    and Kincaid (1975) stands among the features.
    """
    text = prose(exchange.answer[:_LONGEST])
    language = language_of(text)
    if language is None or language not in _FORMULAS:
        return None
    found = measures(text, language)
    if found is None:
        return None
    features = {"words_per_sentence": round(found.words, 3), "syllables_per_word": round(found.syllables, 3)}
    if language == "en":
        features["grade"] = round(0.39 * found.words + 11.8 * found.syllables - 15.59, 3)
    return Judged(min(1.0, max(0.0, _FORMULAS[language](found) / 100)), features=features)


def measures(text: str, language: str) -> Measures | None:
    """Return the means of ``text``; None where it has fewer than eight words."""
    split = [_WORD.findall(sentence) for sentence in sentences(text)]
    by_sentence = [words for words in split if words]
    words = [word for sentence in by_sentence for word in sentence]
    if len(words) < _FEWEST_WORDS:
        return None
    return Measures(
        words=len(words) / len(by_sentence),
        syllables=sum(syllables(word, language) for word in words) / len(words),
        letters=sum(map(len, words)) / len(words),
    )


@lru_cache(maxsize=16_384)
def syllables(word: str, language: str) -> int:
    """Return the syllables of ``word``, at least 1: its groups of vowels, or where it may be hyphenated, if that is more."""
    lowered = word.lower()
    groups = len(_VOWELS.findall(lowered))
    if language == "en" and groups > 1:
        if re.search(r"[^aeiouyl]e$|[^aeiouy]es$|[^td]ed$", lowered) and not re.search(
            r"(?:[sxz]|[cs]h|ge|ce)es$", lowered
        ):
            groups -= 1
        # Two vowels that are two syllables: radio, idea; not nation, social, million.
        if re.search(r"i[aou](?!u?s\b)(?<![tscgn]i[oa])(?<!\wlio)|ea$", lowered):
            groups += 1
    elif language == "fr" and groups > 1 and re.search(r"[^éaiouy](?:e|es|ent)$", lowered):
        groups -= 1
    hyphens = len(_hyphenation(language).positions(lowered)) + 1
    return max(1, groups, hyphens)


@lru_cache(maxsize=8)
def _hyphenation(language: str) -> Any:
    import pyphen

    return pyphen.Pyphen(lang=_DICTIONARIES[language])

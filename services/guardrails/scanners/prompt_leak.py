"""The system's instructions in an answer: quoted, spelled otherwise, encoded, or retold."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from penstock.text.normalise import canonical

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.encodings import decoded_variants

__all__ = ["SystemPromptLeakScanner"]

ORDER = 5
"""Words in a row that count as quoted: shorter runs are common in any answer about the same matter."""
MIN_QUOTED = 8
"""Words of the answer that must stand in quoted runs: one shared phrase is no leak."""
WHOLE = 25
"""Quoted words that score 1."""
LETTERS = 24
"""Letters in a row, all else left out, that count as quoted; half of it in scripts without spaces."""
RETOLD = 3
"""Content words in a row that count as retold."""
_WORD = re.compile(r"[^\W_](?:[\w@$!|]*[\w@$])?")
_ALNUM = re.compile(r"[\W_]+")
_LEET = str.maketrans("013457@$!|8", "oieastasilb")
_ABOUT_INSTRUCTIONS = re.compile(
    r"\b(?:(?:my|the|these|those|system|initial|original|hidden|internal) (?:\w+ )?"
    r"(?:instructions?|prompt|guidelines|rules|directives?|orders)"
    r"|i (?:was|am|have been|'m|'ve been) (?:told|instructed|asked|configured|programmed|supposed|directed|set up|ordered"
    r"|required)|i(?:'m| am) (?:not )?(?:allowed|to (?:never|always|not)))\b",
    re.I,
)
_FUNCTION_WORDS = frozenset(
    """a about all also an and any anyone are as at be been before but by can could do does every everyone for from had has
    have he her his how i if in into is it its may me more must my no not of on only or other our out people person shall
    she should so some someone such than that the their them then there these they this those to unless until up us user
    users was we were what when where which while who whom will with would you your""".split()
)


class SystemPromptLeakScanner:
    """Finds stretches of the answer that repeat the system prompt: word for word, with digits for letters, letters set apart
    or reversed, in ROT13 or an encoding (base64, hexadecimal, ...), or in other words near enough to be taken back to it.

    The score is the share of the prompt's word 5-grams that the answer repeats, or the share of the answer made of them
    where that is higher and the answer is not short; a quoted stretch of 25 words scores 1. Retelling scores by the share
    of the prompt's runs of three content words, more where the answer says that it speaks of its instructions. What the
    user wrote itself is no leak.
    """

    name = "system_prompt_leak"
    version = "2"
    default_threshold = 0.3

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if not reference.system_prompt or not text:
            return []
        secret = _secret(reference.system_prompt, reference.question)
        if not secret.grams and not secret.letters:
            return []
        reference.checkpoint()
        found = _quoted(text, secret) or _lettered(text, secret)
        if found and found[0].score >= self.default_threshold:
            return found
        reference.checkpoint()
        for variant in decoded_variants(text):
            inner = _quoted(variant.text, secret) or _lettered(variant.text, secret)
            if inner and (not found or inner[0].score > found[0].score):
                found = [Span("SYSTEM_PROMPT", variant.start, variant.end, inner[0].score)]
            reference.checkpoint()
        return found or _retold(text, secret)


@dataclass(frozen=True, slots=True)
class _Secret:
    """A system prompt, ready to be looked for, without what the user wrote."""

    words: frozenset[str]
    grams: frozenset[tuple[str, ...]]
    """Runs of words, forwards and backwards."""
    letters: frozenset[str]
    """Runs of letters and digits, forwards only."""
    order: int
    """Length of those."""
    size: int
    """Letters and digits in all."""
    retold: frozenset[tuple[str, ...]] = field(default_factory=frozenset)


@lru_cache(maxsize=128)
def _secret(system_prompt: str, question: str) -> _Secret:
    folded = canonical(system_prompt)
    words = _ALNUM.sub(" ", folded).split()
    asked = _ALNUM.sub(" ", canonical(question)).split()
    own = {*zip(*(asked[i:] for i in range(ORDER)), strict=False)}
    grams = {*zip(*(words[i:] for i in range(ORDER)), strict=False)} - own
    bare = "".join(words)
    order = LETTERS if bare.isascii() else LETTERS // 2
    asked_bare = "".join(asked)
    letters = {bare[i : i + order] for i in range(len(bare) - order + 1)}
    letters -= {asked_bare[i : i + order] for i in range(len(asked_bare) - order + 1)}
    content, asked_content = _content(words), _content(asked)
    retold = {*zip(*(content[i:] for i in range(RETOLD)), strict=False)}
    retold -= {*zip(*(asked_content[i:] for i in range(RETOLD)), strict=False)}
    enough = len(grams) >= MIN_QUOTED - ORDER + 1
    return _Secret(
        words=frozenset(words),
        grams=frozenset(grams | {gram[::-1] for gram in grams}) if enough else frozenset(),
        letters=frozenset(letters) if len(letters) >= order // 2 else frozenset(),
        order=order,
        size=len(bare),
        retold=frozenset(retold),
    )


def _quoted(text: str, secret: _Secret) -> list[Span]:
    """Stretches that repeat runs of words, as they are, in leetspeak, or reversed by word or letter."""
    if not secret.grams:
        return []
    places = [match.span() for match in _WORD.finditer(text)]
    best: tuple[float, list[int]] = (0.0, [])
    words = [_as_in(text[start:end], secret.words) for start, end in places]
    for reading in (words, [word[::-1] for word in words]):
        hits = [
            i for i, gram in enumerate(zip(*(reading[k:] for k in range(ORDER)), strict=False)) if gram in secret.grams
        ]
        quoted = sorted({j for i in hits for j in range(i, i + ORDER)})
        if len(quoted) < MIN_QUOTED:
            continue
        repeated = 2 * len({tuple(reading[i : i + ORDER]) for i in hits}) / len(secret.grams)
        share = len(quoted) / len(words) if len(words) >= 2 * MIN_QUOTED else 0.0
        best = max(best, (min(1.0, max(repeated, share, len(quoted) / WHOLE)), quoted))
    score, quoted = best
    return [Span("SYSTEM_PROMPT", places[first][0], places[last][1], score) for first, last in _runs(quoted)]


def _as_in(word: str, known: frozenset[str]) -> str:
    """The word in the form that the prompt has it, where it has it."""
    folded = canonical(word)
    if folded in known or (folded.isascii() and folded.isalpha()):
        return folded
    plain = folded.translate(_LEET)
    if plain in known:
        return plain
    bare = _ALNUM.sub("", folded)
    return bare if bare in known else folded


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of every run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    if numbers:
        first = numbers[0]
        for previous, number in pairwise([*numbers, -1]):
            if number != previous + 1:
                runs.append((first, previous))
                first = number
    return runs


def _lettered(text: str, secret: _Secret) -> list[Span]:
    """The stretch that repeats runs of letters whatever stands between them: spaces, signs, line breaks, or none."""
    if not secret.letters:
        return []
    bare = _ALNUM.sub("", canonical(text))
    order = secret.order
    word = 5 if order == LETTERS else 2
    # A stretch that is long enough has a run at one of any so many places.
    stride = MIN_QUOTED * word - order + 1
    for reading in (bare, bare[::-1], codecs.encode(bare, "rot13")):
        if not any(reading[i : i + order] in secret.letters for i in range(0, len(reading), stride)):
            continue
        hits = [i for i in range(len(reading) - order + 1) if reading[i : i + order] in secret.letters]
        covered = len({j for i in hits for j in range(i, i + order)})
        if covered < MIN_QUOTED * word:
            continue
        score = min(1.0, max(covered / secret.size, covered / (WHOLE * word), covered / len(bare)))
        first, last = hits[0], hits[-1] + order
        if reading == bare[::-1] and reading != bare:
            first, last = len(bare) - last, len(bare) - first
        return [Span("SYSTEM_PROMPT", *_unsqueezed(text, first, last, len(bare)), score)]
    return []


def _unsqueezed(text: str, first: int, last: int, size: int) -> tuple[int, int]:
    """Where the letters numbered ``first`` to ``last`` stand in the text; the whole text where folding moved them."""
    origin = [index for index, char in enumerate(text) if char.isalnum()]
    if len(origin) != size:
        return 0, len(text)
    return origin[first], origin[last - 1] + 1


def _retold(text: str, secret: _Secret) -> list[Span]:
    """The stretch that says in other words what the prompt says: its content words in their order."""
    if len(secret.retold) < RETOLD:
        return []
    places = [match.span() for match in _WORD.finditer(text)]
    content = [(word, place) for place in places if (word := _stem(canonical(text[place[0] : place[1]]))) is not None]
    grams = zip(*([word for word, _ in content[i:]] for i in range(RETOLD)), strict=False)
    hits = [i for i, gram in enumerate(grams) if gram in secret.retold]
    distinct = len({tuple(word for word, _ in content[i : i + RETOLD]) for i in hits})
    share = distinct / len(secret.retold)
    spoken_of = _ABOUT_INSTRUCTIONS.search(text) is not None
    if distinct < (2 if spoken_of else 5):
        return []
    score = min(0.9, share + 0.06 * distinct + (0.2 if spoken_of else 0.0)) if spoken_of else min(0.8, share)
    return [Span("SYSTEM_PROMPT", content[hits[0]][1][0], content[hits[-1] + RETOLD - 1][1][1], score)]


def _content(words: Sequence[str]) -> list[str]:
    return [stem for word in words if (stem := _stem(word)) is not None]


def _stem(word: str) -> str | None:
    """A content word without the commonest English endings; None for one that says little."""
    if word in _FUNCTION_WORDS or len(word) < 3:
        return None
    for ending in ("ing", "ied", "ies", "ed", "es", "s", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word

"""Where a recognizer looks: a linear-time expression, and what confirms a find there."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.guardrails.findings import Span

CONTEXT_BEFORE = 56
"""Characters before a find in which a context word counts (Presidio's LemmaContextAwareEnhancer: five words)."""
CONTEXT_AFTER = 16
CONTEXT_BOOST = 0.35
"""As Presidio's context_similarity_factor."""

WORD_START = r"(?:^|[^\pL\pN_])"
"""RE2's \\b knows ASCII letters only."""
NAME_WORD = r"\p{Lu}[\pL'’-]*\.?"


@dataclass(frozen=True, slots=True)
class Anchor:
    """`expression` is in RE2's syntax; its first group, where it has one, is the find. `confirm(text, start, end)`
    yields spans of `text`.

    With `context`, another RE2 expression, only finds near a match of it are looked at: it costs nothing on texts that
    never mention it. `costly` names the kind of an expensive recognizer, of which only so many run on one text, on
    finds that are `plausible` at a glance.
    """

    name: str
    expression: str
    confirm: Callable[[str, int, int], Iterable[Span]]
    context: str | None = None
    costly: str | None = None
    plausible: Callable[[str, int, int], bool] | None = None


class Nearness:
    """Whether any of the places, given in order, is near a find."""

    def __init__(self, places: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in places:
            self._starts.append(start)
            self._ends.append(end)

    def __call__(self, start: int, end: int) -> bool:
        """True where one ends at most CONTEXT_BEFORE characters before `start`, or starts at most CONTEXT_AFTER after
        `end`.
        """
        at = bisect_left(self._ends, start - CONTEXT_BEFORE)
        return at < len(self._ends) and self._starts[at] <= end + CONTEXT_AFTER


def words(*alternatives: str) -> str:
    """An RE2 expression for any of these words or phrases, in any case, as whole words; a trailing `*` is any ending."""
    return rf"(?i){WORD_START}(?:{'|'.join(_inflected(word) for word in alternatives)})(?:[^\pL]|$)"


def context_words(*alternatives: str) -> re.Pattern[str]:
    """The same for Python's `re`, which looks at a short stretch of text."""
    return re.compile(rf"(?i)(?<!\w)(?:{'|'.join(_inflected(word) for word in alternatives)})(?![^\W\d_])")


def _inflected(word: str) -> str:
    stem = re.escape(word.removesuffix("*")).replace(r"\ ", r"\s+")
    return stem + (r"\w{0,12}" if word.endswith("*") else "")


def before(text: str, start: int, length: int = CONTEXT_BEFORE) -> str:
    """The text that leads up to a find."""
    return text[max(0, start - length) : start]


def around(text: str, start: int, end: int) -> str:
    """The text in which a context word counts, without the find itself."""
    return before(text, start) + " | " + text[end : end + CONTEXT_AFTER]


def fixed(kind: str, score: float) -> Callable[[str, int, int], Iterable[Span]]:
    """Confirms whatever the expression matched."""

    def confirm(text: str, start: int, end: int) -> Iterable[Span]:
        yield Span(kind, start, end, score)

    return confirm

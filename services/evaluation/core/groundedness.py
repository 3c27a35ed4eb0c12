"""How much of an answer stands in the passages it quotes."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["VERSION", "groundedness"]

VERSION = "content-overlap-1"

_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
# Words that say nothing about whether a statement is supported.
_FUNCTION_WORDS = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing down during each either else few for from further had has have having he her
    here hers him his how i if in into is it its itself just let like may me might more most much must my myself
    neither no nor not now of off on once one only or other our ours out over own per rather same shall she should
    so some such than that the their theirs them then there these they this those through to too under until up
    upon us very was we well were what when where which while who whom whose why will with within without would
    yes yet you your yours""".split()
)


def groundedness(answer: str, passages: Iterable[str]) -> float | None:
    """Return the share of the answer's content words that stand in the passages, from 0 to 1.

    Numbers count as content words. ``None`` where the answer has no content word: there is nothing to support.
    """
    claimed = _content(answer)
    if not claimed:
        return None
    supported: set[str] = set()
    for passage in passages:
        supported |= _content(passage)
    return sum(word in supported for word in claimed) / len(claimed)


def _content(text: str) -> set[str]:
    return {_stem(word) for word in _WORD.findall(text.lower()) if word not in _FUNCTION_WORDS}


def _stem(word: str) -> str:
    """Take the commonest English endings off, so that number and tense do not count as invention."""
    if not word.endswith("ss"):
        for ending in ("ing", "ed", "es", "s"):
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word[: -len(ending)]
                break
    return word.removesuffix("e") if len(word) > 3 else word

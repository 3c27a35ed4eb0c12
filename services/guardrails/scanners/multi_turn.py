"""Attacks that no single turn shows: a payload in parts, or a conversation that is led step by step to where it would
not have gone at once (Russinovich et al. 2024, "Great, now write an article about that: the Crescendo multi-turn LLM
jailbreak attack").
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.injection import InjectionScanner, probability

MAX_TURNS = 16
"""Turns before the last one that are looked at; what lies further back has decayed to nothing."""
JOINED_TURNS, JOINED_CHARS = 6, 4000
"""The last turns are read as one text, up to what the classifier reads at once."""
JOINED_PENALTY = 2.0
"""Log odds that the joined text loses: it was not written as one text, and it has been given several chances."""
REMEMBERED = 256
"""Turns whose log odds are kept."""

BASELINE = -2.5
"""Log odds above which a turn counts as a step towards an attack; ordinary turns lie far below it."""
LIMIT = 6.0
"""Accumulated log odds that are a find: four turns just below the threshold reach it, two never do."""
DECAY = 0.75
"""With it, turns of log odds x in a row never add up to more than 4 (x - BASELINE): below -1 no number of them is a find."""
RISE, FALL = 2.5, -0.75
"""Bounds of one turn's step: one turn alone is the injection scanner's to judge, and one harmless turn in between does
not wash away what led up to it.
"""
_QUOTED = re.compile(r"[\"“]([^\"”\n]{1,300})[\"”]|[`]([^`\n]{1,300})[`]|(?<!\w)'([^'\n]{1,300})'(?!\w)")
_PART = re.compile(
    r"(?i)\b(?:part|piece|chunk|fragment|teil|partie|parte)\s{0,3}(?:\d{1,2}|one|two|three|four|five)\s{0,3}[:=-]\s{0,3}(.{1,300})"
)


class MultiTurnScanner:
    """Judges the user's turns of one request, oldest first.

    Two kinds of find, both placed in the last turn, since the earlier ones were judged when they came:

    - ``SPLIT_INJECTION``: the last turns read as one text, or the strings they quote put together, are an attack;
    - ``GRADUAL_INJECTION``: the log odds of the turns above `BASELINE` add up (CUSUM, Page 1954, with decay). The sum
      falls with every ordinary turn and never below 0, so a long harmless conversation does not build up to a find.
    """

    name = "multi_turn"
    default_threshold = 0.5

    def __init__(self, injection: InjectionScanner) -> None:
        self._injection = injection
        self._remembered = lru_cache(REMEMBERED)(lambda text: injection.judge(text)[3])
        self.version = f"1+{injection.version}"

    def scan_conversation(self, texts: Sequence[str], rule: Rule, reference: Reference) -> Sequence[tuple[int, Span]]:
        """At most one find of each kind; a single turn has none."""
        turns = [(index, text) for index, text in enumerate(texts) if text.strip()][-MAX_TURNS - 1 :]
        if len(turns) < 2:
            return []
        checkpoint = reference.checkpoint
        margins = [self._margin(text, checkpoint) for _, text in turns]
        last, text = turns[-1]
        found = [
            ("GRADUAL_INJECTION", accumulated(margins) - LIMIT),
            ("SPLIT_INJECTION", self._joined([text for _, text in turns], checkpoint)),
        ]
        return [(last, Span(kind, 0, len(text), probability(margin))) for kind, margin in found if margin > -math.inf]

    def _joined(self, turns: Sequence[str], checkpoint: Callable[[], None]) -> float:
        """Log odds of the surest way to read the last turns as one."""
        recent = turns[-JOINED_TURNS:]
        best = self._margin("\n".join(recent)[-JOINED_CHARS:], checkpoint) - JOINED_PENALTY
        parts = [fragments(turn) for turn in recent]
        if sum(map(bool, parts)) >= 2:
            flat = [fragment for turn in parts for fragment in turn]
            pieced = max(self._margin(separator.join(flat)[-JOINED_CHARS:], checkpoint) for separator in ("", " "))
            best = max(best, pieced)
        return best

    def _margin(self, text: str, checkpoint: Callable[[], None]) -> float:
        """Log odds of one text; short ones are remembered: a conversation sends its turns again with every request."""
        checkpoint()
        return self._remembered(text) if len(text) <= JOINED_CHARS else self._injection.judge(text, checkpoint)[3]


def accumulated(margins: Sequence[float]) -> float:
    """Decayed sum of what the log odds of the turns exceed `BASELINE` by, never below 0."""
    total = 0.0
    for margin in margins:
        total = max(0.0, DECAY * total + max(FALL, min(RISE, margin - BASELINE)))
    return total


def fragments(turn: str) -> list[str]:
    """Strings that a turn quotes or names as a part."""
    named = [match.group(1).strip() for match in _PART.finditer(turn)]
    return named or [next(filter(None, match.groups())) for match in _QUOTED.finditer(turn)]

"""What a scanner takes and gives: the one protocol that every scanner keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

DEFAULT_TOKEN_LIMIT = 16_000
"""Tokens of one text that token_flood lets through where the policy sets no threshold."""


@dataclass(frozen=True, slots=True)
class Span:
    """One find: code points `start` to `end` (half-open) of the scanned text, with a confidence from 0 to 1."""

    kind: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Reference:
    """What else is known when a text is judged.

    `system_prompt` is what the answer must not repeat; `prompt` is the conversation the answer was made for, from which
    data could be carried out; `urls` are the addresses that the prompt and the passages already hold: repeating them
    leaks nothing.
    """

    system_prompt: str = ""
    prompt: str = ""
    urls: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """How a policy uses one scanner. `threshold` is already resolved: the policy's, else the scanner's own default."""

    action: str
    threshold: float
    fail_closed: bool
    kinds: frozenset[str] | None = None
    allow: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    token_limit: int = DEFAULT_TOKEN_LIMIT


class Scanner(Protocol):
    """A pure judge of one text. `version` changes whenever the same text could be judged otherwise."""

    name: str
    version: str
    default_threshold: float

    def scan(self, text: str, rule: Rule, reference: Reference) -> Sequence[Span]:
        """Everything found, whatever its score: the caller applies `rule.threshold`, `rule.kinds` and `rule.allow`."""
        ...

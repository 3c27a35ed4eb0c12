"""What a scanner takes and gives: the protocols that every scanner keeps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

DEFAULT_TOKEN_LIMIT = 16_000
"""Tokens of one text that token_limit lets through where the policy sets no limit."""


@dataclass(frozen=True, slots=True)
class Span:
    """One find: code points `start` to `end` (half-open) of the scanned text, with a confidence from 0 to 1."""

    kind: str
    start: int
    end: int
    score: float


def _unlimited() -> None:
    """The budget of a caller that sets none."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What else is known when a text is judged.

    `system_prompt` is what the answer must not repeat; `prompt` is the whole conversation the answer was made for, from
    which data could be carried out, and `question` its last user message; `passages` are the evidence it had; `urls`
    are the addresses that the prompt and the passages already hold: repeating them leaks nothing. `canary` is the
    marker that was put into the system prompt, empty where there is none. `persons` were found in front of the text,
    where it is part of a longer one: an answer that is streamed.

    `checkpoint` is to be called now and then by a scanner whose work a text can inflate, at least every few
    milliseconds: it raises TimeoutError once the time budget is spent.
    """

    system_prompt: str = ""
    prompt: str = ""
    question: str = ""
    passages: tuple[str, ...] = ()
    urls: frozenset[str] = frozenset()
    canary: str = ""
    persons: tuple[str, ...] = ()
    checkpoint: Callable[[], None] = field(default=_unlimited, compare=False)


@dataclass(frozen=True, slots=True)
class Topic:
    """A subject that a policy bans, described by sentences that speak of it."""

    name: str
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """How a policy uses one scanner. `threshold` is already resolved: the policy's, else the scanner's own default.

    `name` is the rule's name in the policy, which is the scanner's unless the policy uses one scanner more than once.
    `enforced` is false for a rule in shadow: its finds are noted and nothing follows from them. `time_budget_s` bounds
    the scanner's time on one event; None leaves it the event's budget. The other fields are the scanners' own options
    and mean what `penstock.config.policies.ScannerRule` says.
    """

    action: str
    threshold: float
    fail_closed: bool
    name: str = ""
    enforced: bool = True
    time_budget_s: float | None = None
    kinds: frozenset[str] | None = None
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    topics: tuple[Topic, ...] = ()
    languages: frozenset[str] = frozenset()
    same_language: bool = False
    limit: int | None = None
    json_schema: str | None = None
    repair: bool = False
    model: str | None = None
    ner: str | None = None


class Scanner(Protocol):
    """A pure judge of one text. `version` changes whenever the same text could be judged otherwise.

    A scanner may also have `check(rule)`, called once when a policy is compiled: it raises ValueError, with the remedy,
    where the rule asks for what this installation does not have (a model, a language package); and `repair(text,
    rule)`, called where the rule allows a repair: it returns the text mended so that `scan` finds nothing any more, or
    None.
    """

    name: str
    version: str
    default_threshold: float

    def scan(self, text: str, rule: Rule, reference: Reference) -> Sequence[Span]:
        """Everything found, whatever its score: the caller applies `rule.threshold`, `rule.kinds` and `rule.allow`."""
        ...


@runtime_checkable
class ConversationScanner(Protocol):
    """A pure judge of several texts together: the user's turns of one request, oldest first."""

    name: str
    version: str
    default_threshold: float

    def scan_conversation(self, texts: Sequence[str], rule: Rule, reference: Reference) -> Sequence[tuple[int, Span]]:
        """Everything found: the index of the text, and the span in it."""
        ...


@runtime_checkable
class Checks(Protocol):
    """A scanner that must be asked whether it can do what a rule wants."""

    def check(self, rule: Rule) -> None:
        """Raise ValueError, with the remedy, where it cannot."""
        ...


@runtime_checkable
class Repairs(Scanner, Protocol):
    """A scanner that can mend what it finds."""

    def repair(self, text: str, rule: Rule) -> str | None:
        """The text mended so that `scan` finds nothing any more, or None where it cannot be."""
        ...


AnyScanner = Scanner | ConversationScanner

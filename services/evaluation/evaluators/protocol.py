"""What an evaluator is: it reads exchanges and gives each a score. Whatever it needs (a model, an embedder) is given to it
when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec
from penstock.contracts.records import Message, Passage, ScoredSentence

__all__ = ["Evaluator", "Exchange", "Judged", "Subject"]

Subject = Literal["prompt", "answer"]


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer, as evaluators see them."""

    request_id: str = ""
    team: str = ""
    route: str = "default"
    question: str = ""
    """The last message of the user, as screened."""
    answer: str = ""
    messages: tuple[Message, ...] = ()
    """The conversation that was answered, instructions included."""
    passages: tuple[Passage, ...] = ()
    """Evidence that was attached."""
    citations: tuple[str, ...] = ()
    """passage_id of what the answer quotes, as the backend says it."""
    grounding: str = "off"
    """What retrieval found, where that is known: grounded, empty, unavailable, or off where nothing was looked for."""
    reference: str | None = None
    """The right answer, where it is known: in golden sets, or a person's correction."""
    response_format: str | None = None
    """JSON schema that the answer was to follow."""
    finish_reason: str | None = "stop"
    question_embedding: bytes | None = None
    """Of the question, float32 little-endian, unit length, where an event carried it."""
    question_embedder: str = ""
    """Model that it is of: beside vectors of another it says nothing."""


class Judged(msgspec.Struct, frozen=True):
    """What an evaluator says of one exchange."""

    score: float
    """From 0 to 1. Which end is good is the evaluator's to say in its documentation; toxicity is 1 where toxic."""
    label: str = ""
    reason: str = ""
    sentences: tuple[ScoredSentence, ...] = ()
    categories: Mapping[str, float] = {}
    features: Mapping[str, float] = {}


class Evaluator(Protocol):
    """Scores exchanges. One score a name and subject; the same exchange always gets the same.

    One that has ``threshold`` (a score) and ``labels`` (the verdict below it, and from it on) as well need give no labels
    itself, and takes another threshold from its configuration.
    """

    @property
    def name(self) -> str:
        """Name of the score, e.g. groundedness."""
        ...

    @property
    def subject(self) -> Subject:
        """Which text the score is of."""
        ...

    @property
    def version(self) -> str:
        """Version of the code and of its model: whenever scores may change, this does."""
        ...

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        """Return what is said of each exchange, ``None`` where there is nothing to judge (no answer, no passage)."""
        ...

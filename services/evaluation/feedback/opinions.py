"""What one person said of one result: what is kept of a feedback event until all it joins has come. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from penstock.bus import Message
from penstock.contracts.records import Feedback
from penstock.stateful import InvalidEvent

__all__ = ["VOCABULARY", "InvalidFeedback", "Opinion", "known_labels", "newest", "opinion", "rater_of"]

VOCABULARY: Mapping[str, tuple[str, ...]] = {
    "toxicity": ("toxic", "clean"),
    "groundedness": ("grounded", "ungrounded"),
    "refusal": ("refuses", "answers"),
}
"""Labels that people and an evaluator both give, by the evaluator's name: others cannot contradict each other."""

_SUBJECTS = ("prompt", "answer")
_CHOICES = ("a", "b", "tie")
_SOURCES = ("user", "moderator", "system")
_LARGEST_KEPT = 1_024
_LONGEST_NAME = 256


class InvalidFeedback(InvalidEvent):
    """A feedback event says what nobody can read: it becomes a dead letter with this cause and remedy."""


class Opinion(msgspec.Struct, frozen=True, array_like=True):
    """A feedback event without its texts, and where it stands in the log."""

    event_id: str
    user: str
    """Who gave it; empty where it is not said."""
    source: str
    at: datetime
    rating: float | None = None
    labels: dict[str, str] = {}
    """By ``subject.name``, those of :data:`VOCABULARY` alone."""
    corrected: bool = False
    chosen: str | None = None
    asked: bool = False
    """Whether an annotation queue asked for it."""
    partition: int = 0
    offset: int = 0
    key: bytes = b""
    value: bytes = b""
    """The event as it was read, for a dead letter should the result never come; empty once it has, or where large."""

    @property
    def rater(self) -> str:
        return rater_of(self.user, self.event_id)


def rater_of(user: str | None, event_id: str) -> str:
    """Return who counts as one rater: a person who is named, else each event on its own."""
    return user or f"anonymous/{event_id}"


def known_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that an evaluator gives too, by ``subject.name``."""
    return {
        f"{subject}.{name}": given
        for subject in _SUBJECTS
        for name, words in VOCABULARY.items()
        if (given := labels.get(f"{subject}.{name}")) in words and given is not None
    }


def opinion(feedback: Feedback, message: Message) -> Opinion | None:
    """Return what is kept of a feedback event; ``None`` where it says nothing but a comment, or nothing at all.

    Raises:
        InvalidFeedback: the rating lies outside 0 to 1, ``chosen`` or ``source`` is none of those there are, or an identity
            is so long that remembering it would cost more than the request.
    """
    rating = feedback.rating
    if rating is not None and not (math.isfinite(rating) and 0 <= rating <= 1):
        raise InvalidFeedback(
            f"rating {rating} lies outside 0 to 1: thumbs are 0 and 1, and n stars of 5 are (n - 1) / 4; send it again"
        )
    if feedback.chosen is not None and feedback.chosen not in _CHOICES:
        raise InvalidFeedback(f"chosen {feedback.chosen!r} is none of {', '.join(_CHOICES)}: send it again with one")
    if feedback.source not in _SOURCES:
        raise InvalidFeedback(f"source {feedback.source!r} is none of {', '.join(_SOURCES)}: send it again with one")
    for name in ("event_id", "request_id", "tenant_id", "user_id"):
        if len(getattr(feedback, name) or "") > _LONGEST_NAME:
            raise InvalidFeedback(f"{name} is longer than {_LONGEST_NAME} characters: send it again with a shorter one")
    labels = known_labels(feedback.labels)
    if rating is None and not labels and feedback.correction is None and feedback.chosen is None:
        return None
    key, value = message.key or b"", message.value or b""
    whole = len(key) + len(value) <= _LARGEST_KEPT
    return Opinion(
        event_id=feedback.event_id,
        user=feedback.user_id or "",
        source=feedback.source,
        at=feedback.occurred_at,
        rating=rating,
        labels=labels,
        corrected=feedback.correction is not None,
        chosen=feedback.chosen,
        asked=feedback.queue is not None,
        partition=message.partition,
        offset=message.offset,
        key=key if whole else b"",
        value=value if whole else b"",
    )


def newest(opinions: Iterable[Opinion]) -> list[Opinion]:
    """Return what stands: the newest opinion of every rater, in the order of their times."""
    standing: dict[str, Opinion] = {}
    for each in sorted(opinions, key=lambda each: (each.at, each.event_id)):
        standing[each.rater] = each
    return sorted(standing.values(), key=lambda each: (each.at, each.event_id))

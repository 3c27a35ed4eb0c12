"""Feedback that people give at the command line: what they may say, and under which key it joins its request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
from penstock.bus import Producer
from penstock.bus.types import Transport
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import new_id
from penstock.contracts.records import Feedback

from services.evaluation.feedback.opinions import VOCABULARY

__all__ = ["Said", "labels_of", "rated", "sent"]

_SUBJECTS = ("prompt", "answer")


class Said:
    """What a person says of one result."""

    def __init__(
        self,
        *,
        rating: float | None = None,
        labels: Sequence[str] = (),
        correction: str | None = None,
        comment: str | None = None,
        chosen: str | None = None,
    ) -> None:
        """Take over what was given on the command line; ``labels`` as ``subject.name=value``.

        Raises:
            click.UsageError: a label is none, or nothing was said.
        """
        self.rating = rating
        self.labels = labels_of(labels)
        self.correction = correction
        self.comment = comment
        self.chosen = chosen

    def __bool__(self) -> bool:
        return (
            any(each is not None for each in (self.rating, self.correction, self.comment, self.chosen)) or bool(self.labels)
        )  # fmt: skip

    def feedback(
        self,
        *,
        team: str,
        request_id: str,
        conversation: str | None,
        by: str | None,
        source: str,
        queue: str | None = None,
        cause: str = "",
    ) -> Feedback:
        """Return it as an event; it is about a request of a team, in a conversation where the request has one."""
        return Feedback(
            event_id=new_id(),
            request_id=request_id,
            tenant_id=team,
            occurred_at=datetime.now(UTC),
            causation_id=cause,
            conversation_id=conversation,
            user_id=by,
            source=source,
            rating=self.rating,
            labels=self.labels,
            correction=self.correction,
            comment=self.comment,
            chosen=self.chosen,
            queue=queue,
        )


def labels_of(given: Sequence[str]) -> dict[str, str]:
    """Return labels by ``subject.name``.

    Raises:
        click.UsageError: one is no ``subject.name=value``, or has a value that nobody reads.
    """
    found: dict[str, str] = {}
    for each in given:
        full_name, equals, value = each.partition("=")
        subject, _, name = full_name.partition(".")
        if not equals or not value or not name or subject not in _SUBJECTS:
            raise click.UsageError(
                f"--label {each!r} is no label: write prompt.NAME=VALUE or answer.NAME=VALUE, e.g. answer.toxicity=clean"
            )
        words = VOCABULARY.get(name)
        if words is not None and value not in words:
            raise click.UsageError(f"--label {each!r}: {name} is labelled {' or '.join(words)}")
        found[full_name] = value
    return found


def rated(thumb: str | None, rating: float | None) -> float | None:
    """Return the rating of a thumb or of a number.

    Raises:
        click.UsageError: both are given.
    """
    if thumb is not None and rating is not None:
        raise click.UsageError("give --thumb or --rating, not both: a thumb is a rating of 0 or 1")
    return rating if thumb is None else float(thumb == "up")


async def sent(transport: Transport, codec: Codec, feedback: Feedback) -> Feedback:
    """Write feedback under the key of its request, and return it when the broker has it."""
    producer = Producer(transport.producer(), codec, "annotators")
    await (await producer.send("feedback", feedback.conversation_id or feedback.request_id, feedback))
    return feedback

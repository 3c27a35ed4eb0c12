"""What people thought of a result beside what the evaluators said of it: the scores of feedback. Pure.

Scores of subject ``feedback``: ``rating`` as given; ``disagreement``, 1 where a label contradicts the classifier's and 0
where it bears it out; ``rating_gap``, the distance between the rating and the groundedness of the answer. The last two
are how drift sees that scores no longer mean what people mean (concept drift).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
from penstock.contracts.envelope import derive
from penstock.contracts.records import Context, Evaluation, Feedback, LlmResult, Score

__all__ = ["EARLY", "Early", "Origin", "Remembered", "Said", "early", "evaluated", "remembered"]

EARLY = timedelta(hours=1)
"""How long feedback that is read before its result is held for it."""
_VERSION = "feedback-1"
_SUBJECTS = ("prompt", "answer")
_TOXICITY = ("toxic", "clean")


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Whose result it is, and of what: what the scores of its feedback are allocated to."""

    team: str
    requested_at: datetime
    route: str
    model: str | None = None
    prompt_name: str | None = None
    prompt_version: str | None = None
    policy_name: str = "default"
    policy_version: str | None = None
    status: str = "completed"

    @property
    def context(self) -> Context:
        return Context(
            route=self.route,
            prompt_name=self.prompt_name,
            prompt_version=self.prompt_version,
            policy_name=self.policy_name,
            policy_version=self.policy_version,
            requested_at=self.requested_at,
        )


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What an evaluator said."""

    score: float
    label: str


class Remembered(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """What is kept of one result for feedback that joins it: by subject the features of the scored piece (buckets, 3 bytes
    each), and what was said of it. A state of before these fields has none of the latter."""

    request_id: str
    prompt: bytes = b""
    answer: bytes = b""
    origin: Origin | None = None
    said: dict[str, Said] = {}
    """By ``<subject>.<name>``."""


class Early(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Feedback that was read before its result."""

    event_id: str
    request_id: str
    tenant_id: str
    occurred_at: datetime
    source: str
    rating: float | None = None
    labels: dict[str, str] = {}

    @property
    def feedback(self) -> Feedback:
        return Feedback(
            event_id=self.event_id,
            request_id=self.request_id,
            tenant_id=self.tenant_id,
            occurred_at=self.occurred_at,
            causation_id="",
            source=self.source,
            rating=self.rating,
            labels=self.labels,
        )


def remembered(result: LlmResult, evaluation: Evaluation, buckets: Mapping[str, bytes]) -> Remembered:
    """Return what is kept of a result; ``buckets`` are the packed features by subject."""
    context = result.context
    origin = Origin(
        result.tenant_id,
        context.requested_at,
        context.route,
        result.model,
        context.prompt_name,
        context.prompt_version,
        context.policy_name,
        context.policy_version,
        result.status,
    )
    said = {f"{score.subject}.{score.name}": Said(score.score, score.label) for score in evaluation.scores}
    return Remembered(result.request_id, **buckets, origin=origin, said=said)


def early(feedback: Feedback) -> Early | None:
    """Return what is held of feedback whose result is not known; ``None`` where it says nothing that is used."""
    labels = {
        name: feedback.labels[name]
        for name in (f"{subject}.toxicity" for subject in _SUBJECTS)
        if feedback.labels.get(name) in _TOXICITY
    }
    if not labels and feedback.rating is None:
        return None
    return Early(
        feedback.event_id,
        feedback.request_id,
        feedback.tenant_id,
        feedback.occurred_at,
        feedback.source,
        feedback.rating,
        labels,
    )


def evaluated(feedback: Feedback, result: Remembered) -> Evaluation | None:
    """Return the scores of feedback on a result; ``None`` where it has none, or is another team's."""
    origin = result.origin
    if origin is None or result.request_id != feedback.request_id or origin.team != feedback.tenant_id:
        return None
    found: dict[str, tuple[float, str]] = {}
    rating = feedback.rating
    if rating is not None and 0 <= rating <= 1:
        found["rating"] = rating, "good" if rating >= 0.5 else "bad"
        grounded = result.said.get("answer.groundedness")
        if grounded is not None:
            found["rating_gap"] = abs(grounded.score - rating), grounded.label
    contradicted = [
        result.said[name].label != feedback.labels[name]
        for name in (f"{subject}.toxicity" for subject in _SUBJECTS)
        if feedback.labels.get(name) in _TOXICITY and name in result.said
    ]
    if contradicted:
        found["disagreement"] = float(any(contradicted)), "contradicted" if any(contradicted) else "borne out"
    if not found:
        return None
    return Evaluation(
        # Not the moment of joining: a replay, and feedback that came before its result, give the same bytes.
        **derive(feedback, "evaluation.feedback", 0, feedback.occurred_at),
        context=origin.context,
        model=origin.model,
        status=origin.status,
        scores=[
            Score(name=name, subject="feedback", score=round(score, 6), label=label, version=_VERSION)
            for name, (score, label) in found.items()
        ],
    )

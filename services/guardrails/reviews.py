"""Texts that wait for a person: what is held, and what a decision or the end of waiting makes of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from penstock.bus import Emit
from penstock.contracts.digest import released_digest, released_texts
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import (
    Context,
    LlmResult,
    Record,
    Refusal,
    Review,
    ReviewDecision,
    ScreenedRequest,
    Status,
    Verdict,
)

from services.guardrails.verdicts import Judged, findings_of

__all__ = ["Held", "decided", "hold", "undecided"]

_MOST_CALLS = 2


@dataclass(frozen=True, slots=True)
class Held:
    """A review, and the event that goes on once it is approved."""

    review: Review
    onward: Emit

    @property
    def emit(self) -> Emit:
        return Emit("reviews", self.onward.key, self.review)

    @property
    def calls(self) -> int:
        """Completions there are of the request: none where it was held before the model was asked."""
        record = self.onward.record
        if not isinstance(record, LlmResult):
            return 0
        # Held by a version that did not note it: all there can be, so that no reservation ends before its cost.
        return _MOST_CALLS if record.calls is None else record.calls


def hold(
    cause: Record, context: Context, stage: str, judged: Judged, onward: Emit, *, prompt: str, content: str = ""
) -> Held:
    """Return ``onward`` held for a person; it is due before the request's own deadline."""
    due = judged.now + timedelta(seconds=judged.policy.review_timeout_s)
    review = Review(
        **derive(cause, f"guardrails.{stage}.review", 0, judged.now),
        context=context,
        stage=stage,
        policy_name=judged.policy.name,
        policy_version=judged.policy.version,
        prompt=prompt,
        content=content,
        findings=findings_of(judged),
        due_at=due if context.deadline_at is None else min(due, context.deadline_at),
    )
    return Held(review, onward)


def decided(decision: ReviewDecision, held: Held, now: datetime) -> list[Emit]:
    """Return the verdict that the person gave, and what it leads to: the held event, or the end of the request.

    The verdict's cause is the event that was held, as of every verdict on it, so an auditor finds both together.
    """
    review, onward = held.review, held.onward
    verdict = Verdict(
        event_id=derive(decision, "guardrails.review.verdict", 0, now)["event_id"],
        request_id=review.request_id,
        tenant_id=review.tenant_id,
        occurred_at=now,
        causation_id=review.causation_id,
        stage="review",
        action="allow" if decision.approved else "block",
        policy_name=review.policy_name,
        policy_version=review.policy_version,
        released=released_digest(review.request_id, released_texts(onward.record))
        if decision.approved and isinstance(onward.record, LlmResult)
        else "",
        reviewer=decision.reviewer,
        purpose=review.context.purpose,
    )
    said = Emit("verdicts", review.request_id, verdict)
    if decision.approved:
        # It happens now; its identity stays that of the event it was made of.
        return [said, Emit(onward.topic, onward.key, msgspec.structs.replace(onward.record, occurred_at=now))]
    reason = f"{decision.reviewer} did not approve it: {decision.reason or 'no reason given'}"
    if isinstance(onward.record, LlmResult):
        denied = msgspec.structs.replace(
            onward.record,
            **derive(decision, "guardrails.review.denied", 0, now),
            status=Status.BLOCKED,
            content="",
            citations=[],
            tool_calls=[],
            stage="guardrails",
            code="review_denied",
            reason=reason,
            action="block",
        )
        return [said, Emit("llm-results", onward.key, denied)]
    assert isinstance(onward.record, ScreenedRequest)
    return [said, _ended(decision, held, Status.BLOCKED, "review_denied", reason, now)]


def undecided(held: Held, now: datetime) -> Emit:
    """Return the end of a request whose review nobody decided in time."""
    review = held.review
    reason = f"held for review until {review.due_at.isoformat()} and not decided; see `penstock review list`"
    return _ended(review, held, Status.EXPIRED, "review_timeout", reason, now)


def _ended(cause: Record, held: Held, status: Status, code: str, reason: str, now: datetime) -> Emit:
    review = held.review
    refusal = Refusal(
        **derive(cause, "guardrails.review.refusal", 0, now),
        context=review.context,
        stage="guardrails",
        status=status,
        code=code,
        reason=reason,
        # A request that nobody approved is not shown to those who read results: it may hold what it was held for.
        prompt="" if review.stage == "input" else review.prompt,
        calls=held.calls,
    )
    return Emit("refusals", request_key(review.context, review.request_id), refusal)

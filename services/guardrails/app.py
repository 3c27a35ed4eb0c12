"""The shell of guardrails: hops that decode, judge and emit, with one round trip to Redis a batch at the release gate."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.bus import READ_AHEAD, Emit, Event, Hop, Outcome, Producer, Reject, Transient, by_priority, by_team
from penstock.clock import Clock
from penstock.contracts.envelope import request_key
from penstock.contracts.records import (
    AdmittedRequest,
    Completion,
    Document,
    LlmResult,
    Refusal,
    ReviewDecision,
    Status,
)
from penstock.sealing import Unsealable
from penstock.telemetry import get_logger, metrics

from services.guardrails import core, releasing
from services.guardrails.adapters import Releases
from services.guardrails.alternatives import RELEASING, Beside, is_untouched, likeliest_texts
from services.guardrails.findings import Reference
from services.guardrails.held_texts import Reviews, Vault
from services.guardrails.judge import Configuration, Judge
from services.guardrails.masking import agreed, has_pseudonyms
from services.guardrails.policy import CompiledPolicy
from services.guardrails.reasons import reason_of
from services.guardrails.reviews import Held, decided, undecided
from services.guardrails.screening import Limits
from services.guardrails.verdicts import Judged

__all__ = ["document_hop", "end_overdue_reviews", "release_hop", "request_hop", "review_hop"]

log = get_logger(__name__)

_SWEEP_S = 1.0


def request_hop(judge: Judge, vault: Vault, reviews: Reviews, limits: Limits, clock: Clock, max_batch: int) -> Hop:
    """Return the hop requests-admitted -> requests-screened, refusals or reviews, and verdicts."""

    async def handle(events: Sequence[Event[AdmittedRequest]]) -> Sequence[Outcome]:
        return [await one(event.record) for event in events]

    async def one(request: AdmittedRequest) -> Sequence[Emit]:
        context, now = request.context, clock.now()
        if context.deadline_at is not None and context.deadline_at <= now:
            return [
                core.ended_request(
                    request,
                    Status.EXPIRED,
                    "deadline_exceeded",
                    f"the deadline {context.deadline_at.isoformat()} passed before the screening; allow more time",
                    now,
                )
            ]
        try:
            policy = judge.policy(context.policy_name)
        except ValueError as error:
            # No dead letter: their limit would stop the requests of every other policy too.
            reason = f"the policy cannot be used: {error}"
            return [core.ended_request(request, Status.FAILED, "unusable_policy", reason, now)]
        if policy is None:
            reason = f"the policy {context.policy_name!r} is not published; run `penstock config apply`"
            return [core.ended_request(request, Status.FAILED, "unknown_policy", reason, now)]
        judged = await judge.judge("input", policy, core.request_segments(request), limits, request.request_id)
        screened = core.screened_request(request, judged)
        if judged.screening.action == "block":
            code, _ = reason_of(judged.screening)
            metrics.REFUSED.labels("guardrails", code).inc()
            log.info("request blocked", request_id=request.request_id, code=code)
        # Kept before anything is emitted: whoever comes to read them finds them.
        if screened.pseudonyms:
            await _remember(vault, request, screened.pseudonyms)
        if screened.held is not None:
            await _hold(reviews, screened.held)
        return screened.emits

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        reason = "guardrails could not process the request; it is among the dead letters of guardrails"
        return [core.ended_request(event.record, Status.FAILED, "internal_error", reason, clock.now())]

    return Hop(
        service="guardrails",
        group="guardrails-input",
        topics=("requests-admitted",),
        handler=handle,
        failed=failed,
        max_batch=max_batch,
        urgency=by_priority,
        flow=by_team,
        waiting=READ_AHEAD,
    )


def release_hop(
    judge: Judge,
    releases: Releases,
    vault: Vault,
    reviews: Reviews,
    limits: Limits,
    clock: Clock,
    max_batch: int,
) -> Hop:
    """Return the release gate: completions and refusals -> llm-results, one result a request, and verdicts.

    An answer may also be held for a person (reviews) or asked for once more (requests-repeated).
    """

    async def handle(events: Sequence[Event[Completion | Refusal]]) -> Sequence[Outcome]:
        ready = [await one(event.record) for event in events]
        return await _claimed(ready, releases, clock)

    async def one(record: Completion | Refusal) -> releasing.Released:
        if isinstance(record, Refusal):
            return releasing.Released(releasing.released_refusal(record, clock.now()))
        if not releasing.is_answer(record):
            return releasing.Released(None)
        try:
            policy = judge.policy(record.context.policy_name)
            if policy is None or not releasing.has_answer(record):
                return releasing.released(record, None)
            canary = core.canary_of(judge.key, record.request_id) if policy.canary else ""
            segments = releasing.output_segments(record)
            reference = releasing.output_reference(record, canary)
            judged = await judge.judge("output", policy, segments, limits, record.request_id, reference)
            texts = [segment.text for segment in segments]
            beside = None
            if judged.screening.action in RELEASING:
                beside = await judged_beside(record, policy, judged, reference)
                texts += [each.text for alternative in releasing.alternative_segments(record) for each in alternative]
            pseudonyms = {}
            if any(map(has_pseudonyms, texts)):
                pseudonyms = dict(await vault.open(record.tenant_id, record.request_id))
            released = releasing.released(record, judged, pseudonyms, beside)
            if released.held is not None:
                await _hold(reviews, released.held)
            if released.repeated is not None and await releases.repeat(record.tenant_id, record.request_id):
                return releasing.Released(None, [*released.emits, released.repeated])
            return released
        except Transient:
            raise
        except Exception as error:  # Without a result the request would never end; the answer itself stays unreleased.
            log.error("answer could not be judged", request_id=record.request_id, exc_info=error)
            return releasing.Released(releasing.unjudged(record, clock.now()))

    async def judged_beside(
        completion: Completion, policy: CompiledPolicy, judged: Judged, reference: Reference
    ) -> Beside:
        """Judge what leaves beside the answer, which is ``judged``: with the whole policy, each alternative by itself."""
        alternatives = [
            await judge.judge("output", policy, segments, limits, completion.request_id, reference)
            for segments in releasing.alternative_segments(completion)
        ]
        clear = []
        for said, tokens, by in zip(
            (completion.content, *(each.content for each in completion.alternatives)),
            (completion.logprobs, *(each.logprobs for each in completion.alternatives)),
            (judged, *alternatives),
            strict=True,
        ):
            # Tokens that do not leave at all need no look.
            likeliest = likeliest_texts(tokens) if is_untouched(by.screening, said) else []
            clear.append(bool(likeliest) and await judge.finds_nothing(policy, likeliest, limits, reference))
        return Beside(tuple(alternatives), tuple(clear))

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        # Reached only where the result, already claimed under this very event_id, could not be encoded.
        record = event.record
        result = (
            releasing.released_refusal(record, clock.now())
            if isinstance(record, Refusal)
            else releasing.unjudged(record, clock.now())
        )
        return [Emit("llm-results", request_key(record.context, record.request_id), result)]

    return Hop(
        service="guardrails",
        group="guardrails-release",
        topics=("completions", "refusals"),
        handler=handle,
        failed=failed,
        max_batch=max_batch,
        urgency=by_priority,
        flow=by_team,
        waiting=READ_AHEAD,
    )


async def _remember(vault: Vault, request: AdmittedRequest, pseudonyms: Mapping[str, str]) -> None:
    try:
        before = await vault.open(request.tenant_id, request.request_id)
    except Unsealable:
        before = {}
    await vault.put(request.tenant_id, request.request_id, agreed(before, pseudonyms))


async def _hold(reviews: Reviews, held: Held) -> None:
    await reviews.hold(held)
    metrics.REVIEWS.labels("held").inc()


async def _claimed(ready: Sequence[releasing.Released], releases: Releases, clock: Clock) -> list[Outcome]:
    """What is emitted of each: the result only where it is the one that ends its request.

    A result that says when to send the request again does not: it is told where the request has not ended, and leaves it
    to be sent again.
    """
    results = [released.result for released in ready if released.result is not None]
    won = iter(
        await releases.claim(
            [(each.tenant_id, each.request_id, each.event_id) for each in results if each.retry_after_ms is None]
        )
    )
    ended = iter(
        await releases.ended([(each.tenant_id, each.request_id) for each in results if each.retry_after_ms is not None])
    )
    outcomes: list[Outcome] = []
    for released in ready:
        result = released.result
        if result is None:
            outcomes.append(released.emits)
        elif result.retry_after_ms is not None:
            outcomes.append(released.emits if next(ended) else [*released.emits, _ending(result, clock)])
        elif (claimed := next(won)).won:
            ending = releasing.with_repeat(result) if claimed.repeated else result
            outcomes.append([*released.emits, _ending(ending, clock)])
        else:
            log.info("request had ended already", request_id=result.request_id, status=result.status)
            outcomes.append(released.emits)
    return outcomes


def _ending(result: LlmResult, clock: Clock) -> Emit:
    waited = (clock.now() - result.context.requested_at).total_seconds()
    metrics.END_TO_END_SECONDS.labels(result.status).observe(max(0.0, waited))
    return Emit("llm-results", request_key(result.context, result.request_id), result)


def review_hop(reviews: Reviews, releases: Releases, clock: Clock, max_batch: int) -> Hop:
    """Return the hop review-decisions -> what was held goes on, or the request ends; and the person's verdict."""

    async def handle(events: Sequence[Event[ReviewDecision]]) -> Sequence[Outcome]:
        return [await one(event.record) for event in events]

    async def one(decision: ReviewDecision) -> Outcome:
        held = await reviews.take(decision)
        if held is None:
            return Reject(
                "review_not_open",
                f"nothing is held under review {decision.review_id!r} of team {decision.tenant_id!r}, or it was decided "
                "already; `penstock review list` shows what is open",
            )
        emits = decided(decision, held, clock.now())
        await reviews.close(held.review)
        metrics.REVIEWS.labels("approved" if decision.approved else "denied").inc()
        log.info("review decided", request_id=held.review.request_id, approved=decision.approved)
        result = emits[-1].record
        if not isinstance(result, LlmResult):
            return emits
        [outcome] = await _claimed([releasing.Released(result, emits[:-1])], releases, clock)
        return outcome

    return Hop(
        service="guardrails",
        group="guardrails-reviews",
        topics=("review-decisions",),
        handler=handle,
        max_batch=max_batch,
    )


async def end_overdue_reviews(reviews: Reviews, producer: Producer, clock: Clock, stopping: asyncio.Event) -> None:
    """End the requests whose review nobody decided in time, until ``stopping`` is set.

    Replicas that see the same review emit the same event, and the release gate lets one pass.
    """
    while not stopping.is_set():
        try:
            for held in await reviews.overdue(clock.now()):
                review, ended = held.review, undecided(held, clock.now())
                # Not where a person was faster: their decision is on its way.
                if await reviews.end(review, ended.record.event_id):
                    await (await producer.send(ended.topic, ended.key, ended.record))
                    metrics.REVIEWS.labels("overdue").inc()
                    log.info("review overdue", request_id=review.request_id, due_at=review.due_at.isoformat())
                await reviews.close(review)
        except (Transient, OSError, RuntimeError) as error:
            log.warning("overdue reviews wait", reason=str(error))
        try:
            await asyncio.wait_for(stopping.wait(), _SWEEP_S)
        except TimeoutError:
            continue


def document_hop(judge: Judge, config: Configuration, limits: Limits) -> Hop:
    """Return the hop documents, documents-extracted -> documents-screened, and verdicts. A poisoned document ends here.

    A document that came as a file is judged when its text is there, on documents-extracted.
    """

    async def handle(events: Sequence[Event[Document]]) -> Sequence[Outcome]:
        return [await one(event) for event in events]

    async def one(event: Event[Document]) -> Outcome:
        document = event.record
        if event.topic == "documents" and document.data is not None and not document.deleted:
            return []
        team = config.team(document.tenant_id)
        if team is None:
            return Reject(
                "unknown_team",
                f"no team {document.tenant_id!r} is published; run `penstock config apply`, then `penstock dlq replay`",
            )
        policy = judge.policy(team.policy)
        if policy is None:
            return Reject(
                "unknown_policy",
                f"no policy {team.policy!r} is published; run `penstock config apply`, then `penstock dlq replay`",
            )
        judged = await judge.judge("documents", policy, core.document_segments(document), limits, document.request_id)
        if judged.screening.action == "block":
            code, _ = reason_of(judged.screening)
            metrics.REFUSED.labels("guardrails", code).inc()
            log.warning("document quarantined", document_id=document.document_id, code=code)
        return core.screened_document(document, judged)

    return Hop(
        service="guardrails",
        group="guardrails-documents",
        topics=("documents", "documents-extracted"),
        handler=handle,
        max_batch=16,
    )

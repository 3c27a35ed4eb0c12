"""The shell of guardrails: three hops, each decode -> judge -> emit, with one round trip to Redis a batch at the
release gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from penstock.bus import Emit, Event, Hop, Outcome, Reject
from penstock.clock import Clock
from penstock.config.kinds import Policy, Team
from penstock.contracts.envelope import request_key
from penstock.contracts.records import AdmittedRequest, Completion, Document, LlmResult, Refusal, Status
from penstock.telemetry import get_logger, metrics

from services.guardrails import core
from services.guardrails.adapters import Releases
from services.guardrails.findings import Reference
from services.guardrails.policy import CompiledPolicy, Scanners, compile_policy
from services.guardrails.screening import Limits, Segment, screen

__all__ = ["Judge", "document_hop", "release_hop", "request_hop"]

log = get_logger(__name__)

# Texts above this go to a thread, so that one long document does not hold up the requests beside it.
_THREAD_ABOVE_CHARS = 20_000


class Configuration(Protocol):
    """What guardrails ask of the config plane."""

    def policy(self, name: str) -> Policy | None: ...
    def team(self, name: str) -> Team | None: ...


class Judge:
    """Screens texts under the policies in force; a policy is compiled once per version."""

    def __init__(self, config: Configuration, scanners: Scanners, fingerprint_key: bytes, clock: Clock) -> None:
        self._config = config
        self._scanners = scanners
        self._key = fingerprint_key
        self._clock = clock
        self._compiled: dict[str, CompiledPolicy] = {}

    def policy(self, name: str) -> CompiledPolicy | None:
        """The policy in force under ``name``, or None where none is published.

        Raises:
            ValueError: it names a scanner that this version does not have.
        """
        policy = self._config.policy(name)
        if policy is None:
            return None
        compiled = self._compiled.get(name)
        if compiled is None or compiled.version != policy.version:
            compiled = self._compiled[name] = compile_policy(policy, self._scanners)
        return compiled

    async def judge(
        self,
        stage: str,
        policy: CompiledPolicy,
        segments: Sequence[Segment],
        limits: Limits,
        reference: Reference | None = None,
    ) -> core.Judged:
        """Screen the segments of one event at a stage: input, output or documents."""
        arguments = (segments, policy.stages[stage], reference or Reference(), limits, self._clock.monotonic)
        if sum(len(segment.text) for segment in segments) > _THREAD_ABOVE_CHARS:
            screening = await asyncio.to_thread(screen, *arguments)
        else:
            screening = screen(*arguments)
        metrics.SCREENED.labels(stage, screening.action).inc()
        metrics.SCREEN_SECONDS.labels(stage).observe(screening.elapsed_s)
        for finding in screening.findings:
            metrics.FINDINGS.labels(stage, finding.scanner, finding.action).inc()
        for scanner, reason in screening.errors.items():
            log.warning("scanner failed", stage=stage, scanner=scanner, reason=reason)
        return core.Judged(screening, policy, self._key, self._clock.now())


def request_hop(judge: Judge, limits: Limits, clock: Clock, max_batch: int) -> Hop:
    """Return the hop requests-admitted -> requests-screened or refusals, and verdicts."""

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
        policy = judge.policy(context.policy_name)
        if policy is None:
            reason = f"the policy {context.policy_name!r} is not published; run `penstock config apply`"
            return [core.ended_request(request, Status.FAILED, "unknown_policy", reason, now)]
        judged = await judge.judge("input", policy, core.request_segments(request), limits)
        if judged.screening.action == "block":
            metrics.REFUSED.labels("guardrails", core.code_of(judged.screening)).inc()
            log.info("request blocked", request_id=request.request_id, code=core.code_of(judged.screening))
        return core.screened_request(request, judged)

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
    )


def release_hop(judge: Judge, releases: Releases, limits: Limits, clock: Clock, max_batch: int) -> Hop:
    """Return the release gate: completions and refusals -> llm-results, one result a request, and verdicts."""

    async def handle(events: Sequence[Event[Completion | Refusal]]) -> Sequence[Outcome]:
        ready = [await one(event.record) for event in events]
        won = await releases.claim([(result.tenant_id, result.request_id, result.event_id) for result, _ in ready])
        outcomes: list[Outcome] = []
        for (result, verdicts), first in zip(ready, won, strict=True):
            if first:
                waited = (clock.now() - result.context.requested_at).total_seconds()
                metrics.END_TO_END_SECONDS.labels(result.status).observe(max(0.0, waited))
                key = request_key(result.context, result.request_id)
                outcomes.append([*verdicts, Emit("llm-results", key, result)])
            else:
                log.info("request had ended already", request_id=result.request_id, status=result.status)
                outcomes.append(verdicts)
        return outcomes

    async def one(record: Completion | Refusal) -> tuple[LlmResult, list[Emit]]:
        if isinstance(record, Refusal):
            return core.released_refusal(record, clock.now()), []
        try:
            policy = judge.policy(record.context.policy_name)
            if policy is None or not core.has_answer(record):
                return core.released(record, None)
            return core.released(
                record,
                await judge.judge(
                    "output", policy, core.output_segments(record), limits, core.output_reference(record)
                ),
            )
        except Exception as error:  # Without a result the request would never end; the answer itself stays unreleased.
            log.error("answer could not be judged", request_id=record.request_id, exc_info=error)
            return core.unjudged(record, clock.now()), []

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        # Reached only where the result, already claimed under this very event_id, could not be encoded.
        record = event.record
        result = (
            core.released_refusal(record, clock.now())
            if isinstance(record, Refusal)
            else core.unjudged(record, clock.now())
        )
        return [Emit("llm-results", request_key(record.context, record.request_id), result)]

    return Hop(
        service="guardrails",
        group="guardrails-release",
        topics=("completions", "refusals"),
        handler=handle,
        failed=failed,
        max_batch=max_batch,
    )


def document_hop(judge: Judge, config: Configuration, limits: Limits) -> Hop:
    """Return the hop documents -> documents-screened, and verdicts. A poisoned document ends here."""

    async def handle(events: Sequence[Event[Document]]) -> Sequence[Outcome]:
        return [await one(event) for event in events]

    async def one(event: Event[Document]) -> Outcome:
        document = event.record
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
        judged = await judge.judge("documents", policy, core.document_segments(document), limits)
        if judged.screening.action == "block":
            metrics.REFUSED.labels("guardrails", core.code_of(judged.screening)).inc()
            log.warning("document quarantined", document_id=document.document_id, code=core.code_of(judged.screening))
        return core.screened_document(document, judged)

    return Hop(service="guardrails", group="guardrails-documents", topics=("documents",), handler=handle, max_batch=16)

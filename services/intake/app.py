"""The shell of intake: batches in, one round trip to Redis a batch, events out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.bus import Emit, Event, Hop, Outcome, Reject
from penstock.clock import Clock
from penstock.contracts.envelope import request_key
from penstock.contracts.records import Context, Cost, LlmRequest, Refusal, Status
from penstock.telemetry import get_logger, metrics

from services.intake.adapters import Claims, Settlement
from services.intake.core import Configuration, Decision, Limits, identifiable, judge, refusal, settled, step

__all__ = ["admission_hop", "settlement_hop"]

log = get_logger(__name__)


def admission_hop(config: Configuration, claims: Claims, limits: Limits, clock: Clock) -> Hop:
    """Return the hop llm-requests -> requests-admitted, refusals."""

    async def handle(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        now = clock.now()
        problems = [identifiable(event.record) for event in events]
        judgements = [
            judge(event.record, config, limits, now)
            for event, problem in zip(events, problems, strict=True)
            if problem is None
        ]
        claimed = iter(zip(judgements, await claims.admit(judgements), strict=True))
        outcomes: list[Outcome] = []
        for problem in problems:
            if problem is not None:
                outcomes.append(Reject("invalid_request", problem))
                continue
            judgement, claim = next(claimed)
            if claim.decision is not Decision.ADMITTED:
                code = judgement.code or str(claim.decision)
                metrics.REFUSED.labels("intake", code).inc()
                log.info("not admitted", request_id=judgement.request.request_id, code=code)
            outcomes.append(step(judgement, claim, now))
        return outcomes

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        request: LlmRequest = event.record
        context = Context(
            conversation_id=request.conversation_id, route=request.route, requested_at=request.occurred_at
        )
        ended = refusal(
            request,
            context,
            Status.FAILED,
            "internal_error",
            "intake could not process the request; it is among the dead letters of intake",
            clock.now(),
        )
        return [Emit("refusals", request_key(context, request.request_id), ended)]

    return Hop(service="intake", group="intake", topics=("llm-requests",), handler=handle, failed=failed)


def settlement_hop(config: Configuration, claims: Claims) -> Hop:
    """Return the hop that settles reservations from costs and refusals; it emits nothing."""

    async def handle(events: Sequence[Event[Cost | Refusal]]) -> Sequence[Outcome]:
        settlements = []
        for event in events:
            record = event.record
            team = config.team(record.tenant_id)
            if team is None or (team.daily_budget is None and team.monthly_budget is None):
                continue
            if (amount := settled(record)) is not None:
                settlements.append(Settlement(record.tenant_id, record.request_id, amount))
        await claims.settle(settlements)
        return [()] * len(events)

    return Hop(service="intake", group="intake-settlement", topics=("costs", "refusals"), handler=handle)

"""The shell of intake: batches in, one round trip to Redis a batch, events out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.alerts import log_range
from penstock.bus import Emit, Event, Hop, Outcome, Reject
from penstock.clock import Clock
from penstock.contracts.envelope import request_key
from penstock.contracts.records import Context, Cost, LlmRequest, LlmResult, Status
from penstock.telemetry import get_logger, metrics

from services.intake.adapters import Claims
from services.intake.core import Configuration, Decision, Limits, Refused, identifiable, judge, refusal, step
from services.intake.settlement import Charge, Finish, InvalidAmount, Release, charge_of, finish_of, release_of

__all__ = ["admission_hop", "settlement_hop"]

log = get_logger(__name__)


def admission_hop(config: Configuration, claims: Claims, limits: Limits, clock: Clock) -> Hop:
    """Return the hop llm-requests -> requests-admitted, refusals, request-conflicts."""

    async def handle(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        now = clock.now()
        problems = [identifiable(event.record) for event in events]
        judgements = [
            judge(event.record, config, limits, now, f"{event.topic}/{event.partition}/{event.offset}")
            for event, problem in zip(events, problems, strict=True)
            if problem is None
        ]
        for judgement in judgements:
            for skipped in judgement.skipped:
                metrics.EXPERIMENT_SKIPS.labels(skipped.experiment, skipped.code).inc()
                log.warning(
                    "an experiment could not assign a request",
                    request_id=judgement.request.request_id,
                    experiment=skipped.experiment,
                    code=skipped.code,
                    reason=skipped.reason,
                )
        claimed = iter(zip(judgements, await claims.admit(judgements), strict=True))
        outcomes: list[Outcome] = []
        for event, problem in zip(events, problems, strict=True):
            if problem is not None:
                outcomes.append(Reject("invalid_request", problem))
                continue
            judgement, claim = next(claimed)
            if claim.assigned != judgement.assigned and claim.decision not in (Decision.DUPLICATE, Decision.CONFLICT):
                # It was decided before, and experiments have changed since: it keeps the arms it had.
                judgement = judge(event.record, config, limits, now, judgement.place, claim.assigned)
            if claim.decision is not Decision.ADMITTED:
                code = claim.refused.code if claim.refused else str(claim.decision)
                metrics.REFUSED.labels("intake", code).inc()
                log.info("not admitted", request_id=judgement.request.request_id, code=code)
            outcomes.append(step(judgement, claim, log_range(event.message), now))
        return outcomes

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        request: LlmRequest = event.record
        context = Context(
            conversation_id=request.conversation_id,
            route=request.route,
            requested_at=request.occurred_at,
            purpose=request.purpose,
        )
        ended = refusal(
            request,
            context,
            Refused(
                Status.FAILED,
                "internal_error",
                "intake could not process the request; it is among the dead letters of intake",
            ),
            clock.now(),
        )
        return [Emit("refusals", request_key(context, request.request_id), ended)]

    return Hop(service="intake", group="intake", topics=("llm-requests",), handler=handle, failed=failed)


def settlement_hop(config: Configuration, claims: Claims, clock: Clock) -> Hop:
    """Return the hop that ends what requests hold, by their costs and results; it emits nothing."""

    async def handle(events: Sequence[Event[Cost | LlmResult]]) -> Sequence[Outcome]:
        settlements: list[Charge | Release | Finish] = []
        outcomes: list[Outcome] = []
        for event in events:
            record = event.record
            team = config.team(record.tenant_id)
            ended: tuple[Charge | Release | Finish | None, ...]
            try:
                if isinstance(record, Cost):
                    ended = (charge_of(record, team),)
                else:
                    ended = (release_of(record, team), finish_of(record, team))
            except InvalidAmount as error:
                outcomes.append(Reject("invalid_amount", str(error)))
                continue
            outcomes.append(())
            settlements += [one for one in ended if one is not None]
        await claims.settle(settlements, clock.now())
        return outcomes

    return Hop(service="intake", group="intake-settlement", topics=("costs", "llm-results"), handler=handle)

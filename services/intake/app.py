"""The shell of intake: batches in, a few round trips to Redis a batch, events out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from penstock.alerts import log_range
from penstock.bus import READ_AHEAD, Emit, Event, Hop, Outcome, Reject, Urgency, by_team, urgency_of
from penstock.clock import Clock
from penstock.contracts.envelope import request_key
from penstock.contracts.records import Context, Cost, LlmRequest, LlmResult, Priority, Status
from penstock.telemetry import get_logger, metrics

from services.intake.adapters import Claims
from services.intake.core import (
    Claim,
    Configuration,
    Decision,
    Judgement,
    Limits,
    Refused,
    identifiable,
    judge,
    refusal,
    step,
)
from services.intake.queues import Queues
from services.intake.settlement import (
    Charge,
    Departure,
    Finish,
    InvalidAmount,
    Release,
    charge_of,
    departure_of,
    finish_of,
    release_of,
)
from services.intake.waiting_room import WaitingRoom

__all__ = ["Decides", "admission_hop", "settlement_hop", "waiting_hop"]

log = get_logger(__name__)

_BATCH = 16
"""Requests decided in one round trip; whoever comes next waits for all of them."""
_LOOK_S = 0.05
"""So often a request that waits looks for room."""
_DOORS = 1024
"""Teams and priorities of which one request each looks for room at a time."""
_NO_ARMS = frozenset({Decision.DUPLICATE, Decision.CONFLICT, Decision.WAITING})
"""Decisions that remember no arms of experiments."""


class Decides(Protocol):
    """Decides about requests what depends on others."""

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]: ...


def admission_hop(config: Configuration, claims: Decides, limits: Limits, clock: Clock) -> Hop:
    """Return the hop llm-requests -> requests-admitted, requests-waiting, refusals, request-conflicts."""

    async def handle(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        now = clock.now()
        problems = [identifiable(event.record) for event in events]
        judgements = [
            _judged(event, config, limits, now)
            for event, problem in zip(events, problems, strict=True)
            if problem is None
        ]
        claimed = iter(zip(judgements, await claims.admit(judgements), strict=True))
        return [
            _decided(event, *next(claimed), config, limits, now)
            if problem is None
            else Reject("invalid_request", problem)
            for event, problem in zip(events, problems, strict=True)
        ]

    def urgency(event: Event[LlmRequest]) -> Urgency:
        # Before admission a priority is only what the producer says.
        request, team = event.record, config.team(event.record.tenant_id)
        allowed = team is not None and request.priority in team.priorities
        return urgency_of(request.priority if allowed else Priority.STANDARD, request.deadline_at)

    return Hop(
        service="intake",
        group="intake",
        topics=("llm-requests",),
        handler=handle,
        max_batch=_BATCH,
        failed=_failed(config, limits, clock),
        urgency=urgency,
        flow=by_team,
        waiting=READ_AHEAD,
    )


def waiting_hop(config: Configuration, claims: Decides, room: WaitingRoom, limits: Limits, clock: Clock) -> Hop:
    """Return the hop requests-waiting -> requests-admitted, refusals, request-conflicts.

    Of each team and priority one request is at the door, until there is room in the flow or its deadline has passed; those
    behind it keep their order.
    """

    async def handle(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        (event,) = events
        while True:
            now = clock.now()
            judgement = dataclasses.replace(_judged(event, config, limits, now), waited=True)
            (claim,) = await claims.admit([judgement])
            if claim.decision is not Decision.WAITING:
                return [_decided(event, judgement, claim, config, limits, now)]
            await clock.sleep(_LOOK_S)

    def urgency(event: Event[LlmRequest]) -> Urgency:
        return urgency_of(event.record.priority, event.record.deadline_at)

    return Hop(
        service="intake",
        group="intake-waiting",
        topics=("requests-waiting",),
        handler=handle,
        concurrency=_DOORS,
        failed=_failed(config, limits, clock),
        urgency=urgency,
        flow=by_team,
        waiting=READ_AHEAD,
        settled=room.decided,
        interruptible=True,
    )


def _judged(event: Event[LlmRequest], config: Configuration, limits: Limits, now: datetime) -> Judgement:
    place = f"{event.topic}/{event.partition}/{event.offset}"
    judgement = judge(event.record, config, limits, now, place)
    for skipped in judgement.skipped:
        metrics.EXPERIMENT_SKIPS.labels(skipped.experiment, skipped.code).inc()
        log.warning(
            "an experiment could not assign a request",
            request_id=judgement.request.request_id,
            experiment=skipped.experiment,
            code=skipped.code,
            reason=skipped.reason,
        )
    return judgement


def _decided(
    event: Event[LlmRequest],
    judgement: Judgement,
    claim: Claim,
    config: Configuration,
    limits: Limits,
    now: datetime,
) -> Sequence[Emit]:
    if claim.assigned != judgement.assigned and claim.decision not in _NO_ARMS:
        # It was decided before, and experiments have changed since: it keeps the arms it had.
        judgement = judge(event.record, config, limits, now, judgement.place, claim.assigned)
    if claim.decision not in (Decision.ADMITTED, Decision.WAITING):
        code = claim.refused.code if claim.refused else str(claim.decision)
        metrics.REFUSED.labels("intake", code).inc()
        log.info("not admitted", request_id=judgement.request.request_id, code=code)
    return step(judgement, claim, log_range(event.message), now)


def _failed(config: Configuration, limits: Limits, clock: Clock) -> Callable[[Event[Any], Exception], Sequence[Emit]]:
    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        request: LlmRequest = event.record
        # No more of it than must be: what it says of itself may be just what no event can hold.
        context = Context(
            conversation_id=request.conversation_id,
            route=_route(request, config, limits, clock.now()),
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

    return failed


def _route(request: LlmRequest, config: Configuration, limits: Limits, now: datetime) -> str:
    """Return the route in whose queue ``request`` stands, which its result takes it out of."""
    try:
        return judge(request, config, limits, now).context.route
    except Exception:  # the defect may be just there: then it stands in none
        return request.route


def settlement_hop(config: Configuration, claims: Claims, clock: Clock, queues: Queues | None = None) -> Hop:
    """Return the hop that ends what requests hold, by their costs and results; it emits nothing.

    Args:
        queues: that requests leave with their results; None where none are kept.
    """

    async def handle(events: Sequence[Event[Cost | LlmResult]]) -> Sequence[Outcome]:
        settlements: list[Charge | Release | Finish] = []
        departures: list[Departure] = []
        outcomes: list[Outcome] = []
        for event in events:
            record = event.record
            team = config.team(record.tenant_id)
            ended: tuple[Charge | Release | Finish | None, ...]
            try:
                if isinstance(record, Cost):
                    ended = (charge_of(record, team),)
                else:
                    ended = (release_of(record, team), finish_of(record))
                    departures += [left for left in [departure_of(record)] if left is not None]
            except InvalidAmount as error:
                outcomes.append(Reject("invalid_amount", str(error)))
                continue
            outcomes.append(())
            settlements += [one for one in ended if one is not None]
        await claims.settle(settlements, clock.now())
        for served in await queues.leave(departures) if queues is not None else ():
            if served.told_s is not None:
                metrics.QUEUE_ESTIMATE_RATIO.labels(served.queue).observe(served.took_s / served.told_s)
        return outcomes

    return Hop(service="intake", group="intake-settlement", topics=("costs", "llm-results"), handler=handle)

"""What is decided about a batch of requests from the others there are: the queues of their routes, and the ledger."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from penstock.contracts.records import Priority
from penstock.telemetry import metrics

from services.intake.adapters import Claims
from services.intake.decisions import Claim, Decision, Judgement
from services.intake.queueing import Standing, estimate, queue_of, too_long
from services.intake.queues import Queues
from services.intake.validity import PRIORITIES

__all__ = ["Admission"]

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Admission:
    """The ledger of claims behind the queues of the routes."""

    claims: Claims
    queues: Queues

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]:
        """Decide about each request, in order.

        All take their places in the queues first, so that those of one instant see each other; who is not admitted is taken
        out again.

        Raises:
            Transient: Redis is away.
        """
        # Those that waited for room stand there already, and were told.
        queued = [number for number, one in enumerate(judgements) if one.refused is None and not one.waited]
        standings = dict(zip(queued, await self.queues.enter([judgements[n] for n in queued]), strict=True))
        asked = list(judgements)
        told: dict[int, int] = {}
        gone: Counter[tuple[str, ...]] = Counter()
        for number, standing in standings.items():
            judgement = judgements[number]
            expected = estimate(_without(gone, standing, judgement))
            if expected is None:
                continue
            queue, deadline = queue_of(judgement.context), judgement.context.deadline_at
            metrics.QUEUE_ESTIMATE_SECONDS.labels(queue).set(expected.took_us / 1e6)
            told[number] = expected.took_us
            if deadline is None:
                continue
            late = too_long(expected, (deadline - judgement.at) // _MICROSECOND, standing.base_us)
            if late is not None:
                asked[number] = dataclasses.replace(judgement, late=late)
                gone.update(_counted(judgement) if standing.mine else ())
        claims = await self.claims.admit(asked)
        withdrawn: list[Judgement] = []
        # What the last one of each queue was told stands for all of the batch.
        kept: dict[str, tuple[Judgement, int]] = {}
        for number, standing in standings.items():
            if _is_out(standing, claims[number]):
                withdrawn.append(judgements[number])
            elif standing.added and number in told:
                kept[queue_of(judgements[number].context)] = judgements[number], told[number]
        await self.queues.note(withdrawn, list(kept.values()))
        return claims


def _is_out(standing: Standing, claim: Claim) -> bool:
    """Return whether a request has to be taken out of the queue again."""
    match claim.decision:
        case Decision.WAITING:
            # One that waits already has its place, perhaps in another queue: a second send needs none.
            return claim.again and standing.added
        case Decision.ADMITTED:
            # It was admitted before, and its result has come: it stands there anew, by this try or one before it.
            return claim.again and (standing.added or (standing.mine and claim.ended))
        case _:
            # Of a duplicate or a conflict the other one keeps its place, which is another one's in the log.
            return standing.mine


def _counted(judgement: Judgement) -> list[tuple[str, ...]]:
    """Return what a request is counted under: its class, and its team within."""
    queue, context = queue_of(judgement.context), judgement.context
    return [(queue, context.priority), (queue, context.priority, judgement.request.tenant_id)]


def _without(gone: Counter[tuple[str, ...]], standing: Standing, judgement: Judgement) -> Standing:
    """Return ``standing`` without those before it in the batch that will be taken out again."""
    if not gone:
        return standing
    by_class, by_team = _counted(judgement)
    queue, priority = by_class
    before = sum(gone[queue, higher] for higher in PRIORITIES[: PRIORITIES.index(Priority(priority))])
    return dataclasses.replace(
        standing, own=standing.own - gone[by_team], same=standing.same - gone[by_class], before=standing.before - before
    )

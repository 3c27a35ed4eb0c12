"""What admission knows of a request and decides about it: the types between the steps of ``core``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from penstock.config.kinds import Team
from penstock.contracts.records import Context, LlmRequest, Message, Sampling, Status
from penstock.contracts.request_content import content_hash

from services.intake.assignment import NOT_ASSIGNED, Assigned, Skipped
from services.intake.bounds import Hold
from services.intake.exceeded import Exceeded
from services.intake.queueing import TooLong

__all__ = ["DEFERRED", "Claim", "Decision", "Judgement", "Refused", "content_hash"]


class Decision(StrEnum):
    """What the ledger of claims says of a request."""

    ADMITTED = "admitted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    RATE_LIMITED = "rate_limited"
    TOKEN_RATE_LIMITED = "token_rate_limited"
    TOO_MANY_CONCURRENT = "too_many_concurrent"
    QUEUE_TOO_LONG = "queue_too_long"
    WAITING = "waiting"
    OVER_BUDGET = "over_budget"
    REFUSED = "refused"


DEFERRED = frozenset(
    {Decision.RATE_LIMITED, Decision.TOKEN_RATE_LIMITED, Decision.TOO_MANY_CONCURRENT, Decision.QUEUE_TOO_LONG}
)
"""Decisions that waiting changes: the same request may be sent again, and is decided anew."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request was not admitted, as it is told. ``retry_after_ms`` is None where waiting does not help."""

    status: Status
    code: str
    reason: str
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The ledger's answer, the same for every replay of an event.

    Attributes:
        admitted_at: when it was decided first: the instant that chose the budgets' windows.
        refused: why, where the request and the configuration of then were reason enough.
        retry_after_ms: set where the decision is one of :data:`DEFERRED`: all that were exceeded have room by then. For a
            place among concurrent requests no instant is known, and it is when to try again.
        late: the queue that would outlast its deadline, where that is the decision.
        exceeded: the budget, where one would have been.
        alert: whether this is the refusal that on-call is told of.
        assigned: the arms that it was admitted with.
        again: whether it had been decided before.
        ended: whether it had, and holds nothing any more: it was not admitted, or its result has come.
    """

    decision: Decision
    admitted_at: datetime | None = None
    refused: Refused | None = None
    retry_after_ms: int | None = None
    late: TooLong | None = None
    exceeded: Exceeded | None = None
    alert: bool = False
    assigned: Assigned = NOT_ASSIGNED
    again: bool = field(default=False, compare=False)
    ended: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A request as admission sees it: the context it will carry, and why it cannot be admitted, if it cannot.

    Attributes:
        at: when it was judged; chooses the windows of ``holds``.
        place: where the request stands in the log. The same event at another place is a second send of it.
        tokens: estimate of what it takes of the team's tokens per minute, prompt and answers.
        reserve: the most that all its calls can cost, USD; None where a target has no price.
        holds: what it would hold in each counter of the team's hard budgets.
        assigned: the arms of experiments that it was judged with.
        skipped: experiments that would have assigned it and could not.
        late: the queue of its route, where that outlasts its deadline.
        waited: whether it comes from the waiting room: its rates were taken before it went there.
    """

    request: LlmRequest
    context: Context
    messages: list[Message]
    sampling: Sampling
    at: datetime
    team: Team | None = None
    inserted: list[str] = field(default_factory=list)
    tokens: int = 0
    reserve: Decimal | None = None
    holds: list[Hold] = field(default_factory=list)
    refused: Refused | None = None
    place: str = ""
    assigned: Assigned = NOT_ASSIGNED
    skipped: Sequence[Skipped] = ()
    late: TooLong | None = None
    waited: bool = False

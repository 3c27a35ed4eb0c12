"""How what a request holds ends: by the costs of its calls, and by the result that says how many there were. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock.config.kinds import Team
from penstock.contracts.records import Cost, LlmResult, Status
from penstock.money import Subject, pico, subjects

from services.intake.bounds import EMBEDDING, hard_budgets
from services.intake.queueing import queue_of

__all__ = [
    "LARGEST_AMOUNT", "Charge", "Departure", "Finish", "InvalidAmount", "Release", "charge_of", "departure_of",
    "finish_of", "release_of", "was_deferred",
]  # fmt: skip

LARGEST_AMOUNT = 10**24
"""Pico-USD, 1e12 USD: the scripts count whole dollars and the rest in doubles, exact to 9e15 USD."""

_CALLS = frozenset({"completion", "repeat", "cancelled", "cached", "abandoned", "judge"})
"""Kinds of costs that are a call of the request itself: they settle the slot of their attempt."""
_PARTS = frozenset({"abandoned", "shadow"})
"""Kinds of costs that stand beside the answer's: they are taken from the slot of their attempt, which stays."""


class InvalidAmount(ValueError):
    """The amount of a cost is nothing that can be charged; the message says why."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A priced call: its slot is given back, and ``amount`` (pico-USD) is spent by ``subjects`` in the windows of ``at``.

    ``slot`` is None where nothing was reserved for such a call: what a document's embedding cost.
    ``part`` says that the slot pays for another target's call too, which is yet to come: only the amount is taken from it.
    """

    tenant_id: str
    request_id: str
    event_id: str
    slot: str | None
    amount: int
    subjects: tuple[Subject, ...]
    at: datetime
    part: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """A request has ended after ``calls`` calls: what is held for further ones is given back, or soon is.

    ``at_once`` is False where the end could be that of a redelivery while the first delivery still made its call: then
    its cost may be on its way.
    """

    tenant_id: str
    request_id: str
    calls: int
    at_once: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """A request is not under way any more; its calls took ``tokens``, None where that is not known."""

    tenant_id: str
    request_id: str
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Departure:
    """A request leaves its ``queue``.

    ``served`` says whether that shows how fast the queue is served, ``missed`` whether it waited until its deadline passed.
    """

    tenant_id: str
    request_id: str
    queue: str
    served: bool
    missed: bool = False


def was_deferred(result: LlmResult) -> bool:
    """Return whether ``result`` tells of a send that has to wait, which holds nothing: the request itself may be under way
    by now, sent again."""
    return result.stage == "intake" and result.retry_after_ms is not None


def charge_of(cost: Cost, team: Team | None) -> Charge | None:
    """Return what ``cost`` charges; None where the team has no hard budget, or the call could not be priced.

    What an unpriced call cost is not known, so its slot keeps the worst case until it lapses.

    Raises:
        InvalidAmount: the amount is negative, finer than 1e-12 USD or beyond :data:`LARGEST_AMOUNT`.
    """
    budgets = hard_budgets(team.budgets) if team is not None else []
    if not budgets or not cost.priced or cost.amount is None:
        return None
    try:
        amount = pico(cost.amount)
    except ValueError as error:
        raise InvalidAmount(str(error)) from error
    if not 0 <= amount <= LARGEST_AMOUNT:
        raise InvalidAmount(f"{cost.amount} USD is no cost of a call: it must be from 0 to 1e12 USD")
    context = cost.context
    return Charge(
        tenant_id=cost.tenant_id,
        request_id=cost.request_id,
        event_id=cost.event_id,
        slot=_slot(cost),
        amount=amount,
        subjects=tuple(
            subjects(budgets, user=context.user_id, key=context.key_id, model=cost.model, tags=context.tags)
        ),
        at=cost.accounted_at or cost.occurred_at,
        part=cost.kind in _PARTS,
    )


def release_of(result: LlmResult, team: Team | None) -> Release | None:
    """Return what the end of a request gives back; None where the team has no hard budget, or the calls are not known.

    Events older than the field ``calls`` do not say how many costs are to come: their reservations wait for these.
    """
    if team is None or not hard_budgets(team.budgets) or result.calls is None or was_deferred(result):
        return None
    judged = result.stage == "guardrails" and (result.calls > 0 or result.status == Status.BLOCKED)
    return Release(result.tenant_id, result.request_id, max(0, result.calls), result.stage is None or judged)


def departure_of(result: LlmResult) -> Departure | None:
    """Return how ``result`` ends the place of its request in a queue; None where the request holds none by this send.

    One that expired, was cancelled or failed was not served: a queue of which all expire would else seem a fast one.
    """
    if was_deferred(result):
        return None
    served = result.status in (Status.COMPLETED, Status.BLOCKED)
    missed = result.status == Status.EXPIRED
    return Departure(result.tenant_id, result.request_id, queue_of(result.context), served, missed)


def finish_of(result: LlmResult) -> Finish | None:
    """Return what the end of a request frees; None where the request holds nothing by this send.

    The tokens are those of the call whose answer was released. Where there were calls and no usage, the estimate stays.
    """
    if was_deferred(result):
        return None
    tokens = max(0, result.usage.input_tokens) + max(0, result.usage.output_tokens)
    known = tokens > 0 or result.calls == 0
    return Finish(result.tenant_id, result.request_id, tokens if known else None)


def _slot(cost: Cost) -> str | None:
    # A document's embedding has the identity of its upload, which is no request's.
    if cost.context.admitted_at is None:
        return None
    if cost.kind == "embedding":
        return EMBEDDING
    return str(cost.attempt) if cost.kind in _CALLS | _PARTS else None

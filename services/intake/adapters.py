"""The ledger of claims in Redis: who sent a request first, how much a team sends, what it may still spend.

The scripts stand in ``scripts``; where their keys lie is described in ``penstock.money.counters``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec
from penstock.money import bucket_of, counter_key, from_pico, pico
from penstock.money.counters import (
    claim_key,
    deferral_key,
    exhausted_key,
    first_bucket,
    is_kept,
    kept_ms,
    key_prefix,
    lapses_key,
    rate_key,
    reservation_key,
    running_key,
    settled_key,
    token_rate_key,
    tokens_key,
    waiting_key,
)
from penstock.telemetry import get_logger
from redis.asyncio import Redis

from services.intake.assignment import NOT_ASSIGNED, Assigned
from services.intake.bounds import Hold
from services.intake.decisions import Claim, Decision, Judgement, Refused, content_hash
from services.intake.exceeded import Exceeded, described
from services.intake.queueing import TooLong
from services.intake.redis_calls import execute, source
from services.intake.settlement import Charge, Finish, Release

__all__ = ["Claims", "RedisClaims"]

log = get_logger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Claims(Protocol):
    """Decides what depends on other requests."""

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]: ...
    async def settle(self, settlements: Sequence[Charge | Release | Finish], now: datetime) -> None: ...
    async def leave_room(self, left: Sequence[tuple[str, str, str]]) -> None: ...


class RedisClaims:
    """Claims in Redis, one script an event, pipelined by batch. All keys of a team share a hash slot.

    Args:
        ttl_s: how long a request_id and a charged cost are remembered, and how long a reservation stands that nothing
            ends, seconds.
        grace_s: how long after the end of a request the cost of a call may still come that is not counted on, and how
            long after its deadline a request counts as under way, seconds.
        deferral_ttl_s: how long it is remembered that a send was told to come later, seconds: where it is read again after
            that, it is decided anew.
        in_flow: most requests of a team between admission and result; what comes beyond waits.
    """

    def __init__(
        self, redis: Redis, ttl_s: int, grace_s: float = 120.0, deferral_ttl_s: int = 900, in_flow: int = 1000
    ) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s
        self._grace_s = grace_s
        self._deferral_ttl_s = deferral_ttl_s
        self._in_flow = in_flow
        self._admit, self._charge, self._release = (
            redis.register_script(source("amounts", name)) for name in ("admit", "charge", "release")
        )
        self._finish, self._room = (redis.register_script(source(name)) for name in ("finish", "room"))

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]:
        """Claim every request, in order.

        Raises:
            Transient: Redis is away.
        """
        if not judgements:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for judgement in judgements:
            keys, asked = _asked(judgement, self._ttl_s)
            if limits := _limits(judgement, self._ttl_s, self._grace_s):
                asked["limits"] = {**limits, "deferral_ttl_s": self._deferral_ttl_s, "flow": self._in_flow}
            await self._admit(
                keys=keys, args=[_encode(asked), key_prefix(judgement.request.tenant_id)], client=pipeline
            )
        answers = await execute(pipeline)
        return [_claim(decision.decode(), told, again) for decision, told, again in answers]

    async def leave_room(self, left: Sequence[tuple[str, str, str]]) -> None:
        """What was decided about in the waiting room, and is on the log, waits no more: team, priority and request_id of
        each. Neither does what came there before it.

        Raises:
            Transient: Redis is away.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for team, priority, request_id in left:
            await self._room(keys=[waiting_key(team, priority)], args=[request_id], client=pipeline)
        await execute(pipeline)

    async def settle(self, settlements: Sequence[Charge | Release | Finish], now: datetime) -> None:
        """Charge every cost once, and give back what is held for calls that will not be made, and by requests that have
        ended, in order.

        Raises:
            Transient: Redis is away.
        """
        if not settlements:
            return
        soon_ms = str(_ms(now + timedelta(seconds=self._grace_s)))
        pipeline = self._redis.pipeline(transaction=False)
        for one in settlements:
            prefix = key_prefix(one.tenant_id)
            if isinstance(one, Charge):
                keys, charged = _charged(one, self._ttl_s, soon_ms, now)
                await self._charge(keys=keys, args=[_encode(charged), prefix], client=pipeline)
            elif isinstance(one, Finish):
                await self._finish(
                    keys=[
                        tokens_key(one.tenant_id, one.request_id),
                        token_rate_key(one.tenant_id),
                        running_key(one.tenant_id),
                    ],
                    args=[one.request_id, "" if one.tokens is None else one.tokens],
                    client=pipeline,
                )
            else:
                ended = {
                    "request_id": one.request_id, "calls": one.calls, "at_once": one.at_once, "soon_ms": soon_ms,
                }  # fmt: skip
                await self._release(
                    keys=[reservation_key(one.tenant_id, one.request_id)],
                    args=[_encode(ended), prefix],
                    client=pipeline,
                )
        for one, beyond in zip(settlements, await execute(pipeline), strict=True):
            if isinstance(one, Charge) and beyond:
                log.error(
                    "a call cost more than was reserved for it",
                    request_id=one.request_id,
                    team=one.tenant_id,
                    counter=beyond.decode(),
                    amount=str(from_pico(one.amount)),
                    remedy="see services/intake/README.md, what the bound assumes",
                )


class _Over(msgspec.Struct):
    """Exceeded as it is remembered: amounts and instants are digits, since Lua's numbers are not exact."""

    budget: str
    subject: str
    window: str
    ends_at: str
    limit: str
    needed: str
    spent: str = "0"
    reserved: str = "0"


class _Told(msgspec.Struct):
    """A claim as it is remembered."""

    at: str = ""
    refused: Refused | None = None
    wait: str | None = None
    late: TooLong | None = None
    over: _Over | None = None
    alert: bool = False
    assigned: Assigned = NOT_ASSIGNED


_decode = msgspec.json.Decoder(_Told).decode
_encode = msgspec.json.encode


def _claim(decision: str, told: bytes, again: int) -> Claim:
    claim = _decode(told)
    over = claim.over
    return Claim(
        Decision(decision),
        admitted_at=_instant(claim.at) if claim.at else None,
        refused=claim.refused,
        # Not earlier: whoever waits so long finds room.
        retry_after_ms=None if claim.wait is None else -(-int(claim.wait) // 1000),
        late=claim.late,
        exceeded=None
        if over is None
        else Exceeded(
            over.budget, over.subject, over.window, _instant(over.ends_at),
            limit=int(over.limit), spent=int(over.spent), reserved=int(over.reserved), needed=int(over.needed),
        ),
        alert=claim.alert,
        assigned=claim.assigned,
        again=again > 0,
        ended=again == 2,
    )  # fmt: skip


def _asked(judgement: Judgement, ttl_s: int) -> tuple[list[str], dict[str, Any]]:
    """Return the keys and the argument of the admission script."""
    request, at = judgement.request, judgement.at
    tenant = request.tenant_id
    holds = [] if judgement.refused else judgement.holds
    slots: dict[str, list[tuple[int, str]]] = {}
    for number, hold in enumerate(holds, start=1):
        for slot, amount in hold.amounts.items():
            slots.setdefault(slot, []).append((number, str(amount)))
    keys = [claim_key(tenant, request.request_id), deferral_key(tenant, request.request_id, judgement.place)]
    keys += [rate_key(tenant), token_rate_key(tenant), tokens_key(tenant, request.request_id), running_key(tenant)]
    keys += [reservation_key(tenant, request.request_id), lapses_key(tenant)]
    keys.append(waiting_key(tenant, judgement.context.priority))
    keys += [counter_key(tenant, hold.subject, at) for hold in holds]
    asked: dict[str, Any] = {
        "event": request.event_id,
        "place": judgement.place,
        "hash": content_hash(request),
        "request_id": request.request_id,
        "decision": Decision.REFUSED if judgement.refused else Decision.ADMITTED,
        "at": str((at - _EPOCH) // _MICROSECOND),
        "now_ms": str(_ms(at)),
        "lapses_ms": str(_ms(at + timedelta(seconds=ttl_s))),
        "ttl_s": ttl_s,
        "counters": [_counter(tenant, hold, at) for hold in holds],
        "slots": slots,
    }
    if judgement.refused:
        asked["refused"] = judgement.refused
    if judgement.assigned.arms:
        asked["assigned"] = judgement.assigned
    if judgement.waited:
        asked["waited"] = True
    elif judgement.late is not None:
        asked["late"] = {"decision": Decision.QUEUE_TOO_LONG, "told": judgement.late}
    return keys, asked


def _limits(judgement: Judgement, ttl_s: int, grace_s: float) -> dict[str, Any]:
    """Return what the admission script is to keep of the team's limits; nothing where the request is refused already."""
    team, deadline = judgement.team, judgement.context.deadline_at
    if team is None or judgement.refused:
        return {}
    left_s = ttl_s if deadline is None else (deadline - judgement.at).total_seconds() + grace_s
    rates: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"rates": rates, "lease_ms": max(1, int(1000 * min(left_s, ttl_s)))}
    if (limit := team.requests_per_minute) is not None and not judgement.waited:
        rates.append({"decision": Decision.RATE_LIMITED, "key": 3, "limit": limit, "cost": 1})
    if (limit := team.tokens_per_minute) is not None and not judgement.waited:
        tokens = judgement.tokens
        rates.append({"decision": Decision.TOKEN_RATE_LIMITED, "key": 4, "limit": limit, "cost": tokens})
        # With the time that one took: the limit may be another one by the time it ends.
        asked["tokens"] = f"{tokens}:{60_000_000 / limit:.9f}"
    if (limit := team.max_concurrent) is not None:
        asked["concurrent"] = {"decision": Decision.TOO_MANY_CONCURRENT, "limit": limit}
    return asked


def _counter(tenant: str, hold: Hold, at: datetime) -> dict[str, Any]:
    budget, limit, needed = hold.subject.budget, str(pico(hold.subject.budget.limit)), str(hold.needed)
    subject, window, ends_at = described(hold.subject, at)
    return {
        "first": first_bucket(budget, at),
        "bucket": str(bucket_of(budget, at)),
        "limit": limit,
        "needed": needed,
        "kept_ms": str(kept_ms(budget, at, at)),
        "exhausted": exhausted_key(tenant, hold.subject, at),
        "about": _Over(budget.name, subject, window, str((ends_at - _EPOCH) // _MICROSECOND), limit, needed),
    }


def _charged(charge: Charge, ttl_s: int, soon_ms: str, now: datetime) -> tuple[list[str], dict[str, Any]]:
    """Return the keys and the argument of the script that charges a cost."""
    counted = [subject for subject in charge.subjects if is_kept(subject.budget, charge.at, now)]
    keys = [settled_key(charge.tenant_id, charge.event_id)]
    keys += [counter_key(charge.tenant_id, subject, charge.at) for subject in counted]
    charged: dict[str, Any] = {
        "request_id": charge.request_id,
        "amount": str(charge.amount),
        "ttl_s": ttl_s,
        "soon_ms": soon_ms,
        "counters": [
            {
                "bucket": str(bucket_of(subject.budget, charge.at)),
                "kept_ms": str(kept_ms(subject.budget, charge.at, now)),
            }
            for subject in counted
        ],
    }
    if charge.slot is not None:
        charged["slot"], charged["part"] = charge.slot, charge.part
    return keys, charged


def _instant(microseconds: str) -> datetime:
    return _EPOCH + int(microseconds) * _MICROSECOND


def _ms(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)

"""The queues of the routes in Redis: who stands in each, and how fast it is served.

All keys of a route share a hash slot:

===================================  =================================================================================
``penstock:{queue:<route>}:places``  hash, ``<team> <request_id>`` to when it came, how long it was told that it takes
                                     (us, 0: it was not), its class, 1 where nobody stood there then, and its place
                                     in the log
``penstock:{queue:<route>}:lapses``  sorted set of the same, by when it counts no more where no result ends it, us
``penstock:{queue:<route>}:backlog`` hash: by class how many (``0``) and how many teams (``0#``), by class and team how
                                     many (``0 <team>``)
``penstock:{queue:<route>}:state``   hash: when it changed last, the last delivery, whether the queue had stood still
                                     before that, the epoch that is open, and what a request takes that waits for nobody
``penstock:{queue:<route>}:epochs``  list of the last epochs, the newest first: when it ended, requests served, busy
                                     time, the sum of those who stood there over it, and deadlines missed
===================================  =================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from redis.asyncio import Redis

from services.intake.decisions import Judgement
from services.intake.queueing import Epoch, Standing, queue_of
from services.intake.redis_calls import execute, source
from services.intake.settlement import Departure
from services.intake.validity import PRIORITIES

__all__ = ["Queues", "RedisQueues", "Served"]


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was served has left its queue: how long it stood there, and how long it was told that it would
    (None: it was told nothing), seconds.
    """

    queue: str
    took_s: float
    told_s: float | None


class Queues(Protocol):
    """Keeps who stands in the queue of each route."""

    async def enter(self, judgements: Sequence[Judgement]) -> list[Standing]: ...
    async def note(self, withdrawn: Sequence[Judgement], told: Sequence[tuple[Judgement, int]]) -> None: ...
    async def leave(self, departures: Sequence[Departure]) -> list[Served]: ...
    async def lengths(self, routes: Iterable[str]) -> dict[str, int]: ...


class RedisQueues:
    """Queues in Redis: one script for each request that comes or goes.

    Args:
        ttl_s: how long a request without a deadline counts that no result ends, seconds.
        grace_s: how long after its deadline any other does, seconds.
    """

    def __init__(self, redis: Redis, ttl_s: int, grace_s: float = 120.0) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s
        self._grace_s = grace_s
        self._enter, self._leave, self._told = (
            redis.register_script(source("queue", name)) for name in ("enter", "leave", "told")
        )

    async def enter(self, judgements: Sequence[Judgement]) -> list[Standing]:
        """Take a place for each in the queue of its route, in order, and return what each sees there.

        One that stands there already keeps the place that it has.

        Raises:
            Transient: Redis is away.
        """
        if not judgements:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for one in judgements:
            team, rank = one.request.tenant_id, PRIORITIES.index(one.context.priority)
            lapses_us = int(1e6 * self._lasts_s(one))
            await self._enter(
                keys=_keys(queue_of(one.context)),
                args=[_member(team, one.request.request_id), team, rank, one.place, lapses_us, self._ttl_s],
                client=pipeline,
            )
        return [_standing(answer) for answer in await execute(pipeline)]

    async def note(self, withdrawn: Sequence[Judgement], told: Sequence[tuple[Judgement, int]]) -> None:
        """Take out again who was not admitted, where it came by its place in the log; keep what others were told, us.

        Raises:
            Transient: Redis is away.
        """
        if not withdrawn and not told:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for one in withdrawn:
            member = _member(one.request.tenant_id, one.request.request_id)
            await self._leave(keys=_keys(queue_of(one.context)), args=[member, one.place, 0], client=pipeline)
        for one, us in told:
            member = _member(one.request.tenant_id, one.request.request_id)
            await self._told(keys=_keys(queue_of(one.context)), args=[member, us], client=pipeline)
        await execute(pipeline)

    async def leave(self, departures: Sequence[Departure]) -> list[Served]:
        """Take out whose result has come, and return those that were served and stood there.

        Raises:
            Transient: Redis is away.
        """
        if not departures:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for one in departures:
            member = _member(one.tenant_id, one.request_id)
            how = 1 if one.served else -1 if one.missed else 0
            await self._leave(keys=_keys(one.queue), args=[member, "", how], client=pipeline)
        return [
            Served(one.queue, int(gone[0]) / 1e6, int(gone[1]) / 1e6 or None)
            for one, gone in zip(departures, await execute(pipeline), strict=True)
            if gone and one.served
        ]

    async def lengths(self, routes: Iterable[str]) -> dict[str, int]:
        """Return how many stand in the queue of each route.

        Raises:
            Transient: Redis is away.
        """
        names = list(routes)
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.zcard(_keys(name)[1])
        return dict(zip(names, await execute(pipeline), strict=True))

    def _lasts_s(self, judgement: Judgement) -> float:
        deadline = judgement.context.deadline_at
        if deadline is None:
            return self._ttl_s
        left: timedelta = deadline - judgement.at
        return max(0.0, min(left.total_seconds() + self._grace_s, self._ttl_s))


def _member(team: str, request_id: str) -> str:
    # No request_id has a space: what is before the last one is the team.
    return f"{team} {request_id}"


def _keys(route: str) -> list[str]:
    return [f"penstock:{{queue:{route}}}:{name}" for name in ("places", "lapses", "backlog", "state", "epochs")]


def _standing(answer: Sequence[Any]) -> Standing:
    *figures, epochs = answer
    how, own, teams, same, before, now, last, base = map(int, figures)
    return Standing(how == 2, how > 0, own, teams, same, before, now, last, base, [_epoch(each) for each in epochs])


def _epoch(stored: bytes) -> Epoch:
    return Epoch(*map(int, stored.split(b":")))

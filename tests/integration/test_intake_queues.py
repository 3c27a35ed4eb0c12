"""The queues of the routes on a real Redis: who stands in them, how fast they are served, and who is refused for it."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from penstock.bus import Transient
from penstock.config.kinds import Team
from penstock.contracts.records import Context, LlmRequest, Message, Sampling, Status
from penstock.money.counters import waiting_key
from redis.asyncio import Redis

from services.intake.adapters import RedisClaims
from services.intake.admission import Admission
from services.intake.core import Claim, Decision, Judgement, Refused
from services.intake.queueing import Standing
from services.intake.queues import RedisQueues
from services.intake.settlement import Departure, Finish

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
S = 1_000_000


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    async with Redis.from_url(deployed["REDIS_URL"]) as client:
        yield client


@pytest.fixture
def route() -> str:
    return f"route-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def queues(redis: Redis) -> RedisQueues:
    return RedisQueues(redis, 600, grace_s=60)


@pytest.fixture
def admission(redis: Redis, queues: RedisQueues) -> Admission:
    return Admission(RedisClaims(redis, 600, in_flow=100_000), queues)


def a_judgement(
    route: str, request_id: str, team: str = "a", *, within_s: float | None = None, place: str = "", **context: Any
) -> Judgement:
    team = f"{team}-{route}"
    request = LlmRequest(
        event_id=f"e-{request_id}", request_id=request_id, tenant_id=team, occurred_at=NOW, causation_id="",
        messages=[Message(role="user", content="hello")],
    )  # fmt: skip
    deadline = None if within_s is None else NOW + timedelta(seconds=within_s)
    return Judgement(
        request=request, context=Context(requested_at=NOW, route=route, deadline_at=deadline, **context),
        messages=request.messages, sampling=Sampling(), at=NOW, team=Team(name=team), place=place or f"log/{request_id}",
    )  # fmt: skip


def a_departure(judgement: Judgement, *, served: bool = True) -> Departure:
    return Departure(judgement.request.tenant_id, judgement.request.request_id, judgement.context.route, served)


async def pass_s(redis: Any, route: str, seconds: float) -> None:
    """Let time pass for a queue: what it knows moves into the past by so much."""
    key, us = f"penstock:{{queue:{route}}}", round(seconds * S)
    for field in ("at", "last"):
        await redis.hincrby(f"{key}:state", field, -us)
    for member, place in (await redis.hgetall(f"{key}:places")).items():
        entered, rest = place.split(b":", 1)
        await redis.hset(f"{key}:places", member, b"%d:%s" % (int(entered) - us, rest))


async def serves(redis: Any, route: str, rate: float, length: float) -> None:
    """The queue served ``rate`` requests a second while ``length`` stood there, and took 10 ms for one that was alone."""
    seconds, us = await redis.time()
    epoch = f"{seconds * S + us}:{round(2 * rate)}:{2 * S}:{round(2 * S * length)}:0"
    await redis.lpush(f"penstock:{{queue:{route}}}:epochs", epoch)
    await redis.hset(f"penstock:{{queue:{route}}}:state", mapping={"base": 10_000})


def seen(standing: Standing) -> tuple[bool, bool, int, int, int, int]:
    one = standing
    return one.added, one.mine, one.own, one.teams, one.same, one.before


async def test_each_request_stands_there_once_by_its_class_and_team_until_its_result(
    queues: RedisQueues, route: str
) -> None:
    first, second = a_judgement(route, "r1"), a_judgement(route, "r2", "b")
    urgent, batch = a_judgement(route, "r3", priority="interactive"), a_judgement(route, "r4", priority="batch")
    again = dataclasses.replace(first, place="log/elsewhere")
    assert [seen(one) for one in await queues.enter([first, second, urgent, batch, first, again])] == [
        (True, True, 1, 1, 1, 0),
        (True, True, 1, 2, 2, 0),
        (True, True, 1, 1, 1, 0),
        (True, True, 1, 1, 1, 3),
        (False, True, 1, 2, 2, 1),
        (False, False, 1, 2, 2, 1),
    ]
    assert await queues.lengths([route, "unknown"]) == {route: 4, "unknown": 0}
    await queues.note([], [(first, 5 * S)])
    left = await queues.leave(
        [a_departure(first), a_departure(first), a_departure(second), a_departure(batch, served=False)]
    )
    assert [(one.queue, one.told_s) for one in left] == [(route, 5.0), (route, None)]
    assert all(0 <= one.took_s < 60 for one in left)
    # What came by another place of the log is not taken out by this one.
    await queues.note([dataclasses.replace(urgent, place="log/elsewhere")], [])
    assert await queues.lengths([route]) == {route: 1}
    assert seen((await queues.enter([a_judgement(route, "r5")]))[0]) == (True, True, 1, 1, 1, 1)


async def test_what_no_result_ends_counts_until_some_time_after_its_deadline(redis: Redis, route: str) -> None:
    queues = RedisQueues(redis, 600, grace_s=0)
    await queues.enter([a_judgement(route, "late", within_s=0.0), a_judgement(route, "endless")])
    (standing,) = await queues.enter([a_judgement(route, "next")])
    assert standing.same == 2


async def test_a_queue_is_measured_while_somebody_stands_there(redis: Redis, queues: RedisQueues, route: str) -> None:
    """Eight stand there, and one is served every half second; then nobody for long; then a lone one takes 4 s."""
    eight = [a_judgement(route, f"r{number}") for number in range(8)]
    await queues.enter(eight)
    for each in eight:
        await pass_s(redis, route, 0.5)
        await queues.leave([a_departure(each)])
    await pass_s(redis, route, 1000)
    for number in range(3):
        alone = a_judgement(route, f"s{number}")
        await queues.enter([alone])
        await pass_s(redis, route, 4)
        await queues.leave([a_departure(alone)])
    (standing,) = await queues.enter([a_judgement(route, "last")])
    slow, fast = standing.epochs
    assert (fast.done, slow.done) == (8, 3)
    assert [fast.rate, fast.length] == pytest.approx([2, 4.5], rel=0.1)
    assert [slow.rate, slow.length] == pytest.approx([0.25, 1], rel=0.1)
    # The first of the eight came to an empty queue and took 0.5 s, and so did the three: a mean that forgets.
    assert standing.base_us == pytest.approx(2.52 * S, rel=0.1)
    assert standing.last_us == standing.now_us


async def test_those_that_expire_or_fail_do_not_make_a_queue_a_fast_one(
    redis: Redis, queues: RedisQueues, route: str
) -> None:
    many = [a_judgement(route, f"r{number}") for number in range(50)]
    await queues.enter(many)
    await pass_s(redis, route, 6)
    expired = dataclasses.replace(a_departure(many[0], served=False), missed=True)
    await queues.leave([expired, *(a_departure(each, served=False) for each in many[1:-2])])
    for each in many[-2:]:
        await queues.leave([a_departure(each)])
        await pass_s(redis, route, 6)
    (standing,) = await queues.enter([a_judgement(route, "last")])
    assert [(epoch.done, epoch.missed) for epoch in standing.epochs] == [(2, 1)]


async def test_a_standstill_that_is_over_is_not_how_fast_a_queue_is_and_slow_service_is(
    redis: Redis, queues: RedisQueues, route: str
) -> None:
    async def served_after(seconds: float, number: int) -> None:
        await pass_s(redis, route, seconds)
        await queues.leave([a_departure(a_judgement(route, f"r{number}"))])

    alone = a_judgement(route, "alone")
    await queues.enter([alone])
    await pass_s(redis, route, 0.5)
    await queues.leave([a_departure(alone)])
    await queues.enter([a_judgement(route, f"r{number}") for number in range(40)])
    # The model is away for an hour, and most deadlines pass: the next ones show what it serves now that it is back.
    await pass_s(redis, route, 3600)
    await queues.leave(
        [dataclasses.replace(a_departure(a_judgement(route, f"r{n}"), served=False), missed=True) for n in range(20)]
    )
    await served_after(1, 20)
    for number in range(21, 29):
        await served_after(0.3, number)
    (standing,) = await queues.enter([a_judgement(route, "next")])
    assert [(each.done, each.missed, each.rate > 1) for each in standing.epochs] == [(8, 0, True)]
    assert standing.base_us == pytest.approx(0.5 * S, rel=0.1)
    # One after another takes 40 s now: that is no standstill, but how fast it is.
    for number in range(29, 32):
        await served_after(40, number)
    (standing,) = await queues.enter([a_judgement(route, "last")])
    assert [each.done for each in standing.epochs] == [1, 1, 8]
    assert [each.rate for each in standing.epochs[:2]] == pytest.approx([0.025, 0.025], rel=0.1)


async def test_a_queue_that_emptied_while_it_stood_still_begins_anew(
    redis: Redis, queues: RedisQueues, route: str
) -> None:
    lost = [a_judgement(route, f"r{number}") for number in range(5)]
    await queues.enter(lost)
    await pass_s(redis, route, 300)
    await queues.leave([dataclasses.replace(a_departure(each, served=False), missed=True) for each in lost])
    await pass_s(redis, route, 30_000)
    for number in range(8):
        alone = a_judgement(route, f"s{number}")
        await queues.enter([alone])
        await pass_s(redis, route, 0.5)
        await queues.leave([a_departure(alone)])
        await pass_s(redis, route, 20)
    (standing,) = await queues.enter([a_judgement(route, "next")])
    assert [(each.done, each.missed, each.rate > 1) for each in standing.epochs] == [(8, 0, True)]


async def test_a_clock_that_is_set_back_makes_no_queue_a_fast_one(
    redis: Redis, queues: RedisQueues, route: str
) -> None:
    lone = [a_judgement(route, f"r{number}") for number in range(2)]
    await queues.enter(lone[:1])
    await pass_s(redis, route, 4)
    await queues.leave([a_departure(lone[0])])
    await queues.enter(lone[1:])
    await pass_s(redis, route, -3600)
    (served,) = await queues.leave([a_departure(lone[1])])
    assert served.took_s == 0
    (standing,) = await queues.enter([a_judgement(route, "next")])
    assert standing.base_us == pytest.approx(4 * S, rel=0.1)


async def test_a_burst_at_one_instant_sees_itself_over_replicas_and_the_refused_leave_no_trace(
    deployed: Mapping[str, str], redis: Redis, queues: RedisQueues, route: str
) -> None:
    """100 a second: of 600 that have 2 s each, 166 fit, with a fifth to spare."""
    await serves(redis, route, 100, 400)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Redis.from_url(deployed["REDIS_URL"])) for _ in range(3)]
        replicas = [Admission(RedisClaims(client, 600), RedisQueues(client, 600)) for client in clients]
        burst = [[a_judgement(route, f"r{n}-{r}", within_s=2) for n in range(200)] for r in range(3)]
        batches = [
            (replica, part[at : at + 50])
            for replica, part in zip(replicas, burst, strict=True)
            for at in (0, 50, 100, 150)
        ]
        claims = [claim for told in await asyncio.gather(*(one.admit(part) for one, part in batches)) for claim in told]
    decisions = Counter(claim.decision for claim in claims)
    # Those of a batch that are refused are counted by the batches of others that look at the very same moment.
    assert 80 <= decisions[Decision.ADMITTED] <= 166
    assert decisions[Decision.ADMITTED] + decisions[Decision.QUEUE_TOO_LONG] == 600
    assert await queues.lengths([route]) == {route: decisions[Decision.ADMITTED]}
    late = [claim for claim in claims if claim.decision is Decision.QUEUE_TOO_LONG]
    assert all(claim.late and claim.late.estimate_ms > claim.late.left_ms == 2000 for claim in late)
    assert all(claim.late and claim.retry_after_ms == claim.late.wait_us // 1000 for claim in late)
    # The same ones in one batch: exactly as many as fit, and whoever has more time is let in behind them.
    await redis.delete(*[f"penstock:{{queue:{route}}}:{name}" for name in ("places", "lapses", "backlog")])
    batch = [a_judgement(route, f"q{n}", within_s=2) for n in range(250)] + [a_judgement(route, "patient", within_s=3)]
    told = await Admission(RedisClaims(redis, 600), queues).admit(batch)
    assert [claim.decision for claim in told] == [
        *[Decision.ADMITTED] * 166, *[Decision.QUEUE_TOO_LONG] * 84, Decision.ADMITTED,
    ]  # fmt: skip


async def test_one_of_a_team_that_has_no_other_is_let_in_beside_the_flood_of_another(
    redis: Redis, admission: Admission, route: str
) -> None:
    await serves(redis, route, 10, 400)
    flood = await admission.admit([a_judgement(route, f"a{n}") for n in range(300)])
    assert {claim.decision for claim in flood} == {Decision.ADMITTED}
    other, own = await admission.admit(
        [a_judgement(route, "b", "b", within_s=2), a_judgement(route, "a", "a", within_s=2)]
    )
    assert (other.decision, own.decision) == (Decision.ADMITTED, Decision.QUEUE_TOO_LONG)
    assert own.late is not None
    assert own.late.ahead == 301


async def test_replays_and_second_sends_count_once_and_nothing_after_the_result(
    redis: Redis, admission: Admission, queues: RedisQueues, route: str
) -> None:
    first = a_judgement(route, "r1", place="llm-requests/0/1")
    second = dataclasses.replace(
        first, request=msgspec.structs.replace(first.request, event_id="e2"), place="llm-requests/0/2"
    )
    claims = await admission.admit([first, first, second])
    assert [claim.decision for claim in claims] == [Decision.ADMITTED, Decision.ADMITTED, Decision.DUPLICATE]
    assert await queues.lengths([route]) == {route: 1}
    (served,) = await queues.leave([a_departure(first)])
    assert served.queue == route
    # The log is read again: it had its result.
    claims = await admission.admit([first, second])
    assert [claim.decision for claim in claims] == [Decision.ADMITTED, Decision.DUPLICATE]
    assert await queues.lengths([route]) == {route: 0}


async def test_who_is_refused_for_the_queue_is_told_the_same_again_and_decided_anew_when_sent_again(
    redis: Redis, admission: Admission, queues: RedisQueues, route: str
) -> None:
    await serves(redis, route, 10, 400)
    await admission.admit([a_judgement(route, f"a{n}") for n in range(100)])
    late = a_judgement(route, "r", within_s=2, place="llm-requests/0/7")
    (told,) = await admission.admit([late])
    assert told.decision is Decision.QUEUE_TOO_LONG
    await queues.leave([a_departure(a_judgement(route, f"a{n}")) for n in range(100)])
    (again,) = await admission.admit([late])
    assert again == told
    assert await queues.lengths([route]) == {route: 0}
    (anew,) = await admission.admit([dataclasses.replace(late, place="llm-requests/0/8")])
    assert anew.decision is Decision.ADMITTED
    assert await queues.lengths([route]) == {route: 1}


async def test_the_refused_of_any_other_cause_stand_in_no_queue(
    redis: Redis, queues: RedisQueues, admission: Admission, route: str
) -> None:
    limited = a_judgement(route, "r1")
    team = Team(name=limited.request.tenant_id, requests_per_minute=1)
    both = [dataclasses.replace(a_judgement(route, f"r{n}"), team=team) for n in (1, 2)]
    refused = dataclasses.replace(
        a_judgement(route, "r3"), refused=Refused(Status.REJECTED, "unknown_route", "there is none")
    )
    claims = await admission.admit([*both, refused])
    assert [claim.decision for claim in claims] == [Decision.ADMITTED, Decision.RATE_LIMITED, Decision.REFUSED]
    assert await queues.lengths([route]) == {route: 1}


class ClaimsAwayOnce(RedisClaims):
    """The ledger cannot be reached at the first try."""

    tried = False

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]:
        if not self.tried:
            self.tried = True
            raise Transient("Redis is away")
        return await super().admit(judgements)


async def test_a_second_send_that_is_decided_at_the_second_try_leaves_no_trace(
    redis: Redis, queues: RedisQueues, admission: Admission, route: str
) -> None:
    first = a_judgement(route, "one", place="log/0/1")
    await admission.admit([first])
    await queues.leave([a_departure(first)])
    second = dataclasses.replace(first, place="log/0/2")
    trying = Admission(ClaimsAwayOnce(redis, 600, in_flow=100_000), queues)
    with pytest.raises(Transient):
        await trying.admit([second])
    [claim] = await trying.admit([second])
    assert claim.decision is Decision.DUPLICATE
    assert await queues.lengths([route]) == {route: 0}


async def test_what_is_read_again_at_the_second_try_stands_there_only_while_it_is_under_way(
    redis: Redis, queues: RedisQueues, route: str
) -> None:
    claims = RedisClaims(redis, 600, in_flow=100_000)
    ended, under_way = a_judgement(route, "ended"), a_judgement(route, "under-way")
    await Admission(claims, queues).admit([ended, under_way])
    await claims.settle([Finish(ended.request.tenant_id, "ended", None)], NOW)
    await queues.leave([a_departure(ended)])
    trying = Admission(ClaimsAwayOnce(redis, 600, in_flow=100_000), queues)
    with pytest.raises(Transient):
        await trying.admit([ended, under_way])
    assert [claim.decision for claim in await trying.admit([ended, under_way])] == [Decision.ADMITTED] * 2
    (standing,) = await queues.enter([a_judgement(route, "next")])
    assert standing.same == 2


async def test_another_request_under_the_identity_of_one_that_waits_stands_in_no_queue_of_its_own(
    redis: Redis, queues: RedisQueues, route: str
) -> None:
    admission = Admission(RedisClaims(redis, 600, in_flow=1), queues)
    first, waits = a_judgement(route, "r1"), a_judgement(route, "r2")
    other = dataclasses.replace(
        waits,
        request=msgspec.structs.replace(waits.request, event_id="e3", route="other"),
        context=msgspec.structs.replace(waits.context, route=f"{route}-other"),
        place="log/elsewhere",
    )
    claims = await admission.admit([first, waits, waits, other])
    assert [claim.decision for claim in claims] == ["admitted", "waiting", "waiting", "waiting"]
    # The other one is turned away from the waiting room, and no result of its own would end its place.
    assert await queues.lengths([route, f"{route}-other"]) == {route: 2, f"{route}-other": 0}


async def test_who_came_to_the_waiting_room_just_before_the_one_that_was_decided_about_still_waits(
    redis: Redis, route: str
) -> None:
    claims = RedisClaims(redis, 600, in_flow=1)
    requests = [a_judgement(route, f"w{number}") for number in range(4)]
    team = requests[0].request.tenant_id
    assert [claim.decision for claim in await claims.admit(requests[:3])] == ["admitted", "waiting", "waiting"]
    # Another member had written the third one to the log before the second.
    await claims.leave_room([(team, "standard", "w2")])
    await claims.settle([Finish(team, "w0", None)], NOW)
    [claim] = await claims.admit(requests[3:])
    assert claim.decision is Decision.WAITING
    # Who was to tell of the second one was killed: it is forgotten with one that came well after it.
    await redis.zincrby(waiting_key(team, "standard"), -S, "w1")
    await claims.leave_room([(team, "standard", "w3")])
    assert await redis.zcard(waiting_key(team, "standard")) == 0

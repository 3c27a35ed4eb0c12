"""Limits of a team on a real Redis, under many clients at once."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.contracts.records import Context, LlmRequest, Message, Sampling
from penstock.money import pico
from penstock.money.counters import read_counters, running_key, token_rate_key
from redis.asyncio import Redis

from services.intake.adapters import RedisClaims
from services.intake.bounds import Call, holds_of
from services.intake.core import Claim, Decision, Judgement
from services.intake.settlement import Finish

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DAILY = Budget(name="daily", limit=Decimal("0.5"))
CLIENTS, PLACES = 50, 7
_PATIENCE_S = 60.0


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    async with Redis.from_url(deployed["REDIS_URL"]) as client:
        yield client


@pytest.fixture
def claims(redis: Redis) -> RedisClaims:
    return RedisClaims(redis, 600, grace_s=60)


@pytest.fixture
def team() -> Team:
    return Team(name=f"team-{uuid.uuid4().hex[:8]}")


def a_judgement(
    team: Team, request_id: str, *, place: str = "", tokens: int = 1, deadline: datetime | None = None, **limits: Any
) -> Judgement:
    """A request of ``team`` with ``limits``; it holds 0.1 USD in each of its budgets."""
    team = team.model_copy(update=limits)
    request = LlmRequest(
        event_id=f"e-{request_id}", request_id=request_id, tenant_id=team.name, occurred_at=NOW, causation_id="",
        messages=[Message(role="user", content="hello")],
    )  # fmt: skip
    context = Context(requested_at=NOW, deadline_at=deadline)
    return Judgement(
        request=request, context=context, messages=request.messages, sampling=Sampling(), at=NOW, team=team,
        tokens=tokens, place=place, holds=holds_of(team.budgets, context, [Call("0", {"m": pico(Decimal("0.1"))})]),
    )  # fmt: skip


async def one(claims: RedisClaims, judgement: Judgement) -> Claim:
    (claim,) = await claims.admit([judgement])
    return claim


async def pass_us(redis: Any, key: str, us: int) -> None:
    """Let ``us`` microseconds pass for a rate: its state moves into the past by so much."""
    await redis.set(key, int(await redis.get(key)) - us, keepttl=True)


async def lapses_us(redis: Any, team: Team) -> list[float]:
    """When each place that is taken lapses, us since the epoch."""
    return [score for _, score in await redis.zrange(running_key(team.name), 0, -1, withscores=True)]


async def test_as_many_of_many_at_once_as_there_are_places_and_as_many_again_when_they_end(
    deployed: Mapping[str, str], redis: Redis, team: Team
) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Redis.from_url(deployed["REDIS_URL"])) for _ in range(3)]
        replicas = [RedisClaims(client, 600) for client in clients]

        async def wave(name: str) -> list[tuple[str, Claim]]:
            asked = [(f"{name}{number}", replicas[number % 3]) for number in range(CLIENTS)]
            told = await asyncio.gather(
                *(one(claims, a_judgement(team, request_id, max_concurrent=PLACES)) for request_id, claims in asked)
            )
            return [(request_id, claim) for (request_id, _), claim in zip(asked, told, strict=True)]

        first = await wave("a")
        assert Counter(claim.decision for _, claim in first) == {
            Decision.ADMITTED: PLACES, Decision.TOO_MANY_CONCURRENT: CLIENTS - PLACES,
        }  # fmt: skip
        assert {claim.retry_after_ms for _, claim in first} == {None, 1000}
        # Each end frees one place, however often it is told of, and the end of one that never had a place frees none.
        ended = [request_id for request_id, claim in first if claim.decision is Decision.ADMITTED][:3]
        finishes = [Finish(team.name, request_id, None) for request_id in (*ended, *ended, "never")]
        await replicas[0].settle(finishes, NOW)
        assert Counter(claim.decision for _, claim in await wave("b"))[Decision.ADMITTED] == 3
        assert await redis.zcard(running_key(team.name)) == PLACES


async def test_a_place_that_no_result_frees_lapses_after_the_deadline(redis: Redis, team: Team) -> None:
    claims = RedisClaims(redis, 600, grace_s=0.05)
    limits: dict[str, Any] = {"max_concurrent": 1}
    assert (await one(claims, a_judgement(team, "r1", deadline=NOW, **limits))).decision is Decision.ADMITTED
    late = a_judgement(team, "r2", deadline=NOW, **limits)
    async with asyncio.timeout(_PATIENCE_S):
        for number in range(10_000):
            claim = await one(claims, dataclasses.replace(late, place=f"log/0/{number}"))
            if claim.decision is Decision.ADMITTED:
                break
            # Never longer than until the first place lapses.
            assert claim.retry_after_ms is not None
            assert 0 < claim.retry_after_ms <= 50
    assert claim.decision is Decision.ADMITTED
    # One that has no deadline keeps its place for as long as a request is remembered.
    (score,) = await lapses_us(redis, team)
    await redis.delete(running_key(team.name))
    await one(claims, a_judgement(team, "r3", **limits))
    (endless,) = await lapses_us(redis, team)
    assert 599e6 < endless - score < 660e6


async def test_whoever_waits_as_long_as_told_is_admitted_and_nobody_earlier(
    claims: RedisClaims, redis: Redis, team: Team
) -> None:
    limits: dict[str, Any] = {"tokens_per_minute": 600}
    # The burst is 60 tokens, each takes 0.1 s.
    assert (await one(claims, a_judgement(team, "r1", tokens=60, **limits))).decision is Decision.ADMITTED
    told = await one(claims, a_judgement(team, "r2", tokens=60, place="log/0/1", **limits))
    assert told.decision is Decision.TOKEN_RATE_LIMITED
    assert told.retry_after_ms is not None
    assert 5000 < told.retry_after_ms <= 6000
    key = token_rate_key(team.name)
    early = told.retry_after_ms - 1500
    await pass_us(redis, key, early * 1000)
    sooner = await one(claims, a_judgement(team, "r2", tokens=60, place="log/0/2", **limits))
    assert sooner.decision is Decision.TOKEN_RATE_LIMITED
    assert 0 < (sooner.retry_after_ms or 0) <= 1500
    await pass_us(redis, key, 1_500_000)
    assert (
        await one(claims, a_judgement(team, "r2", tokens=60, place="log/0/3", **limits))
    ).decision is Decision.ADMITTED


async def test_what_is_larger_than_the_burst_waits_until_all_of_it_is_free_and_is_a_debt_then(
    claims: RedisClaims, redis: Redis, team: Team
) -> None:
    limits: dict[str, Any] = {"tokens_per_minute": 600}
    assert (await one(claims, a_judgement(team, "large", tokens=600, **limits))).decision is Decision.ADMITTED
    small = await one(claims, a_judgement(team, "small", **limits))
    # 60 s of debt, less the burst of 6 s, and the token itself.
    assert 53_000 < (small.retry_after_ms or 0) <= 54_100
    await pass_us(redis, token_rate_key(team.name), 59_000_000)
    second = await one(claims, a_judgement(team, "larger", tokens=61, **limits))
    assert 0 < (second.retry_after_ms or 0) <= 1000


async def test_the_end_of_a_request_corrects_what_it_took_of_the_tokens(
    claims: RedisClaims, redis: Redis, team: Team
) -> None:
    async def debt_s() -> float:
        seconds, us = await redis.time()
        return (int(await redis.get(token_rate_key(team.name)) or 0) - seconds * 1_000_000 - us) / 1e6

    limits: dict[str, Any] = {"tokens_per_minute": 600}
    await one(claims, a_judgement(team, "r1", tokens=500, **limits))
    assert 49 < await debt_s() <= 50
    # It took a fifth of the estimate: told twice, given back once.
    await claims.settle([Finish(team.name, "r1", 100)] * 2, NOW)
    assert 9 < await debt_s() <= 10
    # Another one took more than was thought, and of a third nobody knows.
    await redis.delete(token_rate_key(team.name))
    await one(claims, a_judgement(team, "r2", tokens=40, **limits))
    await one(claims, a_judgement(team, "r3", tokens=10, **limits))
    await claims.settle([Finish(team.name, "r2", 240), Finish(team.name, "r3", None)], NOW)
    assert 24 < await debt_s() <= 25
    # What is free again meanwhile is not given back on top of it.
    await pass_us(redis, token_rate_key(team.name), 60_000_000)
    await one(claims, a_judgement(team, "r4", tokens=10, **limits))
    await claims.settle([Finish(team.name, "r4", 0)], NOW)
    assert not await redis.exists(token_rate_key(team.name))
    # An endpoint that counts wrongly shuts a team out for so long at most.
    await one(claims, a_judgement(team, "r5", tokens=10, **limits))
    await claims.settle([Finish(team.name, "r5", 2**63 - 1)], NOW)
    assert 30 * 86_400 - 1 < await debt_s() <= 30 * 86_400


async def test_all_limits_and_budgets_are_taken_or_none(claims: RedisClaims, redis: Redis, team: Team) -> None:
    limits: dict[str, Any] = {
        "requests_per_minute": 60,
        "tokens_per_minute": 600,
        "max_concurrent": 2,
        "budgets": (DAILY,),
    }

    async def state() -> tuple[Any, ...]:
        prefix = f"penstock:{{{team.name}}}:"
        rates = await redis.mget(f"{prefix}rate", f"{prefix}token-rate")
        return *rates, await redis.zrange(f"{prefix}running", 0, -1), await read_counters(redis, team.name)

    assert (await one(claims, a_judgement(team, "r1", tokens=10, **limits))).decision is Decision.ADMITTED
    before = await state()
    for decision, changes in (
        (Decision.TOKEN_RATE_LIMITED, {"tokens": 100}),
        (Decision.TOO_MANY_CONCURRENT, {"max_concurrent": 1}),
        (Decision.OVER_BUDGET, {"budgets": (Budget(name="daily", limit=Decimal("0.15")),)}),
        (Decision.RATE_LIMITED, {"requests_per_minute": 1}),
    ):
        claim = await one(claims, a_judgement(team, f"r-{decision}", **{"tokens": 1, **limits, **changes}))
        assert claim.decision is decision
        assert await state() == before
    # Where more than one is exceeded, the wait is the longest of them.
    await pass_us(redis, token_rate_key(team.name), -5_000_000)
    both = a_judgement(team, "both", tokens=60, **{**limits, "max_concurrent": 1})
    assert 5000 < ((await one(claims, both)).retry_after_ms or 0) <= 6000


async def test_a_send_that_had_to_wait_is_remembered_and_its_request_is_not(claims: RedisClaims, team: Team) -> None:
    limits: dict[str, Any] = {"max_concurrent": 1}
    await one(claims, a_judgement(team, "busy", **limits))
    first = await one(claims, a_judgement(team, "r", place="log/0/1", **limits))
    assert first.decision is Decision.TOO_MANY_CONCURRENT
    await claims.settle([Finish(team.name, "busy", None)], NOW)
    # The log is read again: as it was decided. Sent again: as it is now, and from then on it is a request like any other.
    assert await one(claims, a_judgement(team, "r", place="log/0/1", **limits)) == first
    assert (await one(claims, a_judgement(team, "r", place="log/0/2", **limits))).decision is Decision.ADMITTED
    assert (await one(claims, a_judgement(team, "r", place="log/0/3", **limits))).decision is Decision.DUPLICATE
    assert (await one(claims, a_judgement(team, "r", place="log/0/1", **limits))).decision is Decision.DUPLICATE


async def test_a_limit_counts_what_was_under_way_before_it_was_set(
    claims: RedisClaims, redis: Redis, team: Team
) -> None:
    first = await one(claims, a_judgement(team, "r1"))
    full = await one(claims, a_judgement(team, "r2", max_concurrent=1))
    without = await one(claims, a_judgement(team, "r3"))
    decisions = [claim.decision for claim in (first, full, without)]
    assert decisions == [Decision.ADMITTED, Decision.TOO_MANY_CONCURRENT, Decision.ADMITTED]
    assert await redis.zcard(running_key(team.name)) == 2

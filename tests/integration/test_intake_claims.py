"""The ledger of claims on a real Redis, under concurrent clients."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from penstock.bus import Transient
from penstock.config.kinds import Team
from penstock.contracts.records import Context, LlmRequest, Message, Sampling, Status
from redis.asyncio import Redis

from services.intake.adapters import RedisClaims, Settlement
from services.intake.core import Decision, Judgement

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    client = Redis.from_url(deployed["REDIS_URL"])
    yield client
    await client.aclose()


@pytest.fixture
def claims(redis: Redis) -> RedisClaims:
    return RedisClaims(redis, ttl_s=600)


@pytest.fixture
def tenant() -> str:
    return f"team-{uuid.uuid4().hex[:8]}"


def a_judgement(tenant: str, request_id: str, event_id: str, *, text: str = "hello", reserve: str | None = None,
                budget: str | None = None, rate: int | None = None, status: Status | None = None) -> Judgement:  # fmt: skip
    request = LlmRequest(
        event_id=event_id, request_id=request_id, tenant_id=tenant, occurred_at=NOW, causation_id="",
        messages=[Message(role="user", content=text)],
    )  # fmt: skip
    team = Team(name=tenant, daily_budget=None if budget is None else Decimal(budget), requests_per_minute=rate)
    return Judgement(
        request=request, context=Context(requested_at=NOW), messages=request.messages, sampling=Sampling(), team=team,
        reserve=None if reserve is None else Decimal(reserve), status=status,
    )  # fmt: skip


async def test_the_first_send_wins_a_replay_repeats_and_other_content_conflicts(
    claims: RedisClaims, tenant: str
) -> None:
    decisions = await claims.admit(
        [
            a_judgement(tenant, "r", "e1"),
            a_judgement(tenant, "r", "e1"),
            a_judgement(tenant, "r", "e2"),
            a_judgement(tenant, "r", "e3", text="other"),
            a_judgement(tenant, "s", "e4", status=Status.REJECTED),
            a_judgement(tenant, "s", "e4"),
        ]
    )
    assert [c.decision for c in decisions] == [
        Decision.ADMITTED, Decision.ADMITTED, Decision.DUPLICATE, Decision.CONFLICT, Decision.REFUSED, Decision.REFUSED,
    ]  # fmt: skip


async def test_a_budget_for_k_calls_admits_exactly_k_of_many_at_once(claims: RedisClaims, tenant: str) -> None:
    jobs = [claims.admit([a_judgement(tenant, f"r{n}", f"e{n}", reserve="0.1", budget="0.7")]) for n in range(60)]
    decisions = Counter(c.decision for (c,) in await asyncio.gather(*jobs))
    assert decisions == {Decision.ADMITTED: 7, Decision.OVER_BUDGET: 53}


async def test_settlement_frees_what_was_not_spent_once(claims: RedisClaims, redis: Redis, tenant: str) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", reserve="0.5", budget="0.6")])
    (refused,) = await claims.admit([a_judgement(tenant, "r2", "e2", reserve="0.5", budget="0.6")])
    assert refused.decision is Decision.OVER_BUDGET
    for _ in range(2):
        await claims.settle([Settlement(tenant, "r1", 100_000_000)])
    assert await redis.get(f"penstock:{{{tenant}}}:spend:2026-01-05") == b"100000000"
    (admitted,) = await claims.admit([a_judgement(tenant, "r3", "e3", reserve="0.5", budget="0.6")])
    assert admitted.decision is Decision.ADMITTED


async def test_settling_what_was_never_reserved_changes_nothing(claims: RedisClaims, redis: Redis, tenant: str) -> None:
    await claims.settle([Settlement(tenant, "never", 5)])
    assert await redis.get(f"penstock:{{{tenant}}}:spend:2026-01-05") is None


async def test_the_rate_lets_its_burst_through_and_tells_when_to_come_back(claims: RedisClaims, tenant: str) -> None:
    # 60 a minute: one a second, with a burst of a tenth of the minute.
    decisions = await claims.admit([a_judgement(tenant, f"r{n}", f"e{n}", rate=60) for n in range(10)])
    assert [c.decision for c in decisions[:6]] == [Decision.ADMITTED] * 6
    assert all(c.decision is Decision.RATE_LIMITED for c in decisions[6:])
    assert 0.5 < decisions[6].retry_after_s <= 1.0


async def test_a_redis_that_is_away_is_transient() -> None:
    nobody = Redis.from_url("redis://127.0.0.1:1/0")
    with pytest.raises(Transient, match="Redis is away"):
        await RedisClaims(nobody, 60).admit([a_judgement("t", "r", "e")])
    await nobody.aclose()

"""Kept answers on real Redis: sealed, by team, gone after their time, and no harm where they cannot be read."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping

import pytest
from penstock.clock import SystemClock
from penstock.contracts.records import Usage
from redis.asyncio import Redis

from services.inference.answers import RedisAnswers
from services.inference.exact_cache import Kept

KEPT = Kept(
    event_id="e", model="m", backend="openai", content="A quiet evening in Zürich.", citations=("p",),
    usage=Usage(input_tokens=9, output_tokens=3), model_us=1200, first_token_us=None, compute_us=None,
    reduced_input_tokens=0,
)  # fmt: skip
ASKED = b"what was asked, in clear"


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    client = Redis.from_url(deployed["REDIS_URL"])
    yield client
    await client.aclose()


async def test_an_answer_is_found_by_its_own_team_and_question_only(redis: Redis) -> None:
    answers, team = RedisAnswers(redis, "secret", SystemClock()), uuid.uuid4().hex
    assert await answers.find(team, ASKED) is None
    await answers.keep(team, ASKED, KEPT, 600)
    assert await answers.find(team, ASKED) == KEPT
    assert await answers.find(f"{team}2", ASKED) is None
    assert await answers.find(team, ASKED + b"!") is None


async def test_redis_holds_neither_question_nor_answer_in_clear_and_forgets_them(redis: Redis) -> None:
    answers, team = RedisAnswers(redis, "secret", SystemClock()), uuid.uuid4().hex
    await answers.keep(team, ASKED, KEPT, 600)
    [place] = await redis.keys(f"penstock:{{{team}}}:*")
    stored = place + (await redis.get(place) or b"")
    assert b"asked" not in stored
    assert "Zürich".encode() not in stored
    assert 0 < await redis.ttl(place) <= 600


async def test_an_answer_that_was_sealed_otherwise_or_moved_is_not_given(redis: Redis) -> None:
    team, victim = uuid.uuid4().hex, uuid.uuid4().hex
    mine = RedisAnswers(redis, "secret", SystemClock())
    await mine.keep(team, ASKED, KEPT, 600)
    assert await RedisAnswers(redis, "another", SystemClock()).find(team, ASKED) is None
    # Somebody who writes to Redis moves it to where another team looks: it does not open there.
    await mine.keep(victim, ASKED, KEPT, 600)
    [from_place] = await redis.keys(f"penstock:{{{team}}}:*")
    [to_place] = await redis.keys(f"penstock:{{{victim}}}:*")
    await redis.set(to_place, await redis.get(from_place) or b"")
    assert await mine.find(victim, ASKED) is None


async def test_replicas_without_a_configured_secret_share_one(redis: Redis) -> None:
    team = uuid.uuid4().hex
    replicas = [RedisAnswers(redis, None, SystemClock()) for _ in range(4)]
    await asyncio.gather(*(replica.keep(team, ASKED, KEPT, 600) for replica in replicas))
    assert await asyncio.gather(*(replica.find(team, ASKED) for replica in replicas)) == [KEPT] * 4

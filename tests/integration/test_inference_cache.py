"""Kept answers on real Redis: sealed, by team, gone after their time, and no harm where they cannot be read; and the
service as a process that is killed between a question and the same one again.
"""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from penstock.bus import KafkaBus, Producer
from penstock.clock import SystemClock
from penstock.config.kinds import Cache, Retrieval, Route, Target
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Completion, Context, GroundedRequest, Message, Passage, Usage
from penstock.settings import KafkaSettings
from redis.asyncio import Redis

from services.inference.answers import RedisAnswers
from services.inference.exact_cache import Kept
from tests.integration.test_streaming import Service

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


@pytest.mark.timeout(180)
async def test_an_answer_outlives_the_process_that_gave_it(
    deployed: Mapping[str, str], kafka_settings: KafkaSettings, catalogue: Catalogue, tmp_path: Path
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    name = f"cached-{uuid.uuid4().hex[:8]}"
    service = Service("inference", deployed, tmp_path / "inference.log")
    async with KafkaBus(kafka_settings, client_id=name) as bus:
        producer = Producer(bus.producer(), codec, "tests")
        target = Target(backend="extractive", model="penstock-extractive-1")
        route = Route(name=name, targets=(target,), retrieval=Retrieval(enabled=False), cache=Cache(exact=True))
        await publish_changes([Change("routes", name, "new", None, route)], producer, datetime.now(UTC))
        reader = await bus.read(["completions"], from_end=True)

        async def answer(team: str, number: int) -> Completion:
            now, request_id = datetime.now(UTC), f"{name}-{number}"
            text = "Tuples are immutable sequences in Python."
            request = GroundedRequest(
                event_id=f"{request_id}-g", request_id=request_id, tenant_id=team, occurred_at=now, causation_id="",
                context=Context(requested_at=now, route=name),
                messages=[Message(role="user", content="Are tuples immutable sequences?")],
                passages=[Passage(passage_id="p", document_id="d", end=len(text), text=text, score=0.9)],
            )  # fmt: skip
            await (await producer.send("requests-grounded", request_id, request))
            async with asyncio.timeout(90):
                while True:
                    for message in await reader.poll(0.2):
                        record = codec.decode(message.topic, message.value)
                        if isinstance(record, Completion) and record.request_id == request_id:
                            return record

        service.start()
        try:
            first = await answer(name, 1)
            assert service.end(signal.SIGKILL) == -signal.SIGKILL
            service.start()
            again, foreign = await answer(name, 2), await answer(f"{name}-other", 3)
        finally:
            service.end(signal.SIGKILL)
            await reader.close()
    assert (first.kind, foreign.kind) == ("completion", "completion")
    assert (again.kind, again.cached_by, again.cached_from) == ("cached", "exact", first.event_id)
    assert (again.content, again.citations, again.usage) == (first.content, ["p"], first.usage)

"""What alerting keeps in Redis, on a real one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from penstock.bus import Transient
from penstock.contracts.records import Alert
from redis.asyncio import Redis

from services.alerting.adapters import RedisMemory
from services.alerting.core import Receipt, Remembered

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def an_alert() -> Alert:
    unique = uuid.uuid4().hex
    return Alert(
        event_id=f"a-{unique}",
        request_id="r1",
        tenant_id="support",
        occurred_at=NOW,
        causation_id="c1",
        kind="drift",
        name="topic_shift",
        severity="warning",
        title="t",
        description="d",
        fingerprint=f"f-{unique}",
    )


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    async with Redis.from_url(deployed["REDIS_URL"]) as opened:
        yield opened


async def test_receipts_and_the_last_delivery_come_back_as_they_were_and_expire(redis: Redis) -> None:
    memory = RedisMemory(redis, timedelta(hours=1), timedelta(hours=24))
    alert, refused = an_alert(), an_alert()
    assert await memory.receipt(alert.event_id) is None
    assert await memory.last(alert.fingerprint) is None
    delivered = Receipt("delivered", "webhook", "https://hooks.example", 3, 200, at=NOW)
    dead = Receipt("dead", "webhook", "https://hooks.example", 1, 400, "refused", NOW)
    await memory.remember(alert, delivered)
    await memory.remember(refused, dead)
    assert await memory.receipt(alert.event_id) == delivered
    assert await memory.receipt(refused.event_id) == dead
    assert await memory.last(alert.fingerprint) == Remembered(alert.event_id, NOW, "firing", "warning")
    assert await memory.last(refused.fingerprint) is None, "what was never delivered is not repeated by the next"
    for key, seconds in ((f"receipt:{alert.event_id}", 25 * 3600), (f"last:{alert.fingerprint}", 7 * 86400)):
        assert seconds - 60 < await redis.ttl(f"penstock:alerts:{key}") <= seconds


async def test_a_redis_that_is_away_is_transient() -> None:
    async with Redis.from_url("redis://127.0.0.1:9/0") as nowhere:
        memory = RedisMemory(nowhere, timedelta(hours=1), timedelta(hours=24))
        with pytest.raises(Transient, match="Redis is away"):
            await memory.receipt("a1")

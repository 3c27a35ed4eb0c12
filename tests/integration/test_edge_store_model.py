"""The scripts of the edge's store against a model: any sequence of sends, conflicts, and results read once or again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.bus import Message
from penstock.stack import Stack
from redis.asyncio import Redis

from services.edge.redis_store import EdgeStore, KeptResult, Taking
from services.edge.waiters import RequestKey

NOW = datetime(2026, 1, 5, 9, 0, 0, 123457, tzinfo=UTC)

pytestmark = pytest.mark.stack


@dataclass(frozen=True)
class Send:
    content: str


@dataclass(frozen=True)
class Result:
    """What comes of a try, the newest one or one so many before it. ``again``: it may be admitted later."""

    before: int
    again: bool


@dataclass(frozen=True)
class TurnedAway:
    before: int


Step = Send | Result | TurnedAway
STEPS = st.one_of(
    st.builds(Send, st.sampled_from(["a", "b"])),
    st.builds(Send, st.just("a")),
    st.builds(Result, st.integers(0, 2), st.booleans()),
    st.builds(Result, st.just(0), st.just(True)),
    st.builds(TurnedAway, st.integers(0, 1)),
)


@dataclass
class Model:
    """What must be known of one request."""

    content: str | None = None
    taken: datetime = NOW
    number: int = -1
    result: Result | None = None
    event: str | None = None
    conflict: bool = False
    over: set[str] = field(default_factory=set)

    def send(self, content: str, at: datetime) -> Taking:
        if self.content == content and not self.conflict and not (self.result and self.result.again):
            return Taking.AGAIN
        if (self.content == content) == self.conflict and self.content is not None:
            return Taking.CONFLICT
        if self.event is not None and self.result is not None and self.result.again:
            self.over.add(self.event)
        self.content, self.taken, self.number = content, at, self.number + 1
        self.result = self.event = None
        self.conflict = False
        return Taking.NEW

    def keep(self, result: Result, event: str) -> None:
        if self.content is None or event in self.over or (self.result is not None and not self.result.again):
            return
        self.result, self.event = result, event


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(steps=st.lists(STEPS, max_size=14))
def test_whatever_comes_in_whatever_order_a_request_has_one_result(stack: Stack, steps: list[Step]) -> None:
    asyncio.run(play(stack.environment()["REDIS_URL"], steps))


async def play(url: str, steps: Sequence[Step]) -> None:
    key: RequestKey = (f"team-{uuid.uuid4().hex[:8]}", "one")
    model = Model()
    async with Redis.from_url(url) as redis:
        store = EdgeStore(redis, request_ttl_s=60)
        for position, step in enumerate(steps):
            at = NOW + timedelta(microseconds=position)
            match step:
                case Send():
                    before = model.result
                    how = model.send(step.content, at)
                    taken = await store.take(key, step.content, at, streamed=False)
                    assert (taken.how, taken.at, taken.number) == (how, model.taken, model.number)
                    assert taken.ended == (how is Taking.AGAIN and before is not None)
                case Result():
                    event = f"event-{max(0, model.number - step.before):04}-{step.again}"
                    model.keep(step, event)
                    message = Message("llm-results", 1, position, 7, b"one", event.encode())
                    await store.keep([KeptResult(key, event, message, step.again)], ())
                case TurnedAway():
                    await store.conflicted(key, model.number - step.before, "another one")
                    model.conflict = model.conflict or (model.content is not None and step.before == 0)
            found = await store.find(key)
            if model.content is None:
                assert found is None
                continue
            assert found is not None
            assert (found.taken, found.number, found.conflict is not None) == (
                model.taken,
                model.number,
                model.conflict,
            )
            assert found.result == (None if model.event is None else model.event.encode())
            assert (found.place is None) == (model.event is None)
        await redis.delete(*[name async for name in redis.scan_iter(match=f"*{key[0]}*")] or ["none"])

"""Routing on the in-memory log, with real endpoints on loopback that fail, recover, cost and take time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import aiohttp
from aiohttp import web
from penstock.bus import Event, MemoryBus, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Breaker, Cache, Price, QualityFloor, Retrieval, Route, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    Completion,
    Context,
    Evaluation,
    GroundedRequest,
    Message,
    Refusal,
    Sampling,
    Score,
)
from penstock.settings import ServiceSettings

from services.inference.adapters import ExtractiveBackend
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.routing import Assignment, MeasuredQuality, TargetRouting, follow_scores
from tests.model_endpoint import endpoint

NOTHING = Retrieval(enabled=False)
BREAKER = Breaker(failure_ratio=0.5, min_calls=2, window_s=30, open_s=10)


@dataclass
class Endpoint:
    """A model on loopback. ``status`` is what it answers, ``asked`` who asked, in their order."""

    name: str
    status: int = 200
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def reply(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body["messages"][-1]["content"])
        if self.status != 200:
            return web.json_response({"error": {"message": "not now"}}, status=self.status)
        return web.json_response(
            {
                "id": "x", "object": "chat.completion", "created": 1, "model": self.name,
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.name}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
            }
        )  # fmt: skip

    def target(self, **changes: Any) -> Target:
        fields = {"backend": "openai", "model": self.name, "base_url": self.url, "timeout_s": 5}
        return Target.model_validate(fields | changes)


@asynccontextmanager
async def endpoints(*names: str) -> AsyncIterator[list[Endpoint]]:
    made = [Endpoint(name) for name in names]
    async with AsyncExitStack() as served:
        for each in made:
            each.url = await served.enter_async_context(endpoint(each.reply))
        yield made


class Stream:
    """Inference as it runs, on a log in memory and a clock that is moved by hand."""

    def __init__(self, bus: MemoryBus, clock: ManualClock, routing: TargetRouting, quality: MeasuredQuality) -> None:
        self.bus, self.clock, self.routing, self.quality = bus, clock, routing, quality
        self._asked = 0

    async def ask(self, route: str = "r", *, deadline_s: float | None = None, text: str = "") -> Event[Any]:
        """Return what came of one request, asked when the one before had ended."""
        self._asked += 1
        request_id = f"q{self._asked}"
        now = self.clock.now()
        request = GroundedRequest(
            event_id=f"e-{request_id}", request_id=request_id, tenant_id="t", occurred_at=now, causation_id="c",
            context=Context(
                requested_at=now, route=route,
                deadline_at=None if deadline_s is None else now + timedelta(seconds=deadline_s),
            ),
            messages=[Message(role="user", content=text or request_id)],
            sampling=Sampling(temperature=0.0, max_completion_tokens=10),
        )  # fmt: skip
        await self.bus.publish("requests-grounded", request_id, request)
        await self.bus.settled("inference", ["requests-grounded"], timeout_s=20)
        ended = [*await self.bus.collect("completions", 0), *await self.bus.collect("refusals", 0)]
        (found,) = [each for each in ended if each.record.request_id == request_id]
        return found

    async def answered_by(self, count: int, **asked: Any) -> list[str]:
        return [(await self.ask(**asked)).record.model for _ in range(count)]


@asynccontextmanager
async def stream(*entries: Any, arms: Any = None) -> AsyncIterator[Stream]:
    clock = ManualClock()
    bus = MemoryBus(Catalogue.load(), clock)
    plane, quality = ConfigPlane.of(entries), MeasuredQuality()
    routing = TargetRouting(plane, clock, arms=arms, quality=quality)
    stop = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        backends = {"extractive": ExtractiveBackend(), "openai": OpenAIBackend(session, {})}
        producer = Producer(bus.producer(), bus.codec, "inference", clock)
        hop = inference_hop(plane, backends, MemoryAnswers(clock), clock, 8, producer, routing=routing)
        floors = {
            route.name: route.quality_floor.score
            for route in plane.entries("routes").values()
            if isinstance(route, Route) and route.quality_floor
        }
        tasks = [
            asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), ServiceSettings(), stop)),
            asyncio.create_task(follow_scores(bus, bus.codec, lambda: floors, quality, clock, stop)),
        ]
        yield Stream(bus, clock, routing, quality)
        stop.set()
        await asyncio.gather(*tasks)


async def test_targets_are_asked_in_their_order_until_one_answers() -> None:
    async with endpoints("one", "two", "three") as (one, two, three):
        one.status = two.status = 400
        targets = (one.target(), two.target(weight=0), three.target(weight=0))
        route = Route(name="r", targets=targets, retrieval=NOTHING)
        async with stream(route) as inference:
            record = (await inference.ask()).record
            assert isinstance(record, Completion)
            assert (record.model, record.target) == ("three", "three")
            assert [failure.target for failure in record.failures] == ["one", "two"]
            assert [len(each.asked) for each in (one, two, three)] == [1, 1, 1]


async def test_a_target_that_fails_is_left_alone_then_tried_by_one_call_and_closed_by_its_answer() -> None:
    async with endpoints("one", "two") as (one, two):
        one.status = 501
        route = Route(name="r", targets=(one.target(), two.target(weight=0)), retrieval=NOTHING, breaker=BREAKER)
        async with stream(route) as inference:
            assert await inference.answered_by(5) == ["two"] * 5
            assert len(one.asked) == 2
            record = (await inference.ask()).record
            (left,) = record.failures
            assert left.target == "one"
            assert left.reason.startswith(
                "one is left alone until 09:00:10 UTC: 2 of 2 calls failed within 30 s, the last: "
            )
            inference.clock.advance(10)
            assert await inference.answered_by(3) == ["two"] * 3
            assert len(one.asked) == 3  # one call tried it
            inference.clock.advance(19)
            assert await inference.answered_by(1) == ["two"]
            assert len(one.asked) == 3  # it waits twice as long now
            inference.clock.advance(1)
            one.status = 200
            assert await inference.answered_by(3) == ["one"] * 3


async def test_a_target_that_would_not_have_been_asked_is_no_failure_though_it_is_left_alone() -> None:
    async with endpoints("one", "two", "three") as (one, two, three):
        two.status = 501
        route = Route(
            name="r", targets=(one.target(), two.target(weight=0), three.target(weight=0)), retrieval=NOTHING,
            breaker=BREAKER,
        )  # fmt: skip
        alone = Route(name="alone", targets=(two.target(),), retrieval=NOTHING, breaker=BREAKER)
        async with stream(route, alone) as inference:
            for _ in range(2):
                assert isinstance((await inference.ask("alone")).record, Refusal)
            record = (await inference.ask()).record
            assert isinstance(record, Completion)
            assert (record.model, record.failures) == ("one", [])
            one.status = three.status = 400
            refused = (await inference.ask()).record
            assert isinstance(refused, Refusal)
            assert "two is left alone until" in refused.reason
            assert refused.reason.count("two is left alone") == 1


async def test_where_all_are_left_alone_a_request_ends_at_once_and_is_told_until_when() -> None:
    async with endpoints("one", "two") as (one, two):
        one.status = two.status = 501
        targets = (one.target(), two.target())
        async with stream(
            Route(name="r", targets=targets, retrieval=NOTHING, breaker=BREAKER),
            Route(name="other", targets=targets[:1], retrieval=NOTHING, breaker=BREAKER),
            Route(
                name="brave",
                targets=targets[:1],
                retrieval=NOTHING,
                breaker=BREAKER.model_copy(update={"enabled": False}),
            ),
        ) as inference:
            for _ in range(2):
                assert isinstance((await inference.ask()).record, Refusal)
            # Routes that ask the same endpoint share what is known of it.
            for route, named in (("r", ["one", "two"]), ("other", ["one"])):
                record = (await inference.ask(route)).record
                assert isinstance(record, Refusal)
                assert (record.status, record.code) == ("failed", "model_unavailable")
                for name in named:
                    assert f"{name} is left alone until 09:00:10 UTC" in record.reason
            assert (len(one.asked), len(two.asked)) == (2, 2)
            await inference.ask("brave")
            assert len(one.asked) == 3


async def test_a_request_that_no_target_can_answer_says_nothing_of_them() -> None:
    async with endpoints("one") as (one,):
        extractive = Target(backend="extractive", model="penstock-extractive-1")
        route = Route(name="r", targets=(extractive, one.target(weight=0)), retrieval=NOTHING, breaker=BREAKER)
        async with stream(route) as inference:
            for number in range(4):
                now = inference.clock.now()
                schema = GroundedRequest(
                    event_id=f"e-s{number}", request_id=f"s{number}", tenant_id="t", occurred_at=now, causation_id="c",
                    context=Context(requested_at=now, route="r"), messages=[Message(role="user", content="?")],
                    sampling=Sampling(response_format=json.dumps({"type": "object"})),
                )  # fmt: skip
                await inference.bus.publish("requests-grounded", f"s{number}", schema)
            await inference.bus.settled("inference", ["requests-grounded"], timeout_s=20)
            assert len(one.asked) == 4
            assert (await inference.ask()).record.model == "penstock-extractive-1"


def a_price(model: str, usd: str) -> Price:
    return Price(model=model, input_cost_per_token=Decimal(usd), output_cost_per_token=Decimal(usd))


async def test_the_cheapest_that_meets_deadline_and_floor_is_asked_and_others_where_it_no_longer_does() -> None:
    async with endpoints("cheap", "fair", "dear") as (cheap, fair, dear):
        floor = QualityFloor(score="answer.groundedness", at_least=0.8)
        route = Route(
            name="r",
            targets=(dear.target(quality=0.9), fair.target(quality=0.9), cheap.target(quality=0.9)),
            retrieval=NOTHING,
            choice="cheapest",
            quality_floor=floor,
        )
        prices = [a_price("cheap", "1e-6"), a_price("fair", "2e-6"), a_price("dear", "3e-6")]
        async with stream(route, *prices) as inference:
            # Without a deadline nothing need be known of their speed.
            assert await inference.answered_by(4) == ["cheap"] * 4
            # With one: what is known to meet it.
            assert (await inference.ask(deadline_s=60)).record.model == "cheap"
            # Its answers turn out to be bad: the next cheapest is asked.
            for number in range(40):
                now = inference.clock.now()
                evaluation = Evaluation(
                    event_id=f"v{number}", request_id=f"v{number}", tenant_id="t", occurred_at=now, causation_id="c",
                    context=Context(requested_at=now, route="r"), model="cheap",
                    scores=[Score(name="groundedness", subject="answer", score=0.2)],
                )  # fmt: skip
                await inference.bus.publish("evaluations", f"v{number}", evaluation)
            async with asyncio.timeout(10):
                while inference.quality.mean("r", floor.score, ["cheap"], inference.clock.now().timestamp()) is None:
                    await asyncio.sleep(0.01)
            assert await inference.answered_by(4) == ["fair"] * 4
            # It is not cheap, and stands in all the same.
            fair.status = dear.status = 400
            assert (await inference.ask()).record.model == "cheap"


async def test_the_fastest_by_what_calls_took_is_asked() -> None:
    async with endpoints("slow", "quick") as (slow, quick):
        plain, held = slow.reply, asyncio.Event()

        async def late(request: web.Request) -> web.StreamResponse:
            # The time itself is what is told apart here.
            await asyncio.wait({asyncio.ensure_future(held.wait())}, timeout=0.3)
            return await plain(request)

        async with endpoint(late) as late_url:
            targets = (slow.target(base_url=late_url), quick.target())
            route = Route(name="r", targets=targets, retrieval=NOTHING, choice="fastest")
            async with stream(route) as inference:
                # Until both are known weights decide, and a few requests try what is not known.
                answered = await inference.answered_by(22)
                assert {"slow", "quick"} == set(answered)
                assert answered[-5:] == ["quick"] * 5


async def test_a_kept_answer_of_a_target_that_is_left_alone_is_given_again() -> None:
    async with endpoints("one") as (one,):
        route = Route(
            name="r", targets=(one.target(),), retrieval=NOTHING, breaker=BREAKER, cache=Cache(exact=True, ttl_s=3600)
        )
        async with stream(route) as inference:
            assert (await inference.ask(text="same")).record.model == "one"
            one.status = 501
            for _ in range(2):
                await inference.ask()
            asked = len(one.asked)
            again = (await inference.ask(text="same")).record
            assert isinstance(again, Completion)
            assert (again.cached_by, again.content) == ("exact", "one")
            assert isinstance((await inference.ask()).record, Refusal)
            assert len(one.asked) == asked


async def test_a_canary_is_asked_before_the_others_which_stand_in_for_it() -> None:
    class Everyone:
        """Sends every request to the target on trial."""

        def assign(self, route: Route, request: GroundedRequest) -> Assignment | None:
            context = Context(requested_at=request.context.requested_at, route=route.name, experiments={"x": "canary"})
            return Assignment(tried, context)

    async with endpoints("stable", "new") as (stable, new):
        tried = new.target()
        route = Route(name="r", targets=(stable.target(),), retrieval=NOTHING, breaker=BREAKER)
        async with stream(route, arms=Everyone()) as inference:
            record = (await inference.ask()).record
            assert (record.target, record.context.experiments) == ("new", {"x": "canary"})
            new.status = 501
            assert await inference.answered_by(5) == ["stable"] * 5
            assert len(new.asked) <= 3

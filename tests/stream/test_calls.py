"""A result counts the completions of its request, whatever happens on the way: admission gives back the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import SystemClock
from penstock.config.kinds import Cache, Policy, Retrieval, Route, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Context, GroundedRequest, LlmResult, Message, Sampling
from penstock.settings import ServiceSettings

from services.guardrails.adapters import MemoryReleases
from services.guardrails.app import release_hop
from services.guardrails.held_texts import MemoryReviews, MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.openai_endpoint import OpenAIBackend
from tests.model_endpoint import OK, endpoint, openai

CLOCK = SystemClock()
SETTINGS = ServiceSettings()
SCANNERS = shipped_scanners()
ORDER = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
POLICY = {"name": "default", "output": {"format": {"action": "ask_again", "json_schema": ORDER}}}
FIT, UNFIT = '{"id": 7}', "the order is seven"


class Scripted:
    """An endpoint that answers each call as it is told: a text, a status, or "silence"."""

    def __init__(self, script: Sequence[str | int]) -> None:
        self.script = list(script)
        self.calls = 0

    async def reply(self, request: web.Request) -> web.StreamResponse:
        step = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        if isinstance(step, int):
            return web.json_response({"error": "no"}, status=step)
        if step == "silence":
            await asyncio.sleep(30)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": step}}
        return web.json_response(OK | {"choices": [choice]})


async def ended(
    script: Sequence[str | int], requests: int = 1, cache: Cache | None = None, late: bool = False
) -> tuple[list[LlmResult], dict[str, int]]:
    """Return the results of equal requests, sent one after the other, and how many completions each request has."""
    bus = MemoryBus(Catalogue.load(), CLOCK)
    scripted = Scripted(script)
    async with endpoint(scripted.reply) as url, aiohttp.ClientSession() as session:
        target = openai(url, timeout_s=0.3)
        route = Route(name="default", targets=(target,), retrieval=Retrieval(enabled=False), cache=cache or Cache())
        config = ConfigPlane.of([route, Policy.model_validate(POLICY), Team(name="t")])
        judge = Judge(config, SCANNERS, b"key", CLOCK)
        producer = Producer(bus.producer(), bus.codec, "inference", CLOCK)
        hops = [
            inference_hop(config, {"openai": OpenAIBackend(session, {})}, MemoryAnswers(CLOCK), CLOCK, 8, producer),
            release_hop(judge, MemoryReleases(), MemoryVault(), MemoryReviews(), Limits(), CLOCK, 64),
        ]
        stop = asyncio.Event()
        task = asyncio.create_task(run_hops(hops, bus, bus.codec, CLOCK, SETTINGS, stop))
        results: list[Any] = []
        try:
            for number in range(requests):
                now = CLOCK.now()
                request = GroundedRequest(
                    event_id=f"e{number}", request_id=f"r{number}", tenant_id="t", occurred_at=now, causation_id="c",
                    context=Context(requested_at=now, deadline_at=now - timedelta(seconds=1) if late else None),
                    messages=[Message(role="user", content="the order as JSON")], sampling=Sampling(temperature=0.0),
                )  # fmt: skip
                await bus.publish("requests-grounded", request.request_id, request)
                results = [event.record for event in await bus.collect("llm-results", number + 1, 20)]
        finally:
            stop.set()
            await task
        made = [event.record for event in await bus.collect("completions", 0)]
    counts = {result.request_id: 0 for result in results}
    for completion in made:
        counts[completion.request_id] += 1
    assert len({completion.event_id for completion in made}) == len(made)
    return results, counts


@pytest.mark.parametrize(
    ("script", "status", "calls"),
    [
        ([FIT], "completed", 1),
        ([UNFIT, FIT], "completed", 2),
        ([UNFIT, UNFIT], "blocked", 2),
        ([UNFIT, 400], "failed", 1),
        ([UNFIT, "silence"], "failed", 2),
        (["silence"], "failed", 1),
        ([400], "failed", 0),
    ],
)
async def test_a_result_counts_the_completions_of_its_request(
    script: Sequence[str | int], status: str, calls: int
) -> None:
    [result], counts = await ended(script)
    assert (result.status, result.calls) == (status, calls)
    assert counts == {"r0": calls}


async def test_a_request_that_came_too_late_has_none() -> None:
    [result], counts = await ended([FIT], late=True)
    assert (result.status, result.calls, counts) == ("expired", 0, {"r0": 0})


async def test_an_answer_from_the_cache_counts_and_is_judged_again() -> None:
    results, counts = await ended([UNFIT, FIT, FIT], requests=2, cache=Cache(exact=True))
    # The second request gets the unfit answer from the cache, and asks again as the first one did.
    assert [(result.status, result.calls) for result in results] == [("completed", 2), ("completed", 2)]
    assert counts == {"r0": 2, "r1": 2}

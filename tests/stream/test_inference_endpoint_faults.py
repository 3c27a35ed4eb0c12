"""Endpoints that fail in every way there is: each request ends once, and no model is asked again once it began."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from datetime import timedelta

import pytest
from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st
from penstock.bus import MemoryBus, Producer, run_hops
from penstock.config.kinds import Breaker, Retrieval, Route
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Completion, Context, Refusal, Sampling, Usage
from penstock.settings import ServiceSettings

from services.inference.adapters import BackendError
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.core import Answered
from services.inference.pieces import NoPieces
from services.inference.progress import Progress
from tests.model_endpoint import endpoint, openai
from tests.stream.faulty_endpoint import (
    CLOCK,
    LATER,
    PASSING,
    PATIENT_S,
    QUICK,
    SLOW,
    TIMEOUT_S,
    WORDS,
    Faulty,
    Heard,
    a_backend,
    a_request,
    answer,
    begun,
    expected,
    one,
    status,
)  # fmt: skip
from tests.stream.test_inference_streaming import through


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*QUICK, *sorted(PASSING)]), max_size=4), st.booleans())
@example(["429", "503", "500"], False)
@example(["429", "503", "silent"], True)
@example(["dripping"], False)
@example(["500", "dripping"], True)
def test_whatever_goes_wrong_a_model_that_began_is_asked_once(faults: list[str], stream: bool) -> None:
    faulty, progress, heard = Faulty({"r": faults}), Progress(), Heard()
    times, end = expected(faults)
    slow = faults[times - 1 : times] in [[fault] for fault in SLOW]
    came = asyncio.run(
        one(
            faulty.reply,
            a_request(),
            heard if stream else NoPieces(),
            progress,
            timeout_s=TIMEOUT_S if slow else PATIENT_S,
        )
    )
    assert faulty.asked["r"] == times
    if end == "answered":
        assert isinstance(came, Answered), came
        assert came.content == WORDS
        assert progress.usage == came.usage == Usage(input_tokens=7, output_tokens=4)
        assert heard.text == (WORDS if stream else "")
        return
    assert isinstance(came, BackendError)
    assert came.charged == progress.began == (end == "paid")
    assert came.cancelled == slow
    assert came.of_request == (faults[times - 1] == "400")
    assert progress.answer_size == len(heard.text)
    assert WORDS.startswith(heard.text)


async def test_every_request_of_many_ends_once() -> None:
    """Through the log, many at a time: one completion or one refusal each, and no more calls than there should be."""
    drawn = random.Random(8)
    faults = {f"r{n}": drawn.choices(QUICK, k=drawn.randint(0, 3)) for n in range(50)}
    faults |= {f"{fault}{n}": [fault] for fault in SLOW for n in range(2)}
    faulty = Faulty(dict(faults))
    bus = MemoryBus(Catalogue.load(), CLOCK)
    async with endpoint(faulty.reply) as url, a_backend() as backend:
        routes = [
            Route(
                name=name, targets=(openai(url, timeout_s=timeout_s),), retrieval=Retrieval(enabled=False),
                # A circuit would keep most of the requests from it.
                breaker=Breaker(enabled=False),
            )
            for name, timeout_s in (("patient", PATIENT_S), ("hasty", TIMEOUT_S))
        ]  # fmt: skip
        for number, (request_id, wrong) in enumerate(faults.items()):
            route = "hasty" if SLOW.keys() & set(wrong) else "patient"
            request = a_request(
                request_id, stream=number % 2 == 0, context=Context(requested_at=CLOCK.now(), route=route)
            )
            await bus.publish("requests-grounded", request_id, request)
        stop = asyncio.Event()
        producer = Producer(bus.producer(), bus.codec, "inference", CLOCK)
        hop = inference_hop(ConfigPlane.of(routes), {"openai": backend}, MemoryAnswers(CLOCK), CLOCK, 32, producer)
        task = asyncio.create_task(run_hops([hop], bus, bus.codec, CLOCK, ServiceSettings(), stop))
        await bus.settled("inference", ["requests-grounded"], timeout_s=120)
        stop.set()
        await task
    ended = [*await bus.collect("completions", 0), *await bus.collect("refusals", 0)]
    records = {each.record.request_id: each.record for each in ended}
    assert len(ended) == len(records) == len(faults)
    for request_id, record in records.items():
        times, end = expected(faults[request_id])
        assert faulty.asked[request_id] == times
        if isinstance(record, Refusal):
            assert end == "refused", (faults[request_id], record.reason)
            continue
        assert isinstance(record, Completion)
        assert end == ("answered" if record.error is None else "paid"), (faults[request_id], record.error)
        assert record.content == (WORDS if record.error is None else "")


@pytest.mark.parametrize("header", [{"Retry-After-Ms": "300"}, {"Retry-After": "0.3"}])
async def test_an_endpoint_that_says_when_is_asked_then(header: dict[str, str]) -> None:
    times: list[float] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        times.append(CLOCK.monotonic())
        return await (answer if len(times) > 1 else status(429, **header))(request)

    came = await one(reply, a_request(), NoPieces(), Progress(), timeout_s=20)
    assert isinstance(came, Answered)
    assert times[1] - times[0] >= 0.3


@pytest.mark.parametrize(("timeout_s", "deadline_s"), [(40.0, None), (600.0, 40.0)])
async def test_nobody_waits_for_an_endpoint_that_will_be_back_too_late(
    timeout_s: float, deadline_s: float | None
) -> None:
    faulty, progress = Faulty({}), Progress()

    async def reply(request: web.Request) -> web.StreamResponse:
        await faulty.reply(request)
        return await status(503, **LATER)(request)

    now = CLOCK.now()
    deadline = None if deadline_s is None else now + timedelta(seconds=deadline_s)
    request = a_request(context=Context(requested_at=now, deadline_at=deadline))
    started = CLOCK.monotonic()
    came = await one(reply, request, NoPieces(), progress, timeout_s=timeout_s)
    assert isinstance(came, BackendError)
    assert "HTTP 503" in str(came)
    assert (faulty.asked.total(), progress.began) == (1, False)
    assert CLOCK.monotonic() - started < 30


async def test_an_endpoint_that_is_not_there_yet_is_asked_again() -> None:
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))  # Taken, and refused until somebody listens.
    runner = web.AppRunner(web.Application(), access_log=None, shutdown_timeout=0.1)
    runner.app.router.add_post("/v1/chat/completions", answer)
    await runner.setup()
    refused: list[bool] = []

    def jitter() -> float:
        refused.append(progress.began)
        if len(refused) == 2:
            holder.listen()
        return 0.0

    progress = Progress()
    target = openai(f"http://127.0.0.1:{holder.getsockname()[1]}/v1")
    try:
        async with a_backend(jitter) as backend:
            call = asyncio.create_task(backend.generate(a_request(), target, NoPieces(), progress))
            while len(refused) < 2:
                await asyncio.sleep(0)
            await web.SockSite(runner, holder).start()
            came = await call
    finally:
        await runner.cleanup()
        holder.close()
    assert came.content == WORDS
    assert refused == [False, False]


@pytest.mark.parametrize(("most", "tokens"), [(None, 2 * len(WORDS)), (10, 20)])
async def test_every_answer_of_a_call_that_breaks_off_is_paid_for(most: int | None, tokens: int) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = await begun(request)
        choice = {"index": 1, "delta": {"content": WORDS}}
        await response.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
        return response

    request = a_request(stream=True, sampling=Sampling(n=2, max_completion_tokens=most))
    async with endpoint(reply) as url:
        _, ended = await through(MemoryBus(Catalogue.load(), CLOCK), request, openai(url))
    assert isinstance(ended, Completion)
    assert (ended.finish_reason, ended.usage) == ("error", Usage(input_tokens=1, output_tokens=tokens))

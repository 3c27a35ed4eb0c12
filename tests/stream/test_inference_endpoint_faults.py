"""Endpoints that fail in every way there is: each request ends once, and no model is asked again once it began."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st
from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import SystemClock
from penstock.config.kinds import Breaker, Retrieval, Route
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    Completion,
    Context,
    GroundedRequest,
    Message,
    Refusal,
    Sampling,
    TokenLogprob,
    Usage,
)
from penstock.settings import ServiceSettings

from services.inference.adapters import BackendError
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.core import Answered, fitted
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.pieces import NoPieces, Pieces
from services.inference.progress import Progress
from tests.stream.test_inference import Reply, endpoint, openai
from tests.stream.test_inference_streaming import through

CLOCK = SystemClock()
TIMEOUT_S = 1.5
"""What a minute is to a request that waits for one, and time enough for what comes before."""
PATIENT_S = 60.0
WORDS = "the answer in words"
USAGE = {"prompt_tokens": 7, "completion_tokens": 4}


async def answer(request: web.Request) -> web.StreamResponse:
    if not (await request.json()).get("stream"):
        message = {"message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}
        return web.json_response({"model": "mock-1", "choices": [message], "usage": USAGE})
    response = await begun(request)
    await response.write(event(finish="stop") + event(usage=USAGE) + b"data: [DONE]\n\n")
    await asyncio.sleep(0.01)  # The end of the response comes after that of the stream, as it does from uvicorn.
    return response


def event(text: str | None = None, finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": finish}] if usage is None else []
    return b"data: " + json.dumps({"model": "mock-1", "choices": choices, "usage": usage}).encode() + b"\n\n"


async def begun(request: web.Request) -> web.StreamResponse:
    """Send the words, as a stream or as the beginning of a whole answer."""
    streamed = (await request.json()).get("stream")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream" if streamed else "application/json"})
    await response.prepare(request)
    words = [event(f"{word} " if number < 3 else word) for number, word in enumerate(WORDS.split())]
    await response.write(b"".join(words) if streamed else b'{"model": "mock-1", "choices": [')
    return response


def status(code: int, **headers: str) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"status {code}"}}, status=code, headers=headers)

    return reply


async def garbage(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"<html>\xff not json", content_type="text/html")


async def garbled_http(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    await request.read()
    request.transport.write(b"\x00\x01 this is no HTTP\r\n\r\n")
    request.transport.close()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    response = await begun(request)
    assert request.transport is not None
    request.transport.close()
    return response


async def reset(request: web.Request) -> web.StreamResponse:
    response = await begun(request)
    assert request.transport is not None
    # Without lingering, closing sends RST.
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def dripping(request: web.Request) -> web.StreamResponse:
    """Never silent for long, and never done."""
    response = await begun(request)
    for _ in range(1000):
        await response.write(b": still here\n\n" if response.content_type == "text/event-stream" else b" ")
        await asyncio.sleep(0.02)
    return response


async def dropped(request: web.Request) -> web.StreamResponse:
    """Takes the request, and says nothing."""
    await request.read()
    assert request.transport is not None
    request.transport.close()
    return web.Response()


NOW, LATER = {"Retry-After": "0"}, {"Retry-After": "60"}
# Nothing was generated: another try may be answered.
PASSING: dict[str, Reply] = {
    "408": status(408), "409": status(409), "429": status(429, **NOW), "500": status(500), "502": status(502),
    "503": status(503, **NOW), "504": status(504),
}  # fmt: skip
# Nothing was generated, and nothing will be.
FINAL: dict[str, Reply] = {
    "400": status(400),
    "401": status(401),
    "404": status(404),
    "302": status(302),
    "garbage": garbage,
}
# A model may have begun.
SLOW: dict[str, Reply] = {"silent": silent, "dripping": dripping}
PAID: dict[str, Reply] = {"half": half, "reset": reset, "dropped": dropped, "garbled http": garbled_http} | SLOW
FAULTS = PASSING | FINAL | PAID
QUICK = sorted(FAULTS.keys() - SLOW.keys())


@dataclass
class Faulty:
    """An endpoint that has a fault for every time it is asked, by the question; then it answers."""

    faults: dict[str, Sequence[str]]
    asked: Counter[str] = field(default_factory=Counter)

    async def reply(self, request: web.Request) -> web.StreamResponse:
        question = (await request.json())["messages"][-1]["content"]
        faults = self.faults.get(question, ())
        number = self.asked[question]
        self.asked[question] += 1
        return await (FAULTS[faults[number]] if number < len(faults) else answer)(request)


def expected(faults: Sequence[str]) -> tuple[int, str]:
    """How often an endpoint with these faults is asked, and how that ends: answered, refused or paid."""
    for number, fault in enumerate(faults[:3], start=1):
        if fault not in PASSING:
            return number, "paid" if fault in PAID else "refused"
    return (len(faults) + 1, "answered") if len(faults) < 3 else (3, "refused")


def a_request(request_id: str = "r", *, stream: bool = False, **changes: Any) -> GroundedRequest:
    now = CLOCK.now()
    fields: dict[str, Any] = {
        "event_id": f"e-{request_id}", "request_id": request_id, "tenant_id": "t", "occurred_at": now, "causation_id": "c",
        "context": Context(requested_at=now), "messages": [Message(role="user", content=request_id)], "stream": stream,
    }  # fmt: skip
    return GroundedRequest(**fields | changes)


@dataclass
class Heard:
    """Pieces as they come."""

    text: str = ""

    async def add(self, text: str) -> None:
        self.text += text

    async def break_off(self) -> None:
        raise AssertionError("an endpoint's answer does not begin anew")


@asynccontextmanager
async def a_backend(jitter: Callable[[], float] = lambda: 0.0) -> AsyncIterator[OpenAIBackend]:
    async with aiohttp.ClientSession() as session:
        yield OpenAIBackend(session, {"KEY": " sk-planted\n", "BAD": "sk-\u20ac"}, jitter=jitter)


async def one(
    reply: Reply, request: GroundedRequest, pieces: Pieces, progress: Progress, **changes: Any
) -> Answered | BackendError:
    """What comes of one call of an endpoint."""
    async with endpoint(reply) as url, a_backend() as backend:
        try:
            return await backend.generate(request, openai(url, **{"timeout_s": PATIENT_S} | changes), pieces, progress)
        except BackendError as error:
            return error


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


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_given_up_closes_its_connection(stream: bool) -> None:
    reached, left = asyncio.Event(), asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        await begun(request)
        reached.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", reply)
    # As vllm serve does: who asked is gone, and the generation with him.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    progress, heard = Progress(), Heard()
    target = openai(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    try:
        async with a_backend() as backend:
            pieces: Pieces = heard if stream else NoPieces()
            call = asyncio.create_task(backend.generate(a_request(), target, pieces, progress))
            await asyncio.wait_for(reached.wait(), 10)
            while stream and heard.text != WORDS:
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait_for(left.wait(), 10)
            with pytest.raises(asyncio.CancelledError):
                await call
    finally:
        await runner.cleanup()
    assert (progress.began, progress.usage, progress.answer_size) == (True, None, len(heard.text))


async def test_calls_share_a_connection() -> None:
    peers: list[Any] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return await answer(request)

    async with endpoint(reply) as url, a_backend() as backend:
        for number in range(6):
            target = openai(url, api_key_env="KEY" if number > 3 else None)
            await backend.generate(a_request(), target, Heard() if number % 2 else NoPieces(), Progress())
    assert len(peers) == 6
    assert len(set(peers)) == 1


async def test_nothing_of_this_machine_is_told_to_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: planted\nX-Extra: planted")
    asked: list[dict[str, str]] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        asked.append({name.lower(): value for name, value in request.headers.items()})
        return await answer(request)

    async with endpoint(reply) as url, a_backend() as backend:
        for key in (None, "KEY"):
            await backend.generate(a_request(), openai(url, api_key_env=key), NoPieces(), Progress())
        with pytest.raises(BackendError, match="BAD holds what no key consists of"):
            await backend.generate(a_request(), openai(url, api_key_env="BAD"), NoPieces(), Progress())
    common = {"host", "accept", "accept-encoding", "content-length", "content-type", "user-agent"}
    assert [set(headers) - common for headers in asked] == [set(), {"authorization"}]
    assert asked[1]["authorization"] == "Bearer sk-planted"
    assert not any(
        "planted" in value for headers in asked for value in headers.values() if value != "Bearer sk-planted"
    )


async def test_usage_of_a_stream_counts_until_more_comes() -> None:
    """An endpoint that says after every word what it used, and breaks off."""
    seen: list[Usage | None] = []
    progress = Progress()

    async def reply(request: web.Request) -> web.StreamResponse:
        response = await begun(request)
        await response.write(event(usage={"prompt_tokens": 7, "completion_tokens": 4}))
        await response.write(event("more"))
        return response

    class Watching(Heard):
        async def add(self, text: str) -> None:
            seen.append(progress.usage)
            await super().add(text)

    came = await one(reply, a_request(), Watching(), progress, timeout_s=5)
    assert isinstance(came, BackendError)
    assert came.charged
    # What the last word took nobody said.
    assert progress.usage is None
    assert progress.answer_size == len(WORDS) + len("more")


async def test_alternatives_and_probabilities_are_part_of_the_completion() -> None:
    asked: list[Any] = []
    logprobs = {"content": [{"token": "a", "logprob": -0.25, "top_logprobs": []}]}

    async def reply(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        choices = [
            {"index": n, "message": {"content": text}, "finish_reason": "stop", "logprobs": logprobs}
            for n, text in enumerate("ab")
        ]
        return web.json_response({"model": "mock-1", "choices": choices, "usage": None})

    request = a_request(sampling=Sampling(n=2, top_logprobs=0, max_completion_tokens=1))
    came = await one(reply, request, NoPieces(), Progress(), timeout_s=5)
    assert isinstance(came, Answered)
    assert (came.content, [each.content for each in came.alternatives]) == ("a", ["b"])
    assert [each.logprob for each in came.logprobs] == [-0.25]
    # Nobody counted: a byte each, and no more than was asked for of both.
    assert came.usage == Usage(input_tokens=1, output_tokens=2)
    assert (asked[0]["n"], asked[0]["logprobs"], asked[0]["top_logprobs"]) == (2, True, 0)


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


async def test_an_answer_of_tool_calls_alone_costs_what_the_endpoint_says() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        message = {"content": None, "tool_calls": [{"id": "c", "type": "function"}]}
        return web.json_response({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE})

    progress = Progress()
    came = await one(reply, a_request(), NoPieces(), progress)
    assert isinstance(came, BackendError)
    assert (came.charged, progress.began, progress.usage) == (True, True, Usage(input_tokens=7, output_tokens=4))


def test_probabilities_count_towards_what_one_event_holds() -> None:
    token = TokenLogprob(token="word", logprob=-1.0, top={f"word{n}": -1.0 for n in range(20)})
    usage = Usage(input_tokens=1, output_tokens=30_000)
    answer = Answered("m", "openai", "hi", "stop", usage, 1, logprobs=(token,) * 30_000)
    fits = replace(answer, logprobs=answer.logprobs[:10_000])
    assert fitted(a_request(), fits) == fits
    cut = fitted(a_request(), answer)
    assert (cut.content, cut.logprobs, cut.usage) == ("", (), usage)
    assert "top_logprobs" in (cut.error or "")


async def test_an_endpoint_that_moved_is_named() -> None:
    came = await one(status(307, Location="http://elsewhere/v1"), a_request(), NoPieces(), Progress())
    assert isinstance(came, BackendError)
    assert "HTTP 307" in str(came)
    assert "redirects to http://elsewhere/v1: set base_url" in str(came)

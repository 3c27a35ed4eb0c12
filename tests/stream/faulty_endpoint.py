"""An endpoint that fails in every way there is, and what comes of a call of it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from penstock.clock import SystemClock
from penstock.contracts.records import Context, GroundedRequest, Message

from services.inference.adapters import BackendError
from services.inference.core import Answered
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.pieces import Pieces
from services.inference.progress import Progress
from tests.model_endpoint import DONE, Reply, endpoint, openai

__all__ = [
    "CLOCK", "LATER", "PASSING", "PATIENT_S", "QUICK", "SLOW", "TIMEOUT_S", "USAGE", "WORDS", "Faulty", "Heard", "a_backend",
    "a_request", "answer", "begun", "event", "expected", "one", "status",
]  # fmt: skip

CLOCK = SystemClock()
TIMEOUT_S = 1.5
"""What a minute is to a request that waits for one, and time enough for what comes before."""
PATIENT_S = 60.0
"""What nothing here takes, however busy the machine is."""
WORDS = "the answer in words"
USAGE = {"prompt_tokens": 7, "completion_tokens": 4}


async def answer(request: web.Request) -> web.StreamResponse:
    if not (await request.json()).get("stream"):
        message = {"message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}
        return web.json_response({"model": "mock-1", "choices": [message], "usage": USAGE})
    response = await begun(request)
    await response.write(event(finish="stop") + event(usage=USAGE) + DONE)
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

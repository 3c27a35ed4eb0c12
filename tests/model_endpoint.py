"""A model behind an OpenAI-compatible endpoint on loopback: a test decides its replies, which are made of these parts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from penstock.config.kinds import Target

__all__ = ["DONE", "OK", "Reply", "chunk", "endpoint", "event_stream", "openai"]

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""What answers a request of the endpoint."""

OK = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "mock-1",
    "choices": [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "hi there"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}},
}  # fmt: skip
"""A whole answer."""

DONE = b"data: [DONE]\n\n"
"""The last event of a streamed answer."""


@asynccontextmanager
async def endpoint(reply: Reply, *, cancels: bool = False) -> AsyncIterator[str]:
    """Answer ``POST /v1/chat/completions`` with ``reply``; yield the base URL.

    With ``cancels`` a reply is cancelled when whoever asked is gone, as ``vllm serve`` does.
    """
    app = web.Application()
    app.router.add_post("/v1/chat/completions", reply)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=cancels)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def openai(url: str, **changes: Any) -> Target:
    """The endpoint at ``url`` as a route's target."""
    return Target(**{"backend": "openai", "model": "m", "base_url": url, "timeout_s": 5} | changes)


async def event_stream(request: web.Request) -> web.StreamResponse:
    """Begin a streamed answer."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


def chunk(model: str, delta: Mapping[str, Any], finish: str | None = None, **fields: Any) -> bytes:
    """An event of a streamed answer; ``fields`` come beside its choice, or instead of it."""
    body = {
        "id": "x", "object": "chat.completion.chunk", "created": 1, "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip
    return b"data: " + json.dumps(body | fields).encode() + b"\n\n"

"""What endpoints are told, what of their answers is kept, and that who gives a call up leaves nothing behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from penstock.contracts.records import Sampling, TokenLogprob, Usage

from services.inference.adapters import BackendError
from services.inference.core import Answered, fitted
from services.inference.pieces import NoPieces, Pieces
from services.inference.progress import Progress
from tests.model_endpoint import endpoint, openai
from tests.stream.faulty_endpoint import USAGE, WORDS, Heard, a_backend, a_request, answer, begun, event, one, status


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

    progress, heard = Progress(), Heard()
    async with endpoint(reply, cancels=True) as url, a_backend() as backend:
        pieces: Pieces = heard if stream else NoPieces()
        call = asyncio.create_task(backend.generate(a_request(), openai(url), pieces, progress))
        await asyncio.wait_for(reached.wait(), 10)
        while stream and heard.text != WORDS:
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait_for(left.wait(), 10)
        with pytest.raises(asyncio.CancelledError):
            await call
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
    assert "it redirects: set base_url" in str(came)
    # Where an endpoint is, whoever asks is not told.
    assert "elsewhere" not in str(came)

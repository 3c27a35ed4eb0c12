"""Inference on the in-memory log, with a real endpoint on loopback that can be made to fail."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from penstock.bus import Event, MemoryBus, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Retrieval, Route, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Completion, Context, GroundedRequest, Message, Passage, Refusal, Sampling, Usage
from penstock.settings import ServiceSettings

from services.inference.adapters import ExtractiveBackend
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.routing.weighted import order_targets
from tests.model_endpoint import OK, Reply, endpoint, openai

CLOCK = ManualClock()


def a_request(request_id: str = "r", **changes: Any) -> GroundedRequest:
    fields: dict[str, Any] = {
        "event_id": f"e-{request_id}", "request_id": request_id, "tenant_id": "t", "occurred_at": CLOCK.now(),
        "causation_id": "c", "context": Context(requested_at=CLOCK.now()),
        "messages": [Message(role="user", content="Are tuples immutable sequences?")],
    }  # fmt: skip
    return GroundedRequest(**fields | changes)


async def through(requests: Sequence[GroundedRequest], *targets: Target, key: str | None = None) -> list[Event[Any]]:
    """Send the requests through inference on a route with ``targets``; return completions, then refusals."""
    bus = MemoryBus(Catalogue.load(), CLOCK)
    routes = ConfigPlane.of([Route(name="default", targets=targets, retrieval=Retrieval(enabled=False))])
    async with aiohttp.ClientSession() as session:
        backends = {"extractive": ExtractiveBackend(), "openai": OpenAIBackend(session, {"KEY": "sk-planted"})}
        for request in requests:
            await bus.publish("requests-grounded", key or request.request_id, request)
        stop = asyncio.Event()
        producer = Producer(bus.producer(), bus.codec, "inference", CLOCK)
        hop = inference_hop(routes, backends, MemoryAnswers(CLOCK), CLOCK, 8, producer)
        task = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), ServiceSettings(), stop))
        await bus.settled("inference", ["requests-grounded"], timeout_s=20)
        stop.set()
        await task
    return [*await bus.collect("completions", 0), *await bus.collect("refusals", 0)]


EXTRACTIVE = Target(backend="extractive", model="penstock-extractive-1")


async def test_extractive_answers_from_the_passages_and_reports_itself() -> None:
    passage = Passage(passage_id="p", document_id="d", text="Tuples are immutable sequences in Python.", score=0.9)
    (event,) = await through([a_request(passages=[passage])], EXTRACTIVE)
    record = event.record
    assert isinstance(record, Completion)
    assert (record.model, record.backend) == ("penstock-extractive-1", "extractive")
    assert record.content == "Tuples are immutable sequences in Python."
    assert record.citations == ["p"]
    assert record.usage.output_tokens == 7
    assert record.request_model == "penstock-extractive-1"
    assert record.timings.compute_us is not None
    assert 0 < record.timings.compute_us <= record.timings.model_us


async def test_extractive_keeps_the_length_that_was_asked_for() -> None:
    passage = Passage(passage_id="p", document_id="d", text="Tuples are immutable sequences in Python.", score=0.9)
    request = a_request(passages=[passage], sampling=Sampling(max_completion_tokens=3))
    (event,) = await through([request], EXTRACTIVE)
    assert (event.record.content, event.record.finish_reason) == ("Tuples are immutable", "length")
    assert event.record.usage.output_tokens == 3


async def test_an_endpoint_is_asked_as_openai_is_and_its_usage_is_kept() -> None:
    asked: list[Any] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        asked.append((request.headers.get("Authorization"), await request.json()))
        return web.json_response(OK)

    passage = Passage(passage_id="p", document_id="d", title="T", text="Evidence.", score=0.9)
    request = a_request(sampling=Sampling(temperature=0.5, max_completion_tokens=9, seed=1), passages=[passage])
    async with endpoint(reply) as url:
        (event,) = await through([request], openai(url, api_key_env="KEY"))
    record = event.record
    assert isinstance(record, Completion)
    assert (record.content, record.model, record.finish_reason) == ("hi there", "mock-1", "length")
    assert (record.usage.input_tokens, record.usage.output_tokens, record.usage.cached_input_tokens) == (7, 2, 3)
    ((authorization, body),) = asked
    assert authorization == "Bearer sk-planted"
    assert (body["model"], body["temperature"], body["max_completion_tokens"], body["seed"]) == ("m", 0.5, 9, 1)
    assert "[1] T\nEvidence." in body["messages"][-1]["content"]
    assert "top_p" not in body


async def test_a_judge_is_asked_for_json_that_follows_its_schema_and_booked_as_one() -> None:
    asked: list[Any] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        return web.json_response(OK)

    schema = '{"type":"object","properties":{"verdict":{"enum":["good","b\u00e4d"]}}}'
    judge = a_request(
        context=Context(requested_at=CLOCK.now(), purpose="judge"), sampling=Sampling(response_format=schema)
    )
    async with endpoint(reply) as url:
        events = await through([judge, a_request("plain")], openai(url))
    assert {event.record.request_id: event.record.kind for event in events} == {"r": "judge", "plain": "completion"}
    (of_judge,) = [body for body in asked if "response_format" in body]
    assert of_judge["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": json.loads(schema)},
    }
    assert len(asked) == 2


async def test_the_extractive_backend_does_not_pretend_to_follow_a_schema() -> None:
    (event,) = await through([a_request(sampling=Sampling(response_format="{}"))], EXTRACTIVE)
    assert isinstance(event.record, Refusal)
    assert (event.record.status, event.record.code) == ("failed", "unsupported_request")
    assert "cannot follow a JSON schema; ask a route with a model that can" in event.record.reason


async def test_what_stood_twice_in_the_passages_is_sent_once_and_counted() -> None:
    asked: list[Any] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        return web.json_response(OK | {"usage": {"prompt_tokens": 200, "completion_tokens": 2}})

    page = "Tuples are immutable sequences in Python. " * 20
    cuts = [(0, 400), (300, 700)]
    passages = [
        Passage(passage_id=f"p{n}", document_id="d", title="T", start=a, end=b, text=page[a:b], score=0.9)
        for n, (a, b) in enumerate(cuts)
    ]
    async with endpoint(reply) as url:
        (event,) = await through([a_request(passages=passages)], openai(url))
    sent = asked[0]["messages"][-1]["content"]
    assert f"[1] [2] T\n{page[:700]}\n" in sent
    assert event.record.passages == passages
    # 100 characters and the second title, at the tokens a byte of what was sent.
    assert 200 * 100 // len(sent) <= event.record.reduced_input_tokens <= 200 * 110 // len(sent)


async def test_a_busy_endpoint_is_asked_again() -> None:
    tries = 0

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        return web.json_response(OK) if tries == 3 else web.json_response({"error": "busy"}, status=429)

    async with endpoint(reply) as url:
        (event,) = await through([a_request()], openai(url))
    assert isinstance(event.record, Completion)
    assert tries == 3


async def garbage(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"<html>not json", content_type="text/html")


async def bad_request(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "context too long"}}, status=400)


async def no_choices(request: web.Request) -> web.StreamResponse:
    return web.json_response(OK | {"choices": [], "usage": None})


async def no_choices_but_usage(request: web.Request) -> web.StreamResponse:
    return web.json_response(OK | {"choices": []})


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(json.dumps(OK).encode()[:20])
    assert request.transport is not None
    request.transport.close()
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.json_response(OK)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (garbage, "no chat completion"),
        (bad_request, "HTTP 400.*context too long"),
        (no_choices, "no choices"),
    ],
)
async def test_an_endpoint_that_fails_ends_the_request_with_the_cause(reply: Reply, words: str) -> None:
    async with endpoint(reply) as url:
        (event,) = await through([a_request()], openai(url, timeout_s=0.5))
    record = event.record
    assert isinstance(record, Refusal)
    code = "unsupported_request" if reply is bad_request else "model_unavailable"
    assert (record.status, record.code, record.stage, record.calls) == ("failed", code, "inference", 0)
    assert re.search(words, record.reason)


@pytest.mark.parametrize(
    ("reply", "words", "finish"),
    [
        (half, "Payload|Disconnect", "error"),
        (silent, "no answer within", "cancelled"),
        (no_choices_but_usage, "no choices", "error"),
    ],
)
async def test_a_call_that_may_be_charged_for_has_a_completion_though_nobody_answered(
    reply: Reply, words: str, finish: str
) -> None:
    request = a_request(messages=[Message(role="user", content="Grüße?")], attempt=1)
    async with endpoint(reply) as url:
        (event,) = await through([request], openai(url, timeout_s=0.5))
    record = event.record
    assert isinstance(record, Completion)
    assert re.search(words, record.error or "")
    assert (record.content, record.finish_reason, record.attempt) == ("", finish, 1)
    # As many tokens as the prompt has bytes: nobody said how many there were.
    assert (record.usage, record.request_model) == (Usage(input_tokens=8), "m")


async def test_a_call_that_broke_off_is_paid_for_though_another_target_answered() -> None:
    passage = Passage(passage_id="p", document_id="d", text="Tuples are immutable sequences in Python.", score=0.9)
    request = a_request(passages=[passage], embedding=bytes(8), embedder="m", embedding_tokens=6)
    async with endpoint(half) as url:
        given_up, answered = await through([request], openai(url, weight=100), EXTRACTIVE)
    assert isinstance(given_up.record, Completion)
    assert isinstance(answered.record, Completion)
    assert (given_up.record.kind, given_up.record.request_model, given_up.record.finish_reason) == (
        "abandoned",
        "m",
        "error",
    )
    assert given_up.record.usage.input_tokens > len(passage.text)
    # The embedding is paid for once, and nothing is answered twice.
    assert (given_up.record.embedding_tokens, given_up.record.content, given_up.record.messages) == (0, "", [])
    assert (answered.record.kind, answered.record.request_model) == ("completion", "penstock-extractive-1")
    assert given_up.record.event_id != answered.record.event_id
    assert given_up.record.context == answered.record.context


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}])
async def test_an_endpoint_that_gives_no_usage_is_never_free(usage: dict[str, int] | None) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response(OK | {"usage": usage})

    async with endpoint(reply) as url:
        (event,) = await through([a_request(sampling=Sampling(max_completion_tokens=5))], openai(url))
    # By bytes, and no more of the answer than was asked for.
    assert event.record.usage == Usage(input_tokens=len("Are tuples immutable sequences?"), output_tokens=5)


async def test_an_answer_that_no_event_can_hold_is_paid_for() -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x" * 6_900_000}}

    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response(OK | {"choices": [choice]})

    question = [Message(role="user", content="y" * 600_000)]
    async with endpoint(reply) as url:
        (event,) = await through([a_request(messages=question)], openai(url))
    record = event.record
    assert isinstance(record, Completion)
    assert "max_completion_tokens" in (record.error or "")
    assert (record.content, record.finish_reason, record.usage.output_tokens) == ("", "error", 2)


async def test_the_model_of_the_route_and_what_was_embedded_travel_with_the_answer() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response(OK)

    request = a_request(embedding=bytes(8), embedder="all-MiniLM-L6-v2", embedding_tokens=6, attempt=1)
    async with endpoint(reply) as url:
        (event,) = await through([request], openai(url, model="gpt-x"))
    record = event.record
    assert (record.model, record.request_model, record.kind) == ("mock-1", "gpt-x", "completion")
    assert (record.embedder, record.embedding_tokens, record.attempt) == ("all-MiniLM-L6-v2", 6, 1)
    assert record.timings.compute_us is None


async def test_a_refusal_has_the_calls_that_came_before_it() -> None:
    refused = [a_request("0"), a_request("1", attempt=1)]
    async with endpoint(bad_request) as url:
        events = await through(refused, openai(url))
    assert {e.record.request_id: e.record.calls for e in events} == {"0": 0, "1": 1}


async def test_the_next_target_stands_in_for_one_that_fails() -> None:
    passage = Passage(passage_id="p", document_id="d", text="Tuples are immutable sequences in Python.", score=0.9)
    async with endpoint(garbage) as url:
        (event,) = await through([a_request(passages=[passage])], openai(url, weight=10**6), EXTRACTIVE)
    assert isinstance(event.record, Completion)
    assert event.record.backend == "extractive"


async def test_whoever_asks_is_not_told_where_an_endpoint_is_nor_what_it_said_of_the_account() -> None:
    async with endpoint(garbage) as url:
        gone = url
    (event,) = await through([a_request()], openai(gone, timeout_s=2))
    assert isinstance(event.record, Refusal)
    assert "cannot connect" in event.record.reason
    assert str(urlsplit(gone).port) not in event.record.reason
    assert "127.0.0.1" not in event.record.reason

    async def wrong_key(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "key sk-planted of account 4711 is unknown"}}, status=401)

    async with endpoint(wrong_key) as url:
        (event,) = await through([a_request()], openai(url))
    assert "HTTP 401" in event.record.reason
    assert "planted" not in event.record.reason
    assert "127.0.0.1" not in event.record.reason


async def test_a_missing_key_is_named_and_never_its_value() -> None:
    async with endpoint(garbage) as url:
        (event,) = await through([a_request()], openai(url, api_key_env="ABSENT_KEY"))
    assert "ABSENT_KEY" in event.record.reason
    assert "sk-planted" not in event.record.reason


async def test_an_expired_request_never_reaches_the_model() -> None:
    calls = 0

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        return web.json_response(OK)

    past = Context(requested_at=CLOCK.now(), deadline_at=CLOCK.now() - timedelta(seconds=1))
    async with endpoint(reply) as url:
        (event,) = await through([a_request(context=past)], openai(url))
    assert isinstance(event.record, Refusal)
    assert (event.record.status, calls) == ("expired", 0)


async def test_a_conversation_is_answered_in_order() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        await asyncio.sleep(0.05 if body["messages"][-1]["content"] == "0" else 0)
        return web.json_response(OK)

    context = Context(requested_at=CLOCK.now(), conversation_id="c")
    requests = [a_request(str(n), context=context, messages=[Message(role="user", content=str(n))]) for n in range(5)]
    async with endpoint(reply) as url:
        events = await through(requests, openai(url), key="c")
    assert [e.record.request_id for e in events] == ["0", "1", "2", "3", "4"]


def test_targets_share_by_weight_and_a_request_keeps_its_target() -> None:
    route = Route(name="r", targets=(EXTRACTIVE, openai("http://127.0.0.1:1/v1", weight=3)))
    first = [order_targets(route, f"request-{n}")[0].backend for n in range(2000)]
    assert 0.7 < first.count("openai") / 2000 < 0.8
    assert all(order_targets(route, "x") == order_targets(route, "x") for _ in range(5))
    assert {t.backend for t in order_targets(route, "x")} == {"openai", "extractive"}

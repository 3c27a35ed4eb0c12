"""The routes of the edge: who may ask, what is asked, and what each failure looks like from outside."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from penstock.contracts.codec import Codec
from penstock.contracts.records import LlmRequest, LlmResult, ResultChunk, Status

from services.edge.boundary import Room
from services.edge.protocol import Unavailable
from tests.unit.edge_desk import (
    AUTHORIZATION,
    EMBEDDER,
    KEY,
    OTHER_KEY,
    MemoryDesk,
    app_of,
    front_of,
    pieces_of,
    result_of,
)

CHAT = {"model": "default", "messages": [{"role": "user", "content": "How do I reset it?"}]}


NESTED = b'{"model": "a", "tools": [{"type": "function", "function": {"name": "a", "parameters": {"a": ' + b"[" * 50_000


def client_of(app: Any, headers: dict[str, str] = AUTHORIZATION) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://edge", headers=headers)


@pytest.fixture
def desk() -> MemoryDesk:
    return MemoryDesk()


@pytest.fixture
async def client(desk: MemoryDesk) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of(front_of(desk))) as made:
        yield made


def error(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    return body["error"]  # type: ignore[no-any-return]


async def test_a_chat_is_an_event_of_the_keys_team_and_its_answer(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200
    [((team, request_id), request)] = desk.requests.items()
    assert (team, request.key_id, request.route) == ("support", KEY.id, "default")
    assert answer.headers["x-request-id"] == request_id
    body = answer.json()
    assert body["id"] == f"chatcmpl-{request_id}"
    assert body["choices"][0]["message"]["content"] == "Press it."
    assert body["usage"]["total_tokens"] == 5


async def test_the_idempotency_key_is_the_requests_identity(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    keyed = {"idempotency-key": "ticket-4711"}
    first = await client.post("/v1/chat/completions", json=CHAT, headers=keyed)
    again = await client.post("/v1/chat/completions", json=CHAT, headers=keyed)
    assert first.json() == again.json()
    assert list(desk.requests) == [("support", "ticket-4711")]
    other = await client.post("/v1/chat/completions", json={**CHAT, "seed": 1}, headers=keyed)
    assert (other.status_code, error(other)["code"]) == (409, "idempotency_conflict")
    assert other.headers["x-should-retry"] == "false"
    whose = {"authorization": f"Bearer {OTHER_KEY.text}"}
    assert (await client.post("/v1/chat/completions", json=CHAT, headers={**keyed, **whose})).status_code == 200
    assert list(desk.requests) == [("support", "ticket-4711"), ("other", "ticket-4711")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"), ("POST", "/v1/requests"), ("GET", "/v1/requests/a"), ("GET", "/v1/models"),
        ("GET", "/v1/requests/a/events"), ("POST", "/v1/feedback"), ("POST", "/v1/documents"), ("GET", "/v1/models/default"),
        ("DELETE", "/v1/documents/a"),
    ],
)  # fmt: skip
async def test_without_a_key_nothing_is_done(
    client: httpx.AsyncClient, desk: MemoryDesk, method: str, path: str
) -> None:
    for header in ("", "Bearer psk_x", f"Basic {KEY.text}"):
        body = CHAT if method == "POST" else None
        answer = await client.request(method, path, json=body, headers={"authorization": header})
        assert (answer.status_code, error(answer)["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not desk.requests


@pytest.mark.parametrize(
    ("sent", "status", "code", "param"),
    [
        ({"content": b"{"}, 400, "invalid_json", None),
        ({"content": b'{"model": "\xff"}'}, 400, "invalid_json", None),
        ({"content": NESTED}, 400, "invalid_json", None),
        ({"json": {"messages": []}}, 400, "missing_required_parameter", "model"),
        ({"json": {**CHAT, "temperature": 3}}, 400, "invalid_value", "temperature"),
        ({"json": {**CHAT, "n": "2"}}, 400, "invalid_value", "n"),
        ({"content": b" " * 100_001}, 413, "request_too_large", None),
        ({"content": json.dumps(CHAT), "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type", None),
    ],
)
async def test_a_body_that_is_none_is_told_what_is_wrong(
    client: httpx.AsyncClient, desk: MemoryDesk, sent: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    sent = {"headers": {"content-type": "application/json"}, **sent}
    answer = await client.post("/v1/chat/completions", **sent)
    told = error(answer)
    assert (answer.status_code, told["code"], told["param"]) == (status, code, param)
    assert not desk.requests


async def test_a_body_without_a_length_is_counted(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b" " * 1000

    answer = await client.post("/v1/requests", content=endless(), headers={"content-type": "application/json"})
    assert (answer.status_code, error(answer)["code"]) == (413, "request_too_large")


async def test_addresses_and_methods_that_are_not_there(client: httpx.AsyncClient) -> None:
    missing = await client.get("/v1/nothing")
    assert (missing.status_code, error(missing)["code"]) == (404, "not_found")
    wrong = await client.put("/v1/chat/completions")
    assert (wrong.status_code, error(wrong)["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")


async def test_a_refusal_is_an_error_with_the_time_to_wait(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    desk.answer = lambda request: [
        result_of(request, "", Status.REJECTED, code="rate_limited", reason="too many", retry_after_ms=1_234)
    ]
    for stream in (False, True):
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        assert (answer.status_code, error(answer)["code"]) == (429, "rate_limit_exceeded")
        assert (answer.headers["retry-after-ms"], answer.headers["retry-after"]) == ("1234", "2")
        assert "x-should-retry" not in answer.headers


async def test_what_is_away_is_503_and_was_not_taken_up(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    desk.away = Unavailable("Redis cannot be used", 2_000)
    bodies = {"/v1/chat/completions": CHAT, "/v1/feedback": {"request_id": "a", "conversation_id": "c"}}
    for path, body in bodies.items():
        answer = await client.post(path, json=body)
        assert (answer.status_code, error(answer)["code"], answer.headers["retry-after"]) == (503, "unavailable", "2")


async def test_a_defect_is_500_and_says_nothing_of_itself(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    def broken(request: Any) -> Any:
        raise RuntimeError("psk_secret of somebody")

    desk.answer = broken
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, error(answer)["code"]) == (500, "internal_error")
    assert "somebody" not in answer.text
    assert answer.headers["x-should-retry"] == "false"


async def test_more_than_there_is_room_for_is_turned_away(desk: MemoryDesk) -> None:
    async with client_of(app_of(front_of(desk, requests=0))) as client:
        answer = await client.get("/v1/models")
        assert (answer.status_code, error(answer)["code"], answer.headers["retry-after-ms"]) == (
            503,
            "slow_down",
            "1000",
        )
        assert (await client.get("/healthz")).text == "ok\n"


async def test_a_team_that_waits_for_much_leaves_room_for_others(desk: MemoryDesk) -> None:
    desk.answer = lambda request: []
    app, whose = app_of(front_of(desk, requests=4)), {"authorization": f"Bearer {OTHER_KEY.text}"}
    async with client_of(app) as client, client_of(app, whose) as other:
        waiting = [asyncio.create_task(client.post("/v1/chat/completions", json=CHAT)) for _ in range(2)]
        while len(desk.requests) < 2:
            await asyncio.sleep(0)
        third = await client.get("/v1/models")
        assert (third.status_code, error(third)["code"]) == (503, "slow_down")
        assert (await other.get("/v1/models")).status_code == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await client.get("/v1/models")).status_code == 200


async def test_an_answer_that_does_not_come_is_told_where_it_will_stand(desk: MemoryDesk) -> None:
    desk.answer = lambda request: []
    async with client_of(app_of(front_of(desk, answer_timeout_s=0.05))) as client:
        for stream in (False, True):
            unkeyed = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert (unkeyed.status_code, error(unkeyed)["code"]) == (504, "still_under_way")
            assert f"/v1/requests/{unkeyed.headers['x-request-id']}" in error(unkeyed)["message"]
            assert unkeyed.headers["x-should-retry"] == "false"  # it would be asked a second time
        keyed = await client.post("/v1/chat/completions", json=CHAT, headers={"idempotency-key": "k"})
        assert keyed.headers["retry-after-ms"] == "1000"


async def test_those_who_wait_are_told_when_the_edge_leaves(desk: MemoryDesk) -> None:
    desk.answer = lambda request: []
    front = front_of(desk)
    front.leaving.set_result(None)
    async with client_of(app_of(front)) as client:
        for stream in (False, True):
            answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert (answer.status_code, error(answer)["code"]) == (503, "still_under_way")
    assert desk.left == 2


async def test_a_stream_has_its_pieces_and_its_end(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    desk.answer = lambda request: pieces_of(request, "Press ", "it.")
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post("/v1/chat/completions", json=asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == "Press it."
    assert chunks[-1]["usage"]["total_tokens"] == 5


async def test_a_silent_stream_is_kept_alive_and_then_ends_with_an_error(desk: MemoryDesk) -> None:
    desk.answer = lambda request: []
    async with client_of(app_of(front_of(desk, keepalive_s=0.02, answer_timeout_s=0.1))) as client:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert answer.status_code == 200
    *silence, last = [event for event in answer.text.split("\n\n") if event]
    assert silence
    assert set(silence) == {": keep-alive"}
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "still_under_way"


async def test_a_stream_that_fails_within_says_so(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    def failing(request: LlmRequest) -> Iterator[ResultChunk | LlmResult]:
        yield pieces_of(request, "Press ", "it.")[0]
        raise RuntimeError("the secret of the defect")

    desk.answer = failing  # type: ignore[assignment]
    answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    *_, piece, last = [event for event in answer.text.split("\n\n") if event]
    assert "Press " in piece
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


async def test_a_request_is_asked_for_by_its_id_with_its_teams_key(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    desk.answer = lambda request: []
    taken = await client.post("/v1/requests", json={**CHAT, "request_id": "r-1"})
    assert (taken.status_code, taken.headers["location"]) == (202, "/v1/requests/r-1")
    assert (await client.get("/v1/requests/r-1")).json()["status"] == "in_progress"
    desk.answer = lambda request: pieces_of(request, "Press ", "it.")
    shown = (await client.get("/v1/requests/r-1")).json()
    assert (shown["status"], shown["completion"]["choices"][0]["message"]["content"]) == ("completed", "Press it.")
    followed = (await client.get("/v1/requests/r-1/events", headers={"last-event-id": "0"})).text
    assert [line for line in followed.splitlines() if line.startswith(("event", "id"))] == [
        "event: piece", "id: 1", "event: result",
    ]  # fmt: skip
    whose = {"authorization": f"Bearer {OTHER_KEY.text}"}
    for path in ("/v1/requests/r-1", "/v1/requests/r-1/events", "/v1/requests/%C3%A9"):
        answer = await client.get(path, headers=whose)
        assert (answer.status_code, error(answer)["code"]) == (404, "request_not_found")


async def test_an_id_that_means_something_in_an_address_is_quoted_there(client: httpx.AsyncClient) -> None:
    taken = await client.post("/v1/requests", json={**CHAT, "request_id": "50%25?#"})
    assert (await client.get(taken.headers["location"])).json()["id"] == "50%25?#"


async def test_bodies_take_no_more_room_than_there_is(desk: MemoryDesk) -> None:
    room = Room(10, 1_000)
    async with client_of(app_of(dataclasses.replace(front_of(desk), room=room))) as client:
        with room.body() as take:
            take(990)
            answer = await client.post("/v1/requests", json=CHAT)
            assert (answer.status_code, error(answer)["code"]) == (503, "slow_down")
        for _ in range(20):
            assert (await client.post("/v1/requests", json=CHAT)).status_code == 202


async def test_two_identities_are_one_too_many(client: httpx.AsyncClient) -> None:
    sent = {**CHAT, "request_id": "r-1"}
    answer = await client.post("/v1/requests", json=sent, headers={"idempotency-key": "r-2"})
    assert (answer.status_code, error(answer)["param"]) == (409, "request_id")


async def test_feedback_goes_under_the_key_of_its_request(
    client: httpx.AsyncClient, desk: MemoryDesk, codec: Codec
) -> None:
    conversation = {"penstock": {"conversation_id": "c-1"}}
    await client.post("/v1/requests", json={**CHAT, **conversation, "request_id": "r-1"})
    keyed = {"idempotency-key": "f-1"}
    for rating in (0.5, 0.5):
        answer = await client.post("/v1/feedback", json={"request_id": "r-1", "rating": rating}, headers=keyed)
        assert answer.status_code == 202
    (first, _), (second, _) = desk.feedback
    assert first == second
    assert (first.tenant_id, first.conversation_id, first.rating) == ("support", "c-1", 0.5)
    assert codec.decode("feedback", codec.encode("feedback", first)) == first
    unkeyed = await client.post("/v1/feedback", json={"request_id": "r-1", "rating": 1})
    assert unkeyed.json()["id"] != first.event_id
    wrong = await client.post("/v1/feedback", json={"request_id": "r-1", "rating": 2})
    assert (wrong.status_code, error(wrong)["param"]) == (400, "rating")


async def test_a_request_that_was_turned_away_is_a_conflict_and_feedback_on_the_other_is_not(
    client: httpx.AsyncClient, desk: MemoryDesk
) -> None:
    desk.turned_away.add("r-1")
    asked = await client.post("/v1/chat/completions", json=CHAT, headers={"idempotency-key": "r-1"})
    shown = await client.get("/v1/requests/r-1")
    for answer in (asked, shown):
        assert (answer.status_code, error(answer)["code"]) == (409, "idempotency_conflict")
    given = await client.post("/v1/feedback", json={"request_id": "r-1", "rating": 1})
    assert (given.status_code, desk.feedback[0][0].conversation_id) == (202, None)


async def test_documents_come_and_go(client: httpx.AsyncClient, desk: MemoryDesk, codec: Codec) -> None:
    sent = {"document_id": "manuals/reset.md", "content": "Press it.", "title": "Reset", "tags": {"kind": "manual"}}
    added = await client.post("/v1/documents", json=sent, headers={"idempotency-key": "u-1"})
    removed = await client.delete("/v1/documents/manuals/reset.md")
    assert (added.status_code, removed.status_code) == (202, 202)
    assert (added.json()["id"], removed.json()["deleted"]) == ("u-1", True)
    (first, _), (last, _) = desk.documents
    assert (first.document_id, first.content, first.deleted) == ("manuals/reset.md", "Press it.", False)
    assert (last.document_id, last.content, last.deleted) == ("manuals/reset.md", "", True)
    for document in (first, last):
        assert codec.decode("documents", codec.encode("documents", document)) == document
    empty = await client.post("/v1/documents", json={**sent, "content": ""})
    assert (empty.status_code, error(empty)["param"]) == (400, "content")


async def test_a_document_comes_as_a_file_with_what_is_said_of_it(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    said = {
        "document_id": "tariff.pdf", "content_type": "application/pdf", "language": "de",
        "valid_from": "2026-01-01T00:00:00+01:00", "valid_to": "2027-01-01T00:00:00Z",
    }  # fmt: skip
    sent = {**said, "data": base64.b64encode(b"%PDF-1.7 \xff").decode()}
    assert (await client.post("/v1/documents", json=sent)).status_code == 202
    ((document, _),) = desk.documents
    assert (document.data, document.content, document.deleted) == (b"%PDF-1.7 \xff", "", False)
    assert (document.content_type, document.language) == ("application/pdf", "de")
    assert document.valid_from == datetime(2025, 12, 31, 23, tzinfo=UTC)
    for changes, param in (
        ({"content": "both"}, "content"), ({"data": None}, "data"), ({"data": "no base64"}, "data"),
        ({"content_type": "image/png"}, "content_type"), ({"language": "German"}, "language"),
        ({"valid_to": "2026-01-01T00:00:00"}, "valid_to"),
    ):  # fmt: skip
        answer = await client.post("/v1/documents", json={**sent, **changes})
        assert (answer.status_code, error(answer)["param"]) == (400, param), answer.text
    for body in (said, {**said, "content": "a text that says it is a PDF"}):
        assert (await client.post("/v1/documents", json=body)).status_code == 400
    assert len(desk.documents) == 1


async def test_models_are_the_routes_that_may_be_asked_for(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["default", "fast", EMBEDDER]
    assert (await client.get("/v1/models/fast")).json()["object"] == "model"
    hidden = await client.get("/v1/models/slow")
    assert (hidden.status_code, error(hidden)["code"]) == (404, "model_not_found")


async def test_a_trace_goes_on_and_what_is_none_does_not(client: httpx.AsyncClient, desk: MemoryDesk) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.post("/v1/requests", json=CHAT, headers={"traceparent": parent, "tracestate": "a=1"})
    assert list(desk.headers) == [("traceparent", parent.encode()), ("tracestate", b"a=1")]
    await client.post("/v1/requests", json=CHAT, headers={"traceparent": "psk_x", "tracestate": "a=1"})
    assert list(desk.headers) == []


async def test_readiness_says_what_it_waits_for(desk: MemoryDesk) -> None:
    async with client_of(app_of(front_of(desk), "edge"), {}) as client:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "waiting for: edge\n")


async def test_the_description_names_every_operation_and_the_page_needs_nothing_else(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    assert set(described["paths"]) == {
        "/v1/chat/completions", "/v1/embeddings", "/v1/requests", "/v1/requests/{request_id}",
            "/v1/requests/{request_id}/events",
        "/v1/feedback", "/v1/documents", "/v1/documents/{document_id}", "/v1/models", "/v1/models/{model}",
    }  # fmt: skip
    page = await client.get("/docs")
    assert "<script" not in page.text
    assert "http://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in described["paths"]:
        assert path in page.text
    links = set(re.findall(r'href="#(\w+)"', page.text))
    assert {"ChatRequest", "DocumentUpload"} <= links <= set(re.findall(r'<pre id="(\w+)"', page.text))
    prose = re.sub(r"<pre.*?</pre>", "", page.text, flags=re.DOTALL)
    assert "`" not in prose
    assert "Attributes:" not in prose


async def test_pages_of_other_origins_may_call_only_where_they_are_listed(desk: MemoryDesk) -> None:
    sent = (
        "authorization, content-type, idempotency-key, x-stainless-lang, x-stainless-retry-count, x-stainless-timeout"
    )
    asked = {
        "origin": "https://app.example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": sent,
    }
    for origins in ((), ("https://app.example.com",)):
        async with client_of(app_of(front_of(desk), cors_origins=origins), {}) as client:
            before = await client.options("/v1/chat/completions", headers=asked)
            answer = await client.get("/v1/models", headers={**asked, **AUTHORIZATION})
        allowed = answer.headers.get("access-control-allow-origin")
        assert (before.status_code, allowed) == ((200, asked["origin"]) if origins else (405, None))

"""``POST /v1/embeddings``: vectors as OpenAI's clients expect them, in front of a flow that is a function."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest
from penstock.contracts.records import LlmRequest, LlmResult
from penstock.embedding import pack_vector

from tests.unit.edge_desk import AUTHORIZATION, DIMENSION, EMBEDDER, NOW, MemoryDesk, app_of, front_of, result_of

VECTORS = np.array([[0.1, -0.2, 0.3, 0.9], [1e-30, 0.0, -1.0, 0.0]], np.float32)


def client_of(desk: MemoryDesk, **front: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app_of(front_of(desk, **front)), raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://edge", headers=AUTHORIZATION)


def embedded(request: LlmRequest) -> list[LlmResult]:
    vectors = [pack_vector(VECTORS[n]) for n in range(len(request.messages))]
    return [result_of(request, embeddings=vectors)]


async def test_texts_are_messages_of_an_event_and_vectors_come_in_either_encoding() -> None:
    desk = MemoryDesk(embedded)
    asked = {
        "model": EMBEDDER, "input": ["one", "two"], "dimensions": DIMENSION, "user": "u-1",
        "penstock": {
            "route": "fast", "tags": {"feature": "search"}, "policy": "strict", "priority": "batch", "deadline_s": 5,
        },
    }  # fmt: skip
    async with client_of(desk) as client:
        numbers = await client.post("/v1/embeddings", json=asked)
        packed = await client.post("/v1/embeddings", json={**asked, "encoding_format": "base64"})
        single = await client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "one"})
    request = next(iter(desk.requests.values()))
    assert (request.purpose, request.route, request.user_id, request.tags) == (
        "embed", "fast", "u-1", {"feature": "search"},
    )  # fmt: skip
    assert [(message.role, message.content) for message in request.messages] == [("user", "one"), ("user", "two")]
    assert (request.policy_name, request.priority, request.deadline_at is None) == ("strict", "batch", False)

    body = numbers.json()
    assert (numbers.status_code, body["object"], body["model"]) == (200, "list", EMBEDDER)
    assert [each["index"] for each in body["data"]] == [0, 1]
    # The numbers are exactly the float32 that were made.
    assert np.array_equal(np.array([each["embedding"] for each in body["data"]], np.float32), VECTORS)
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert body["penstock"]["request_id"] == numbers.headers["x-request-id"]
    decoded = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in packed.json()["data"]]
    assert np.array_equal(decoded, VECTORS)
    assert len(single.json()["data"]) == 1


@pytest.mark.parametrize(
    ("asked", "status", "param", "words"),
    [
        ({"model": "text-embedding-3-small"}, 404, "model", EMBEDDER),
        ({"dimensions": 2}, 400, "dimensions", "4 dimensions"),
        ({"input": [1, 2]}, 400, "input[0]", "tokens are not taken"),
        ({"input": [[1, 2], [3]]}, 400, "input[0]", "tokens are not taken"),
        ({"input": ""}, 400, "input", "length >= 1"),
        ({"input": []}, 400, "input", "length >= 1"),
        ({"input": ["a", ""]}, 400, "input[1]", "length >= 1"),
        ({"input": ["a"] * 2049}, 400, "input", "length <= 2048"),
        ({"encoding_format": "int8"}, 400, "encoding_format", "int8"),
        ({"messages": []}, 400, "messages", "no parameter"),
    ],
)
async def test_what_cannot_be_embedded_is_named(asked: dict[str, Any], status: int, param: str, words: str) -> None:
    desk = MemoryDesk()
    async with client_of(desk) as client:
        answer = await client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a", **asked})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]
    assert not desk.requests


async def test_what_the_flow_refuses_is_the_error_of_its_kind_and_no_vector_is_of_another_model() -> None:
    def blocked(request: LlmRequest) -> list[LlmResult]:
        return [result_of(request, "", "blocked", code="secret", reason="a secret was found")]

    async with client_of(MemoryDesk(blocked)) as client:
        answer = await client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")
    async with client_of(MemoryDesk(lambda request: [result_of(request, model="another")])) as client:
        answer = await client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "embedder_mismatch")


async def test_vectors_are_kept_under_their_id_and_given_once_for_a_key() -> None:
    desk = MemoryDesk(embedded)
    async with client_of(desk) as client:
        keyed = {"idempotency-key": "vectors-1"}
        first = await client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"}, headers=keyed)
        again = await client.post("/v1/embeddings", json={"model": EMBEDDER, "input": ["a"]}, headers=keyed)
        assert first.json() == again.json()
        known = (await client.get("/v1/requests/vectors-1")).json()
        chat = {"model": "default", "messages": [{"role": "user", "content": "a"}]}
        other = await client.post("/v1/chat/completions", json=chat, headers=keyed)
    assert list(desk.requests) == [("support", "vectors-1")]
    assert (known["status"], known["completion"], known["error"]) == ("completed", None, None)
    assert known["embeddings"]["data"] == first.json()["data"]
    assert known["created"] == int(NOW.timestamp())
    assert other.status_code == 409


async def test_many_vectors_are_all_there_in_their_order() -> None:
    def numbered(request: LlmRequest) -> list[LlmResult]:
        return [result_of(request, embeddings=[pack_vector(np.full(DIMENSION, n, np.float32)) for n in range(200)])]

    async with client_of(MemoryDesk(numbered)) as client:
        answer = await client.post("/v1/embeddings", json={"model": EMBEDDER, "input": ["a"] * 200})
    body = answer.json()
    assert [(each["index"], each["embedding"]) for each in body["data"]] == [(n, [float(n)] * 4) for n in range(200)]
    assert (body["object"], body["model"], set(body)) == (
        "list", EMBEDDER, {"data", "model", "usage", "penstock", "object"},
    )  # fmt: skip


async def test_vectors_that_do_not_come_in_time_go_on() -> None:
    async with client_of(MemoryDesk(lambda request: []), answer_timeout_s=0.01) as client:
        answer = await client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "still_under_way")


async def test_the_embedding_model_is_listed_where_the_team_may_use_it() -> None:
    async with client_of(MemoryDesk()) as client:
        listed = [each["id"] for each in (await client.get("/v1/models")).json()["data"]]
        assert listed[-1] == EMBEDDER
        assert (await client.get(f"/v1/models/{EMBEDDER}")).json()["id"] == EMBEDDER

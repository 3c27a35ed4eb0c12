"""An OpenAI-compatible endpoint as embedder."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from penstock.embedding import EmbedderError, EmbedderUnavailable
from penstock.embedding.endpoint import EndpointEmbedder


def embedder(answer: Callable[[httpx.Request], httpx.Response], **options: int) -> EndpointEmbedder:
    return EndpointEmbedder(
        "https://models.example/v1/", "small", 2, "key", transport=httpx.MockTransport(answer), **options
    )


def by_length(request: httpx.Request) -> httpx.Response:
    """Answer [length, 1] for each input, in reverse order, as the API allows."""
    inputs = json.loads(request.content)["input"]
    data = [{"index": n, "embedding": [len(text), 1.0]} for n, text in enumerate(inputs)]
    return httpx.Response(200, json={"data": data[::-1]})


def test_vectors_come_in_the_order_of_the_texts_and_with_unit_length() -> None:
    vectors = embedder(by_length, batch=2).embed(["a" * 3, "bb", "c"])
    expected = np.array([[3, 1], [2, 1], [1, 1]], np.float32)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)


def test_the_request_is_openais() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return by_length(request)

    embedder(answer).embed(["hello"])
    assert str(seen[0].url) == "https://models.example/v1/embeddings"
    assert seen[0].headers["authorization"] == "Bearer key"
    assert json.loads(seen[0].content) == {"model": "small", "input": ["hello"]}


def test_a_long_text_is_sent_in_windows_that_lose_no_word() -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.extend(json.loads(request.content)["input"])
        return by_length(request)

    words = [f"w{n}" for n in range(25)]
    assert embedder(answer, max_tokens=10).embed([" ".join(words)]).shape == (1, 2)
    assert len(sent) == 3
    assert " ".join(sent).split() == words


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_endpoint_is_unavailable(status: int) -> None:
    with pytest.raises(EmbedderUnavailable, match=str(status)):
        embedder(lambda _: httpx.Response(status)).embed(["a"])


def test_an_endpoint_that_does_not_answer_is_unavailable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(EmbedderUnavailable, match="connection refused"):
        embedder(refuse).embed(["a"])


@pytest.mark.parametrize(
    ("response", "cause"),
    [
        (httpx.Response(401, text="bad key"), "bad key"),
        (httpx.Response(200, text="<html>"), "no OpenAI-compatible answer"),
        (httpx.Response(200, json={"data": [{"index": 0, "embedding": [1.0, 2.0, 3.0]}]}), "EMBEDDING_DIMENSION"),
        (httpx.Response(200, json={"data": [{"index": 0, "embedding": [0.0, 0.0]}]}), "without direction"),
    ],
)
def test_a_wrong_answer_is_an_error_that_names_its_cause(response: httpx.Response, cause: str) -> None:
    with pytest.raises(EmbedderError, match=cause) as raised:
        embedder(lambda _: response).embed(["a"])
    assert not isinstance(raised.value, EmbedderUnavailable)


@pytest.mark.parametrize("usage", [{"prompt_tokens": 11, "total_tokens": 11}, {"prompt_tokens": 3}])
def test_texts_share_the_tokens_that_the_endpoint_counts(usage: dict[str, int]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=by_length(request).json() | {"usage": usage})

    one, two, three = embedder(answer).embed_counted(["a" * 10, "", "b" * 23]).tokens
    assert one + two + three == usage["prompt_tokens"]
    assert two <= one <= three
    # Each call is counted by itself.
    assert sum(embedder(answer, batch=1).embed_counted(["a", "b"]).tokens) == 2 * usage["prompt_tokens"]


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": 0}, "many"])
def test_texts_that_nobody_counts_have_as_many_tokens_as_bytes(usage: object) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=by_length(request).json() | {"usage": usage})

    assert embedder(answer).embed_counted(["grün", "b"]).tokens == (5, 1)


def test_a_long_text_has_the_tokens_of_all_its_windows() -> None:
    words = " ".join(f"w{n}" for n in range(25))
    found = embedder(by_length, max_tokens=10).embed_counted(["x", words])
    # The spaces between windows are not sent.
    assert found.tokens == (1, len(words) - 2)


def test_half_a_character_is_sent_as_the_sign_of_a_missing_one() -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.extend(json.loads(request.content)["input"])
        return by_length(request)

    assert embedder(answer).embed(["a\ud83d"]).shape == (1, 2)
    assert sent == ["a\ufffd"]

"""Sends that OpenAI's clients repeat by themselves, under no key of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from penstock.contracts.records import LlmRequest

from services.edge.front import Front
from services.edge.protocol import Ticket, Unavailable
from tests.unit.edge_desk import AUTHORIZATION, EMBEDDER, OTHER_KEY, MemoryDesk, app_of, front_of, result_of

CHAT = {"model": "default", "messages": [{"role": "user", "content": "How do I reset it?"}]}
TEXTS = {"model": EMBEDDER, "input": ["one", "two"]}
COUNT = "x-stainless-retry-count"


def client_of(front: Front) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app_of(front), raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://edge", headers=AUTHORIZATION)


class DeskThatIsAway(MemoryDesk):
    """Takes nothing while it ``takes_nothing``."""

    takes_nothing = False

    async def submit(self, request: LlmRequest, headers: Any = ()) -> Ticket:
        if self.takes_nothing:
            raise Unavailable("the log takes nothing")
        return await super().submit(request, headers)


@pytest.fixture
def desk() -> MemoryDesk:
    return MemoryDesk(lambda request: [])


@pytest.fixture
async def impatient(desk: MemoryDesk) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose answers are not there in time."""
    async with client_of(front_of(desk, answer_timeout_s=0.01)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/embeddings", TEXTS),
    ],
)
async def test_a_send_that_is_repeated_joins_the_one_that_was_left(
    desk: MemoryDesk, impatient: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    late = await impatient.post(path, json=body, headers={COUNT: "0"})
    # Unlike a client that does not say which send it is, this one is told to come again.
    assert (late.status_code, late.headers["retry-after-ms"]) == (504, "1000")
    assert "x-should-retry" not in late.headers
    again = await impatient.post(path, json=body, headers={COUNT: "1"})
    assert again.headers["x-request-id"] == late.headers["x-request-id"]
    desk.answer = lambda request: [result_of(request)]
    answered = await impatient.post(path, json=body, headers={COUNT: "2"})
    assert answered.status_code == 200
    assert answered.headers["x-request-id"] == late.headers["x-request-id"]
    assert len(desk.requests) == 1


async def test_a_send_that_could_not_join_leaves_what_was_left_to_the_next() -> None:
    desk = DeskThatIsAway(lambda request: [])
    async with client_of(front_of(desk, answer_timeout_s=0.01)) as impatient:
        late = await impatient.post("/v1/embeddings", json=TEXTS, headers={COUNT: "0"})
        desk.takes_nothing = True
        assert (await impatient.post("/v1/embeddings", json=TEXTS, headers={COUNT: "1"})).status_code == 503
        desk.takes_nothing = False
        again = await impatient.post("/v1/embeddings", json=TEXTS, headers={COUNT: "2"})
    assert again.headers["x-request-id"] == late.headers["x-request-id"]
    assert len(desk.requests) == 1


async def test_a_send_joins_nothing_but_its_own(desk: MemoryDesk, impatient: httpx.AsyncClient) -> None:
    path, repeated = "/v1/chat/completions", {COUNT: "1"}
    left = await impatient.post(path, json=CHAT, headers={COUNT: "0"})
    for body, headers in [
        (CHAT, {COUNT: "0"}),  # not repeated: asked once more on purpose
        ({**CHAT, "seed": 1}, repeated),  # other content
        (CHAT, {**repeated, "authorization": f"Bearer {OTHER_KEY.text}"}),  # somebody else's
        (CHAT, {**repeated, "idempotency-key": "a"}),  # it says which request it is
        (CHAT, {}),  # nobody says that it is a repetition
    ]:
        other = await impatient.post(path, json=body, headers=headers)
        assert other.headers["x-request-id"] != left.headers["x-request-id"]
    # Two were left alike: each is joined once, the first one first.
    ids = [(await impatient.post(path, json=CHAT, headers=repeated)).headers["x-request-id"] for _ in range(2)]
    assert ids[0] == left.headers["x-request-id"] != ids[1]
    assert len(desk.requests) == 6


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_leaves_its_request(desk: MemoryDesk, stream: bool) -> None:
    app = app_of(front_of(desk))
    gone = asyncio.Event()
    body = httpx.Request("POST", "http://edge/", json={**CHAT, "stream": stream}).content
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        if (message := next(messages, None)) is not None:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("nothing is sent")

    headers = {**AUTHORIZATION, "content-type": "application/json", COUNT: "0"}
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"",
        "query_string": b"", "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asking = asyncio.ensure_future(app(scope, receive, send))
    async with asyncio.timeout(10):
        while not desk.requests:
            await asyncio.sleep(0.001)
        gone.set()
        await asking
    [(_, request_id)] = desk.requests
    assert list(desk.abandoned.values()) == [[request_id]]


async def test_one_that_was_answered_is_not_left(desk: MemoryDesk) -> None:
    desk.answer = lambda request: [result_of(request)]
    async with client_of(front_of(desk)) as client:
        first = await client.post("/v1/chat/completions", json=CHAT, headers={COUNT: "0"})
        again = await client.post("/v1/chat/completions", json=CHAT, headers={COUNT: "1"})
    assert (first.status_code, again.status_code, desk.abandoned) == (200, 200, {})
    assert first.headers["x-request-id"] != again.headers["x-request-id"]

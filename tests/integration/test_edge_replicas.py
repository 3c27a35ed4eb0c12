"""Two replicas of the edge in front of the running flow: who dies, who goes away, and who sends again lose nothing."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from penstock.bus import KafkaBus, Producer
from penstock.client import Client
from penstock.config.kinds import Policy, Retrieval, Route, Target, Team
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.identity import mint
from penstock.identity.issuing import issued
from penstock.settings import KafkaSettings

from tests.model_endpoint import DONE, chunk, endpoint, event_stream

PROJECT = Path(__file__).parents[2]
KEYS_SECRET = secrets.token_hex(32)
FLOW = ("intake", "guardrails", "retrieval", "inference")
_PATIENCE_S = 120.0

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


class Process:
    """A service as a process with a log of its own."""

    def __init__(self, service: str, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"services.{service}"],
                env={**os.environ, **environment, "SESSION_TIMEOUT_MS": "6000"},
                cwd=PROJECT, stdout=output, stderr=output,
            )  # fmt: skip

    def end(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(timeout=30)

    async def address(self) -> str:
        """Where an edge listens, as its log tells."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                assert self._process.poll() is None, self._log.read_text("utf-8")[-2000:]
                for line in self._log.read_text("utf-8").splitlines():
                    if '"listening"' in line:
                        return f"http://127.0.0.1:{json.loads(line)['port']}"
                await asyncio.sleep(0.05)


class Model:
    """An endpoint that streams ``TEXT``, its last word when it is told to, and counts its calls by their question."""

    NAME = "button-1"
    TEXT = "Press the red button for five seconds."

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.may_end = asyncio.Event()

    async def reply(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.calls[asked["messages"][-1]["content"]] += 1
        response = await event_stream(request)
        *words, last = self.TEXT.split(" ")
        for word in words:
            await response.write(chunk(self.NAME, {"content": f"{word} "}))
        await self.may_end.wait()
        await response.write(chunk(self.NAME, {"content": last}) + chunk(self.NAME, {}, "stop") + DONE)
        return response

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        async with endpoint(self.reply) as url:
            try:
                yield url
            finally:
                self.may_end.set()


@pytest.fixture(scope="module")
def processes(deployed: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    folder = tmp_path_factory.mktemp("edge")
    started = {name: Process(name, deployed, folder / f"{name}.log") for name in FLOW}
    # Pieces are held back while they are too short to be judged: a stream opens with its first sign of life.
    environment = {**deployed, "EDGE_PORT": "0", "PENSTOCK_KEYS_SECRET": KEYS_SECRET, "KEEPALIVE_S": "0.2"}
    for name in ("edge", "edge-2"):
        started[name] = Process("edge", environment, folder / f"{name}.log")
    yield started
    for process in started.values():
        process.end(signal.SIGKILL)


class Front:
    """The API as a team's key reaches it, at either replica."""

    def __init__(self, replicas: list[httpx.AsyncClient], client: Client, model: Model, name: str) -> None:
        self.replicas = replicas
        self.client = client
        self.model = model
        self.name = name

    def chat(self, question: str, **more: Any) -> dict[str, Any]:
        return {"model": self.name, "messages": [{"role": "user", "content": question}], **more}

    async def ask(self, replica: int, key: str, question: str) -> httpx.Response:
        return await self.replicas[replica].post(
            "/v1/chat/completions", json=self.chat(question), headers={"Idempotency-Key": key}
        )

    async def called(self, question: str) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not self.model.calls[question]:
                await asyncio.sleep(0.02)

    async def closed(self, replica: int) -> None:
        """Return when a replica takes no more connections."""
        address = self.replicas[replica].base_url
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(address.host, address.port)
                except ConnectionError:
                    return
                writer.close()
                await asyncio.sleep(0.02)

    async def ended(self, replica: int, key: str) -> dict[str, Any]:
        """What a replica tells of a request once it has its result."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                told = (await self.replicas[replica].get(f"/v1/requests/{key}")).raise_for_status().json()
                if told["status"] not in ("queued", "in_progress"):
                    return dict(told)
                await asyncio.sleep(0.05)


@pytest.fixture
async def front(
    request: pytest.FixtureRequest, processes: dict[str, Process], kafka_settings: KafkaSettings
) -> AsyncIterator[Front]:
    """The API for a team of the test's own; a parameter gives its limits."""
    name, model = f"edge-{uuid.uuid4().hex[:8]}", Model()
    minted = mint(KEYS_SECRET.encode())
    now = datetime.now(UTC)
    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    addresses = [await processes[edge].address() for edge in ("edge", "edge-2")]
    headers = {"Authorization": f"Bearer {minted.text}"}
    async with (
        model.serving() as url,
        KafkaBus(kafka_settings, client_id="penstock-tests") as bus,
        httpx.AsyncClient(base_url=addresses[0], headers=headers, timeout=_PATIENCE_S, trust_env=False) as one,
        httpx.AsyncClient(base_url=addresses[1], headers=headers, timeout=_PATIENCE_S, trust_env=False) as other,
        Client(kafka_settings, tenant=name) as client,
    ):
        entries = [
            Policy(name=name),
            Route(
                name=name, targets=(Target(backend="openai", model=Model.NAME, base_url=url, timeout_s=60),), policy=name,
                retrieval=Retrieval(enabled=False),
            ),
            Team(name=name, policy=name, default_route=name, **getattr(request, "param", {})),
            issued(minted, name, now),
        ]  # fmt: skip
        changes = [Change(entry.KIND, entry.key, "new", None, entry) for entry in entries]
        await publish_changes(changes, Producer(bus.producer(), codec, "tests"), now, reason="tests")
        made = Front([one, other], client, model, name)
        async with asyncio.timeout(_PATIENCE_S):
            for replica in made.replicas:
                while (await replica.get("/v1/models")).status_code != 200:
                    await asyncio.sleep(0.05)
        yield made


async def test_one_request_sent_many_times_at_once_over_every_way_in_is_asked_once(front: Front) -> None:
    key, question = f"key-{front.name}", "How do I reset it?"
    sends = [asyncio.create_task(front.ask(number % 2, key, question)) for number in range(10)]
    await asyncio.gather(
        *(
            front.client.submit(question, request_id=key, route=front.name, deadline_s=60 + number)
            for number in range(10)
        )
    )
    waiting = asyncio.create_task(front.client.result(key, _PATIENCE_S))
    await front.called(question)
    front.model.may_end.set()
    answers = [answer.raise_for_status().json() for answer in await asyncio.gather(*sends)]
    results = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert results == [Model.TEXT] * 10
    assert len({json.dumps(answer, sort_keys=True) for answer in answers}) == 1
    assert (await waiting).content == Model.TEXT
    assert (await front.ask(1, key, question)).json() == answers[0]
    for replica in (0, 1):
        conflict = await front.ask(replica, key, "Something else?")
        assert conflict.status_code == 409
    assert front.model.calls == {question: 1}

    # What came over Kafka first, and has its answer: who sends it over HTTP gets that.
    other = f"{key}-2"
    before = await front.client.ask("And how do I switch it off?", request_id=other, route=front.name)
    later = await front.ask(0, other, "And how do I switch it off?")
    assert later.json()["choices"][0]["message"]["content"] == before.content == Model.TEXT
    third = f"{key}-3"
    await front.client.ask("Which button?", request_id=third, route=front.name)
    assert (await front.ask(1, third, "Which one?")).status_code == 409
    assert front.model.calls == {question: 1, "And how do I switch it off?": 1, "Which button?": 1}


@pytest.mark.parametrize("front", [{"max_concurrent": 1}], indirect=True)
async def test_what_a_limit_refuses_is_admitted_under_the_same_key_when_there_is_room(front: Front) -> None:
    first, second = (f"{front.name}-{number}" for number in (1, 2))
    waiting = asyncio.create_task(front.ask(0, first, first))
    await front.called(first)
    refused = await front.ask(1, second, second)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after-ms"]) <= 1000
    assert (await front.ask(0, second, "Something else?")).status_code == 409
    front.model.may_end.set()
    assert (await waiting).status_code == 200
    async with asyncio.timeout(_PATIENCE_S):
        while (answer := await front.ask(0, second, second)).status_code == 429:
            await asyncio.sleep(int(answer.headers["retry-after-ms"]) / 1000)
    assert answer.json()["choices"][0]["message"]["content"] == Model.TEXT
    assert (await front.ask(1, second, second)).json() == answer.json()
    assert front.model.calls == {first: 1, second: 1}


async def test_whoever_dies_or_goes_away_loses_nothing(front: Front, processes: dict[str, Process]) -> None:
    waits, streams, leaves = (f"{front.name}-{what}" for what in ("waits", "streams", "leaves"))
    waiting = asyncio.create_task(front.ask(0, waits, waits))
    stream = front.replicas[1].stream(
        "POST", "/v1/chat/completions", json=front.chat(streams, stream=True), headers={"Idempotency-Key": streams}
    )
    async with stream as answer:
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        first = await anext(lines)
        async with front.replicas[0].stream(
            "POST", "/v1/chat/completions", json=front.chat(leaves, stream=True), headers={"Idempotency-Key": leaves}
        ) as left:
            await anext(left.aiter_lines())
        for key in (waits, streams, leaves):
            await front.called(key)
        processes["edge"].end(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await waiting
        front.model.may_end.set()
        told = [json.loads(line[6:]) for line in [first, *[line async for line in lines]] if line.startswith("data: {")]
    pieces = [choice["delta"].get("content") or "" for event in told for choice in event["choices"]]
    assert "".join(pieces) == Model.TEXT
    for key in (waits, leaves):
        assert (await front.ended(1, key))["status"] == "completed"
    again = await front.ask(1, waits, waits)
    assert again.json()["choices"][0]["message"]["content"] == Model.TEXT
    assert front.model.calls == {waits: 1, streams: 1, leaves: 1}

    # The last replica is told to end: it still brings what is waited for at it.
    front.model.may_end.clear()
    stays = f"{front.name}-stays"
    waiting = asyncio.create_task(front.ask(1, stays, stays))
    await front.called(stays)
    ending = asyncio.create_task(asyncio.to_thread(processes["edge-2"].end, signal.SIGTERM))
    await front.closed(1)
    front.model.may_end.set()
    assert (await waiting).json()["choices"][0]["message"]["content"] == Model.TEXT
    await ending

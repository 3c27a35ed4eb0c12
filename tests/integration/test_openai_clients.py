"""OpenAI's own clients, of Python and of npm, against the edge in front of the running flow."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import pytest_asyncio
from aiohttp import web
from penstock.bus import KafkaBus, Producer
from penstock.config.kinds import Entry, Policy, Retrieval, Route, ScannerRule, Target, Team
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.identity import mint
from penstock.identity.issuing import issued
from penstock.money.counters import key_prefix
from penstock.settings import KafkaSettings
from pydantic import BaseModel
from redis.asyncio import Redis

from tests.model_endpoint import DONE, chunk, endpoint, event_stream

PROJECT = Path(__file__).parents[2]
NODE = Path(__file__).parent / "node"
KEYS_SECRET = secrets.token_hex(32)
SERVICES = ("intake", "guardrails", "retrieval", "inference", "edge")
_PATIENCE_S = 120.0
EMBEDDER = "all-MiniLM-L6-v2"
ANSWER = "Forty days, as the terms say."
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

pytestmark = [pytest.mark.stack, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]


class Place(BaseModel):
    """What a model is asked to answer with."""

    city: str


class Model:
    """An endpoint that calls a tool where it is offered one, keeps to a schema, and remembers what it was asked.

    Nothing is answered while ``answers`` is not set.
    """

    NAME = "teller-1"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def reply(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.asked.append(asked)
        await self.answers.wait()
        last = asked["messages"][-1]
        usage = {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
        message: dict[str, Any] = {"role": "assistant", "content": ANSWER}
        finish = "stop"
        if last["role"] == "tool":
            message["content"] = f"It has {last['content']}."
        elif "tools" in asked:
            function = {"name": "weather", "arguments": '{"city": "Ulm"}'}
            message = {"role": "assistant", "content": None}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
            finish = "tool_calls"
        elif "response_format" in asked:
            message["content"] = '{"city": "Ulm"}'
        if not asked.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": finish}
            return web.json_response({"model": self.NAME, "choices": [choice], "usage": usage})
        response = await event_stream(request)
        for delta in self._deltas(message):
            await response.write(chunk(self.NAME, delta, usage=None))
        await response.write(chunk(self.NAME, {}, finish, usage=None))
        await response.write(chunk(self.NAME, {}, choices=[], usage=usage) + DONE)
        return response

    @staticmethod
    def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for word in (message["content"] or "").split():
            yield {"content": f"{word} "}
        for index, call in enumerate(message.get("tool_calls", [])):
            yield {"tool_calls": [{"index": index, **call}]}


@pytest.fixture(scope="module")
def edge(deployed: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The flow behind an edge, as processes; the edge's log, which says where it listens."""
    folder = tmp_path_factory.mktemp("openai-clients")
    environment = {**os.environ, **deployed, "EDGE_PORT": "0", "PENSTOCK_KEYS_SECRET": KEYS_SECRET}
    started = []
    for service in SERVICES:
        with (folder / f"{service}.log").open("wb") as log:
            command = [sys.executable, "-m", f"services.{service}"]
            started.append(subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=log, stderr=log))
    yield folder / "edge.log"
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


@dataclass
class Door:
    """The edge as a team of this test's own reaches it. Its route has the same name."""

    url: str
    key: str
    name: str
    model: Model

    def client(self, **more: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**{"base_url": self.url, "api_key": self.key, "max_retries": 0, **more})


async def listening(log: Path) -> str:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            for line in (await asyncio.to_thread(log.read_text, "utf-8")).splitlines():
                if '"listening"' in line:
                    return f"http://127.0.0.1:{json.loads(line)['port']}/v1"
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(edge: Path, kafka_settings: KafkaSettings) -> AsyncIterator[Door]:
    name, model, minted, now = f"door-{uuid.uuid4().hex[:8]}", Model(), mint(KEYS_SECRET.encode()), datetime.now(UTC)
    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    async with endpoint(model.reply) as address, KafkaBus(kafka_settings, client_id="penstock-tests") as bus:
        entries: list[Entry] = [
            Policy(name=name, input={"banned_words": ScannerRule(action="block", words=("xylophone",))}),
            Route(
                name=name, targets=(Target(backend="openai", model=Model.NAME, base_url=address),), policy=name,
                retrieval=Retrieval(enabled=False),
            ),
            Team(name=name, policy=name, default_route=name, allowed_routes=(name,), requests_per_minute=600),
            issued(minted, name, now),
        ]  # fmt: skip
        changes = [Change(entry.KIND, entry.key, "new", None, entry) for entry in entries]
        await publish_changes(changes, Producer(bus.producer(), codec, "tests"), now, reason="tests")
        door = Door(await listening(edge), minted.text, name, model)
        async with asyncio.timeout(_PATIENCE_S), door.client() as client:
            while True:
                try:
                    assert [each.id async for each in client.models.list()] == [name, EMBEDDER]
                    break
                except (openai.AuthenticationError, openai.InternalServerError, AssertionError):
                    await asyncio.sleep(0.05)
        yield door


def question(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def test_the_client_of_python_is_answered(door: Door) -> None:
    asked: Any = {"model": door.name, "messages": question("How long may it be returned?")}
    with openai.OpenAI(base_url=door.url, api_key=door.key, max_retries=0) as synchronous:
        completion = await asyncio.to_thread(lambda: synchronous.chat.completions.create(**asked))
        model = await asyncio.to_thread(lambda: synchronous.models.retrieve(door.name))
    assert completion.choices[0].message.content == ANSWER
    assert (completion.model, model.id) == ("teller-1", door.name)
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (7, 13)
    assert completion._request_id is not None
    assert completion.id == f"chatcmpl-{completion._request_id}"

    async with door.client() as client:
        stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        # By its id the same answer is read again, by whoever has a key of the team.
        known = await client.get(f"/requests/{completion._request_id}", cast_to=dict)
    *_, ending, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]).strip() == ANSWER
    assert (ending.choices[0].finish_reason, usage.choices) == ("stop", [])
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 6
    assert (known["status"], known["completion"]["choices"][0]["message"]["content"]) == ("completed", ANSWER)


async def test_tools_and_formats_pass_through(door: Door) -> None:
    async with door.client() as client:
        messages = question("How is the weather?")
        called = await client.chat.completions.create(
            model=door.name, messages=messages, tools=[WEATHER], tool_choice="auto", parallel_tool_calls=False
        )
        (choice,) = called.choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Ulm"}')
        asked = door.model.asked[-1]
        assert (asked["tools"], asked["tool_choice"], asked["parallel_tool_calls"]) == ([WEATHER], "auto", False)

        messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}]
        told = await client.chat.completions.create(model=door.name, messages=messages, tools=[WEATHER])
        assert told.choices[0].message.content == "It has 12 degrees."
        assistant, tool = door.model.asked[-1]["messages"][-2:]
        assert (assistant["tool_calls"][0]["id"], tool["tool_call_id"], tool["content"]) == (
            call.id,
            call.id,
            "12 degrees",
        )

        async with client.chat.completions.stream(
            model=door.name, messages=question("How is the weather?"), tools=[WEATHER]
        ) as streamed:
            final = await streamed.get_final_completion()
        (streamed_call,) = final.choices[0].message.tool_calls or []
        assert (streamed_call.function.name, streamed_call.function.arguments) == ("weather", '{"city": "Ulm"}')

        parsed = await client.chat.completions.parse(
            model=door.name, messages=question("Which city?"), response_format=Place
        )
        assert parsed.choices[0].message.parsed == Place(city="Ulm")
        wanted = door.model.asked[-1]["response_format"]
        assert wanted["json_schema"]["schema"]["properties"]["city"]["type"] == "string"
        free = await client.chat.completions.create(
            model=door.name, messages=question("Any."), response_format={"type": "json_object"}
        )
        assert json.loads(free.choices[0].message.content or "") == {"city": "Ulm"}
        assert door.model.asked[-1]["response_format"] == {"type": "json_object"}


async def test_what_a_client_sends_again_by_itself_is_answered_once(door: Door, deployed: Mapping[str, str]) -> None:
    left, counts = f"{key_prefix(door.name)}edge:left:*", list[str]()
    async with Redis.from_url(deployed["REDIS_URL"]) as redis:

        async def sending(request: Any) -> None:
            counts.append(request.headers["x-stainless-retry-count"])
            if counts[-1] != "0":
                # A machine that is busy may hear late that the client has gone.
                while not [key async for key in redis.scan_iter(left)]:
                    await asyncio.sleep(0.01)
                door.model.answers.set()

        transport = openai.DefaultAsyncHttpxClient(event_hooks={"request": [sending]})
        door.model.answers.clear()
        before = len(door.model.asked)
        async with asyncio.timeout(_PATIENCE_S), door.client(http_client=transport, max_retries=9) as client:
            asked = client.with_options(timeout=2.0).chat.completions
            answer = await asked.create(model=door.name, messages=question("Who is slow?"))
    assert answer.choices[0].message.content == ANSWER
    assert counts[:2] == ["0", "1"]
    assert len(door.model.asked) - before == 1


async def test_texts_are_embedded_by_the_client_as_it_comes(door: Door) -> None:
    texts = ["How long may it be returned?", "Write to ann@example.org."]
    async with door.client() as client:
        # The client asks for base64 and decodes it by itself.
        made = await client.embeddings.create(model=EMBEDDER, input=texts, user="u-1")
        one = await client.embeddings.create(model=EMBEDDER, input=texts[0], encoding_format="float", dimensions=384)
        with pytest.raises(openai.BadRequestError) as tokens:
            await client.embeddings.create(model=EMBEDDER, input=[[9906, 1917]])
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="text-embedding-3-small", input=texts)
        with pytest.raises(openai.BadRequestError) as blocked:
            await client.embeddings.create(model=EMBEDDER, input=["fine", "a xylophone"])
        assert made.model_extra is not None
        known = await client.get(f"/requests/{made.model_extra['penstock']['request_id']}", cast_to=dict)
    packaged = MiniLmEmbedder()
    wanted, counted = packaged.embed(texts), [len(packaged.token_spans(text)) for text in texts]
    vectors = np.array([each.embedding for each in made.data], np.float32)
    # The same model embedded other texts beside them here and there: equal but for the order of sums.
    assert np.allclose(vectors, wanted, atol=1e-5)
    assert np.allclose(np.array(one.data[0].embedding, np.float32), wanted[0], atol=1e-5)
    assert (made.model, made.usage.prompt_tokens, made.usage.total_tokens) == (EMBEDDER, sum(counted), sum(counted))
    assert np.array_equal(np.array([each["embedding"] for each in known["embeddings"]["data"]], np.float32), vectors)
    assert tokens.value.code == "unsupported_input"
    assert blocked.value.code == "content_filter"


async def test_what_cannot_be_answered_is_the_error_that_the_client_knows(door: Door) -> None:
    before = len(door.model.asked)
    async with door.client() as client:
        ask = client.chat.completions.create
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="psk_unknown_key").chat.completions.create(
                model=door.name, messages=question("x")
            )
        with pytest.raises(openai.NotFoundError) as unknown:
            await ask(model="nothing", messages=question("x"))
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as blocked:
            await ask(model=door.name, messages=question("Play the xylophone."))
        assert blocked.value.code == "content_filter"
        with pytest.raises(openai.BadRequestError) as wrong:
            await ask(model=door.name, messages=question("x"), extra_body={"temprature": 1})
        assert wrong.value.param == "temprature"

        # The same key with other content, by a client that would send a conflict three times.
        keyed = {"Idempotency-Key": f"order-{door.name}"}
        first = await ask(model=door.name, messages=question("How long?"), extra_headers=keyed)
        again = await ask(model=door.name, messages=question("How long?"), extra_headers=keyed)
        assert again == first
        with pytest.raises(openai.ConflictError) as conflict:
            await client.with_options(max_retries=2).chat.completions.create(
                model=door.name, messages=question("Something else?"), extra_headers=keyed
            )
        assert conflict.value.response.headers["x-should-retry"] == "false"
        assert [asked["messages"][-1]["content"] for asked in door.model.asked[before:]] == ["How long?"]


async def test_a_client_that_is_told_to_wait_waits_and_is_answered_once(
    door: Door, kafka_settings: KafkaSettings
) -> None:
    # Two a second, with a burst of twelve.
    few, minted, now = f"{door.name}-few", mint(KEYS_SECRET.encode()), datetime.now(UTC)
    entries: list[Entry] = [
        Team(name=few, policy=door.name, default_route=door.name, requests_per_minute=120),
        issued(minted, few, now),
    ]
    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    changes = [Change(entry.KIND, entry.key, "new", None, entry) for entry in entries]
    async with KafkaBus(kafka_settings, client_id="penstock-tests") as bus:
        await publish_changes(changes, Producer(bus.producer(), codec, "tests"), now, reason="tests")
    before = len(door.model.asked)
    async with door.client(api_key=minted.text) as hasty, door.client(api_key=minted.text, max_retries=8) as patient:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    await hasty.models.retrieve(door.name)
                    break
                except openai.OpenAIError:
                    await asyncio.sleep(0.05)

        async def ask(client: openai.AsyncOpenAI, number: int) -> Any:
            return await client.chat.completions.create(
                model=door.name, messages=question(f"{number}?"), extra_headers={"Idempotency-Key": f"{few}-{number}"}
            )

        answers = await asyncio.gather(*(ask(patient, number) for number in range(14)))
        assert [answer.choices[0].message.content for answer in answers] == [ANSWER] * 14
        # Told to wait, each came again under its own Idempotency-Key: the first answer to it is the only one.
        assert (await ask(hasty, 3)).id == answers[3].id
        assert len(door.model.asked) - before == 14
        told = await asyncio.gather(*(ask(hasty, number) for number in range(20, 40)), return_exceptions=True)
        limited = [each for each in told if isinstance(each, openai.RateLimitError)]
        assert limited
        assert {each.code for each in limited} == {"rate_limit_exceeded"}
        assert all(0 < int(each.response.headers["retry-after-ms"]) <= 10_000 for each in limited)


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and the packages of its lock file."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        if os.environ.get("CI"):
            pytest.fail("node and npm are not installed, and CI must try OpenAI's client of npm")
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json", "chat.mjs"):
        shutil.copy(NODE / name, folder / name)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert installed.returncode == 0, installed.stderr
    return folder


async def test_the_client_of_npm_is_answered(door: Door, npm: Path) -> None:
    script = await asyncio.create_subprocess_exec(
        "node", "chat.mjs", door.url, door.key, door.name,
        cwd=npm, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(_PATIENCE_S):
        output, errors = await script.communicate()
    assert script.returncode == 0, errors.decode()
    told = json.loads(output)
    assert told["models"] == [door.name, EMBEDDER]
    assert (told["answer"], told["id"]) == (ANSWER, f"chatcmpl-{told['requestId']}")
    function = {"name": "weather", "arguments": '{"city": "Ulm"}'}
    assert (told["call"], told["told"]) == (function, "It has 12 degrees.")
    assert json.loads(told["json"]) == {"city": "Ulm"}
    assert told["stream"]["text"].strip() == ANSWER
    assert (told["stream"]["finish"], told["stream"]["usage"]["total_tokens"]) == ("stop", 13)
    assert (told["toolStream"]["calls"], told["toolStream"]["finish"]) == ([function], "tool_calls")
    assert told["unknownModel"] == {
        "name": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model",
    }  # fmt: skip
    assert (told["wrongKey"]["name"], told["wrongKey"]["status"]) == ("AuthenticationError", 401)
    assert (told["misshapen"]["name"], told["misshapen"]["param"]) == ("BadRequestError", "temperature")

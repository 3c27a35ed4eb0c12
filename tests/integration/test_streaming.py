"""Streamed answers on real Kafka and Redis: guardrails and inference are killed in mid-stream, and no reader notices."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from penstock.bus import KafkaBus, Producer, Transient
from penstock.config.kinds import Policy, Retrieval, Route, Target
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.digest import released_digest
from penstock.contracts.records import (
    Completion,
    CompletionChunk,
    Context,
    GroundedRequest,
    LlmRequest,
    LlmResult,
    Message,
    ResultChunk,
    Verdict,
)
from penstock.sealing import Seal
from redis.asyncio import Redis

from services.guardrails.stream_state import RedisStreams
from services.guardrails.streaming import StreamState
from tests.model_endpoint import DONE, chunk, endpoint, event_stream

Cli = Callable[..., subprocess.CompletedProcess[str]]
PROJECT = Path(__file__).parents[2]
STREAMS = 12
DEADLINE_S = 120.0
PROSE = "The cat sat on the mat and looked at the moon. It was a quiet night in the small town by the river. "
TEXT = PROSE * 4 + "Write to ann.lee@example.org now. " + PROSE * 4
MASKED = TEXT.replace("ann.lee@example.org", "<EMAIL_ADDRESS_1>")
BAD = PROSE * 4 + "The key is AKIAIOSFODNN7EXAMPLQ for now. " + PROSE * 4


# -- the store -------------------------------------------------------------------------------------------------------


def sealed_by(secret: bytes) -> Seal:
    return Seal(secret, "guardrails", "GUARDRAILS_FINGERPRINT_KEY")


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    client = Redis.from_url(deployed["REDIS_URL"])
    yield client
    await client.aclose()


async def test_a_state_is_kept_sealed_for_a_while(redis: Redis) -> None:
    team = uuid.uuid4().hex
    streams = RedisStreams(redis, sealed_by(b"secret"), ttl_s=600)
    state = StreamState(held="my card is 4111", sequence=3, names=[("CREDIT_CARD", "4111", "mask", "<CREDIT_CARD_1>")])
    await streams.save({(team, "r"): state})
    assert await streams.load([(team, "other"), (team, "r")]) == [None, state]
    (key,) = [key async for key in redis.scan_iter(f"*{team}*")]
    assert 0 < await redis.ttl(key) <= 600
    assert b"4111" not in await redis.get(key)
    # Sealed with another key it is as good as lost: the stream is cut, not released.
    assert await RedisStreams(redis, sealed_by(b"other"), ttl_s=600).load([(team, "r")]) == [None]


async def test_redis_away_is_transient() -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:1/0")
    streams = RedisStreams(nowhere, sealed_by(b"secret"))
    with pytest.raises(Transient, match="REDIS_URL"):
        await streams.load([("t", "r")])
    with pytest.raises(Transient, match="REDIS_URL"):
        await streams.save({("t", "r"): StreamState()})
    await nowhere.aclose()


# -- processes -------------------------------------------------------------------------------------------------------


class Service:
    """A service as a process that a test ends and starts again."""

    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._environment = {**os.environ, **environment, "SESSION_TIMEOUT_MS": "6000"}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"services.{self._name}"],
                env=self._environment, cwd=PROJECT, stdout=log, stderr=log,
            )  # fmt: skip

    def end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(timeout=30)

    def kill_and_start(self) -> None:
        assert self.end(signal.SIGKILL) == -signal.SIGKILL
        self.start()


@pytest.fixture
def services(deployed: Mapping[str, str], tmp_path: Path) -> Iterator[Mapping[str, Service]]:
    made = {name: Service(name, deployed, tmp_path / f"{name}.log") for name in ("guardrails", "inference")}
    yield made
    for service in made.values():
        service.end(signal.SIGKILL)


class Slow:
    """An endpoint that streams an answer word by word, the bad one where it is asked for, and counts its calls."""

    def __init__(self, pause_s: float) -> None:
        self.calls = 0
        self._pause_s = pause_s

    async def reply(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        question = (await request.json())["messages"][-1]["content"]
        response = await event_stream(request)
        text = BAD if "bad" in question else TEXT
        for word in text.split(" "):
            await response.write(chunk("slow-1", {"content": f"{word} "}))
            await asyncio.sleep(self._pause_s)
        await response.write(chunk("slow-1", {}, "stop") + DONE)
        return response


async def publish_configuration(bus: KafkaBus, codec: Codec, name: str, url: str) -> None:
    """A route to the endpoint and a policy of the test's own, under ``name``."""
    target = Target(backend="openai", model="slow-1", base_url=url, timeout_s=60)
    policy = {"name": name, "output": {"pii": {"action": "mask"}, "secrets": {"action": "block"}}}
    entries = [
        Policy.model_validate(policy),
        Route(name=name, targets=(target,), policy=name, retrieval=Retrieval(enabled=False)),
    ]
    changes = [Change(entry.KIND, entry.key, "new", None, entry) for entry in entries]
    await publish_changes(changes, Producer(bus.producer(), codec, "tests"), datetime.now(UTC))


class Log:
    """What stands on the topics of the test's requests."""

    def __init__(self, bus: KafkaBus, codec: Codec, run: str) -> None:
        self._bus = bus
        self._codec = codec
        self._run = run
        self.pieces: dict[str, dict[str, ResultChunk]] = {}
        self.verdicts: dict[tuple[str, int], set[str]] = {}
        self.chunks: dict[str, list[CompletionChunk]] = {}
        self.completions: dict[str, Completion] = {}
        self.results: dict[str, LlmResult] = {}

    async def follow(self) -> None:
        reader = await self._bus.read(
            ["result-chunks", "verdicts", "completion-chunks", "completions", "llm-results"], from_end=True
        )
        self.ready.set()
        try:
            while True:
                for message in await reader.poll(0.2):
                    record = self._codec.decode(message.topic, message.value)
                    if record.request_id.startswith(self._run):
                        self._take(record)
        finally:
            await reader.close()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        self.ready = asyncio.Event()
        task = asyncio.create_task(self.follow())
        try:
            await self.ready.wait()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _take(self, record: object) -> None:
        if isinstance(record, ResultChunk):
            known = self.pieces.setdefault(record.request_id, {}).setdefault(record.event_id, record)
            assert (known.content, known.sequence) == (record.content, record.sequence), "one identity, two pieces"
        elif isinstance(record, Verdict) and record.sequence is not None:
            self.verdicts.setdefault((record.request_id, record.sequence), set()).add(record.released)
        elif isinstance(record, CompletionChunk):
            self.chunks.setdefault(record.request_id, []).append(record)
        elif isinstance(record, Completion):
            self.completions[record.request_id] = record
        elif isinstance(record, LlmResult):
            self.results[record.request_id] = record

    def released(self, request_id: str) -> str:
        """The pieces put together, held to their numbers and verdicts."""
        pieces = sorted(self.pieces.get(request_id, {}).values(), key=lambda piece: piece.sequence)
        assert [piece.sequence for piece in pieces] == list(range(len(pieces))), "a gap, or a number given twice"
        for piece in pieces:
            assert released_digest(request_id, [piece.content]) in self.verdicts[request_id, piece.sequence]
        assert [piece for piece in pieces[:-1] if piece.finish_reason] == [], "something follows the end"
        return "".join(piece.content for piece in pieces)

    def finish(self, request_id: str) -> str | None:
        pieces = sorted(self.pieces.get(request_id, {}).values(), key=lambda piece: piece.sequence)
        return pieces[-1].finish_reason if pieces else None


async def until(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up, what
        await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_guardrails_and_inference_killed_in_mid_stream(
    services: Mapping[str, Service],
    bus: KafkaBus,
    catalogue: Catalogue,
    deployed: Mapping[str, str],
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    run = uuid.uuid4().hex[:10]
    slow = Slow(pause_s=0.04)
    log = Log(bus, codec, run)
    async with endpoint(slow.reply) as url, log.following():
        await publish_configuration(bus, codec, run, url)
        for service in services.values():
            service.start()
        producer = Producer(bus.producer(), codec, "tests")
        ids = [f"{run}-{'bad' if number % 4 == 3 else 'good'}-{number}" for number in range(STREAMS)]
        for request_id in ids:
            now = datetime.now(UTC)
            request = GroundedRequest(
                event_id=f"{request_id}-g", request_id=request_id, tenant_id="support", occurred_at=now,
                causation_id="", context=Context(requested_at=now, route=run, policy_name=run), stream=True,
                messages=[Message(role="user", content=f"Tell me, {request_id}.")],
            )  # fmt: skip
            await (await producer.send("requests-grounded", request_id, request))

        def released() -> int:
            return sum(len(pieces) for pieces in log.pieces.values())

        # Killed while pieces come and their streams have not ended.
        await until(lambda: released() >= STREAMS, "no pieces before the first kill")
        assert not any(log.finish(request_id) == "stop" for request_id in ids)
        services["guardrails"].kill_and_start()
        calls = slow.calls
        services["inference"].kill_and_start()
        before = released()
        await until(lambda: released() > before, "no pieces after the kills")
        services["guardrails"].kill_and_start()
        await until(lambda: all(log.finish(request_id) for request_id in ids), "streams without an end")
        await until(lambda: all(request_id in log.results for request_id in ids), "requests without a result")
    assert slow.calls > calls, "the model was not called again: inference was killed too late"
    for request_id in ids:
        text, result = log.released(request_id), log.results[request_id]
        if "bad" in request_id:
            assert log.finish(request_id) == "content_filter"
            assert BAD[: BAD.index("AKIA")].startswith(text)
            assert (result.status, result.content) == ("blocked", "")
        else:
            assert log.finish(request_id) == "stop"
            assert text == result.content == f"{MASKED} "
            generated = [chunk.sequence for chunk in log.chunks[request_id]]
            assert generated.count(0) == 2, "the answer was not generated again"
    for service in services.values():
        assert service.end(signal.SIGTERM) == 0


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "told"),
    [("stop", "It was a quiet night.\n"), ("content_filter", "It was a quiet \ncontent_filter")],
)
async def test_send_prints_what_is_released_while_it_comes(
    bus: KafkaBus, catalogue: Catalogue, deployed: Mapping[str, str], penstock_cli: Cli, finish: str, told: str
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    producer, question = Producer(bus.producer(), codec, "tests"), uuid.uuid4().hex
    reader = await bus.read(["llm-requests"], from_end=True)
    arguments = ["send", question, "--team", "streaming-test", "--stream", "--timeout", "30"]
    sent = asyncio.create_task(asyncio.to_thread(penstock_cli, arguments, deployed))
    request: LlmRequest | None = None
    async with asyncio.timeout(60):
        while request is None:
            records = [codec.decode(message.topic, message.value) for message in await reader.poll(0.5)]
            asked = (record for record in records if isinstance(record, LlmRequest))
            request = next((record for record in asked if record.messages[0].content == question), None)
    await reader.close()
    assert request.stream
    common: dict[str, Any] = {
        "request_id": request.request_id, "tenant_id": request.tenant_id, "occurred_at": datetime.now(UTC),
        "causation_id": "", "context": Context(requested_at=datetime.now(UTC)),
    }  # fmt: skip
    last = ("night.", "stop") if finish == "stop" else ("", finish)
    for number, (content, ends) in enumerate([("It was ", None), ("a quiet ", None), last]):
        chunk = ResultChunk(
            event_id=f"{question}-{number}", sequence=number, content=content, finish_reason=ends, **common
        )
        await (await producer.send("result-chunks", request.request_id, chunk))
    result = LlmResult(event_id=question, status="completed", content="It was a quiet night.", model="m", **common)
    await (await producer.send("llm-results", request.request_id, result))
    run = await sent
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(told)
    assert run.stdout.count("It was a quiet night.") == 1

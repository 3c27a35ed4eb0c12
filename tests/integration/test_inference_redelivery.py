"""Inference as a process on real Kafka and Redis, killed in mid-batch before an endpoint that counts its calls: what has
a completion on the log is never asked again, what died is paid for; and a call is stopped by `penstock cancel`.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from penstock.bus import KafkaBus, Producer
from penstock.bus.partitioning import key_in
from penstock.config.kinds import Retrieval, Route, Target
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Completion, Context, GroundedRequest, Message
from penstock.settings import KafkaSettings
from redis.asyncio import Redis

from services.inference.flights import read_entry
from tests.integration.test_streaming import Service
from tests.model_endpoint import DONE, OK, chunk, endpoint, event_stream

TEAM = "redelivered"
SAID = "one two three"
FLIGHTS = "penstock:{inference-flights}:of:"


class Counting:
    """Answers at once, but for questions that say "hold": of these it says a little, or nothing, and waits."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.held: set[str] = set()
        self.dropped: set[str] = set()
        self.holds = True

    async def reply(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        question: str = body["messages"][-1]["content"]
        self.calls[question] += 1
        if not (self.holds and question.startswith("hold")):
            return (
                web.json_response(self._answer(question)) if not body.get("stream") else await self._streamed(request)
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            if body.get("stream"):
                await response.prepare(request)
                await response.write(chunk("counting-1", {"content": SAID}))
            self.held.add(question)
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.05)
        finally:
            self.dropped.add(question)
        return response

    async def _streamed(self, request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(chunk("counting-1", {"content": SAID}))
        await response.write(chunk("counting-1", {}, "stop") + DONE)
        return response

    @staticmethod
    def _answer(question: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": f"{SAID} {question}"}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        return OK | {"model": "counting-1", "choices": choices, "usage": usage}


class Observed:
    """Every message on completions from now on, of this test's team."""

    def __init__(self, codec: Codec) -> None:
        self.records: list[Completion] = []
        self._codec = codec

    async def follow(self, bus: KafkaBus, ready: asyncio.Event) -> None:
        reader = await bus.read(["completions"], from_end=True)
        ready.set()
        try:
            while True:
                for message in await reader.poll(0.2):
                    record = self._codec.decode(message.topic, message.value)
                    if isinstance(record, Completion) and record.tenant_id == TEAM:
                        self.records.append(record)
        finally:
            await reader.close()

    def of(self, kind: str) -> list[Completion]:
        return [record for record in self.records if record.kind == kind]


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def kept_calls(redis: Redis, event_ids: Sequence[str]) -> int:
    """Return how many of ``event_ids`` are kept in flight with a call that has used something."""
    kept = 0
    async for place in redis.scan_iter(f"{FLIGHTS}*"):
        entries: list[Any] = await redis.hmget(place, event_ids)
        kept += len([entry for entry in entries if entry is not None and read_entry(entry)])
    return kept


@pytest.mark.timeout(180)
async def test_a_process_killed_in_mid_batch_asks_again_only_for_what_has_no_completion(
    deployed: Mapping[str, str],
    kafka_settings: KafkaSettings,
    catalogue: Catalogue,
    tmp_path: Path,
    penstock_cli: Callable[..., Any],
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    name, port = f"redelivered-{uuid.uuid4().hex[:8]}", free_port()
    service = Service("inference", {**deployed, "PENSTOCK_METRICS_PORT": str(port)}, tmp_path / "inference.log")
    model, observed = Counting(), Observed(codec)
    redis = Redis.from_url(deployed["REDIS_URL"])
    async with KafkaBus(kafka_settings, client_id=name) as bus, endpoint(model.reply) as url:
        producer = Producer(bus.producer(), codec, "tests")
        target = Target(backend="openai", model="counting", base_url=url, timeout_s=60)
        route = Route(name=name, targets=(target,), retrieval=Retrieval(enabled=False))
        await publish_changes([Change("routes", name, "new", None, route)], producer, datetime.now(UTC))
        ready = asyncio.Event()
        following = asyncio.create_task(observed.follow(bus, ready))
        await ready.wait()

        async def send(question: str, key: str, *, stream: bool = False) -> None:
            now = datetime.now(UTC)
            request = GroundedRequest(
                event_id=f"{name}-{question}", request_id=f"{name}-{question}", tenant_id=TEAM, occurred_at=now,
                causation_id="", context=Context(requested_at=now, route=name, conversation_id=key), stream=stream,
                messages=[Message(role="user", content=question)],
            )  # fmt: skip
            await (await producer.send("requests-grounded", key, request))

        held, quick = [], []
        try:
            service.start()
            # In each partition the first one is held, so that nothing behind it can be committed.
            for partition in range(4):
                held.append(f"hold-{partition}")
                await send(held[-1], key_in(partition, f"{name}-h", 4), stream=partition % 2 == 0)
            await until(lambda: model.held == set(held), 90)
            for number in range(24):
                quick.append(f"quick-{number}")
                await send(quick[-1], f"{name}-q{number}")
            await until(lambda: len(observed.of("completion")) == len(quick))
            async with asyncio.timeout(10):
                while await kept_calls(redis, [f"{name}-{question}" for question in held]) < len(held):
                    await asyncio.sleep(0.05)
            assert service.end(signal.SIGKILL) == -signal.SIGKILL
            model.holds = False
            service.start()
            await until(lambda: len(observed.of("completion")) == len(quick) + len(held))
            assert {q: model.calls[q] for q in quick} == dict.fromkeys(quick, 1)
            assert {q: model.calls[q] for q in held} == dict.fromkeys(held, 2)
            abandoned = observed.of("abandoned")
            assert {r.request_id for r in abandoned} == {f"{name}-{q}" for q in held}
            assert all(r.target == "counting" and r.usage.input_tokens > 0 for r in abandoned)
            said = {r.request_id: r.usage.output_tokens for r in abandoned}
            assert {said[f"{name}-{q}"] for q in ("hold-0", "hold-2")} == {len(SAID)}, "no more than a token a byte"
            wasted = sum(r.usage.input_tokens + r.usage.output_tokens for r in abandoned)
            assert await _metric(port, "penstock_wasted_tokens_total", 'cause="process"') == wasted

            model.holds = True
            await send("hold-and-cancel", f"{name}-c", stream=True)
            await until(lambda: "hold-and-cancel" in model.held)
            run = await asyncio.to_thread(
                penstock_cli,
                ["cancel", f"{name}-hold-and-cancel", "--team", TEAM, "--reason", "the page was left"],
                deployed,
            )
            assert run.returncode == 0, run.stderr
            await until(lambda: len(observed.of("completion")) == len(quick) + len(held) + 1)
            await until(lambda: "hold-and-cancel" in model.dropped, 10)
            cancelled = observed.of("completion")[-1]
            assert (cancelled.ends_as, cancelled.finish_reason) == ("cancelled", "cancelled")
            assert cancelled.error == "cancelled by its producer: the page was left"
            assert cancelled.usage.output_tokens == len(SAID)
            assert service.end(signal.SIGTERM) == 0
        finally:
            service.end(signal.SIGKILL)
            following.cancel()
        each = Counter(record.request_id for record in observed.of("completion"))
        assert set(each.values()) == {1}, "not even a second event of the same identity"
        left = [k async for k in redis.scan_iter(f"{FLIGHTS}*") for field in await redis.hkeys(k) if name in str(field)]
        assert left == []
    await redis.aclose()


async def _metric(port: int, name: str, label: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
        text = await response.text()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name) and label in line)

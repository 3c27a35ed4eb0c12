"""A canary that fails and a target in shadow, in the real services on real Kafka: taken back by the agent, and compared."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web
from penstock.bus import KafkaBus, Producer
from penstock.bus.types import RawReader
from penstock.config.canaries import CANARY, canary_experiment, takes_back
from penstock.config.kinds import Canary, Price, Retrieval, Route, Shadow, Target
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import (
    Completion,
    Context,
    Cost,
    Evaluation,
    ExperimentEvent,
    GroundedRequest,
    Message,
    Passage,
    Record,
)
from penstock.settings import KafkaSettings

from tests.integration.test_streaming import Service
from tests.model_endpoint import endpoint

REQUESTS = 60
TEXT = "Tuples are immutable sequences in Python."


async def refuse(request: web.Request) -> web.StreamResponse:
    """Take no key there is."""
    return web.json_response({"error": {"message": "no such key"}}, status=401)


def a_request(name: str, number: int) -> GroundedRequest:
    now, request_id = datetime.now(UTC), f"{name}-{number}"
    return GroundedRequest(
        event_id=f"{request_id}-g", request_id=request_id, tenant_id=name, occurred_at=now, causation_id="",
        context=Context(requested_at=now, admitted_at=now, route=name),
        messages=[Message(role="user", content="Are tuples immutable sequences?")],
        passages=[Passage(passage_id="p", document_id="d", end=len(TEXT), text=TEXT, score=0.9)],
    )  # fmt: skip


@pytest.mark.timeout(420)
async def test_a_canary_that_fails_is_taken_back_and_a_shadow_is_compared(
    deployed: Mapping[str, str],
    kafka_settings: KafkaSettings,
    tmp_path: Path,
    penstock_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    codec = await Codec.resolve(Catalogue.load(), deployed["SCHEMA_REGISTRY_URL"])
    name = f"trial-{uuid.uuid4().hex[:8]}"
    # However long a busy machine takes to start a service, its shadows have waited for less.
    patient = {**deployed, "INFERENCE_SHADOW_WAIT_S": "600"}
    services = [Service(each, patient, tmp_path / f"{each}.log") for each in ("evaluation", "inference")]
    async with KafkaBus(kafka_settings, client_id=name) as bus, endpoint(refuse) as url:
        producer = Producer(bus.producer(), codec, "tests")
        route = Route(
            name=name,
            targets=(Target(backend="extractive", model="penstock-extractive-1"),),
            retrieval=Retrieval(enabled=False),
            canary=Canary(target=Target(backend="openai", model="tried", base_url=url), share=0.5),
            shadows=(Shadow(target=Target(name="beside", backend="extractive", model=f"{name}-beside"), share=1.0),),
        )
        experiment = canary_experiment(route)
        assert experiment is not None
        rate = Decimal("0.000001")
        price = Price(model=f"{name}-beside", input_cost_per_token=rate, output_cost_per_token=rate)
        changes = [Change("routes", name, "new", None, route), Change("prices", price.key, "new", None, price)]
        await publish_changes(changes, producer, datetime.now(UTC))
        reader = await bus.read(["completions", "costs", "evaluations", "experiment-events"], from_end=True)
        seen: dict[str, Record] = {}

        async def send(numbers: range) -> None:
            for number in numbers:
                request = a_request(name, number)
                await (await producer.send("requests-grounded", request.request_id, request))

        def completions(kind: str) -> list[Completion]:
            return [each for each in seen.values() if isinstance(each, Completion) and each.kind == kind]

        def priced(kind: str) -> int:
            return sum(isinstance(each, Cost) and each.kind == kind for each in seen.values())

        def decisions() -> list[ExperimentEvent]:
            return [each for each in seen.values() if isinstance(each, ExperimentEvent)]

        try:
            for service in services:
                service.start()
            await send(range(REQUESTS))
            await until(lambda: bool(decisions()), reader, codec, seen, name)
            assert takes_back(decisions()[0], experiment)
            # A restart forgets nothing: the process that comes now never saw the canary fail.
            assert services[1].end(signal.SIGTERM) == 0
            services[1].start()
            await send(range(REQUESTS, REQUESTS + 20))
            await until(lambda: len(completions("completion")) >= REQUESTS + 20, reader, codec, seen, name)
            scored = {each.causation_id for each in seen.values() if isinstance(each, Evaluation)}
            await until(lambda: len(completions("shadow")) >= REQUESTS, reader, codec, seen, name)
            await until(
                lambda: priced("shadow") >= REQUESTS and priced("completion") >= REQUESTS, reader, codec, seen, name
            )
        finally:
            for service in services:
                service.end(signal.SIGKILL)
            await reader.close()
    served = {each.request_id: each for each in completions("completion")}
    first = [served[f"{name}-{number}"] for number in range(REQUESTS)]
    later = [served[f"{name}-{number}"] for number in range(REQUESTS, REQUESTS + 20)]
    assert {each.content for each in (*first, *later)} == {TEXT}, "the stable target stands in"
    tried = [each for each in first if each.context.experiments.get(experiment.name) == CANARY]
    assert tried
    assert all(each.failures[0].target == "tried" for each in tried)
    assert all(not each.failures and not each.context.experiments for each in later)
    assert scored

    async def command(*arguments: str) -> str:
        run = await asyncio.to_thread(penstock_cli, list(arguments), deployed)
        assert run.returncode == 0, run.stderr
        return run.stdout

    told = json.loads(await command("experiments", "show", experiment.name, "--json"))
    assert (told["state"], [each["metric"] for each in told["told"]]) == ("taken back", ["failed"])
    (compared,) = json.loads(await command("routes", "shadow", name, "--json"))["shadows"]
    assert (compared["target"], compared["requests"] >= REQUESTS - 1) == ("beside", True)
    figures = {each["metric"]: each for each in compared["differences"]}
    assert figures["failed"]["difference"] == 0
    assert {"model_ms", "cost", "answer.groundedness"} <= set(figures)


async def until(done: Callable[[], bool], reader: RawReader, codec: Codec, seen: dict[str, Record], team: str) -> None:
    """Read on until ``done()``; ``seen`` has what is ours, by identity."""
    async with asyncio.timeout(180):
        while not done():
            for message in await reader.poll(0.2):
                record = codec.readable(message.topic, message.value)
                ours = record is not None and (
                    record.tenant_id == team or (isinstance(record, ExperimentEvent) and team in record.experiment)
                )
                if record is not None and ours:
                    seen[record.event_id] = record

"""The SDK and the commands send, tail and dlq on a real Kafka."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from penstock import Client, SyncClient
from penstock.bus import KafkaBus, Message, Producer
from penstock.bus.producer import REPLAYED
from penstock.client import RequestNotSent
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import AlertDelivery, Context, LlmResult
from penstock.settings import KafkaSettings

Cli = Callable[..., subprocess.CompletedProcess[str]]
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


async def produce_result(settings: KafkaSettings, request_id: str, tenant: str) -> None:
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
    async with KafkaBus(settings) as bus:
        result = LlmResult(
            event_id=event_id(request_id, "gate", 0),
            request_id=request_id,
            tenant_id=tenant,
            occurred_at=NOW,
            causation_id="",
            context=Context(requested_at=NOW),
            status="completed",
            content="an answer",
        )
        await (await Producer(bus.producer(), codec, "test").send("llm-results", request_id, result))


async def test_a_result_reaches_the_client_that_waits_and_the_group_that_reads(kafka_settings: KafkaSettings) -> None:
    request_id, tenant = uuid.uuid4().hex, f"team-{uuid.uuid4().hex[:6]}"
    async with Client(kafka_settings, tenant=tenant) as client:
        await produce_result(kafka_settings, request_id, tenant)
        assert (await client.result(request_id, timeout_s=30)).content == "an answer"
        results = client.results(f"group-{tenant}", tenant=tenant)
        assert (await anext(results)).request_id == request_id
        await results.aclose()


def test_the_blocking_client_does_the_same(kafka_settings: KafkaSettings) -> None:
    import asyncio

    request_id, tenant = uuid.uuid4().hex, f"team-{uuid.uuid4().hex[:6]}"
    with SyncClient(kafka_settings, tenant=tenant) as client:
        asyncio.run(produce_result(kafka_settings, request_id, tenant))
        assert client.result(request_id, timeout_s=30).status == "completed"
        for result in client.results(f"group-{tenant}", tenant=tenant):
            assert result.request_id == request_id
            break


async def test_twenty_megabytes_are_refused_with_the_limit_and_the_client_goes_on(
    kafka_settings: KafkaSettings,
) -> None:
    async with Client(kafka_settings, tenant="nobody-in-particular") as client:
        with pytest.raises(RequestNotSent, match="over the limit of"):
            await client.submit("x" * 20_000_000)
        await client.feedback("some-request", rating=1.0)


def test_send_prints_the_request_id_and_tail_finds_its_event(deployed: Mapping[str, str], penstock_cli: Cli) -> None:
    sent = penstock_cli(["send", "What is a tuple?", "--team", "unit-test-team", "--no-wait"], deployed)
    assert sent.returncode == 0, sent.stderr
    request_id = sent.stdout.strip()
    tailed = penstock_cli(["tail", "llm-requests", "--no-follow", "--request", request_id, "--where"], deployed)
    assert tailed.returncode == 0, tailed.stderr
    (line,) = tailed.stdout.splitlines()
    event = json.loads(line)
    assert (event["key"], event["tenant_id"]) == (request_id, "unit-test-team")
    assert event["messages"][0]["content"] == "What is a tuple?"


def test_send_cancels_what_it_sent_when_it_is_interrupted(deployed: Mapping[str, str], penstock_cli: Cli) -> None:
    team = f"team-{uuid.uuid4().hex[:6]}"
    program = "from penstock.cli.main import main; main(prog_name='penstock')"
    waiting = subprocess.Popen(
        [sys.executable, "-c", program, "send", "Who waits?", "--team", team, "--conversation", "c", "--timeout", "60"],
        env={**os.environ, **deployed},
        # Whoever runs the tests in the background has it ignored, and so would the command.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )

    def told(topic: str) -> list[dict[str, Any]]:
        tailed = penstock_cli(["tail", topic, "--from-start", "--no-follow", "--where"], deployed)
        assert tailed.returncode == 0, tailed.stderr
        return [event for event in map(json.loads, tailed.stdout.splitlines()) if event.get("tenant_id") == team]

    try:
        while not (asked := told("llm-requests")):
            assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(20) == 130
    finally:
        waiting.kill()
        waiting.wait()
    ((request,), (cancellation,)) = asked, told("cancellations")
    assert (cancellation["request_id"], cancellation["key"]) == (request["request_id"], "c")
    assert cancellation["reason"] == "penstock send was interrupted"


def test_tail_of_a_topic_that_does_not_exist_lists_those_that_do(
    deployed: Mapping[str, str], penstock_cli: Cli
) -> None:
    tailed = penstock_cli(["tail", "nope"], deployed)
    assert tailed.returncode == 1
    assert "no topic 'nope'" in tailed.stderr
    assert "llm-results" in tailed.stderr


async def test_a_dead_letter_is_listed_shown_and_replayed_once(
    kafka_settings: KafkaSettings, deployed: Mapping[str, str], penstock_cli: Cli
) -> None:
    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    fingerprint = f"fp-{uuid.uuid4().hex}"
    record = AlertDelivery(
        event_id=uuid.uuid4().hex, request_id="", tenant_id="t", occurred_at=NOW, causation_id="", fingerprint=fingerprint,
        alert_kind="cost", channel="console", destination="console", outcome="delivered",
    )  # fmt: skip
    value = codec.encode("alert-deliveries", record)
    origin = Message("alert-deliveries", 2, 123_456, 0, fingerprint.encode(), value, (("traceparent", b"00-1-2-01"),))
    async with KafkaBus(kafka_settings) as bus:
        producer = Producer(bus.producer(), codec, "alerting")
        await (await producer.dead_letter("test", origin, "step_failed", "planted by a test; replay it"))
        listed = penstock_cli(["dlq", "list"], deployed)
        assert "step_failed" in listed.stdout, listed.stderr
        shown = penstock_cli(["dlq", "show", "alerting"], deployed)
        assert "alert-deliveries/2/123456" in shown.stdout
        assert "planted by a test" in shown.stdout
        dry = penstock_cli(["dlq", "replay", "alerting", "--dry-run"], deployed)
        assert "would send alert-deliveries/2/123456" in dry.stdout
        first = penstock_cli(["dlq", "replay", "alerting"], deployed)
        assert first.returncode == 0, first.stderr
        second = penstock_cli(["dlq", "replay", "alerting"], deployed)
        assert second.stdout.startswith("0 sent again")
        reader = await bus.read(["alert-deliveries"])
        found = []
        while not await reader.at_end():
            found += [m for m in await reader.poll(0.5) if m.key == fingerprint.encode()]
        await reader.close()
    (message,) = found
    assert (message.partition, message.value) == (2, value)
    assert dict(message.headers) == {"traceparent": b"00-1-2-01", REPLAYED: b"1"}

"""Messages that are malformed, too large, of another make, from a notebook, sent twice or read again, and a broker that
restarts: each request is answered once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import textwrap
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from penstock.clock import SystemClock
from penstock.contracts.envelope import Envelope, new_id
from penstock.contracts.records import (
    Context,
    DeadLetter,
    Feedback,
    LlmRequest,
    Message,
    Record,
    Refusal,
    ScreenedRequest,
)
from penstock.settings import KafkaSettings

from tests.conftest import PROJECT
from tests.e2e.conftest import GROUPS, IN_THE_WAY, TEAM, Flow

pytestmark = [pytest.mark.stack, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]


@pytest.mark.parametrize(("topic", "service"), [("llm-requests", "intake"), ("requests-screened", "retrieval")])
async def test_a_poison_message_is_put_aside_and_harms_no_other(flow: Flow, topic: str, service: str) -> None:
    conversation = f"poisoned-{uuid.uuid4().hex[:8]}"
    poison = {
        "wrong_magic_byte": b"\x01\x00\x00\x00\x01 not ours",
        "unknown_schema_id": b"\x00\x7f\xff\xff\xff then anything",
        "truncated": b"\x00\x00",
        "malformed_avro": flow.codec.encode(topic, _for(topic))[:12],
        "wrong_schema": flow.codec.encode("refusals", _for("refusals")),
    }
    producer = flow.bus.producer()
    first = await flow.client.submit("What came before?", tenant=TEAM, conversation_id=conversation)
    places = {}
    for code, value in poison.items():
        sent = await (await producer.send(topic, conversation.encode(), value))
        places[code] = (sent.topic, sent.partition, sent.offset)
    second = await flow.client.submit("What comes after?", tenant=TEAM, conversation_id=conversation)

    assert await flow.observer.until(lambda: len(flow.results([first, second])) == 2, timeout_s=120)

    def letters() -> dict[tuple[str, int, int], DeadLetter]:
        found = flow.observer.records(f"dlq-{service}", DeadLetter)
        return {(letter.origin_topic, letter.origin_partition, letter.origin_offset): letter for letter in found}

    await flow.observer.until(lambda: set(places.values()) <= letters().keys(), timeout_s=60)
    assert {code: letters()[place].code for code, place in places.items()} == {code: code for code in poison}
    for code, place in places.items():
        letter = letters()[place]
        assert letter.origin_value == poison[code]
        assert letter.origin_key == conversation.encode()
        assert letter.reason
    assert service in flow.supervisor.pids()


async def test_a_message_over_the_limit_is_refused_where_it_is_sent(flow: Flow) -> None:
    with pytest.raises(ValueError, match="over the limit"):
        await flow.bus.producer().send("llm-requests", b"key", b"\x00" * (20 * 1024 * 1024))
    assert await flow.client.ask("And afterwards?", tenant=TEAM, timeout_s=120)


async def test_a_producer_and_a_consumer_of_another_make_are_served(flow: Flow, kafka_settings: KafkaSettings) -> None:
    """Nothing of Penstock: confluent-kafka, the registry, and the fields that have no default."""
    request_id = new_id()

    def ask_and_wait() -> dict[str, Any]:
        registry = SchemaRegistryClient({"url": kafka_settings.schema_registry_url})
        serialize = AvroSerializer(
            registry,
            registry.get_latest_version("llm-requests-value").schema.schema_str,
            conf={"auto.register.schemas": False},
        )
        deserialize = AvroDeserializer(registry)
        consumer = ConfluentConsumer({
            "bootstrap.servers": kafka_settings.kafka_bootstrap, "group.id": f"test-{request_id}",
            "auto.offset.reset": "earliest", "enable.auto.commit": False,
        })  # fmt: skip
        consumer.subscribe(["llm-results"])
        request = {
            "event_id": new_id(), "request_id": request_id, "tenant_id": TEAM, "causation_id": "",
            "occurred_at": datetime.now(UTC), "messages": [{"role": "user", "content": "What is a consumer group?"}],
        }  # fmt: skip
        producer = ConfluentProducer({"bootstrap.servers": kafka_settings.kafka_bootstrap, "acks": "all"})
        value = serialize(request, SerializationContext("llm-requests", MessageField.VALUE))
        producer.produce("llm-requests", key=request_id.encode(), value=value)
        assert producer.flush(30) == 0
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                message = consumer.poll(0.5)
                if message is None or message.error() is not None:
                    continue
                result: dict[str, Any] = deserialize(
                    message.value(), SerializationContext("llm-results", MessageField.VALUE)
                )
                if result["request_id"] == request_id:
                    return result
        finally:
            consumer.close()
        raise AssertionError("no result came")

    result = await asyncio.to_thread(ask_and_wait)
    assert (result["status"], result["tenant_id"], result["calls"]) == ("completed", TEAM, 1)
    assert result["content"]
    assert result["context"]["priority"] == "standard"
    await flow.settled([request_id])


_NOTEBOOK = (
    """
    import asyncio, contextlib, json
    from penstock import Client, SyncClient

    beats = 0
    async def beat():
        global beats
        while True:
            beats += 1
            await asyncio.sleep(0.01)
    beating = asyncio.create_task(beat())  # on the kernel's own loop, from cell to cell
    """,
    """
    async with Client(tenant=team) as client:
        awaited = await client.ask("What is a consumer group?", timeout_s=120)
        *pieces, streamed = [event async for event in client.stream("What is an offset?", timeout_s=120, late_pieces_s=60)]
    """,
    """
    opened = contextlib.ExitStack()
    blocking = opened.enter_context(SyncClient(tenant=team))
    submitted = blocking.submit("What is a partition?")
    """,
    """
    before = beats
    await asyncio.sleep(0.1)
    assert beats > before
    """,
    """
    waited = blocking.result(submitted, timeout_s=120)
    *blocking_pieces, blocking_streamed = blocking.stream("What is a topic?", timeout_s=120, late_pieces_s=60)
    blocking.feedback(waited.request_id, rating=1.0)
    opened.close()
    """,
    """
    async with Client(tenant=team) as client:
        again = await client.ask("What is a broker?", timeout_s=120)
    print(json.dumps([[one.request_id, one.status, one.content] for one in (awaited, again, waited)]))
    """,
    """
    for those, ended in ((pieces, streamed), (blocking_pieces, blocking_streamed)):
        print(json.dumps([ended.request_id, ended.status, ended.content, "".join(piece.content for piece in those)]))
    """,
)
"""Cells in which both clients are used as people do: awaited at the top level, and blocking, open over several cells."""


async def test_a_notebook_asks_with_both_clients(flow: Flow, deployed: Mapping[str, str], tmp_path: Path) -> None:
    cells = [f"team = {TEAM!r}", *(textwrap.dedent(cell) for cell in _NOTEBOOK)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    kernel = AsyncKernelManager(connection_file=str(tmp_path / "kernel.json"))
    environment = {**os.environ, **deployed, "PYTHONPATH": str(PROJECT / "shared"), "IPYTHONDIR": str(tmp_path)}
    await NotebookClient(notebook, km=kernel, timeout=300).async_execute(env=environment)
    printed = [output["text"] for cell in notebook.cells for output in cell["outputs"]]
    whole, *streams = [json.loads(line) for line in "".join(printed).splitlines()]
    for ended in (*whole, *streams):
        assert ended[1] == "completed"
        assert ended[2]
    assert all(content == pieces for _, _, content, pieces in streams)
    await flow.settled([ended[0] for ended in (*whole, *streams)])
    rated = whole[-1][0]
    assert await flow.observer.until(
        lambda: rated in {each.request_id for each in flow.observer.records("feedback", Feedback)}, timeout_s=60
    )


async def test_a_request_sent_twice_is_answered_once(flow: Flow) -> None:
    request = _request(f"twice-{uuid.uuid4().hex[:8]}")
    again = _request(request.request_id)
    value = flow.codec.encode("llm-requests", request)
    producer = flow.bus.producer()
    key = request.request_id.encode()
    for copy in (value, value, flow.codec.encode("llm-requests", again), value):
        await (await producer.send("llm-requests", key, copy))
    await flow.drained()
    assert {len(events) for events in flow.results([request.request_id]).values()} == {1}
    for topic in ("requests-admitted", "completions", "llm-results"):
        held = [r for r in flow.observer.records(topic, Record) if r.request_id == request.request_id]
        assert len(held) == 1, topic


async def test_offsets_set_back_repeat_work_but_no_result(flow: Flow) -> None:
    async with flow.stream() as stream:
        await stream.answered(40)
    await flow.settled(stream.sent)
    before = flow.results(stream.sent)
    await flow.supervisor.stop(*IN_THE_WAY)
    repeated = 0
    for group, topics in GROUPS.items():
        committed = await flow.bus.committed(group, topics)
        back = {place: max(0, offset - 10) for place, offset in committed.items()}
        repeated += sum(committed[place] - offset for place, offset in back.items())
        if back:  # of pieces there may have been none yet
            await flow.bus.commit(group, back)
    assert repeated > 40
    await flow.supervisor.start(*IN_THE_WAY)
    await flow.supervisor.wait_ready(*IN_THE_WAY, timeout_s=150)
    await flow.settled(stream.sent)
    assert flow.results(stream.sent) == before


@pytest.mark.skipif(bool(os.environ.get("KAFKA_BOOTSTRAP")), reason="Kafka is given: it is not ours to restart")
@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGKILL,
        pytest.param(
            signal.SIGTERM,
            marks=pytest.mark.skipif("SOAK" not in os.environ, reason="the milder one: make soak runs it"),
        ),
    ],
    ids=lambda signum: signum.name,
)
async def test_kafka_restarts_under_the_services(flow: Flow, signum: signal.Signals) -> None:
    pids = flow.supervisor.pids()
    async with flow.stream() as stream:
        await stream.answered(20)
        await asyncio.to_thread(flow.stack.kill, "kafka", signum)
        await asyncio.to_thread(flow.stack.start, "kafka")
        await stream.answered(30)
    await flow.settled(stream.sent)
    assert flow.supervisor.pids() == pids, "a service did not live through it"


def _request(request_id: str) -> LlmRequest:
    return LlmRequest(
        **_envelope(request_id), messages=[Message(role="user", content="What is said once?")]
    )  # fmt: skip


def _for(topic: str) -> Record:
    """A record that is right for ``topic``."""
    context = Context(requested_at=_now())
    if topic == "requests-screened":
        return ScreenedRequest(**_envelope("any"), context=context, messages=[Message(role="user", content="Any")])
    if topic == "refusals":
        return Refusal(**_envelope("any"), context=context, stage="intake", status="failed", code="any", reason="any")
    return _request("any")


def _envelope(request_id: str) -> Envelope:
    return Envelope(event_id=new_id(), request_id=request_id, tenant_id=TEAM, occurred_at=_now(), causation_id="")


def _now() -> datetime:
    return SystemClock().now()

"""Any Confluent-compatible client reads and writes the public topics: confluent-kafka's own serializers, both ways."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from penstock.bus import KafkaBus
from penstock.bus import Producer as PenstockProducer
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.examples import Example, examples, to_avro
from penstock.contracts.records import LlmResult, Record
from penstock.settings import KafkaSettings

CATALOGUE = Catalogue.load()
PUBLIC = [topic.name for topic in CATALOGUE.topics.values() if topic.public]
EXAMPLES = [example for example in examples(CATALOGUE) if example.topic in PUBLIC]
DEADLINE_S = 30.0


@pytest.fixture
def registry(kafka_settings: KafkaSettings) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": kafka_settings.schema_registry_url})


def data_of(example: Example) -> dict[str, Any]:
    topic = CATALOGUE.topics[example.topic]
    return dict(to_avro(example, topic.versions[example.version]))


def record_of(example: Example) -> Record:
    data = data_of(example)
    return msgspec.convert(
        data, CATALOGUE.topics[example.topic].record, builtin_types=(type(data["occurred_at"]), bytes)
    )


def in_topic(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


def test_public_topics_are_those_that_producers_and_consumers_need() -> None:
    assert set(PUBLIC) >= {"llm-requests", "llm-results", "result-chunks", "documents", "feedback"}
    assert {example.topic for example in EXAMPLES} == set(PUBLIC)


async def test_confluent_reads_what_penstock_writes(
    own_topics: Any, kafka_settings: KafkaSettings, registry: SchemaRegistryClient, bus: KafkaBus
) -> None:
    own, names = await own_topics(*PUBLIC, partitions=1)
    codec = await Codec.resolve(own, kafka_settings.schema_registry_url)
    producer = PenstockProducer(bus.producer(), codec, "test")
    records = [(example, record_of(example)) for example in EXAMPLES]
    for example, record in records:
        await (await producer.send(names[example.topic], "key", record))
    values = await asyncio.to_thread(consume, kafka_settings, list(names.values()), len(records))
    # No reader's schema is given: the deserializer finds the writer's by the id in the message.
    deserialize = AvroDeserializer(registry)
    for topic, copy in names.items():
        schema = CATALOGUE.topics[topic].versions[CATALOGUE.topics[topic].newest]
        decoded = [deserialize(value, in_topic(copy)) for value in values[copy]]
        assert all(list(one) == [field["name"] for field in schema["fields"]] for one in decoded)
        record_class = CATALOGUE.topics[topic].record
        read = [msgspec.convert(one, record_class, builtin_types=(type(one["occurred_at"]), bytes)) for one in decoded]
        assert read == [record for example, record in records if example.topic == topic]


async def test_penstock_reads_what_confluent_writes(
    own_topics: Any, kafka_settings: KafkaSettings, registry: SchemaRegistryClient, bus: KafkaBus
) -> None:
    own, names = await own_topics(*PUBLIC, partitions=1)
    codec = await Codec.resolve(own, kafka_settings.schema_registry_url)
    await asyncio.to_thread(produce, kafka_settings, registry, names)
    found: dict[str, list[Record]] = {copy: [] for copy in names.values()}
    reader = await bus.read(list(names.values()))
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await reader.at_end():
                for message in await reader.poll(1.0):
                    found[message.topic].append(codec.decode(message.topic, message.value))
    finally:
        await reader.close()
    for topic, copy in names.items():
        own_examples = [example for example in EXAMPLES if example.topic == topic]
        assert found[copy] == [record_of(example) for example in own_examples]
        for example, record in zip(own_examples, found[copy], strict=True):
            assert type(record) is CATALOGUE.topics[topic].record
            assert includes(json.loads(msgspec.json.encode(record)), example.data), example.file


async def test_serializer_that_may_not_register_finds_the_deployed_schema(
    kafka_settings: KafkaSettings, registry: SchemaRegistryClient
) -> None:
    codec = await Codec.resolve(CATALOGUE, kafka_settings.schema_registry_url)
    for name in PUBLIC:
        topic = CATALOGUE.topics[name]
        found = registry.get_latest_version(topic.subject)
        assert found.schema_id == codec.schema_id(name)
        assert json.loads(found.schema.schema_str) == topic.versions[topic.newest]


async def test_reader_generated_from_fewer_fields_still_reads(
    kafka_settings: KafkaSettings, registry: SchemaRegistryClient
) -> None:
    codec = await Codec.resolve(CATALOGUE, kafka_settings.schema_registry_url)
    record = record_of(next(e for e in EXAMPLES if e.file.match("llm-results/v1/completed.json")))
    assert isinstance(record, LlmResult)
    fewer = dict(CATALOGUE.topics["llm-results"].versions[1])
    fewer["fields"] = [f for f in fewer["fields"] if "default" not in f or f["name"] == "content"]
    deserialize = AvroDeserializer(registry, json.dumps(fewer))
    decoded = deserialize(codec.encode("llm-results", record), in_topic("llm-results"))
    assert decoded["content"] == record.content
    assert set(decoded) == {field["name"] for field in fewer["fields"]}


def produce(settings: KafkaSettings, registry: SchemaRegistryClient, names: Mapping[str, str]) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "acks": "all"})
    failures: list[Any] = []
    for example in EXAMPLES:
        schema = CATALOGUE.topics[example.topic].versions[example.version]
        # Schemas are registered at deploy: the serializer only looks the id up.
        serialize = AvroSerializer(registry, json.dumps(schema), conf={"auto.register.schemas": False})
        copy = names[example.topic]
        producer.produce(
            copy, key=b"key", value=serialize(data_of(example), in_topic(copy)),
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )  # fmt: skip
    assert producer.flush(DEADLINE_S) == 0
    assert failures == []


def consume(settings: KafkaSettings, topics: list[str], count: int) -> dict[str, list[bytes]]:
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "group.id": f"test-{uuid.uuid4()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    found: dict[str, list[bytes]] = {topic: [] for topic in topics}
    try:
        consumer.subscribe(topics)
        deadline = time.monotonic() + DEADLINE_S
        while sum(map(len, found.values())) < count:
            assert time.monotonic() < deadline, f"{sum(map(len, found.values()))} of {count} messages arrived"
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                found[message.topic()].append(bytes(message.value()))
    finally:
        consumer.close()
    return found


def includes(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and includes(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(includes, whole, part))
    try:
        return bool(whole == part) or Decimal(whole) == Decimal(part)
    except (InvalidOperation, TypeError, ValueError):
        return False

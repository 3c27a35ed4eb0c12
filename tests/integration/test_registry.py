"""The registry client against the real registry."""

from __future__ import annotations

import copy
import socket
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from penstock.clock import SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.registry import (
    RegisteredSchemas,
    RegistryError,
    RegistryUnavailable,
    SchemaRegistry,
    register_topic,
    resolve_source,
)
from penstock.settings import KafkaSettings


def with_field(schema: Any, field: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = copy.deepcopy(dict(schema))
    changed["fields"].append(field)
    return changed


async def test_applying_again_changes_nothing(catalogue: Catalogue, kafka_settings: KafkaSettings) -> None:
    async with SchemaRegistry(kafka_settings.schema_registry_url) as registry:
        for topic in catalogue.topics.values():
            assert await register_topic(registry, topic) == []
            assert await registry.compatibility(topic.subject) == "FULL_TRANSITIVE"


async def test_codec_resolves_every_topic_to_the_ids_of_the_registry(
    catalogue: Catalogue, kafka_settings: KafkaSettings
) -> None:
    codec = await Codec.resolve(catalogue, kafka_settings.schema_registry_url)
    async with SchemaRegistry(kafka_settings.schema_registry_url) as registry:
        for topic in catalogue.topics.values():
            versions = await registry.versions(topic.subject)
            assert codec.schema_id(topic.name) == versions[-1].schema_id
            assert await registry.schema(versions[-1].schema_id) == versions[-1].schema
            # Documentation is no part of a schema's identity: a version that changes nothing else has the id before it.
            assert _without_docs(versions[-1].schema) == _without_docs(topic.versions[topic.newest])


def _without_docs(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {name: _without_docs(value) for name, value in schema.items() if name != "doc"}
    return [_without_docs(one) for one in schema] if isinstance(schema, list) else schema


async def test_registry_itself_refuses_a_breaking_version(catalogue: Catalogue, kafka_settings: KafkaSettings) -> None:
    subject = f"test-{uuid.uuid4().hex}-value"
    schema = catalogue.topics["alerts"].versions[1]
    async with SchemaRegistry(kafka_settings.schema_registry_url) as registry:
        first = await registry.register(subject, schema)
        await registry.set_compatibility(subject, "FULL_TRANSITIVE")
        with pytest.raises(RegistryError, match="409"):
            await registry.register(subject, with_field(schema, {"name": "team", "type": "string", "doc": "d"}))
        added = {"name": "team", "type": "string", "doc": "d", "default": ""}
        second = await registry.register(subject, with_field(schema, added))
        versions = await registry.versions(subject)
    assert [v.schema_id for v in versions] == [first, second]
    assert [v.version for v in versions] == sorted(v.version for v in versions)


async def test_unknown_subject_and_id_are_absent(kafka_settings: KafkaSettings) -> None:
    async with SchemaRegistry(kafka_settings.schema_registry_url) as registry:
        assert await registry.versions("no-such-topic-value") == []
        assert await registry.schema(2_000_000_000) is None
        assert await registry.compatibility("no-such-topic-value") is None


async def test_missing_subjects_are_named_with_the_remedy(catalogue: Catalogue, kafka_settings: KafkaSettings) -> None:
    from dataclasses import replace

    topic = replace(catalogue.topics["alerts"], name="alerts-that-nobody-registered")
    with pytest.raises(RegistryError, match=r"alerts-that-nobody-registered-value.*penstock schemas apply"):
        await resolve_source(Catalogue({topic.name: topic}, catalogue.root), kafka_settings.schema_registry_url)


async def test_wrong_address_on_the_right_host_is_told_apart_from_a_registry_that_is_away(
    kafka_settings: KafkaSettings,
) -> None:
    url = httpx.URL(kafka_settings.schema_registry_url)
    async with SchemaRegistry(str(url.copy_with(path="/"))) as registry:
        with pytest.raises(RegistryError, match="no Confluent-compatible registry") as caught:
            await registry.wait(5.0)
    assert not isinstance(caught.value, RegistryUnavailable)


async def test_registry_that_is_away_is_waited_for_and_then_named(catalogue: Catalogue) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/apis/ccompat/v7"
        clock = SystemClock()
        began = clock.monotonic()
        with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1.*SCHEMA_REGISTRY_URL"):
            await resolve_source(catalogue, address, timeout_s=0.6)
        assert clock.monotonic() - began >= 0.6


async def test_id_registered_after_the_start_is_found_and_credentials_stay_out_of_errors(
    catalogue: Catalogue, kafka_settings: KafkaSettings
) -> None:
    source = await resolve_source(catalogue, kafka_settings.schema_registry_url)
    subject = f"test-{uuid.uuid4().hex}-value"
    added = {"name": "added_later", "type": ["null", "string"], "doc": "d", "default": None}
    schema = with_field(catalogue.topics["alerts"].versions[1], added)
    async with SchemaRegistry(kafka_settings.schema_registry_url) as registry:
        schema_id = await registry.register(subject, schema)
    assert source.schema(schema_id) == schema
    with_secret = SchemaRegistry("http://somebody:secret@127.0.0.1:1/")
    async with with_secret:
        with pytest.raises(RegistryUnavailable) as caught:
            await with_secret.subjects()
    assert "secret" not in str(caught.value)


def test_lookup_leaves_a_registry_alone_that_is_away() -> None:
    now = 100.0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        source = RegisteredSchemas({}, f"http://127.0.0.1:{closed.getsockname()[1]}", clock=lambda: now)
        with pytest.raises(OSError, match="ConnectError"):
            source.schema(1)
        with pytest.raises(OSError, match="a moment ago"):
            source.schema(2)
        now += 60
        with pytest.raises(OSError, match="ConnectError"):
            source.schema(2)


async def test_unknown_id_is_undecodable_for_a_codec_with_a_registry(
    catalogue: Catalogue, kafka_settings: KafkaSettings
) -> None:
    codec = await Codec.resolve(catalogue, kafka_settings.schema_registry_url)
    with pytest.raises(Undecodable, match="knows no schema id") as caught:
        codec.decode("llm-requests", b"\x00\x77\x35\x94\x00rest")
    assert caught.value.code == "unknown_schema_id"

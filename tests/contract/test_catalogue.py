"""Every topic says who owns, writes and reads it; every schema says what each field means and equals its class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from penstock.contracts import records
from penstock.contracts.catalogue import Catalogue, Topic
from penstock.contracts.draft import draft_schema, file_stem

CATALOGUE = Catalogue.load()
TOPICS = list(CATALOGUE.topics.values())
SCHEMAS = sorted((CATALOGUE.root / "avro").glob("*.avsc"))
SERVICES = {"edge", "intake", "guardrails", "retrieval", "inference", "evaluation", "drift", "alerting"}
PEOPLE = {
    "annotators",
    "reviewers",
    "producers",
    "consumers",
    "auditors",
    "finance",
    "operations",
    "penstock config apply",
    "penstock keys",
    "every service",
}
SHARED_TOPICS = {"refusals", "signals", "alerts", "judge-tasks", "llm-requests", "feedback", "documents"}
"""Topics that several services may write, by design; every other has one writing service."""

KEYS = {
    "topic", "doc", "record", "schema", "owner", "public", "writers", "readers", "key", "partitions", "cleanup",
    "compatibility", "config",
}  # fmt: skip

by_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def fields(schema: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every field inside ``schema``, nested records included, with its path."""
    if isinstance(schema, list):
        for branch in schema:
            yield from fields(branch, path)
    elif isinstance(schema, dict):
        for field in schema.get("fields", []):
            below = f"{path}.{field['name']}" if path else field["name"]
            yield below, field
            yield from fields(field["type"], below)
        yield from fields(schema.get("items", schema.get("values")), path)


@by_topic
def test_topic_file_has_every_key(topic: Topic) -> None:
    raw = yaml.safe_load((CATALOGUE.root / "topics" / f"{topic.name}.yaml").read_text("utf-8"))
    kept = {"retention_ms"} if raw["cleanup"] == "delete" else set()
    assert set(raw) == KEYS | kept
    assert raw["topic"] == topic.name
    assert raw["cleanup"] in ("delete", "compact")
    assert raw["owner"] in SERVICES | {"operations"}
    assert raw["doc"].endswith(".")
    assert raw["writers"]
    assert raw["readers"]
    assert set(raw["writers"]) | set(raw["readers"]) <= SERVICES | PEOPLE
    assert raw["partitions"] >= 1
    assert raw["schema"] == file_stem(topic.record)


@pytest.mark.parametrize("name", ["feedback", "judge-tasks", "model-commands"])
def test_agents_with_tables_read_what_anybody_writes_in_the_time_of_the_log(name: str) -> None:
    """Tables forget by the newest timestamp they have read: a writer whose clock is a year ahead would empty them."""
    assert CATALOGUE.topics[name].config["message.timestamp.type"] == "LogAppendTime"


@by_topic
def test_topic_is_held_to_full_transitive_compatibility(topic: Topic) -> None:
    assert topic.compatibility == "FULL_TRANSITIVE"


@by_topic
def test_topic_has_one_writing_service(topic: Topic) -> None:
    if topic.name not in SHARED_TOPICS:
        assert len(topic.writers) == 1, f"{topic.name} has the writers {topic.writers}: one service writes a topic"


def test_flow_is_connected() -> None:
    for topic in TOPICS:
        if not topic.public and topic.owner in SERVICES:
            assert set(topic.writers) <= SERVICES, f"{topic.name} is internal, but written from outside"
    dead = {topic.name for topic in TOPICS if topic.record is records.DeadLetter}
    assert dead == {f"dlq-{service}" for service in SERVICES}


def test_topics_that_are_joined_have_equal_partitions() -> None:
    # Feedback is joined with results, costs feed a table keyed by team, refusals meet their request at the gate.
    for left, right in [
        ("feedback", "llm-results"),
        ("evaluations", "llm-results"),
        ("judge-tasks", "llm-results"),
        ("refusals", "completions"),
        ("llm-requests", "llm-results"),
        # What inference has answered is found in the partitions that its requests came from.
        ("requests-grounded", "completions"),
        ("requests-repeated", "completions"),
        ("requests-grounded", "refusals"),
    ]:
        assert CATALOGUE.topics[left].partitions == CATALOGUE.topics[right].partitions
        assert CATALOGUE.topics[left].key == CATALOGUE.topics[right].key


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_every_schema_is_carried_by_a_topic(path: Path) -> None:
    assert re.fullmatch(r"[a-z-]+\.v\d+\.avsc", path.name)
    assert path.name.partition(".")[0] in {topic.schema for topic in TOPICS}


@by_topic
def test_every_field_has_a_doc(topic: Topic) -> None:
    for number, schema in topic.versions.items():
        assert schema["doc"], f"{topic.schema}.v{number} has no doc"
        undocumented = [path for path, field in fields(schema) if not field.get("doc", "").strip()]
        assert not undocumented, f"{topic.schema}.v{number}: no doc on {', '.join(undocumented)}"


@by_topic
def test_newest_schema_equals_the_record_class(topic: Topic) -> None:
    newest = topic.versions[topic.newest]
    drafted = draft_schema(topic.record)
    differing = [
        path
        for (path, field), (_, wanted) in zip(fields(newest), fields(drafted), strict=False)
        if {**field, "type": None} != {**wanted, "type": None}
    ]
    assert newest == drafted, (
        f"{topic.schema}.v{topic.newest} differs from {topic.record.__name__} at {', '.join(differing) or 'its types'}; "
        f"run `penstock schemas draft {topic.record.__name__} --write` for a new version"
    )


@by_topic
def test_every_record_starts_with_the_envelope(topic: Topic) -> None:
    envelope = [field.name for field in msgspec.structs.fields(records.Record)]
    for schema in topic.versions.values():
        assert [field["name"] for field in schema["fields"]][: len(envelope)] == envelope


@by_topic
def test_money_is_an_exact_decimal_with_twelve_places(topic: Topic) -> None:
    for schema in topic.versions.values():
        for path, field in fields(schema):
            branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
            decimals = [b for b in branches if isinstance(b, dict) and b.get("logicalType") == "decimal"]
            assert all((d["precision"], d["scale"]) == (38, 12) for d in decimals), path
            if re.search(r"(amount|budget|cost)$", path.rpartition(".")[2]):
                assert decimals, f"{topic.schema}: {path} is money and must be a decimal"
                assert decimals, f"{topic.schema}: {path} is money and must be a decimal"

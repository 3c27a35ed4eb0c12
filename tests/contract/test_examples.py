"""The examples fit the schemas they stand for, and between them show every field: a version edited in place fails here."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.examples import Example, ExampleInvalid, examples, to_avro

CATALOGUE = Catalogue.load()
EXAMPLES = list(examples(CATALOGUE))
VERSIONS = [(topic.name, number) for topic in CATALOGUE.topics.values() for number in topic.versions]


def of(topic: str, version: int) -> list[Example]:
    return [example for example in EXAMPLES if (example.topic, example.version) == (topic, version)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.topic}-{e.file.stem}")
def test_example_round_trips_through_the_codec(example: Example, codec: Codec) -> None:
    topic = CATALOGUE.topics[example.topic]
    schema = topic.versions[example.version]
    data = to_avro(example, schema)
    written = io.BytesIO()
    fastavro.schemaless_writer(
        written, fastavro.parse_schema(copy.deepcopy(dict(schema))), data, strict_allow_default=True
    )
    schema_id = list(codec._source.subject_ids(topic.subject))[example.version - 1]
    value = b"\x00" + schema_id.to_bytes(4, "big") + written.getvalue()
    record = codec.decode(example.topic, value)
    assert type(record) is topic.record
    assert codec.decode(example.topic, codec.encode(example.topic, record)) == record
    # Nothing of the example was lost or changed on the way.
    assert includes(json.loads(msgspec.json.encode(record)), example.data)


def includes(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and includes(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(includes, whole, part))
    return bool(whole == part or same_amount(whole, part))


def same_amount(left: Any, right: Any) -> bool:
    try:
        return Decimal(left) == Decimal(right)
    except (InvalidOperation, TypeError, ValueError):
        return False


@pytest.mark.parametrize(("topic", "version"), VERSIONS, ids=lambda value: str(value))
def test_examples_of_a_version_show_every_field(topic: str, version: int) -> None:
    schema = CATALOGUE.topics[topic].versions[version]
    shown = set().union(*(paths(example.data) for example in of(topic, version)))
    wanted = set(leaves(schema, {}, ""))
    assert not wanted - shown, f"no example of {topic} v{version} shows {', '.join(sorted(wanted - shown))}"


@pytest.mark.parametrize(("topic", "version"), VERSIONS, ids=lambda value: str(value))
def test_one_example_of_a_version_has_the_required_fields_alone(topic: str, version: int) -> None:
    schema = CATALOGUE.topics[topic].versions[version]
    required = {field["name"] for field in schema["fields"] if "default" not in field}
    assert required in [set(example.data) for example in of(topic, version)]


@pytest.mark.parametrize("topic", [t for t in CATALOGUE.topics.values() if t.public], ids=lambda t: t.name)
def test_public_topics_have_several_examples(topic: Any) -> None:
    assert len(of(topic.name, topic.newest)) >= 2


def test_example_that_no_longer_fits_is_refused_with_the_field_named() -> None:
    example = next(e for e in EXAMPLES if e.file.match("llm-requests/v1/complete.json"))
    schema = copy.deepcopy(dict(CATALOGUE.topics["llm-requests"].versions[1]))
    for damage, cause in [
        (lambda data: data.update(rout="default"), "rout: LlmRequest has no such field"),
        (lambda data: data.pop("event_id"), "event_id: is missing"),
        (lambda data: data.update(stream="yes"), 'stream: "yes" is not boolean'),
        (lambda data: data.update(occurred_at="2026-01-05T09:00:00"), "occurred_at: .*zone"),
        (lambda data: data["messages"][0].update(role=3), r"messages\[0\]\.role: 3 is not string"),
        (lambda data: data["sampling"].update(heat=1), "sampling.heat: Sampling has no such field"),
    ]:
        data = copy.deepcopy(example.data)
        damage(data)
        with pytest.raises(ExampleInvalid, match=f"complete.json: {cause}"):
            to_avro(dataclasses.replace(example, data=data), schema)


def test_example_of_an_unknown_topic_or_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "examples" / "alerts" / "v9" / "x.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(ExampleInvalid, match="there is no v9 of a topic alerts"):
        list(examples(Catalogue(CATALOGUE.topics, tmp_path)))


def leaves(schema: Any, names: dict[str, Any], path: str) -> Iterator[str]:
    """Paths of all fields, nested ones included; list items and map values share their field's path."""
    schema = names.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, list):
        for branch in schema:
            yield from leaves(branch, names, path)
    elif isinstance(schema, dict):
        if schema.get("type") == "record":
            names[schema["name"]] = schema
        for field in schema.get("fields", []):
            below = f"{path}.{field['name']}".lstrip(".")
            yield below
            yield from leaves(field["type"], names, below)
        yield from leaves(schema.get("items"), names, path)


def paths(value: Any, path: str = "") -> set[str]:
    """Paths of everything that ``value`` sets, null included."""
    if isinstance(value, list):
        return set().union(*(paths(item, path) for item in value))
    found: set[str] = set()
    for key, item in value.items() if isinstance(value, dict) else ():
        below = f"{path}.{key}".lstrip(".")
        found |= {below} | paths(item, below)
    return found

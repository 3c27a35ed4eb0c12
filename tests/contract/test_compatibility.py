"""The compatibility check finds what breaks a reader, names the field, and lets through what does not."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import fastavro
import pytest
from penstock.contracts.catalogue import Catalogue, Topic
from penstock.contracts.compatibility import Break, check_catalogue, check_topic, check_versions, mismatches
from penstock.contracts.examples import examples, to_avro

CATALOGUE = Catalogue.load()
EXAMPLES = list(examples(CATALOGUE))
RECORDS = {topic.schema: topic for topic in CATALOGUE.topics.values()}
FIELDS = [
    pytest.param(topic, field["name"], id=f"{topic.record.__name__}.{field['name']}")
    for topic in RECORDS.values()
    for field in topic.versions[topic.newest]["fields"]
]
DEFAULTED = [
    pytest.param(topic, field["name"], id=f"{topic.record.__name__}.{field['name']}")
    for topic in RECORDS.values()
    for field in topic.versions[topic.newest]["fields"]
    if "default" in field
]
every_field = pytest.mark.parametrize(("topic", "name"), FIELDS)

Schema = dict[str, Any]


def base(**fields: Any) -> Schema:
    """A record with the given fields; a value is a type, or a whole field without its name."""
    return {
        "type": "record",
        "name": "Thing",
        "namespace": "penstock.events",
        "fields": [
            {"name": n, **(f if isinstance(f, dict) and "default" in f else {"type": f})} for n, f in fields.items()
        ],
    }


def mutated(topic: Topic, change: Callable[[Schema, Schema], None], name: str) -> Schema:
    schema: Schema = copy.deepcopy(dict(topic.versions[topic.newest]))
    change(schema, next(field for field in schema["fields"] if field["name"] == name))
    return schema


def breaks(topic: Topic, schema: Schema) -> list[Break]:
    return check_versions(topic.name, topic.record.__name__, {"v1": topic.versions[topic.newest], "v2": schema})


def test_project_is_compatible() -> None:
    assert [str(broken) for broken in check_catalogue(CATALOGUE)] == []


@every_field
def test_removing_a_field_is_caught_unless_it_has_a_default(topic: Topic, name: str) -> None:
    def remove(schema: Schema, field: Schema) -> None:
        schema["fields"].remove(field)
        inline_names(schema, field["type"])  # they must not vanish from under later fields

    field = next(f for f in topic.versions[topic.newest]["fields"] if f["name"] == name)
    found = breaks(topic, mutated(topic, remove, name))
    if "default" in field:
        assert found == []
    else:
        assert [(b.field, b.reader, b.writer) for b in found] == [(name, "v1", "v2")]
        assert "no such field" in found[0].rule
        assert f"{topic.name}: {topic.record.__name__}.{name}: a reader of v1 cannot read what v2 wrote" in str(
            found[0]
        )


@every_field
def test_changing_a_type_is_caught(topic: Topic, name: str) -> None:
    def retype(schema: Schema, field: Schema) -> None:
        inline_names(schema, field["type"])
        field["type"] = "boolean" if field["type"] != "boolean" else "long"
        if "default" in field:
            field["default"] = False if field["type"] == "boolean" else 0

    found = breaks(topic, mutated(topic, retype, name))
    assert {b.field for b in found} == {name}
    assert {(b.reader, b.writer) for b in found} == {("v1", "v2"), ("v2", "v1")}
    assert all("type" in b.rule for b in found)


@every_field
def test_renaming_a_field_is_caught_unless_it_has_a_default(topic: Topic, name: str) -> None:
    def rename(schema: Schema, field: Schema) -> None:
        field["name"] = f"{name}_renamed"

    found = breaks(topic, mutated(topic, rename, name))
    if "default" in next(f for f in topic.versions[topic.newest]["fields"] if f["name"] == name):
        assert found == []
    else:
        assert {b.field for b in found} == {name, f"{name}_renamed"}
        assert all("rename" in b.rule for b in found)


@every_field
def test_adding_a_field_without_default_is_caught(topic: Topic, name: str) -> None:
    def add(schema: Schema, field: Schema) -> None:
        position = schema["fields"].index(field)
        schema["fields"].insert(position, {"name": f"{name}_added", "type": "string", "doc": "New."})

    assert [(b.field, b.reader, b.writer) for b in breaks(topic, mutated(topic, add, name))] == [
        (f"{name}_added", "v2", "v1")
    ]


@pytest.mark.parametrize(("topic", "name"), DEFAULTED)
def test_taking_a_default_away_breaks_a_field_once_a_version_lacks_it(topic: Topic, name: str) -> None:
    """v1 has the field with a default, v2 drops it, v3 brings it back without one: only v3 against v2 breaks."""
    schema = topic.versions[topic.newest]

    def remove(changed: Schema, victim: Schema) -> None:
        changed["fields"].remove(victim)
        inline_names(changed, victim["type"])

    def bare(changed: Schema, victim: Schema) -> None:
        del victim["default"]

    versions = {"v1": schema, "v2": mutated(topic, remove, name), "v3": mutated(topic, bare, name)}
    found = check_versions(topic.name, topic.record.__name__, versions)
    assert [(b.field, b.reader, b.writer) for b in found] == [(name, "v3", "v2")]


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 12}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
PART = {"type": "record", "name": "Part", "fields": [{"name": "a", "type": "string"}]}
PART_MORE = {"type": "record", "name": "Part", "fields": [*PART["fields"], {"name": "b", "type": "string"}]}  # type: ignore[misc]
COLOUR: Schema = {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}
NOTED: Schema = {"type": "string", "default": "", "doc": "Old."}
OPEN_COLOUR: Schema = {**COLOUR, "default": "RED"}

CASES = [
    pytest.param(base(x=DECIMAL), base(x={**DECIMAL, "scale": 6}), "x", "logical type", id="scale of a decimal"),
    pytest.param(base(x=DECIMAL), base(x="bytes"), "x", "logical type", id="decimal to plain bytes"),
    pytest.param(
        base(x=MICROS), base(x={**MICROS, "logicalType": "timestamp-millis"}), "x", "logical type", id="unit of an instant"
    ),
    pytest.param(base(x="int"), base(x="long"), "x", "type changed", id="promotion breaks the other direction"),
    pytest.param(base(x="float"), base(x="double"), "x", "type changed", id="float to double"),
    pytest.param(base(x="string"), base(x=["null", "string"]), "x", "null", id="required to optional"),
    pytest.param(base(x=["null", "string"]), base(x="string"), "x", "null", id="optional to required"),
    pytest.param(base(x=["null", "string"]), base(x=["null", "long"]), "x", "not among", id="branch of a union"),
    pytest.param(
        base(x={"type": "array", "items": "string"}), base(x={"type": "array", "items": "long"}), "x[]", "type changed",
        id="items of a list",
    ),
    pytest.param(
        base(x={"type": "map", "values": "string"}), base(x={"type": "map", "values": "long"}), "x{}", "type changed",
        id="values of a mapping",
    ),
    pytest.param(base(x=PART), base(x=PART_MORE), "x.b", "no default", id="field of a nested record"),
    pytest.param(
        base(x={"type": "array", "items": PART}), base(x={"type": "array", "items": PART_MORE}), "x[].b", "no default",
        id="field of a record in a list",
    ),
    pytest.param(
        base(x=["null", PART]), base(x=["null", PART_MORE]), "x.b", "no default", id="field of an optional record"
    ),
    pytest.param(base(x=PART), base(x={**PART, "name": "Piece"}), "x", "renamed", id="name of a nested record"),
    pytest.param(
        base(x=COLOUR), base(x={**COLOUR, "symbols": ["RED", "GREEN", "BLUE"]}), "x", "BLUE", id="symbol of an enum"
    ),
    pytest.param(
        base(x={"type": "fixed", "name": "F", "size": 4}), base(x={"type": "fixed", "name": "F", "size": 8}), "x",
        "fixed changed", id="size of a fixed",
    ),
    pytest.param(base(x="string"), {**base(x="string"), "name": "Other"}, "Thing", "renamed", id="name of the record"),
    pytest.param(
        base(x="string"),
        {**base(), "fields": [{"name": "y", "aliases": ["x"], "type": "string"}]}, "x", "no default",
        id="an alias helps new readers, not old ones",
    ),
    pytest.param(
        base(x="string"), base(x="string", y={"type": ["null", "string"], "default": ""}), "y", "default ''",
        id="default of the wrong branch",
    ),
    pytest.param(
        base(x="string"), base(x="string", y={"type": "long", "default": "0"}), "y", "default '0'",
        id="default of the wrong type",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "field", "rule"), CASES)
def test_breaking_change_is_caught_with_field_and_rule(old: Schema, new: Schema, field: str, rule: str) -> None:
    found = check_versions("things", "Thing", {"v1": old, "v2": new})
    assert any(b.field == field and rule in b.rule for b in found), [str(b) for b in found]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(base(x="string"), base(x="string", y={"type": "long", "default": 0}), id="field with a default"),
        pytest.param(
            base(x="string"), base(x="string", y={"type": ["null", "string"], "default": None}), id="optional field"
        ),
        pytest.param(base(a="string", b="long"), base(b="long", a="string"), id="order of fields"),
        pytest.param(base(x=NOTED), base(x={**NOTED, "doc": "New."}), id="doc"),
        pytest.param(base(x=["null", "string"]), base(x=["string", "null"]), id="order of a union"),
        pytest.param(base(x="string"), base(x="bytes"), id="string and bytes, either way"),
        pytest.param(
            base(x=PART), base(x={**PART, "fields": [*PART["fields"], {"name": "b", "type": "string", "default": ""}]}),
            id="nested field with a default",
        ),
        pytest.param(
            base(x={"type": OPEN_COLOUR, "default": "RED"}),
            base(x={"type": {**OPEN_COLOUR, "symbols": ["RED", "BLUE"]}, "default": "RED"}),
            id="enums with a default",
        ),
    ],
)  # fmt: skip
def test_compatible_change_is_let_through(old: Schema, new: Schema) -> None:
    assert [str(b) for b in check_versions("things", "Thing", {"v1": old, "v2": new})] == []


def test_every_historic_version_counts_not_only_the_newest() -> None:
    versions = {
        "v1": base(x="string", note={"type": "string", "default": ""}),
        "v2": base(x="string"),
        "v3": base(x="string", note={"type": "long", "default": 0}),
    }
    found = check_versions("things", "Thing", versions)
    assert {(b.reader, b.writer) for b in found} == {("v1", "v3"), ("v3", "v1")}
    assert {b.field for b in found} == {"note"}


def test_record_class_is_a_reader_of_every_version() -> None:
    from dataclasses import replace

    topic = CATALOGUE.topics["alerts"]
    without_title = copy.deepcopy(dict(topic.versions[1]))
    without_title["fields"] = [field for field in without_title["fields"] if field["name"] != "title"]
    found = check_topic(replace(topic, versions={1: without_title}))
    assert ("title", "class", "v1") in [(b.field, b.reader, b.writer) for b in found]


def test_reference_to_a_type_that_is_gone_is_caught() -> None:
    found = check_versions("things", "Thing", {"v1": base(x=PART, y="Part"), "v2": base(y="Part")})
    assert ("y", "type Part is defined nowhere in its schema") in [(b.field, b.rule) for b in found]


def test_recursive_records_are_compared_once() -> None:
    tree = base(children={"type": "array", "items": "penstock.events.Thing"}, x="string")
    assert mismatches(tree, tree) == []
    other = copy.deepcopy(tree)
    other["fields"][1]["type"] = "long"
    assert [m.field for m in mismatches(other, tree)] == ["x"]


@pytest.mark.parametrize("topic", RECORDS.values(), ids=lambda topic: topic.schema)
def test_what_the_check_lets_through_an_avro_reader_reads(topic: Topic) -> None:
    """fastavro, which this check does not use, resolves every example across a compatible change, both ways."""
    old = topic.versions[topic.newest]
    new = copy.deepcopy(dict(old))
    new["fields"] = [
        *[f for f in new["fields"] if "default" not in f],
        {"name": "added", "type": ["null", "string"], "default": None, "doc": "New."},
    ]
    assert breaks(topic, new) == []
    own = [e for e in EXAMPLES if e.topic == topic.name]
    assert own
    for example in own:
        data = to_avro(example, old)
        assert read(new, old, data)["added"] is None
        kept = {field["name"] for field in new["fields"]} - {"added"}
        back = read(old, new, {name: data[name] for name in kept})
        assert {name: back[name] for name in kept} == {name: read(old, old, data)[name] for name in kept}


def read(reader: Schema, writer: Schema, data: Any) -> Any:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(dict(writer))), data)
    out.seek(0)
    return fastavro.schemaless_reader(
        out, fastavro.parse_schema(copy.deepcopy(dict(writer))), fastavro.parse_schema(copy.deepcopy(dict(reader)))
    )


def inline_names(schema: Schema, removed: Any) -> None:
    """Move the definitions of named types inside ``removed`` to where the rest of ``schema`` first refers to them."""
    defined: dict[str, Any] = {}

    def collect(node: Any) -> None:
        for one in node if isinstance(node, list) else [node]:
            if isinstance(one, dict):
                if one.get("type") == "record":
                    defined[one["name"]] = copy.deepcopy(one)
                for field in one.get("fields", []):
                    collect(field["type"])
                collect(one.get("items", one.get("values")))

    def place(node: Any) -> Any:
        if isinstance(node, str) and node in defined:
            return place(defined.pop(node))
        if isinstance(node, list):
            return [place(branch) for branch in node]
        if isinstance(node, dict):
            for field in node.get("fields", []):
                field["type"] = place(field["type"])
            for key in ("items", "values"):
                if key in node:
                    node[key] = place(node[key])
        return node

    collect(removed)
    for field in schema["fields"]:
        if field["type"] is not removed:
            field["type"] = place(field["type"])

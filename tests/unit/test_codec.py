"""The wire format: what is written is read back; what is hostile is named, never raised through."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.contracts.catalogue import Catalogue, CatalogueError
from penstock.contracts.codec import Codec, Invalid, Undecodable
from penstock.contracts.records import Context, Cost, LlmRequest, Message, Record, Sampling, Usage

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CATALOGUE = Catalogue.load()
CODEC = Codec.offline(CATALOGUE)

texts = st.text(max_size=80)
requests = st.builds(
    LlmRequest,
    event_id=texts,
    request_id=texts,
    tenant_id=texts,
    occurred_at=st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)),
    causation_id=texts,
    conversation_id=st.none() | texts,
    prompt_variables=st.dictionaries(texts, texts, max_size=3),
    messages=st.lists(st.builds(Message, role=texts, content=texts, name=st.none() | texts), max_size=3),
    sampling=st.builds(
        Sampling,
        temperature=st.none() | st.floats(allow_nan=False),
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        stop=st.lists(texts, max_size=2),
    ),
    stream=st.booleans(),
)


def a_request(**changes: Any) -> LlmRequest:
    fields: dict[str, Any] = {
        "event_id": "e", "request_id": "r", "tenant_id": "t", "occurred_at": NOW, "causation_id": "",
        "messages": [Message(role="user", content="hello")],
    }  # fmt: skip
    return LlmRequest(**fields | changes)


@given(requests)
def test_what_is_encoded_is_decoded(request: LlmRequest) -> None:
    assert CODEC.decode("llm-requests", CODEC.encode("llm-requests", request)) == request


@given(st.decimals(min_value=0, max_value=10**20, places=12))
def test_money_is_exact_to_twelve_places(amount: Decimal) -> None:
    cost = Cost(
        event_id="e", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="", context=Context(requested_at=NOW),
        model="m", priced=True, amount=amount, usage=Usage(),
    )  # fmt: skip
    decoded = CODEC.decode("costs", CODEC.encode("costs", cost))
    assert isinstance(decoded, Cost)
    assert decoded.amount == amount


def test_money_with_a_thirteenth_place_is_refused_not_rounded() -> None:
    cost = Cost(
        event_id="e", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="", context=Context(requested_at=NOW),
        model="m", priced=True, amount=Decimal("0.0000000000001"),
    )  # fmt: skip
    with pytest.raises(Invalid, match="costs: Cost does not fit its schema"):
        CODEC.encode("costs", cost)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_undecodable(value: bytes) -> None:
    try:
        CODEC.decode("llm-requests", value)
    except Undecodable as error:
        assert error.code
        assert error.reason


@given(requests, st.data())
def test_a_flipped_or_cut_message_never_raises_anything_else(request: LlmRequest, data: st.DataObject) -> None:
    value = bytearray(CODEC.encode("llm-requests", request))
    place = data.draw(st.integers(0, len(value) - 1))
    damaged = bytes(value[:place]) if data.draw(st.booleans()) else bytes(value[:place] + b"\xff" + value[place + 1 :])
    try:
        CODEC.decode("llm-requests", damaged)
    except Undecodable as error:
        assert error.code in {"truncated", "wrong_magic_byte", "unknown_schema_id", "malformed_avro", "invalid_record"}


GOOD = CODEC.encode("llm-requests", a_request())


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        (None, "no_value", "tombstone"),
        (b"", "truncated", "too few"),
        (b"\x00\x00\x00", "truncated", "too few"),
        (b"{" + GOOD[1:], "wrong_magic_byte", "0x7b"),
        (struct.pack(">bI", 0, 999_999) + GOOD[5:], "unknown_schema_id", "999999"),
        (GOOD[:-3], "malformed_avro", "does not fit"),
        (GOOD + b"\x00", "malformed_avro", "1 bytes are left"),
        (struct.pack(">bI", 0, CODEC.schema_id("costs")) + GOOD[5:], "wrong_schema", "Cost"),
    ],
)
def test_hostile_values_are_named(value: bytes | None, code: str, words: str) -> None:
    with pytest.raises(Undecodable, match=words) as caught:
        CODEC.decode("llm-requests", value)
    assert caught.value.code == code


def test_a_record_of_another_topic_is_refused() -> None:
    with pytest.raises(Invalid, match="llm-results carries LlmResult, not LlmRequest"):
        CODEC.encode("llm-results", a_request())


def test_a_topic_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(CatalogueError, match=r"no topic 'nope'.*llm-requests"):
        CATALOGUE.topic("nope")


class _Registry:
    """A registry with one later version of llm-requests, which may be away."""

    def __init__(self, later: Mapping[str, Any]) -> None:
        self.away = False
        self.later = later
        self.asked = 0
        self._ids = {t.subject: {i: t.versions[t.newest]} for i, t in enumerate(CATALOGUE.topics.values(), start=1)}

    def subject_ids(self, subject: str) -> Mapping[int, Mapping[str, Any]]:
        return self._ids[subject]

    def schema(self, schema_id: int) -> Mapping[str, Any] | None:
        self.asked += 1
        if self.away:
            raise ConnectionError("connection refused")
        return self.later if schema_id == 5000 else None


def _later_version() -> dict[str, Any]:
    schema: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(CATALOGUE.topic("llm-requests").versions[1]))
    schema["fields"].append({"name": "later", "type": "string", "default": "", "doc": "Added after this reader."})
    return schema


def test_a_newer_writers_record_is_read_with_the_fields_this_reader_knows() -> None:
    import io

    import fastavro

    registry = _Registry(_later_version())
    codec = Codec(CATALOGUE, registry)
    out = io.BytesIO()
    plain = msgspec.to_builtins(a_request(), builtin_types=(datetime, bytes, Decimal)) | {"later": "x"}
    fastavro.schemaless_writer(out, fastavro.parse_schema(_later_version()), plain)
    value = struct.pack(">bI", 0, 5000) + out.getvalue()
    assert codec.decode("llm-requests", value) == a_request()
    codec.decode("llm-requests", value)
    assert registry.asked == 1


def test_an_unknown_id_is_not_asked_for_again_at_once() -> None:
    now = [0.0]
    registry = _Registry(_later_version())
    codec = Codec(CATALOGUE, registry, clock=lambda: now[0])
    value = struct.pack(">bI", 0, 4242)
    for _ in range(3):
        with pytest.raises(Undecodable, match="4242"):
            codec.decode("llm-requests", value)
    assert registry.asked == 1
    now[0] = 31.0
    with pytest.raises(Undecodable, match="4242"):
        codec.decode("llm-requests", value)
    assert registry.asked == 2


def test_the_registry_being_away_stops_nothing_that_was_known_at_start() -> None:
    registry = _Registry(_later_version())
    codec = Codec(CATALOGUE, registry)
    registry.away = True
    assert codec.decode("llm-requests", codec.encode("llm-requests", a_request())) == a_request()
    with pytest.raises(Undecodable, match="registry is away"):
        codec.decode("llm-requests", struct.pack(">bI", 0, 7777))


def test_an_unregistered_version_is_refused_at_start() -> None:
    class Old(_Registry):
        def subject_ids(self, subject: str) -> Mapping[int, Mapping[str, Any]]:
            return {1: self.later} if subject == "llm-requests-value" else super().subject_ids(subject)

    with pytest.raises(Invalid, match="penstock schemas apply"):
        Codec(CATALOGUE, Old(_later_version()))


def test_every_topic_carries_a_record() -> None:
    assert all(issubclass(topic.record, Record) for topic in CATALOGUE.topics.values())

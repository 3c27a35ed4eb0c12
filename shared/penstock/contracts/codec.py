"""Records to bytes and back, in Confluent's wire format: a zero byte, the schema's id (4 bytes, big-endian), Avro."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import fastavro
import msgspec

from penstock.contracts.catalogue import Catalogue, Topic
from penstock.contracts.records import Record

__all__ = ["Codec", "Invalid", "SchemaSource", "Undecodable"]

_HEADER = struct.Struct(">bI")
_NATIVE = (datetime, Decimal, bytes)
# An unknown id is asked for again after this long: a newer writer's schema may have been registered meanwhile, and a
# flood of junk ids must not become a flood of look-ups.
_RETRY_UNKNOWN_S = 30.0
_MAX_UNKNOWN = 1024


class Undecodable(Exception):
    """A value cannot be decoded; ``code`` is for machines, the message names cause and remedy."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Invalid(ValueError):
    """A record does not fit its schema; the message names topic and cause."""


class SchemaSource(Protocol):
    """Where schema ids are looked up."""

    def subject_ids(self, subject: str) -> Mapping[int, Mapping[str, Any]]:
        """Return every registered version of a subject: id -> schema, oldest first. Raises on an unknown subject."""
        ...

    def schema(self, schema_id: int) -> Mapping[str, Any] | None:
        """Return the schema of an id; None where the registry knows none. Raises OSError where it cannot be reached."""
        ...


class _TopicCodec:
    """What one topic needs, resolved once."""

    def __init__(self, topic: Topic, ids: Mapping[int, Mapping[str, Any]]) -> None:
        self.topic = topic
        self.reader = fastavro.parse_schema(dict(topic.versions[topic.newest]))
        self.decoder: Callable[[Any], Record] = _converter(topic.record)
        self.writers: dict[int, Any] = {}
        self.write_id = 0
        for schema_id, schema in ids.items():
            self.add(schema_id, schema)
        own = _canonical(topic.versions[topic.newest])
        matching = [schema_id for schema_id, schema in ids.items() if _canonical(schema) == own]
        if not matching:
            raise Invalid(
                f"version {topic.newest} of {topic.schema} is not registered under {topic.subject}; "
                "run `penstock schemas apply`"
            )
        self.write_id = matching[-1]
        self.header = _HEADER.pack(0, self.write_id)

    def add(self, schema_id: int, schema: Mapping[str, Any]) -> None:
        """Remember a writer's schema. The newest own version needs no resolution and is marked by None."""
        same = _canonical(schema) == _canonical(self.topic.versions[self.topic.newest])
        self.writers[schema_id] = None if same else fastavro.parse_schema(dict(schema))


class Codec:
    """Encodes and decodes the records of every topic. Ids are resolved once, at start."""

    def __init__(self, catalogue: Catalogue, source: SchemaSource, clock: Callable[[], float] = time.monotonic) -> None:
        self.catalogue = catalogue
        self._source = source
        self._clock = clock
        self._topics = {
            name: _TopicCodec(topic, source.subject_ids(topic.subject)) for name, topic in catalogue.topics.items()
        }
        self._unknown: dict[int, float] = {}

    @classmethod
    def offline(cls, catalogue: Catalogue) -> Codec:
        """Return a codec with ids of its own, for tests without a registry."""
        return cls(catalogue, _Enumerated(catalogue))

    @classmethod
    async def resolve(cls, catalogue: Catalogue, registry_url: str, timeout_s: float = 30.0) -> Codec:
        """Look every id up in the registry at ``registry_url``, waiting up to ``timeout_s`` for it to answer.

        Raises:
            penstock.contracts.registry.RegistryError: it cannot be reached, or a schema is not registered.
        """
        from penstock.contracts.registry import resolve_source

        return cls(catalogue, await resolve_source(catalogue, registry_url, timeout_s))

    def schema_id(self, topic: str) -> int:
        """Return the id under which records of ``topic`` are written."""
        return self._topics[topic].write_id

    def encode(self, topic: str, record: Record) -> bytes:
        """Return ``record`` as a message value for ``topic``.

        Raises:
            Invalid: it is not the topic's record or does not fit the schema.
        """
        codec = self._topics[topic]
        if type(record) is not codec.topic.record:
            raise Invalid(f"{topic} carries {codec.topic.record.__name__}, not {type(record).__name__}")
        out = io.BytesIO()
        out.write(codec.header)
        try:
            fastavro.schemaless_writer(out, codec.reader, msgspec.to_builtins(record, builtin_types=_NATIVE))
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise Invalid(f"{topic}: {type(record).__name__} does not fit its schema: {error}") from error
        return out.getvalue()

    def readable(self, topic: str, value: bytes | None) -> Record | None:
        """Return the record in a message value of ``topic``; None where there is none that can be read.

        For readers of what others wrote, who look for something and need not tell of the rest.
        """
        try:
            return self.decode(topic, value)
        except Undecodable:
            return None

    def decode(self, topic: str, value: bytes | None) -> Record:
        """Return the record in a message value of ``topic``.

        Raises:
            Undecodable: wrong magic byte, unknown schema id, truncated or malformed Avro.
        """
        codec = self._topics[topic]
        if value is None:
            raise Undecodable("no_value", f"{topic}: the message has no value; produce a record, not a tombstone")
        if len(value) < _HEADER.size:
            raise Undecodable("truncated", f"{topic}: {len(value)} bytes are too few for the wire format's header")
        magic, schema_id = _HEADER.unpack_from(value)
        if magic != 0:
            raise Undecodable(
                "wrong_magic_byte",
                f"{topic}: first byte is 0x{magic & 0xFF:02x}, not 0x00; use a Confluent-compatible Avro serializer",
            )
        if schema_id not in codec.writers:
            codec.add(schema_id, self._look_up(topic, schema_id))
        writer = codec.writers[schema_id]
        data = io.BytesIO(value)
        data.seek(_HEADER.size)
        try:
            plain = (
                fastavro.schemaless_reader(data, codec.reader, None)
                if writer is None
                else fastavro.schemaless_reader(data, writer, codec.reader)
            )
        except Exception as error:
            # fastavro raises whatever its C code meets on hostile bytes (EOFError, IndexError, UnicodeDecodeError,
            # OverflowError, MemoryError, ...): all of them say the same here.
            raise Undecodable(
                "malformed_avro",
                f"{topic}: schema id {schema_id} does not fit the bytes: {type(error).__name__}: {error}",
            ) from error
        if data.tell() != len(value):
            raise Undecodable(
                "malformed_avro",
                f"{topic}: {len(value) - data.tell()} bytes are left after the record of id {schema_id}",
            )
        try:
            return codec.decoder(plain)
        except msgspec.ValidationError as error:
            raise Undecodable("invalid_record", f"{topic}: {error}") from error

    def _look_up(self, topic: str, schema_id: int) -> Mapping[str, Any]:
        now = self._clock()
        if now - self._unknown.get(schema_id, float("-inf")) < _RETRY_UNKNOWN_S:
            raise _unknown(topic, schema_id)
        try:
            schema = self._source.schema(schema_id)
        except OSError as error:
            raise Undecodable(
                "unknown_schema_id",
                f"{topic}: schema id {schema_id} was not known at start and the registry is away ({error}); "
                "replay the dead letter when it is back",
            ) from error
        if schema is None:
            if len(self._unknown) >= _MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown[schema_id] = now
            raise _unknown(topic, schema_id)
        name = str(schema.get("name", "")).rpartition(".")[2]
        if name != self.catalogue.topics[topic].record.__name__:
            raise Undecodable(
                "wrong_schema", f"{topic}: schema id {schema_id} is a {name}, which {topic} does not carry"
            )
        return schema


def _unknown(topic: str, schema_id: int) -> Undecodable:
    return Undecodable(
        "unknown_schema_id",
        f"{topic}: the registry knows no schema id {schema_id}; register the schema before producing with it",
    )


def _converter(record: type[Record]) -> Callable[[Any], Record]:
    def convert(plain: Any) -> Record:
        return msgspec.convert(plain, record, builtin_types=_NATIVE)

    return convert


def _canonical(schema: Mapping[str, Any]) -> str:
    return str(fastavro.schema.to_parsing_canonical_form(fastavro.parse_schema(dict(schema))))


class _Enumerated:
    """Ids counted up over the catalogue, oldest version first."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._by_subject: dict[str, dict[int, Mapping[str, Any]]] = {}
        counter = 0
        for topic in catalogue.topics.values():
            ids: dict[int, Mapping[str, Any]] = {}
            for number in sorted(topic.versions):
                counter += 1
                ids[counter] = topic.versions[number]
            self._by_subject[topic.subject] = ids

    def subject_ids(self, subject: str) -> Mapping[int, Mapping[str, Any]]:
        return self._by_subject[subject]

    def schema(self, schema_id: int) -> Mapping[str, Any] | None:
        return next((ids[schema_id] for ids in self._by_subject.values() if schema_id in ids), None)

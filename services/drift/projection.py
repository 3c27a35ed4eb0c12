"""From one event of the flow to its records on ``signals``, pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock.bus import Emit
from penstock.contracts.envelope import derive
from penstock.contracts.records import (
    Completion,
    Context,
    Cost,
    Evaluation,
    LlmResult,
    Purpose,
    Record,
    Signal,
    Verdict,
)

from services.drift.signals import REPEATED, SIGNALS, SOURCES, Definition, Level, Scale, definition, segment_of

__all__ = ["InvalidEmbedding", "Text", "family_of", "project", "texts", "vector_of", "versions_of"]

_DECLARED = frozenset(each.name for each in SIGNALS) | REPEATED
_NOTHING: Mapping[str, str | bytes] = {}
# A level's ordinal is part of the identity of its record.
_LEVELS: tuple[Level, ...] = ("model", "route", "team")


class InvalidEmbedding(ValueError):
    """An event's embedding is no vector of float32."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text of an event, and the signal that is made of it: its language or its embedding, by the scale."""

    signal: str
    scale: Scale
    content: str


@dataclass(frozen=True, slots=True)
class _Readings:
    """The signals of one event at one level, by name."""

    values: dict[str, float]
    categories: dict[str, str]
    vectors: dict[str, bytes]


def texts(topic: str, record: Record) -> list[Text]:
    """Return the texts of an event that signals are made of; empty ones are left out, and what is no traffic."""
    if not _is_traffic(record):
        return []
    found = [(each, each.text(record)) for each in SOURCES[topic] if each.text is not None]
    return [Text(each.name, each.scale, content) for each, content in found if content and content.strip()]


def project(
    topic: str, partition: int, offset: int, record: Record, of_texts: Mapping[str, str | bytes] = _NOTHING
) -> list[Emit]:
    """Return the signals of one event of the flow: one record for each level it has signals of, or none.

    What was asked for a judge or for a golden set is no traffic, and has none: its volume follows sampling rates and runs.

    Args:
        topic: where the event was read, one of ``signals.SOURCES``.
        partition: its partition.
        offset: its offset.
        record: the event.
        of_texts: by signal, the language or the embedding of the event's texts, as far as they were read.

    Raises:
        InvalidEmbedding: the event carries bytes that are no embedding.
    """
    found = _readings(topic, record, of_texts) if _is_traffic(record) else {}
    if not found:
        return []
    versions = versions_of(record)
    emits = []
    for ordinal, level in enumerate(_LEVELS):
        read = found.get(level)
        if read is None:
            continue
        for vector in read.vectors.values():
            vector_of(vector)
        segment = segment_of(record, getattr(record, "context", None), level)
        signal = Signal(
            # Not the moment of projection: a replay then writes the same bytes.
            **derive(record, "drift.signal", ordinal, record.occurred_at),
            segment=segment,
            source=topic,
            source_partition=partition,
            source_offset=offset,
            values=read.values,
            categories=read.categories,
            vectors=read.vectors,
            versions=versions,
            conversation_id=getattr(getattr(record, "context", None), "conversation_id", None),
        )
        emits.append(Emit("signals", family_of(segment), signal))
    return emits


def _is_traffic(record: Record) -> bool:
    said: Context | Verdict | None = record if isinstance(record, Verdict) else getattr(record, "context", None)
    return said is None or said.purpose == Purpose.SERVE


def _readings(topic: str, record: Record, of_texts: Mapping[str, str | bytes]) -> dict[Level, _Readings]:
    """Return the signals of one event, in their own units, by level."""
    found: dict[Level, _Readings] = {}
    for each in SOURCES[topic]:
        value = each.read(record) if each.read is not None else of_texts.get(each.name)
        if value is not None:
            _put(found, each, each.name, value)
    if isinstance(record, Evaluation):
        for score in record.scores:
            name = f"{score.subject}.{score.name}"
            if name not in _DECLARED:
                _put(found, definition(name), name, score.score)
    return found


def _put(found: dict[Level, _Readings], defined: Definition, name: str, value: float | str | bytes) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        return
    here = found.setdefault(defined.level, _Readings({}, {}, {}))
    if isinstance(value, bytes):
        here.vectors[name] = value
    elif isinstance(value, str):
        here.categories[name] = value
    else:
        here.values[name] = value


def versions_of(record: Record) -> dict[str, str]:
    """Return what was in force at an event, by name: a new version is a likely cause of a change.

    ``model`` is the model as it names itself, ``request_model`` as the route names it, ``prompt`` and ``policy`` are content
    hashes, ``price`` that of the price, ``embedder`` the model behind the question's vector, ``evaluator.<name>`` that of
    a score (without what the evaluator learned since, which moves with every label).
    """
    context: Context | None = getattr(record, "context", None)
    found: dict[str, str | None] = {}
    if context is not None:
        found |= {"prompt": context.prompt_version, "policy": context.policy_version}
    match record:
        case Completion():
            found |= {"model": record.model, "request_model": record.request_model, "embedder": record.embedder}
        case Cost():
            found |= {"model": record.response_model, "request_model": record.model, "price": record.price_version}
        case Evaluation():
            found["model"] = record.model
            found |= {f"evaluator.{score.name}": score.version.partition("+")[0] for score in record.scores}
        case LlmResult():
            found["model"] = record.model
        case Verdict():
            found["policy"] = record.policy_version
        case _:
            pass
    return {name: version for name, version in found.items() if version}


def family_of(segment: str) -> str:
    """Return ``team|route`` of a segment: the key of its records, which keeps the segments of a route in one order."""
    team, _, _, route = segment.split("|")
    return f"{team}|{route}"


def vector_of(embedding: bytes) -> NDArray[np.float32]:
    """Return an embedding as an array of shape (1, dimensions).

    Raises:
        InvalidEmbedding: the bytes are no float32 little-endian vector with a direction.
    """
    if not embedding or len(embedding) % 4:
        raise InvalidEmbedding(
            f"an embedding of {len(embedding)} bytes: float32 little-endian is needed, so a multiple of 4; "
            "check the embedder that wrote it"
        )
    vector = np.frombuffer(embedding, "<f4")[None]
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise InvalidEmbedding("an embedding is zero or not finite; check the embedder that wrote it")
    return vector

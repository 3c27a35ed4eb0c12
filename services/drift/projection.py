"""From one event of the flow to its record on ``signals``, pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from penstock.bus import Emit
from penstock.contracts.envelope import derive
from penstock.contracts.records import Record, Signal

from services.drift.signals import EMBEDDING_SIGNAL, embedding_of, figures, segment_of

__all__ = ["InvalidEmbedding", "family_of", "project", "vector_of"]


class InvalidEmbedding(ValueError):
    """An event's embedding is no vector of float32."""


def project(topic: str, partition: int, offset: int, record: Record) -> list[Emit]:
    """Return the signals of one event of the flow: one record with all its figures, or none.

    Raises:
        InvalidEmbedding: the event carries bytes that are no embedding.
    """
    values = figures(topic, record)
    embedding = embedding_of(record)
    if embedding is not None:
        vector_of(embedding)
    if not values and embedding is None:
        return []
    segment = segment_of(record, record.context)  # type: ignore[attr-defined]
    signal = Signal(
        # Not the moment of projection: a replay then writes the same bytes.
        **derive(record, "drift.signal", 0, record.occurred_at),
        segment=segment,
        source=topic,
        source_partition=partition,
        source_offset=offset,
        values=values,
        vectors={} if embedding is None else {EMBEDDING_SIGNAL: embedding},
    )
    return [Emit("signals", family_of(segment), signal)]


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

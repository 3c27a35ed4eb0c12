"""Drift, pure: what becomes signals, and what a segment's signals make of its state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
from penstock.bus import Emit, Message
from penstock.contracts.envelope import derive
from penstock.contracts.records import Record, Signal
from penstock.stateful import Logic, Lookup

from services.drift import scalar, topic
from services.drift.features import fourier_features
from services.drift.signals import EMBEDDING_SIGNAL, definition, embedding_of, figures, segment_of
from services.drift.verdicts import Change, Evidence, announce, of_scalar, of_topic

__all__ = ["InvalidEmbedding", "Observed", "Parameters", "SegmentState", "logic", "project", "route", "step"]

_TRAIL = 96
_SAMPLES = 5


class InvalidEmbedding(ValueError):
    """An event's embedding is no vector of float32."""


class Parameters(msgspec.Struct, frozen=True):
    """How all detectors are set."""

    topic: topic.TopicParameters = topic.TopicParameters()
    scalar: scalar.ScalarParameters = scalar.ScalarParameters()
    idle: timedelta = timedelta(days=14)
    """A segment without an event for so long is forgotten."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A request of the segment and where its signal stands."""

    offset: int
    request_id: str


class SegmentState(msgspec.Struct, frozen=True):
    """What is kept of one segment: under 100 KB however long it runs."""

    last_seen: datetime
    signals: dict[str, scalar.ScalarState] = {}
    topic: topic.TopicState = topic.TopicState()
    dimensions: int = 0
    """Length of the embeddings; another one is another embedder, and the reference starts anew."""
    first: tuple[Sample, ...] = ()
    """The first requests of the segment since its topic last changed."""
    recent: tuple[Sample, ...] = ()


class Observed(NamedTuple):
    """A signal event and where it stands in the log."""

    record: Signal
    partition: int
    offset: int


def project(topic_name: str, partition: int, offset: int, record: Record) -> list[Emit]:
    """Return the signals of one event of the flow: one record with all its figures, or none.

    Raises:
        InvalidEmbedding: the event carries bytes that are no embedding.
    """
    values = figures(topic_name, record)
    embedding = embedding_of(record)
    if embedding is not None:
        _vector(embedding)
    if not values and embedding is None:
        return []
    segment = segment_of(record, record.context)  # type: ignore[attr-defined]
    signal = Signal(
        # Not the moment of projection: a replay then writes the same bytes.
        **derive(record, "drift.signal", 0, record.occurred_at),
        segment=segment,
        source=topic_name,
        source_partition=partition,
        source_offset=offset,
        values=values,
        vectors={} if embedding is None else {EMBEDDING_SIGNAL: embedding},
    )
    team, _, _, route_name = segment.split("|")
    return [Emit("signals", f"{team}|{route_name}", signal)]


def route(record: Signal, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Observed]]:
    """Send each signal event to its segment."""
    yield record.segment, Observed(record, message.partition, message.offset)


def step(
    state: SegmentState | None, event: Observed, now: datetime, parameters: Parameters
) -> tuple[SegmentState, Sequence[Emit]]:
    """Take one signal event into its segment's state; a change that is confirmed gives a drift event and, where it is
    large enough to matter, an alert.

    Raises:
        InvalidEmbedding: the event carries bytes that are no embedding.
    """
    state = state or SegmentState(last_seen=now)
    record, offset = event.record, event.offset
    first, recent = _sampled(state, Sample(offset, record.request_id))
    changes: list[Change] = []

    signals = dict(state.signals)
    for name, value in record.values.items():
        defined = definition(name)
        seen = defined.transform(value)
        if seen is None:
            continue
        signals[name], shift = scalar.observe(signals.get(name, scalar.ScalarState()), seen, offset, parameters.scalar)
        if shift is not None:
            changes.append(of_scalar(name, shift, parameters.scalar))

    topics, dimensions = state.topic, state.dimensions
    embedding = record.vectors.get(EMBEDDING_SIGNAL, record.embedding)
    if embedding is not None:
        vector = _vector(embedding)
        if vector.shape[1] != dimensions:
            topics, dimensions = topic.TopicState(), vector.shape[1]
        topics, topic_shift = topic.observe(topics, fourier_features(vector)[0], offset, parameters.topic)
        if topic_shift is not None:
            changes.append(of_topic(EMBEDDING_SIGNAL, topic_shift, parameters.topic))

    emits: list[Emit] = []
    for change in changes:
        evidence = _evidence(event, change.test_first_offset, change.reference_first_offset, first, recent)
        emits += announce(record, change, evidence, now)
    if any(change.signal == EMBEDDING_SIGNAL for change in changes):
        first = recent[-_SAMPLES:]
    # Events of one segment may reach the log out of order; its clock never runs back.
    last_seen = max(state.last_seen, now)
    return SegmentState(last_seen, signals, topics, dimensions, first, recent), emits


def logic(parameters: Parameters) -> Logic[SegmentState, Observed]:
    """Return the stateful processor's pure part."""
    return Logic(
        step=partial(step, parameters=parameters),
        route=route,
        state_type=SegmentState,
        expires_at=lambda key, state: state.last_seen + parameters.idle,
    )


def _vector(embedding: bytes) -> Any:
    """Return an embedding as an array of shape (1, dimensions)."""
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


def _sampled(state: SegmentState, sample: Sample) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Remember the request, once: several events of one request follow each other closely."""
    if any(each.request_id == sample.request_id for each in state.recent[-32:]):
        return state.first, state.recent
    first = (*state.first, sample) if len(state.first) < _SAMPLES else state.first
    return first, (*state.recent, sample)[-_TRAIL:]


def _evidence(
    event: Observed, test_first: int, reference_first: int, first: Sequence[Sample], recent: Sequence[Sample]
) -> Evidence:
    before = [each.request_id for each in recent if each.offset < test_first][-_SAMPLES:]
    after = [each.request_id for each in recent if each.offset >= test_first][-_SAMPLES:]
    return Evidence(
        partition=event.partition,
        reference_first=reference_first,
        test_first=test_first,
        last=event.offset,
        sample_before=before or [each.request_id for each in first if each.offset < test_first],
        sample_after=after,
    )

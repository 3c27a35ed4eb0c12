"""The detectors of one segment together, pure: each signal of an event goes to the one that watches its kind of value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from penstock.contracts.records import Signal

from services.drift.detection import categories, scalar, seasonal, topic
from services.drift.detection.features import fourier_features
from services.drift.detection.outliers import Burst
from services.drift.detection.shift import Shift
from services.drift.detection.trials import evidence
from services.drift.projection import vector_of
from services.drift.signals import EMBEDDING_SIGNAL, definition

__all__ = [
    "MOST_SIGNALS", "Detectors", "Found", "Parameters", "VectorState", "count_of", "handed_down", "has", "moving", "observe",
    "rebased", "replaced", "with_reference",
]  # fmt: skip

MOST_SIGNALS = 96
"""Signals of one segment; what comes beyond is not watched, so that no writer of scores makes a state grow without end."""
_FADE = 1 / 16
_LIKELY = 3.0
# Categories behind those that chose the cells before they are called a reference.
_LEAST = 40
_CONVERSATIONS, _DIGEST = 128, 8


class Parameters(msgspec.Struct, frozen=True):
    """How the detectors are set."""

    # Nothing is granted beside the budget.
    scalar: scalar.ScalarParameters = scalar.ScalarParameters(granted=0)
    topic: topic.TopicParameters = topic.TopicParameters(advance=0)
    categories: categories.CategoryParameters = categories.CategoryParameters()
    seasonal: bool = True
    """Whether numbers are watched as what they differ from the usual of their hour of the week."""


class VectorState(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a signal of embeddings."""

    dimensions: int
    """Length of the embeddings; another one is another embedder, and the reference starts anew."""
    topic: topic.TopicState


class Detectors(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of all signals of a segment, by name."""

    numbers: dict[str, scalar.ScalarState] = {}
    vectors: dict[str, VectorState] = {}
    categories: dict[str, categories.CategoryState] = {}
    profiles: dict[str, seasonal.Profile] = {}
    newest: dict[str, float] = {}
    """Of each number a mean of its newest values that forgets (weight 1/16), on the detector's scale."""
    conversations: bytes = b""
    """Digests of the newest conversations whose vectors were watched, eight bytes each, the newest last."""

    def __contains__(self, signal: object) -> bool:
        return signal in self.numbers or signal in self.vectors or signal in self.categories

    def __iter__(self) -> Iterator[str]:
        yield from self.numbers
        yield from self.vectors
        yield from self.categories

    def __len__(self) -> int:
        return len(self.numbers) + len(self.vectors) + len(self.categories)


class Found(NamedTuple):
    """A confirmed change of a signal."""

    signal: str
    shift: Shift


def count_of(record: Signal) -> int:
    """Return how many signals an event has."""
    return len(record.values) + len(record.categories) + len(_vectors(record))


def observe(
    detectors: Detectors, record: Signal, offset: int, at: datetime, allowance: float, parameters: Parameters
) -> tuple[Detectors, list[Found]]:
    """Show an event's signals to their detectors.

    Args:
        detectors: what is known so far; not changed.
        record: the event.
        offset: where it stands in its partition.
        at: when it occurred, for the hour of the week.
        allowance: expected false alarms that each of its values may cause.
        parameters: how the detectors are set.

    Raises:
        services.drift.projection.InvalidEmbedding: a vector is none.
        ValueError: a number does not fit its signal's scale.
    """
    numbers, profiles, newest = dict(detectors.numbers), dict(detectors.profiles), dict(detectors.newest)
    vectors, mixtures = dict(detectors.vectors), dict(detectors.categories)

    def is_full() -> bool:
        return len(numbers) + len(vectors) + len(mixtures) >= MOST_SIGNALS

    found: list[Found] = []
    for name, value in record.values.items():
        if name not in numbers and is_full():
            continue
        defined = definition(name)
        scale, seen = defined.scale, defined.transform(value)
        if seen is None or scale == "category" or scale == "vector":
            continue
        if parameters.seasonal:
            profiles[name], seen = seasonal.adjusted(profiles.get(name), seen, at, scale=scale)
        numbers[name], shift = scalar.observe(
            numbers.get(name, scalar.ScalarState()),
            seen,
            offset,
            parameters.scalar,
            allowance,
            scale=scale,
            river=defined.river,
        )
        newest[name] = newest[name] + (seen - newest[name]) * _FADE if name in newest else seen
        if shift is not None:
            found.append(Found(name, shift))

    conversations, is_told = _noted(detectors.conversations, record)
    for name, packed in _vectors(record).items():
        if is_told:
            continue
        known = vectors.get(name)
        if known is None and is_full():
            continue
        vector = vector_of(packed)
        if known is None or known.dimensions != vector.shape[1]:
            known = VectorState(vector.shape[1], topic.TopicState())
        state, shift = topic.observe(known.topic, fourier_features(vector)[0], offset, parameters.topic, allowance)
        vectors[name] = VectorState(known.dimensions, state)
        if shift is not None:
            found.append(Found(name, shift))

    for name, category in record.categories.items():
        if name not in mixtures and is_full():
            continue
        mixtures[name], shift = categories.observe(
            mixtures.get(name, categories.CategoryState()), category, offset, parameters.categories, allowance
        )
        if shift is not None:
            found.append(Found(name, shift))
    return Detectors(numbers, vectors, mixtures, profiles, newest, conversations), found


def _noted(conversations: bytes, record: Signal) -> tuple[bytes, bool]:
    """Return the conversations with that of an event, and whether its vectors were watched before.

    The messages of a conversation are about one thing. Taken one by one they would look like a change to that thing, as
    long as they come: so of each conversation the first is watched.
    """
    if record.conversation_id is None or not _vectors(record):
        return conversations, False
    digest = blake2b(record.conversation_id.encode(), digest_size=_DIGEST).digest()
    known = [conversations[place : place + _DIGEST] for place in range(0, len(conversations), _DIGEST)]
    if digest in known:
        return conversations, True
    return b"".join([*known, digest][-_CONVERSATIONS:]), False


def rebased(detectors: Detectors, signal: str) -> Detectors:
    """Return the detectors for which the present of a signal is its baseline."""
    replace = msgspec.structs.replace
    if signal in detectors.numbers:
        state = scalar.rebased(detectors.numbers[signal])
        return replace(detectors, numbers={**detectors.numbers, signal: state})
    if signal in detectors.vectors:
        known = detectors.vectors[signal]
        state_now = VectorState(known.dimensions, topic.rebased_now(known.topic))
        return replace(detectors, vectors={**detectors.vectors, signal: state_now})
    if signal in detectors.categories:
        mixture = categories.rebased(detectors.categories[signal])
        return replace(detectors, categories={**detectors.categories, signal: mixture})
    return detectors


def replaced(detectors: Detectors, given: Detectors, signal: str) -> Detectors:
    """Return the detectors with the state of a signal as it is ``given``; the wealth stays where it was earned."""
    replace = msgspec.structs.replace
    if signal in given.numbers:
        own = detectors.numbers.get(signal)
        state = replace(given.numbers[signal], wealth=0.0 if own is None else own.wealth)
        detectors = replace(detectors, numbers={**detectors.numbers, signal: state})
        if signal in given.profiles:
            detectors = replace(detectors, profiles={**detectors.profiles, signal: given.profiles[signal]})
    if signal in given.vectors:
        known = detectors.vectors.get(signal)
        wealth = 0.0 if known is None else known.topic.wealth
        vector = replace(given.vectors[signal], topic=replace(given.vectors[signal].topic, wealth=wealth))
        detectors = replace(detectors, vectors={**detectors.vectors, signal: vector})
    if signal in given.categories:
        mixture = detectors.categories.get(signal)
        spared = replace(given.categories[signal], wealth=0.0 if mixture is None else mixture.wealth)
        detectors = replace(detectors, categories={**detectors.categories, signal: spared})
    return detectors


def handed_down(detectors: Detectors) -> Detectors:
    """Return what a segment hands to the one that replaces it: references and profiles, shared and not copied.

    No wealth, which would be spent twice; no candidate, whose alpha was paid for one judgement; no past regimes, since
    what the new segment is compared with is the present of the old one.
    """
    return Detectors(
        numbers={
            name: msgspec.structs.replace(state, wealth=0.0, level=None, spread=None, regimes=())
            for name, state in detectors.numbers.items()
        },
        vectors={
            name: VectorState(
                state.dimensions,
                msgspec.structs.replace(state.topic, wealth=0.0, trials=(), regimes=(), regime=-1, burst=Burst()),
            )
            for name, state in detectors.vectors.items()
        },
        categories={
            name: msgspec.structs.replace(categories.inherited(state), regimes=())
            for name, state in detectors.categories.items()
        },
        profiles=detectors.profiles,
        newest=detectors.newest,
        conversations=detectors.conversations,
    )


def with_reference(detectors: Detectors) -> Detectors:
    """Return the detectors of the signals that have seen enough to have a reference."""
    numbers = {name: state for name, state in detectors.numbers.items() if scalar.level_of(state) is not None}
    return Detectors(
        numbers=numbers,
        vectors={name: state for name, state in detectors.vectors.items() if state.topic.reference.absorbed},
        categories={
            name: state
            for name, state in detectors.categories.items()
            if state.windows is not None and state.windows.weight >= _LEAST
        },
        profiles={name: profile for name, profile in detectors.profiles.items() if name in numbers},
        newest={name: newest for name, newest in detectors.newest.items() if name in numbers},
    )


def moving(detectors: Detectors, signal: str) -> bool:
    """Tell whether a signal seems to have moved though nothing is confirmed so far: the newest mean of a number lies a
    deviation off, or the evidence about a candidate stands at 3 nats (20 to 1)."""
    if signal in detectors.numbers:
        level = scalar.level_of(detectors.numbers[signal])
        return level is not None and abs(detectors.newest[signal] - level[0]) >= max(level[1], 1e-12)
    if signal in detectors.vectors:
        return any(evidence(trial) >= _LIKELY for trial in detectors.vectors[signal].topic.trials)
    mixture = detectors.categories.get(signal)
    return mixture is not None and mixture.pending is not None and max(mixture.pending.logs) >= _LIKELY


def has(record: Signal, signal: str) -> bool:
    """Tell whether an event has a signal."""
    return signal in record.values or signal in record.categories or signal in _vectors(record)


def _vectors(record: Signal) -> Mapping[str, bytes]:
    """Return an event's embeddings by signal; those of the first version of the record stood alone."""
    if record.embedding is not None and EMBEDDING_SIGNAL not in record.vectors:
        return {**record.vectors, EMBEDDING_SIGNAL: record.embedding}
    return record.vectors

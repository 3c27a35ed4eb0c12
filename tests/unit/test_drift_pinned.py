"""What is pinned comes from a topic that people write to: broken, it is refused, and what passes stops no segment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import msgspec
import numpy as np
import pytest
from penstock.contracts.records import Signal

from services.drift.commands import InvalidCommand, decode, pinned_reference
from services.drift.core import Observed
from services.drift.detectors import MOST_SIGNALS, Detectors, Parameters
from tests.unit.drift_partition import Partition, a_command, a_signal

PARAMETERS = Parameters()


def _records(first: int, last: int) -> Iterator[Signal]:
    rng = np.random.default_rng(first)
    for number in range(first, last):
        vector = rng.normal(size=16).astype("<f4").tobytes()
        yield a_signal(
            number, {"model.latency_ms": float(rng.lognormal(5, 0.3))},
            vectors={"prompt.topic": vector}, categories={"prompt.language": str(rng.choice(["en", "de", "fr"]))},
        )  # fmt: skip


@cache
def _reference() -> bytes:
    period = [Observed(record, 2, record.source_offset) for record in _records(0, 400)]
    return pinned_reference(period, PARAMETERS)


def _survives(reference: bytes) -> None:
    """Pin it and go on until windows are full and references grow."""
    run = Partition().take(_records(1_000, 1_020)).take([a_command("pin", reference=reference)])
    run.take(_records(1_020, 1_340))
    assert run.segment().last_offset == 1_339


def test_a_whole_reference_is_taken() -> None:
    assert set(decode(_reference())) == {"model.latency_ms", "prompt.topic", "prompt.language"}
    _survives(_reference())


@pytest.mark.parametrize("seed", range(12))
def test_bytes_that_were_changed_are_refused_or_do_no_harm(seed: int) -> None:
    rng = random.Random(seed)
    taken: list[bytes] = []
    for _ in range(150):
        changed = bytearray(_reference())
        for _ in range(rng.choice([1, 1, 2, 8])):
            # Most of it is features of messages, of which any byte is one: what is around them matters.
            place = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(2_000)
            changed[place] = rng.randrange(256)
        try:
            decode(bytes(changed))
        except InvalidCommand:
            continue
        taken.append(bytes(changed))
    for reference in taken[:2]:
        _survives(reference)


def _states(detectors: Detectors) -> list[tuple[str, Detectors]]:
    replace = msgspec.structs.replace
    number = detectors.numbers["model.latency_ms"]
    vector = detectors.vectors["prompt.topic"]
    mixture = detectors.categories["prompt.language"]
    assert mixture.windows is not None
    assert number.coding is not None

    def of_number(**changes: object) -> Detectors:
        return replace(detectors, numbers={"model.latency_ms": replace(number, **changes)})

    def of_topic(**changes: object) -> Detectors:
        return replace(
            detectors, vectors={"prompt.topic": replace(vector, topic=replace(vector.topic, **changes))}
        )  # fmt: skip

    cut = replace(vector.topic.reference, scatter=vector.topic.reference.scatter[:-4])
    counts = replace(mixture.windows, total=mixture.windows.total[8:])
    return [
        ("a cut window", of_number(window=number.window[:-1])),
        ("no window", of_number(window=b"")),
        ("a window without end", of_number(window=number.window * 2)),
        ("no offsets", of_number(marks=())),
        ("no number", of_number(coding=replace(number.coding, location=float("nan")))),
        ("no scale", of_number(coding=replace(number.coding, scale=0.0))),
        ("blocks without offsets", of_number(moments=replace(number.moments, offsets=()))),
        ("less than independent", of_number(inflation=(0.0, 1.0))),
        ("a cut scatter", of_topic(reference=cut)),
        ("messages without offsets", of_topic(offsets=b"")),
        ("no weight", of_topic(reference=replace(vector.topic.reference, weight=0.0))),
        ("no dimensions", replace(detectors, vectors={"prompt.topic": replace(vector, dimensions=0)})),
        ("cut counts", replace(detectors, categories={"prompt.language": replace(mixture, windows=counts)})),
        ("too many", replace(detectors, numbers={f"a{each}": number for each in range(MOST_SIGNALS + 1)})),
    ]


@pytest.mark.parametrize("place", range(14))
def test_states_whose_parts_do_not_fit_are_refused(place: int) -> None:
    _, broken = _states(decode(_reference()))[place]
    packed = msgspec.msgpack.encode({"format": 1, "detectors": broken})
    with pytest.raises(InvalidCommand, match="penstock drift pin"):
        decode(packed)


def test_candidates_of_a_reference_are_left_out() -> None:
    detectors = decode(_reference())
    number = msgspec.structs.replace(detectors.numbers["model.latency_ms"], wealth=1e9)
    packed = msgspec.msgpack.encode({"format": 1, "detectors": Detectors(numbers={"model.latency_ms": number})})
    assert decode(packed).numbers["model.latency_ms"].wealth == 0.0


def test_one_event_cannot_bring_more_signals_than_a_segment_has() -> None:
    many = {f"score{each}": 0.5 for each in range(300)}
    vectors = {f"vector{each}": np.ones(8, "<f4").tobytes() for each in range(300)}
    run = Partition().take(a_signal(number, many, vectors=vectors) for number in range(2))
    assert len(run.segment().detectors) == MOST_SIGNALS

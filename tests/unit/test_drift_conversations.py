"""Messages of one conversation are about one thing: they say once what a segment is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import Signal

from services.drift.detectors import Detectors, Parameters, observe

AT = datetime(2026, 1, 5, tzinfo=UTC)


def a_signal(offset: int, conversation: str | None, **changes: Any) -> Signal:
    vector = np.random.default_rng(offset).standard_normal(16).astype("<f4")
    fields = {
        "event_id": f"e{offset}", "request_id": f"r{offset}", "tenant_id": "t", "occurred_at": AT, "causation_id": "",
        "segment": "t|m|-|r", "source": "completions", "source_partition": 0, "source_offset": offset,
        "values": {"prompt.tokens": 12.0}, "vectors": {"prompt.topic": vector.tobytes()}, "conversation_id": conversation,
    }  # fmt: skip
    return Signal(**{**fields, **changes})


def watched(signals: list[Signal]) -> Detectors:
    detectors = Detectors()
    for offset, signal in enumerate(signals):
        detectors, _ = observe(detectors, signal, offset, AT, 2e-5, Parameters())
    return detectors


def messages(detectors: Detectors) -> int:
    return detectors.vectors["prompt.topic"].topic.seen


def test_of_a_conversation_the_first_message_is_watched_for_topics_and_each_for_numbers() -> None:
    detectors = watched([a_signal(offset, "c-1" if offset < 5 else "c-2") for offset in range(8)])
    assert messages(detectors) == 2
    assert detectors.numbers["prompt.tokens"].seen == 8


def test_without_a_conversation_each_message_stands_for_itself() -> None:
    assert messages(watched([a_signal(offset, None) for offset in range(8)])) == 8


def test_an_event_without_a_vector_does_not_hide_the_one_with_it() -> None:
    assert messages(watched([a_signal(0, "c-1", vectors={}), a_signal(1, "c-1")])) == 1


@given(st.lists(st.integers(0, 400), max_size=600))
def test_what_is_remembered_of_conversations_is_bounded(conversations: list[int]) -> None:
    detectors = Detectors()
    for offset, each in enumerate(conversations):
        signal = a_signal(offset, str(each), vectors={"prompt.topic": b"\x00\x00\x80?" * 2}, values={})
        detectors, _ = observe(detectors, signal, offset, AT, 2e-5, Parameters())
    assert len(detectors.conversations) <= 128 * 8
    if conversations:
        again = a_signal(len(conversations), str(conversations[-1]))
        assert observe(detectors, again, len(conversations), AT, 2e-5, Parameters())[0].conversations == (
            detectors.conversations
        )

"""Identities: the same for the same step, different for every other."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.envelope import event_id

steps = st.tuples(st.uuids().map(str), st.sampled_from(["intake", "guardrails.in", "cost"]), st.integers(0, 50))


@given(steps)
def test_a_replay_gives_the_same_identity(step: tuple[str, str, int]) -> None:
    assert event_id(*step) == event_id(*step)
    assert uuid.UUID(event_id(*step)).version == 5


@given(st.text(), st.text(), st.integers())
def test_an_identity_is_that_of_the_standard_library(cause: str, stage: str, ordinal: int) -> None:
    namespace = uuid.UUID("8f3d6d52-3d0e-5a3c-9c5e-6a1f6a4b9f10")
    assert event_id(cause, stage, ordinal) == str(uuid.uuid5(namespace, f"{cause}/{stage}/{ordinal}"))


@given(st.sets(steps, min_size=2))
def test_other_steps_give_other_identities(steps: set[tuple[str, str, int]]) -> None:
    assert len({event_id(*step) for step in steps}) == len(steps)

"""What every pure step keeps, whichever service it belongs to.

A step is deterministic; a replay gives the same identities, so it adds nothing to a sink that upserts by them; it changes
none of its arguments; its state is JSON-able and goes on from its serialised form as if nothing had happened; and what it
emits fits a topic that its service writes.
"""

from __future__ import annotations

import copy
import itertools
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from penstock.bus import Emit, Message
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Record
from penstock.stateful import Logic

from tests.contract.step_cases import START, StatefulCase, StatelessCase, stateful_cases, stateless_cases

STATELESS = list(stateless_cases())
STATEFUL = list(stateful_cases())

by_stateless = pytest.mark.parametrize("case", STATELESS, ids=lambda case: case.name.replace(" ", "-"))
by_stateful = pytest.mark.parametrize("case", STATEFUL, ids=lambda case: case.name)


def identities(emits: Sequence[Emit]) -> list[tuple[str, str, str]]:
    return [(emit.topic, emit.key, emit.record.event_id) for emit in emits]


def check_emits(emits: Sequence[Emit], service: str, catalogue: Catalogue, codec: Codec) -> None:
    for emit in emits:
        topic = catalogue.topics[emit.topic]
        assert service in topic.writers, f"{service} emits to {emit.topic}, which is written by {topic.writers}"
        assert isinstance(emit.key, str)
        assert emit.key
        assert codec.decode(emit.topic, codec.encode(emit.topic, emit.record)) == emit.record
        assert emit.record.event_id != emit.record.causation_id
    repeated = [
        identity for identity, count in Counter((e.topic, e.record.event_id) for e in emits).items() if count > 1
    ]
    assert not repeated, f"different events share an identity, so a sink would lose all but one: {repeated[:3]}"


# -- stateless -------------------------------------------------------------------------------------------------------


@by_stateless
def test_stateless_step_is_deterministic(case: StatelessCase) -> None:
    assert case.step(case.cause, START) == case.step(copy.deepcopy(case.cause), START)


@by_stateless
def test_stateless_step_emits_something(case: StatelessCase) -> None:
    assert case.step(case.cause, START), "a case without output would prove nothing"


@by_stateless
def test_later_replay_of_a_stateless_step_adds_nothing(case: StatelessCase) -> None:
    # Replays come later than the first time: the clock has moved on, the identities have not.
    first = identities(case.step(case.cause, START))
    replayed = identities(case.step(case.cause, START + timedelta(milliseconds=40)))
    assert first == replayed


@by_stateless
def test_stateless_step_changes_nothing_it_was_given(case: StatelessCase) -> None:
    before = copy.deepcopy(case.cause)
    case.step(case.cause, START)
    assert case.cause == before


@by_stateless
def test_events_of_a_stateless_step_fit_its_topics_and_name_their_cause(
    case: StatelessCase, catalogue: Catalogue, codec: Codec
) -> None:
    emits = case.step(case.cause, START)
    check_emits(emits, case.service, catalogue, codec)
    for emit in emits:
        assert emit.record.causation_id == case.cause.event_id
        assert emit.record.request_id == case.cause.request_id
        assert emit.record.tenant_id == case.cause.tenant_id


# -- stateful --------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """The shell in small: states by key, one message after another."""

    logic: Logic[Any, Any]
    states: dict[str, Any] = field(default_factory=dict)
    emits: list[Emit] = field(default_factory=list)

    def take(self, feed: Sequence[tuple[str, Record]], first_offset: int = 0) -> Run:
        for offset, (topic, record) in enumerate(feed, start=first_offset):
            message = message_of(topic, record, offset)
            for key, event in list(self.logic.route(record, message, self.states.get)):
                state, emits = self.step(self.states.get(key) if key is not None else None, event, record)
                self.emits += emits
                if key is not None:
                    self.put(key, state)
        return self

    def step(self, state: Any, event: Any, record: Record) -> tuple[Any, Sequence[Emit]]:
        return self.logic.step(state, event, record.occurred_at)

    def put(self, key: str, state: Any) -> None:
        if state is None:
            self.states.pop(key, None)
        else:
            self.states[key] = state


def message_of(topic: str, record: Record, offset: int) -> Message:
    return Message(topic, 0, offset, int(record.occurred_at.timestamp() * 1000), b"key", b"")


def stored(states: dict[str, Any]) -> dict[str, bytes]:
    return {key: msgspec.msgpack.encode(state) for key, state in sorted(states.items())}


def reloaded(states: dict[str, Any], logic: Logic[Any, Any], form: Any) -> dict[str, Any]:
    return {key: form.decode(form.encode(state), type=logic.state_type) for key, state in states.items()}


@by_stateful
def test_stateful_step_is_deterministic(case: StatefulCase) -> None:
    one, other = Run(case.logic()).take(case.feed()), Run(case.logic()).take(case.feed())
    assert one.emits
    assert one.emits == other.emits
    assert stored(one.states) == stored(other.states)


@by_stateful
def test_identities_of_a_run_are_unique_and_its_events_fit_their_topics(
    case: StatefulCase, catalogue: Catalogue, codec: Codec
) -> None:
    check_emits(Run(case.logic()).take(case.feed()).emits, case.service, catalogue, codec)


@by_stateful
@pytest.mark.parametrize("form", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
def test_run_goes_on_from_its_serialised_state_as_if_never_interrupted(case: StatefulCase, form: Any) -> None:
    feed = list(case.feed())
    whole = Run(case.logic()).take(feed)
    cut = len(feed) * 3 // 5
    before = Run(case.logic()).take(feed[:cut])
    logic = case.logic()
    after = Run(logic, reloaded(before.states, logic, form)).take(feed[cut:], cut)
    assert before.emits + after.emits == whole.emits
    assert stored(after.states) == stored(whole.states)


@by_stateful
def test_replay_from_the_last_checkpoint_adds_nothing(case: StatefulCase) -> None:
    """After a crash the messages since the checkpoint come again, on the state of the checkpoint."""
    feed = list(case.feed())
    cut, crash = len(feed) // 2, len(feed) * 3 // 4
    checkpoint = Run(case.logic()).take(feed[:cut])
    kept = reloaded(checkpoint.states, checkpoint.logic, msgspec.msgpack)
    lost = Run(case.logic(), dict(checkpoint.states)).take(feed[cut:crash], cut)
    replayed = Run(case.logic(), kept).take(feed[cut:], cut)
    sink = {(emit.topic, emit.record.event_id): emit.record for emit in checkpoint.emits + lost.emits}
    again = {(emit.topic, emit.record.event_id): emit.record for emit in replayed.emits}
    assert {identity: sink[identity] for identity in sink.keys() & again.keys()} == {
        identity: again[identity] for identity in sink.keys() & again.keys()
    }
    whole = Run(case.logic()).take(feed)
    assert sink.keys() | again.keys() == {(emit.topic, emit.record.event_id) for emit in whole.emits}


class Watching(Run):
    """A run that compares a step's arguments before and after."""

    checked = 0

    def step(self, state: Any, event: Any, record: Record) -> tuple[Any, Sequence[Emit]]:
        packed, given = msgspec.msgpack.encode(state), copy.deepcopy((event, record))
        outcome = super().step(state, event, record)
        assert msgspec.msgpack.encode(state) == packed, "the step changed the state it was given"
        assert (event, record) == given, "the step changed the event it was given"
        self.checked += 1
        return outcome


@by_stateful
def test_stateful_step_changes_nothing_it_was_given(case: StatefulCase) -> None:
    run = Watching(case.logic())
    run.take(case.feed())
    assert run.checked > 0


@by_stateful
def test_states_expire_by_event_time_alone(case: StatefulCase) -> None:
    run = Run(case.logic()).take(case.feed())
    if run.logic.expires_at is not None:
        for key, state in run.states.items():
            first, second = run.logic.expires_at(key, state), run.logic.expires_at(key, state)
            assert first == second
            assert first is None or first.tzinfo is not None


# -- the suite itself ------------------------------------------------------------------------------------------------


def faulty(step: Any, state_type: Any = dict[str, int]) -> StatefulCase:
    """A processor of signals that keeps none of the rules that ``step`` breaks."""
    logic: Logic[Any, Any] = Logic(
        step=step, route=lambda record, message, lookup: [("key", record)], state_type=state_type
    )
    feed = next(case.feed for case in STATEFUL if case.name == "drift")
    return StatefulCase("faulty", "drift", lambda: logic, lambda: feed()[:20])


def emitted(record: Record, identity: str) -> list[Emit]:
    return [Emit("signals", "key", msgspec.structs.replace(record, event_id=identity))]


def random_identity(state: Any, event: Any, now: Any) -> Any:
    return state or {"n": 0}, emitted(event, str(uuid.uuid4()))


def shared_identity(state: Any, event: Any, now: Any) -> Any:
    return state or {"n": 0}, emitted(event, "always the same")


def changed_in_place(state: Any, event: Any, now: Any) -> Any:
    state = state if state is not None else {"n": 0}
    state["n"] += 1
    return state, emitted(event, f"{event.event_id}/{state['n']}")


def remembered_outside() -> Any:
    count = itertools.count()

    def step(state: Any, event: Any, now: Any) -> Any:
        return {"n": 0}, emitted(event, f"{event.event_id}/{next(count)}")

    return step


def lost_in_storage(state: Any, event: Any, now: Any) -> Any:
    seen = state["seen"] if state else ()
    text = "tuple" if isinstance(seen, tuple) else "list"
    return {"seen": (*seen, 1)}, emitted(event, f"{event.event_id}/{text}")


@pytest.mark.parametrize(
    ("step", "rule"),
    [
        (random_identity, test_stateful_step_is_deterministic),
        (random_identity, test_replay_from_the_last_checkpoint_adds_nothing),
        (changed_in_place, test_stateful_step_changes_nothing_it_was_given),
        (remembered_outside(), test_stateful_step_is_deterministic),
    ],
)
def test_suite_notices_a_step_that_breaks_a_rule(step: Any, rule: Any) -> None:
    with pytest.raises(AssertionError):
        rule(faulty(step))


def test_suite_notices_a_state_that_storage_changes() -> None:
    with pytest.raises(AssertionError):
        test_run_goes_on_from_its_serialised_state_as_if_never_interrupted(faulty(lost_in_storage, Any), msgspec.json)


def test_suite_notices_identities_that_collide_and_topics_that_are_not_ours(catalogue: Catalogue, codec: Codec) -> None:
    rule = test_identities_of_a_run_are_unique_and_its_events_fit_their_topics
    with pytest.raises(AssertionError, match="share an identity"):
        rule(faulty(shared_identity), catalogue, codec)
    with pytest.raises(AssertionError, match="intake emits to signals, which is written by"):
        check_emits(emitted(STATEFUL[-1].feed()[0][1], "x"), "intake", catalogue, codec)

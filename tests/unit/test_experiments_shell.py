"""The logic of experiments in the shell that runs it: events that come twice and crashes change nothing."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.contracts.records import ExperimentEvent
from penstock.stateful.entries import EntryCodec, state_key

from services.evaluation.experiments import core
from services.evaluation.experiments.state import Standing
from tests.unit.experiment_cases import an_experiment, requests
from tests.unit.stateful_fakes import CODEC, Broker, BrokerAway, processor_of, run

TOPIC = "experiment-observations"
RUNNING = an_experiment()
SOURCE = [CODEC.encode(TOPIC, observation) for observation in requests(RUNNING, 200, better=0.3, users=150)]


async def after(source: list[bytes | None], crashes: list[int]) -> tuple[Standing, dict[str, Any], int]:
    """The state, the events by identity and their number after a run that the broker ends so many times."""
    broker = Broker(source=source, topic=TOPIC)
    for takes in [*crashes, None]:
        broker.takes = float("inf") if takes is None else takes
        try:
            await run(processor_of(broker, core.experiments({RUNNING.name: RUNNING}.get)), broker, checkpoint_every=40)
        except BrokerAway:
            continue
    contents: dict[bytes, bytes] = {}
    await broker.restore(contents)
    key = state_key(0, core.state_key(RUNNING.team, RUNNING.name, RUNNING.design))
    state: Standing = EntryCodec(Standing).unpack(contents[key])[1]
    told = [record for topic, _, record in broker.outputs if topic == "experiment-events"]
    events: dict[str, ExperimentEvent] = {}
    for record in told:
        assert isinstance(record, ExperimentEvent)
        assert events.setdefault(record.event_id, record) == record, "a repetition says the same"
    return state, events, len(told)


@settings(max_examples=4, deadline=None)
@given(crashes=st.lists(st.integers(1, 30), max_size=3))
async def test_a_broker_that_goes_away_at_any_time_changes_nothing(crashes: list[int]) -> None:
    whole, broken = await after(list(SOURCE), []), await after(list(SOURCE), crashes)
    assert whole[:2] == broken[:2]
    assert whole[2] == len(whole[1]) >= 1


@settings(max_examples=3, deadline=None)
@given(twice=st.lists(st.tuples(st.integers(0, len(SOURCE) - 1), st.integers(0, 60)), max_size=40))
async def test_events_that_come_twice_change_nothing(twice: list[tuple[int, int]]) -> None:
    """As a hop writes them that was killed before it could commit: later, and at other offsets."""
    repeated: list[bytes | None] = []
    due: dict[int, list[bytes]] = {}
    for index, later in twice:
        due.setdefault(min(index + later, len(SOURCE) - 1), []).append(SOURCE[index])
    for index, message in enumerate(SOURCE):
        repeated += [message, *due.get(index, [])]

    def plain(state: Standing) -> Standing:
        return msgspec.structs.replace(state, evidence=None, newest=None)

    def said(events: dict[str, Any]) -> list[Any]:
        return [msgspec.structs.replace(e, evidence=[], occurred_at=None) for e in events.values()]

    once, again = await after(list(SOURCE), []), await after(repeated, [])
    assert plain(once[0]) == plain(again[0])
    assert said(once[1]) == said(again[1])

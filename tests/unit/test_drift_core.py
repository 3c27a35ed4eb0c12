"""Drift's core: what becomes a signal, and the step over a segment's state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.bus import Emit, Message
from penstock.contracts.codec import Codec
from penstock.contracts.records import (
    Alert,
    Completion,
    Context,
    Cost,
    DriftEvent,
    Evaluation,
    Finding,
    Passage,
    Record,
    Score,
    ScreenedRequest,
    Signal,
    Timings,
    Usage,
)
from penstock.contracts.records import Message as ChatMessage

from services.drift.core import InvalidEmbedding, Observed, Parameters, SegmentState, logic, project, route, step
from services.drift.signals import SIGNALS, SOURCES, definition, figures, segment_of

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CONTEXT = Context(route="default", prompt_version="v1", requested_at=NOW)
PARAMETERS = Parameters()
ENVELOPE = {"event_id": "e1", "request_id": "r1", "tenant_id": "support", "occurred_at": NOW, "causation_id": "c1"}
VECTOR = np.arange(1, 9, dtype="<f4").tobytes()

COMPLETION = Completion(
    **ENVELOPE,
    context=CONTEXT,
    messages=[],
    model="extractive",
    backend="extractive",
    content="yes",
    passages=[Passage(passage_id=str(score), document_id="d", text="t", score=score) for score in (0.4, 0.7)],
    usage=Usage(input_tokens=30, output_tokens=3),
    timings=Timings(model_us=1500),
    grounding="grounded",
    embedding=VECTOR,
)
COST = Cost(**ENVELOPE, context=CONTEXT, model="extractive", priced=True, amount=Decimal("0.00000125"))
EVALUATION = Evaluation(
    **ENVELOPE,
    context=CONTEXT,
    model="extractive",
    status="completed",
    scores=[
        Score(name="toxicity", subject="prompt", score=0.02),
        Score(name="groundedness", subject="answer", score=0.9),
    ],
)
SCREENED = ScreenedRequest(
    **ENVELOPE,
    context=CONTEXT,
    messages=[ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content="hello")],
    action="mask",
    findings=[Finding(scanner="pii", kind="EMAIL_ADDRESS", score=1.0, action="mask")],
)


def test_the_figures_of_every_source() -> None:
    assert figures("completions", COMPLETION) == {
        "prompt.tokens": 30,
        "answer.tokens": 3,
        "answer.truncated": 0,
        "model.error": 0,
        "model.latency_ms": 1.5,
        "retrieval.score": 0.7,
        "retrieval.empty": 0,
    }
    assert figures("costs", COST) == {"cost.usd": 1.25e-6}
    assert figures("evaluations", EVALUATION) == {
        "result.withheld": 0,
        "prompt.toxicity": 0.02,
        "answer.groundedness": 0.9,
    }
    assert figures("requests-screened", SCREENED) == {"prompt.characters": 5, "prompt.flagged": 1, "prompt.pii": 1}


def test_what_an_event_does_not_say_is_left_out() -> None:
    failed = msgspec.structs.replace(COMPLETION, error="away", passages=[], grounding="off")
    assert figures("completions", failed) == {
        "prompt.tokens": 30,
        "answer.truncated": 0,
        "model.error": 1,
    }
    assert figures("costs", msgspec.structs.replace(COST, priced=False, amount=None)) == {}
    assert figures("costs", msgspec.structs.replace(COST, kind="judge")) == {}


def test_every_declared_signal_is_told_apart_and_comes_from_a_source() -> None:
    assert len({each.name for each in SIGNALS}) == len(SIGNALS)
    assert {each.source for each in SIGNALS} == set(SOURCES)
    assert all(definition(each.name) is each for each in SIGNALS)
    assert definition("answer.groundedness").scale == "score"


def test_the_segment_names_team_model_prompt_version_and_route() -> None:
    assert segment_of(COMPLETION, CONTEXT) == "support|extractive|v1|default"
    plain = msgspec.structs.replace(CONTEXT, prompt_version=None)
    assert segment_of(SCREENED, plain) == "support|*|-|default"
    odd = msgspec.structs.replace(COMPLETION, tenant_id="a|b")
    assert len(segment_of(odd, CONTEXT).split("|")) == 4


@pytest.mark.parametrize("record", [COMPLETION, COST, EVALUATION, SCREENED], ids=lambda record: type(record).__name__)
def test_projection_gives_one_signal_with_its_origin_and_again_the_same(record: Record, codec: Codec) -> None:
    topic = {"Completion": "completions", "Cost": "costs", "Evaluation": "evaluations"}.get(
        type(record).__name__, "requests-screened"
    )
    (emit,) = project(topic, 3, 41, record)
    assert project(topic, 3, 41, record) == [emit]
    signal = emit.record
    assert isinstance(signal, Signal)
    assert (emit.topic, emit.key) == ("signals", signal.segment)
    assert (signal.source, signal.source_partition, signal.source_offset) == (topic, 3, 41)
    assert signal.embedding == (VECTOR if record is COMPLETION else None)
    assert codec.decode("signals", codec.encode("signals", signal)) == signal


@pytest.mark.parametrize("embedding", [b"", b"abc", np.zeros(8, "<f4").tobytes(), np.full(8, np.nan, "<f4").tobytes()])
def test_an_embedding_that_is_none_is_refused(embedding: bytes) -> None:
    with pytest.raises(InvalidEmbedding, match="embedder"):
        project("completions", 0, 0, msgspec.structs.replace(COMPLETION, embedding=embedding))


def a_signal(number: int, values: dict[str, float], embedding: bytes | None = None) -> Observed:
    record = Signal(
        event_id=f"e{number}",
        request_id=f"r{number}",
        tenant_id="support",
        occurred_at=NOW,
        causation_id=f"c{number}",
        segment="support|extractive|v1|default",
        source="completions",
        source_partition=0,
        source_offset=number,
        values=values,
        embedding=embedding,
    )
    return Observed(record, 2, number * 3)


def feed(events: Sequence[Observed], state: SegmentState | None = None) -> tuple[SegmentState | None, list[Emit]]:
    emits: list[Emit] = []
    for event in events:
        state, outputs = step(state, event, NOW + timedelta(seconds=event.offset), PARAMETERS)
        emits += outputs
    return state, emits


def a_shift(signal: str, before: float, after: float, count: int = 300) -> list[Observed]:
    rng = np.random.default_rng(5)
    noise = np.exp(rng.normal(0, 0.3, count))
    return [a_signal(n, {signal: float((before if n < count // 2 else after) * noise[n])}) for n in range(count)]


def test_a_shift_gives_a_drift_event_and_its_alert_with_evidence(codec: Codec) -> None:
    _, emits = feed(a_shift("cost.usd", 1e-5, 3e-5))
    assert [emit.topic for emit in emits] == ["drift-events", "alerts"]
    event, alert = emits[0].record, emits[1].record
    assert isinstance(event, DriftEvent)
    assert isinstance(alert, Alert)
    for emit in emits:
        assert codec.decode(emit.topic, codec.encode(emit.topic, emit.record)) == emit.record
    assert (event.signal, event.kind, event.segment) == ("cost.usd", "cost", "support|extractive|v1|default")
    assert event.before["geometric_mean"] == pytest.approx(1e-5, rel=0.1)
    assert event.after["geometric_mean"] == pytest.approx(3e-5, rel=0.3)
    (reference,), (test,) = event.reference, event.test
    assert (reference.topic, reference.partition, reference.first_offset) == ("signals", 2, 0)
    assert reference.last_offset == test.first_offset - 1
    assert abs(test.first_offset - 450) <= 30, "offsets are three times the number; the change is at 150"
    assert test.last_offset == int(event.request_id[1:]) * 3
    assert all(int(sample[1:]) * 3 < test.first_offset for sample in event.sample_before)
    assert all(int(sample[1:]) * 3 >= test.first_offset for sample in event.sample_after)
    assert len(event.sample_before) == len(event.sample_after) == 5
    assert (alert.kind, alert.name, alert.causation_id) == ("drift", "cost_usd_shift", event.event_id)
    assert alert.runbook == "services/alerting/runbooks/drift.md"
    assert alert.evidence == [*event.reference, *event.test]
    assert alert.suggested_action
    assert emits[1].key == alert.fingerprint


def test_the_ranges_of_the_evidence_give_the_verdict_again() -> None:
    events = a_shift("cost.usd", 1e-5, 3e-5)
    _, emits = feed(events)
    event = emits[0].record
    assert isinstance(event, DriftEvent)
    within = [each for each in events if event.reference[0].first_offset <= each.offset <= event.test[0].last_offset]
    _, again = feed(within)
    assert again == emits


def test_a_change_too_small_to_matter_is_recorded_but_wakes_nobody() -> None:
    rng = np.random.default_rng(1)
    events = [
        a_signal(n, {"retrieval.score": 0.5 + (0.03 if n >= 300 else 0) + float(rng.normal(0, 0.01))})
        for n in range(400)
    ]
    _, emits = feed(events)
    assert [emit.topic for emit in emits] == ["drift-events"]


def test_a_new_topic_alerts_once_with_all_signals_in_one_event() -> None:
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((2, 384))

    def embedding(number: int) -> bytes:
        vector = centres[int(number >= 60)] + rng.standard_normal(384)
        return vector.astype("<f4").tobytes()

    events = [a_signal(n, {"prompt.tokens": 20 + n % 7}, embedding(n)) for n in range(120)]
    _, emits = feed(events)
    assert [emit.topic for emit in emits] == ["drift-events", "alerts"]
    event = emits[0].record
    assert isinstance(event, DriftEvent)
    assert (event.signal, event.kind) == ("prompt.topic", "data")
    assert 60 < int(event.request_id[1:]) < 100
    assert {int(sample[1:]) >= 60 for sample in event.sample_after} == {True}


def test_another_embedder_starts_anew_without_an_event() -> None:
    rng = np.random.default_rng(2)
    events = [
        a_signal(n, {}, (rng.standard_normal(384 if n < 80 else 256) + 1).astype("<f4").tobytes()) for n in range(160)
    ]
    state, emits = feed(events)
    assert emits == []
    assert state is not None
    assert (state.dimensions, state.topic.seen) == (256, 80)


def test_amounts_of_zero_and_unknown_scores_do_no_harm() -> None:
    state, emits = feed([a_signal(n, {"cost.usd": 0.0, "prompt.novelty": 0.5}) for n in range(50)])
    assert emits == []
    assert state is not None
    assert set(state.signals) == {"prompt.novelty"}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_step_is_deterministic_changes_nothing_it_is_given_and_survives_the_changelog(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    names = st.sampled_from(["cost.usd", "model.error", "prompt.toxicity", "model.latency_ms"])
    state: SegmentState | None = None
    for number in range(data.draw(st.integers(1, 70))):
        values = (
            data.draw(st.dictionaries(names, st.floats(0, 1e6), max_size=3)) if number % 10 == 0 else {"cost.usd": 1.0}
        )
        vector = rng.standard_normal(16).astype("<f4").tobytes() if number % 3 else None
        event = a_signal(number, values, vector)
        frozen = msgspec.msgpack.encode(state)
        after, emits = step(state, event, NOW, PARAMETERS)
        assert msgspec.msgpack.encode(state) == frozen
        restored = msgspec.msgpack.decode(frozen, type=SegmentState | None)
        assert step(restored, event, NOW, PARAMETERS) == (after, emits)
        assert msgspec.json.decode(msgspec.json.encode(after), type=SegmentState) == after
        state = after


def test_each_signal_goes_to_its_segment_and_idle_segments_expire() -> None:
    event = a_signal(7, {"cost.usd": 1.0})
    message = Message("signals", 2, 21, 0, b"k", b"v")
    assert list(route(event.record, message, lambda key: None)) == [(event.record.segment, event)]
    rules = logic(PARAMETERS)
    state, _ = feed([event])
    assert state is not None
    assert rules.expires_at is not None
    assert rules.expires_at("k", state) == NOW + timedelta(seconds=21, days=14)


def test_a_segment_stays_under_its_bound() -> None:
    rng = np.random.default_rng(3)
    state: SegmentState | None = None
    values = {each.name: 1.0 for each in SIGNALS} | {"prompt.toxicity": 0.1, "answer.toxicity": 0.1}
    for number in range(1500):
        noisy = {name: float(rng.random()) for name in values}
        state, _ = step(
            state, a_signal(number, noisy, rng.standard_normal(384).astype("<f4").tobytes()), NOW, PARAMETERS
        )
    assert len(msgspec.msgpack.encode(state)) < 100_000

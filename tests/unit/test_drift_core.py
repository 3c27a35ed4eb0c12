"""Drift's core: what the events of a partition make of its segments, and what is told of their changes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.bus import Message
from penstock.contracts.codec import Codec
from penstock.contracts.records import Signal

from services.drift.core import Observed, Rules, SegmentState, logic, observe, route
from services.drift.detection.shift import Shift
from services.drift.signals import SIGNALS
from services.drift.verdicts import RUNBOOK, described
from tests.unit.drift_partition import BEGIN, SEGMENT, Partition, a_signal

CHANGE = 200


def costs(count: int = 400, change: int = CHANGE, before: float = 1e-5, after: float = 3e-5) -> list[Signal]:
    """Signals of one number that triples; offsets are three times the number."""
    noise = np.exp(np.random.default_rng(5).normal(0, 0.3, count))
    return [
        msgspec.structs.replace(
            a_signal(n, {"cost.usd": float((before if n < change else after) * noise[n])}), source_offset=3 * n
        )
        for n in range(count)
    ]


def vector(rng: np.random.Generator, centre: np.ndarray) -> bytes:
    return bytes((centre + rng.standard_normal(len(centre))).astype("<f4").tobytes())


def test_a_shift_gives_a_drift_event_and_its_alert_with_evidence(codec: Codec) -> None:
    run = Partition().take(costs())
    assert [emit.topic for emit in run.emits] == ["drift-events", "alerts"]
    (event,), (alert,) = run.events, run.alerts
    for emit in run.emits:
        assert codec.decode(emit.topic, codec.encode(emit.topic, emit.record)) == emit.record
    assert (event.signal, event.kind, event.segment) == ("cost.usd", "cost", SEGMENT)
    assert (event.what, event.pattern, event.reference_mode, event.returned) == ("level", "abrupt", "baseline", False)
    assert event.before["geometric_mean"] == pytest.approx(1e-5, rel=0.1)
    assert event.after["geometric_mean"] == pytest.approx(3e-5, rel=0.3)
    assert event.statistic >= event.threshold
    assert event.alpha == pytest.approx(np.exp(-event.threshold))
    assert event.size == pytest.approx(np.log(3) / 0.3, rel=0.3)
    (reference,), (test,) = event.reference, event.test
    assert (reference.topic, reference.partition, reference.first_offset) == ("signals", 2, 0)
    assert reference.last_offset == test.first_offset - 1
    assert abs(test.first_offset - 3 * CHANGE) <= 30
    assert test.last_offset == int(event.request_id[1:]) * 3
    assert all(int(sample[1:]) * 3 < test.first_offset for sample in event.sample_before)
    assert all(int(sample[1:]) * 3 >= test.first_offset for sample in event.sample_after)
    assert len(event.sample_before) == len(event.sample_after) == 5
    assert event.contributions == {SEGMENT: 1.0}
    assert (alert.kind, alert.name, alert.causation_id) == ("drift", "cost_usd_shift", event.event_id)
    assert (alert.severity, alert.status) == ("warning", "firing")
    assert alert.runbook == "services/alerting/runbooks/drift.md"
    assert alert.evidence == [*event.reference, *event.test]
    assert alert.suggested_action
    assert run.emits[1].key == alert.fingerprint
    assert alert.labels["segment"] == SEGMENT
    assert alert.starts_at is not None
    assert abs(alert.starts_at - (BEGIN + timedelta(seconds=CHANGE))) <= timedelta(seconds=16)


def test_the_ranges_of_the_evidence_give_the_verdict_again() -> None:
    """What the event names of the log is enough: its records alone lead to the same event and the same alert."""
    run = Partition().take(costs())
    (event,) = run.events
    first, last = event.reference[0].first_offset, event.test[0].last_offset
    again = Partition().take(record for offset, record in run.taken if first <= offset <= last)
    assert again.emits == run.emits


def test_a_later_change_is_derived_again_from_its_own_ranges() -> None:
    """The reference of a second change begins behind the first one; what was earned before only moves the threshold."""
    noise = np.exp(np.random.default_rng(7).normal(0, 0.3, 900))
    level = np.where(np.arange(900) < 300, 1e-5, np.where(np.arange(900) < 600, 3e-5, 1e-4))
    run = Partition().take(a_signal(n, {"cost.usd": float(level[n] * noise[n])}) for n in range(900))
    second = run.events[1]
    assert 590 <= second.test[0].first_offset <= 620
    first, last = second.reference[0].first_offset, second.test[0].last_offset
    assert first >= 300, "nothing of before the first change is in the reference"
    (again,) = Partition().take(record for offset, record in run.taken if first <= offset <= last + 20).events
    assert (again.signal, again.what, again.kind) == (second.signal, second.what, second.kind)
    assert abs(again.test[0].first_offset - second.test[0].first_offset) <= 8
    assert again.after["geometric_mean"] == pytest.approx(second.after["geometric_mean"], rel=0.15)


def test_a_change_too_small_to_matter_is_recorded_but_wakes_nobody() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 500)
    run = Partition().take(
        a_signal(n, {"retrieval.score": 0.5 + (0.03 if n >= 300 else 0) + float(noise[n])}) for n in range(500)
    )
    assert [emit.topic for emit in run.emits] == ["drift-events"]


def topics(count: int = 140, change: int = 70, signal: str = "prompt.topic") -> list[Signal]:
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((2, 384))
    return [
        a_signal(n, {"prompt.tokens": 20 + n % 7}, vectors={signal: vector(rng, centres[int(n >= change)])})
        for n in range(count)
    ]


def test_a_new_topic_alerts_once() -> None:
    run = Partition().take(topics())
    assert [emit.topic for emit in run.emits] == ["drift-events", "alerts"]
    (event,) = run.events
    assert (event.signal, event.kind, event.what) == ("prompt.topic", "data", "topic")
    assert 70 < int(event.request_id[1:]) < 110
    assert {int(sample[1:]) >= 70 for sample in event.sample_after} == {True}
    assert run.alerts[0].name == "topic_shift"


def test_topics_of_prompts_and_answers_are_watched_apart() -> None:
    run = Partition().take(topics(signal="answer.topic"))
    (event,) = run.events
    assert (event.signal, event.kind) == ("answer.topic", "model")
    assert run.alerts[0].name == "answer_topic_shift"


def test_vectors_of_the_first_version_of_signals_are_still_read() -> None:
    old = [msgspec.structs.replace(each, vectors={}, embedding=each.vectors["prompt.topic"]) for each in topics()]
    assert [event.signal for event in Partition().take(old).events] == ["prompt.topic"]


def test_another_embedder_starts_anew_without_an_event() -> None:
    rng = np.random.default_rng(2)
    run = Partition().take(
        a_signal(n, vectors={"prompt.topic": vector(rng, np.ones(384 if n < 80 else 256))}) for n in range(160)
    )
    assert run.emits == []
    known = run.segment().detectors.vectors["prompt.topic"]
    assert (known.dimensions, known.topic.seen) == (256, 80)


def test_a_mixture_of_categories_that_changes_is_told_with_what_moved_most() -> None:
    dice = np.random.default_rng(3)
    run = Partition().take(
        a_signal(n, categories={"prompt.language": "fr" if dice.random() < (0.1 if n < 300 else 0.6) else "en"})
        for n in range(450)
    )
    event, alert = run.events[0], run.alerts[0]
    assert (event.what, event.kind, alert.name) == ("mixture", "data", "prompt_language_shift")
    assert event.before["fr"] == pytest.approx(0.1, abs=0.06)
    assert event.after["fr"] > 0.4
    assert "prompt.language" in alert.title


def test_what_guardrails_find_alerts_as_guardrail() -> None:
    dice = np.random.default_rng(4)
    run = Partition().take(
        a_signal(n, {"input.blocked": float(dice.random() < (0.05 if n < 400 else 0.5))}, segment="support|*|*|*")
        for n in range(600)
    )
    assert (run.events[0].kind, run.alerts[0].kind, run.alerts[0].name) == (
        "guardrail",
        "guardrail",
        "input_blocked_shift",
    )


def test_amounts_of_zero_and_unknown_scores_do_no_harm() -> None:
    run = Partition().take(a_signal(n, {"cost.usd": 0.0, "prompt.novelty": 0.5}) for n in range(50))
    assert run.emits == []
    assert set(run.segment().detectors.numbers) == {"prompt.novelty"}


def test_changes_of_one_moment_share_a_group_and_others_do_not() -> None:
    noise = np.exp(np.random.default_rng(8).normal(0, 0.2, (1200, 2)))

    def level(number: int) -> dict[str, float]:
        cost = 1e-5 * (3 if number >= 300 else 1) * (4 if number >= 900 else 1)
        tokens = 100 * (2.5 if number >= 300 else 1)
        return {"cost.usd": cost * noise[number, 0], "prompt.tokens": tokens * noise[number, 1]}

    run = Partition().take(a_signal(n, level(n)) for n in range(1200))
    firing = [alert for alert in run.alerts if alert.status == "firing"]
    assert [alert.labels["signal"] for alert in firing[:2]].count("cost.usd") == 1
    assert len(firing) == 3
    assert firing[0].labels["group"] == firing[1].labels["group"] != firing[2].labels["group"]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_step_is_deterministic_changes_nothing_it_is_given_and_survives_the_changelog(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    names = st.sampled_from(["cost.usd", "prompt.toxicity", "model.latency_ms"])
    state: SegmentState | None = None
    for number in range(data.draw(st.integers(1, 70))):
        values = (
            data.draw(st.dictionaries(names, st.floats(0, 1e6), max_size=3)) if number % 10 == 0 else {"cost.usd": 1.0}
        )
        vectors = {"prompt.topic": rng.standard_normal(16).astype("<f4").tobytes()} if number % 3 else {}
        record = a_signal(number, values, vectors=vectors, categories={"prompt.language": "ab"[number % 2]})
        event = Observed(record, 2, number)
        frozen = msgspec.msgpack.encode(state)
        after, emits = observe(state, event, BEGIN, Rules())
        assert msgspec.msgpack.encode(state) == frozen
        restored = msgspec.msgpack.decode(frozen, type=SegmentState | None)
        assert observe(restored, event, BEGIN, Rules()) == (after, emits)
        assert msgspec.json.decode(msgspec.json.encode(after), type=SegmentState) == after
        state = after


def test_each_signal_goes_to_its_segment_and_idle_states_expire() -> None:
    run = Partition().take([a_signal(7, {"cost.usd": 1.0})])
    assert set(run.states) == {SEGMENT, "family|support|default", "clock"}
    message = Message("signals", 2, 8, 0, b"k", b"v")
    keys = [key for key, _ in route(a_signal(8, {"cost.usd": 1.0}), message, run.states.get, run.rules)]
    assert keys == [SEGMENT], "the next event is no news to its family and the clock"
    rules = logic(run.rules)
    assert rules.expires_at is not None
    seen = BEGIN + timedelta(seconds=7)
    assert rules.expires_at(SEGMENT, run.states[SEGMENT]) == seen + timedelta(days=14)
    family = rules.expires_at("family|support|default", run.states["family|support|default"])
    assert family is not None
    assert family > seen + timedelta(days=14), "a family outlives its segments"
    assert rules.expires_at("clock", run.states["clock"]) is None


def test_a_segment_stays_under_its_bound() -> None:
    rng = np.random.default_rng(3)
    names = [each.name for each in SIGNALS if each.scale not in {"category", "vector"} and each.level == "model"]
    rates = {each.name for each in SIGNALS if each.scale == "rate"}
    categories = [each.name for each in SIGNALS if each.scale == "category" and each.level == "model"]
    run = Partition()
    for number in range(1500):
        values = {name: float(rng.random() < 0.1) if name in rates else float(rng.random() + 0.1) for name in names}
        vectors = {name: vector(rng, np.zeros(384)) for name in ("prompt.topic", "answer.topic")}
        mixed = {name: f"c{int(rng.integers(0, 40))}" for name in categories}
        run.take([a_signal(number, values, vectors=vectors, categories=mixed)])
        if number == 100:
            early = len(msgspec.msgpack.encode(run.segment()))
    assert len(msgspec.msgpack.encode(run.segment())) < 250_000
    assert early < 120_000


def test_signals_beyond_the_bound_of_a_segment_are_not_watched() -> None:
    run = Partition().take(a_signal(n, {f"answer.score{n}": 0.5}) for n in range(150))
    assert len(run.segment().detectors) == 96


def test_every_alert_has_a_section_in_the_runbook(project: Path) -> None:
    page = (project / RUNBOOK).read_text()
    shift = Shift(
        what="level", pattern="abrupt", detector="d", statistic=9.0, threshold=8.0, alpha=3e-4, before={"mean": 1.0},
        after={"mean": 2.0}, before_count=9, after_count=9, reference_first_offset=0, test_first_offset=5, size=1.0,
    )  # fmt: skip
    names = {described(each.name, shift).name for each in SIGNALS}
    sections = {line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")}
    assert names <= sections
    assert {name for name in sections if " " not in name} == names, "no section of what is not watched"

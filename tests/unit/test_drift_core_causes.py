"""Why a signal changed: releases, the segment a new one replaces, inputs that changed too, and who carries the change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from penstock.contracts.records import Signal

from services.drift.budget import Budget
from services.drift.causes import followed, releases
from services.drift.core import Rules
from services.drift.detection.shift import Pattern, Shift
from services.drift.detectors import Detectors
from services.drift.families import FamilyState, matches, predecessor, seen
from services.drift.segments import Sample, Samples, Told, Version, noted, requests_since, sampled
from tests.unit.drift_partition import BEGIN, Partition, a_signal

V1, V2 = "support|extractive|v1|default", "support|extractive|v2|default"
IDLE = timedelta(days=14)


def answers(first: int, count: int, segment: str, tokens: float, **more: object) -> Iterator[Signal]:
    noise = np.exp(np.random.default_rng(first).normal(0, 0.25, count))
    for n in range(count):
        yield a_signal(first + n, {"answer.tokens": tokens * float(noise[n])}, segment=segment, **more)  # type: ignore[arg-type]


def test_a_release_that_changes_answers_is_found_and_named() -> None:
    run = Partition().take(answers(0, 300, V1, 100)).take(answers(300, 120, V2, 300))
    (event,), (alert,) = run.events, run.alerts
    assert (event.segment, event.signal, event.kind, event.reference_mode) == (V2, "answer.tokens", "model", "release")
    assert event.before["geometric_mean"] == pytest.approx(100, rel=0.1)
    assert event.reference[0].first_offset == 0, "the reference is the old segment's"
    assert 295 <= event.test[0].first_offset <= 308
    assert [(each.name, each.before, each.after) for each in event.releases] == [("prompt", "v1", "v2")]
    assert event.releases[0].first_offset == 300
    assert event.releases[0].since == BEGIN + timedelta(seconds=300)
    assert "since prompt version v2 (first at 09:05:00)" in alert.title
    assert "after v1" in alert.description
    assert set(event.sample_before) <= {f"r{n}" for n in range(290, 305)}
    assert event.sample_before, "requests of the old segment stand for before"


def test_the_verdict_on_a_release_is_derived_again_from_the_records_of_its_family() -> None:
    run = Partition().take(answers(0, 300, V1, 100)).take(answers(300, 120, V2, 300))
    (event,) = run.events
    first, last = event.reference[0].first_offset, event.test[0].last_offset
    again = Partition().take(record for offset, record in run.taken if first <= offset <= last)
    assert again.emits == run.emits


def test_a_release_that_changes_nothing_stays_quiet() -> None:
    run = Partition().take(answers(0, 300, V1, 100)).take(answers(300, 400, V2, 100))
    assert run.emits == []
    assert run.segment(V2).inherited == ("answer.tokens",)
    assert run.segment(V2).predecessor == V1


def test_a_release_is_compared_with_itself_where_that_is_said() -> None:
    rules = Rules(budget=Budget(per_day=1.0), release_reference="fresh")
    run = Partition(rules).take(answers(0, 300, V1, 100)).take(answers(300, 120, V2, 300))
    assert run.emits == []
    assert run.segment(V2).predecessor is None


def test_a_copied_state_shares_what_it_can_and_brings_no_wealth() -> None:
    run = Partition().take(answers(0, 300, V1, 100)).take(answers(300, 1, V2, 100))
    old, new = (run.segment(name).detectors.numbers["answer.tokens"] for name in (V1, V2))
    assert new.coding is old.coding
    assert new.window[:-4] == old.window[4:], "the reference goes on"
    assert old.wealth is not None
    assert new.wealth is not None
    assert 0 < new.wealth < old.wealth / 50


def test_a_release_of_the_model_within_a_segment_is_named_by_its_version() -> None:
    team = "support|*|v1|default"

    def latency(first: int, count: int, ms: float, model: str) -> Iterator[Signal]:
        noise = np.exp(np.random.default_rng(first).normal(0, 0.25, count))
        for n in range(count):
            versions = {"model": model, "policy": "9b1c0d2e3f4a5b6c"}
            yield a_signal(first + n, {"result.latency_ms": ms * float(noise[n])}, segment=team, versions=versions)

    run = Partition().take(latency(0, 300, 200, "small-2025-01")).take(latency(300, 120, 700, "small-2026-01"))
    (event,) = run.events
    assert [(each.name, each.before, each.after, each.first_offset) for each in event.releases] == [
        ("model", "small-2025-01", "small-2026-01", 300)
    ]
    assert event.reference_mode == "baseline"


def test_outputs_that_change_with_the_inputs_are_said_to_follow_from_them() -> None:
    noise = np.exp(np.random.default_rng(4).normal(0, 0.25, (700, 2)))
    run = Partition().take(
        a_signal(
            n,
            {
                "prompt.tokens": float((50 if n < 300 else 400) * noise[n, 0]),
                "answer.tokens": float((100 if n < 300 else 180) * noise[n, 1]),
            },
        )
        for n in range(700)
    )
    kinds = {event.signal: event.kind for event in run.events}
    assert kinds == {"prompt.tokens": "data", "answer.tokens": "data"}, "a model drifts at like inputs only"
    alert = next(alert for alert in run.alerts if alert.labels["signal"] == "answer.tokens")
    assert alert.labels["follows"] == "prompt.tokens"
    assert "other inputs" in alert.description
    assert alert.labels["group"] == run.alerts[0].labels["group"]


def test_outputs_that_change_alone_are_the_models() -> None:
    noise = np.exp(np.random.default_rng(4).normal(0, 0.25, (600, 2)))
    run = Partition().take(
        a_signal(
            n,
            {
                "prompt.tokens": float(50 * noise[n, 0]),
                "answer.tokens": float((100 if n < 300 else 250) * noise[n, 1]),
            },
        )
        for n in range(600)
    )
    (event,) = run.events
    assert event.kind == "model"
    assert "follows" not in run.alerts[0].labels


def test_the_segment_that_carries_a_change_is_named_first() -> None:
    """Two prompt versions side by side: the costs of both rise, of the busier one much more."""
    rng = np.random.default_rng(6)

    def side_by_side() -> Iterator[Signal]:
        for n in range(2400):
            segment = V1 if rng.random() < 0.8 else V2
            level = 1e-5 * (1 if n < 1500 else 4 if segment == V1 else 2)
            yield a_signal(n, {"cost.usd": level * float(np.exp(rng.normal(0, 0.3)))}, segment=segment)

    run = Partition().take(side_by_side())
    by_segment = {event.segment: event for event in run.events if event.test[0].first_offset > 1400}
    shares = by_segment[V2].contributions
    assert next(iter(shares)) == V1
    assert shares[V1] > 0.7
    assert sum(shares.values()) == pytest.approx(1)
    alert = next(alert for alert in run.alerts if alert.labels["segment"] == V2)
    assert f"{V1} {shares[V1]:.0%}" in alert.description


def a_shift(pattern: Pattern = "abrupt", first: int = 1000) -> Shift:
    return Shift(
        what="level", pattern=pattern, detector="d", statistic=9.0, threshold=8.0, alpha=3e-4, before={"mean": 0.0},
        after={"mean": 1.0}, before_count=500, after_count=40, reference_first_offset=0, test_first_offset=first, size=1.0,
    )  # fmt: skip


def test_only_what_was_replaced_close_to_the_change_is_a_cause_the_closest_first() -> None:
    def known(*offsets: int) -> tuple[Version, ...]:
        return tuple(Version(f"v{offset}", offset, BEGIN) for offset in offsets)

    versions = {
        "policy": known(0, 940),
        "prompt": known(0, 1003),
        "price": known(0, 700),
        "model": known(995),
        "embedder": known(0, 1051),
    }
    found = releases(versions, a_shift(), 1050)
    assert [each.name for each in found] == ["prompt"], "one a long way before, one after, one that replaced nothing"
    assert [each.name for each in releases(versions, a_shift("gradual"), 1050)] == ["prompt", "policy"]


def test_inputs_that_changed_long_before_do_not_explain_the_outputs() -> None:
    told = [Told("prompt.topic", "data", 0.5, 300, 340, BEGIN), Told("cost.usd", "cost", 2.0, 990, 1020, BEGIN)]
    assert followed(told, Detectors(), a_shift(), 1050) is None
    inputs = Told("prompt.tokens", "data", 1.5, 980, 1010, BEGIN)
    assert followed([*told, inputs], Detectors(), a_shift(), 1050) == "prompt.tokens"


def test_versions_that_are_in_force_side_by_side_are_new_only_once() -> None:
    versions: dict[str, tuple[Version, ...]] = {}
    for offset, version in enumerate(["a", "a", "b", "a", "b", "c"]):
        versions = noted(versions, {"model": version}, offset, BEGIN) or versions
    assert [(each.version, each.first_offset) for each in versions["model"]] == [("a", 0), ("b", 2), ("c", 5)]


def test_samples_reach_back_to_the_first_request_in_bounded_space() -> None:
    samples = Samples()
    for number in range(5000):
        for event in range(3):
            samples = sampled(samples, Sample(3 * number + event, f"r{number}", BEGIN))
    assert samples.requests == 5000
    assert len(samples.newest) + len(samples.older) <= 56
    assert samples.older[0].request_id == "r0"
    assert [each.request_id for each in samples.newest] == [f"r{n}" for n in range(4968, 5000)]
    assert requests_since(samples, 3 * 4990) == 10
    assert requests_since(samples, 3 * 2500) == pytest.approx(2500, rel=0.15)
    assert requests_since(samples, 0) == pytest.approx(5000, rel=0.1)


def a_family(*names: str) -> FamilyState:
    state: FamilyState | None = None
    for number, name in enumerate(names):
        state = seen(state, name, number, BEGIN + timedelta(minutes=5 * number), IDLE)
    assert state is not None
    return state


LATER = BEGIN + timedelta(hours=5)


def test_the_predecessor_is_the_newest_that_shares_model_or_prompt() -> None:
    state = a_family("t|m1|v1|r", "t|m2|v2|r", "t|m3|v9|r", "t|*|v1|r")
    assert predecessor(state, "t|m1|v3|r", 50, LATER, IDLE) == "t|m1|v1|r"
    assert predecessor(state, "t|m4|v2|r", 50, LATER, IDLE) == "t|m2|v2|r"
    assert predecessor(state, "t|m5|v5|r", 50, LATER, IDLE) == "t|m3|v9|r", "none is related: the most recently active"
    assert predecessor(state, "t|*|v3|r", 50, LATER, IDLE) == "t|*|v1|r", "a segment of all models has other signals"
    assert predecessor(state, "t|m1|v3|r", 0, LATER, IDLE) is None, "nothing had been seen yet"
    assert predecessor(None, "t|m1|v3|r", 0, LATER, IDLE) is None


def test_a_family_that_is_ahead_in_a_replay_gives_the_same_predecessor() -> None:
    state = a_family("t|m1|v1|r", "t|m1|v2|r")
    born = seen(state, "t|m1|v3|r", 10, LATER, IDLE)
    ahead = seen(born, "t|m1|v1|r", 11, LATER + timedelta(minutes=5), IDLE)
    assert predecessor(state, "t|m1|v3|r", 10, LATER, IDLE) == "t|m1|v2|r"
    assert predecessor(ahead, "t|m1|v3|r", 10, LATER, IDLE) == "t|m1|v2|r"


def test_a_family_is_written_once_a_minute_and_stays_bounded() -> None:
    state = a_family("t|m1|v1|r")
    assert seen(state, "t|m1|v1|r", 5, BEGIN + timedelta(seconds=59), IDLE) is state
    assert seen(state, "t|m1|v1|r", 5, BEGIN + timedelta(seconds=60), IDLE) is not state
    for number in range(200):
        state = seen(state, f"t|m1|v{number}|r", 10 + number, BEGIN + timedelta(minutes=number), IDLE)
    assert len(state.children) == 64
    assert len(msgspec.msgpack.encode(state)) < 10_000
    late = seen(state, "t|m1|new|r", 999, BEGIN + timedelta(days=40), IDLE)
    assert list(late.children) == ["t|m1|new|r"], "what was silent for long is forgotten"


def test_patterns_stand_for_any_model_or_prompt_but_not_for_teams_and_routes() -> None:
    assert matches("t|*|*|r", "t|m|v|r")
    assert matches("t|m|*|r", "t|m|v|r")
    assert not matches("t|m2|*|r", "t|m|v|r")
    assert not matches("*|*|*|r", "t|m|v|r")

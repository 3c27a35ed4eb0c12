"""What ends a drift alert: the baseline is back, somebody says that the present is it, time; and references that are
pinned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from penstock.contracts.codec import Codec
from penstock.contracts.records import Alert, Signal

from services.drift.commands import InvalidCommand, decode, pinned_reference
from services.drift.core import Observed
from services.drift.detectors import Detectors, Parameters
from tests.unit.drift_partition import BEGIN, SEGMENT, Partition, a_command, a_signal

PARAMETERS = Parameters()
Level = Callable[[int], float]


def latencies(first: int, last: int, level: Level, **more: object) -> Iterator[Signal]:
    noise = np.exp(np.random.default_rng(31).normal(0, 0.25, last))
    for n in range(first, last):
        yield a_signal(n, {"model.latency_ms": level(n) * float(noise[n])}, **more)  # type: ignore[arg-type]


def step_up(change: int, low: float = 200, high: float = 600) -> Level:
    return lambda n: low if n < change else high


def statuses(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.name, alert.status) for alert in alerts]


NAME = "model_latency_ms_shift"


def test_an_alert_is_resolved_when_the_baseline_is_back() -> None:
    run = Partition().take(latencies(0, 700, lambda n: 600 if 300 <= n < 500 else 200))
    assert statuses(run.alerts) == [(NAME, "firing"), (NAME, "resolved")]
    first, back = run.events
    assert (back.pattern, back.returned) == ("recurring", True)
    firing, resolved = run.alerts
    assert firing.fingerprint == resolved.fingerprint
    assert {**resolved.labels, "pattern": "abrupt"} == firing.labels
    assert resolved.starts_at == firing.starts_at
    assert "baseline is back" in resolved.description
    assert run.segment().conditions == {}
    assert first.event_id != back.event_id


def test_what_comes_and_goes_alerts_once_more_and_then_no_longer() -> None:
    run = Partition().take(latencies(0, 2700, lambda n: 600 if (n // 300) % 2 else 200))
    assert len(run.events) >= 7
    firing = [alert for alert in run.alerts if alert.status == "firing"]
    assert [alert.severity for alert in firing] == ["warning", "info"]
    assert all(event.pattern == "recurring" for event in run.events[1:])


def test_a_rebase_takes_the_present_as_the_baseline_and_resolves() -> None:
    run = Partition().take(latencies(0, 500, step_up(300)))
    assert statuses(run.alerts) == [(NAME, "firing")]
    run.take([a_command("rebase", signal="model.latency_ms", at=BEGIN + timedelta(seconds=500))])
    assert statuses(run.alerts) == [(NAME, "firing"), (NAME, "resolved")]
    assert run.alerts[1].tenant_id == "support"
    assert "ada said so: wanted" in run.alerts[1].description
    assert run.segment().conditions == {}
    run.take(latencies(500, 900, step_up(300)))
    assert len(run.events) == 1
    run.take(latencies(900, 1100, lambda n: 200))
    assert (run.events[1].returned, run.alerts[-1].status) == (False, "firing"), (
        "what was before is no baseline any more"
    )


def test_a_rebase_by_pattern_concerns_all_segments_of_the_family() -> None:
    other = "support|extractive|v2|default"
    run = Partition().take(latencies(0, 300, step_up(200)))
    both = [a_signal(n, {"model.latency_ms": 100.0 + n % 7}, segment=other) for n in range(300, 360)]
    run.take(both).take([a_command("rebase", segment="support|*|*|default", at=BEGIN + timedelta(seconds=400))])
    assert [alert.status for alert in run.alerts if alert.labels["segment"] == SEGMENT] == ["firing", "resolved"]
    assert run.segment(other).inherited == ()


def test_a_rebase_of_one_signal_leaves_the_others() -> None:
    run = Partition().take(latencies(0, 500, step_up(300)))
    run.take([a_command("rebase", signal="cost.usd", at=BEGIN + timedelta(seconds=500))])
    assert statuses(run.alerts) == [(NAME, "firing")]


def test_what_nobody_touches_becomes_the_baseline_after_a_week() -> None:
    run = Partition().take(latencies(0, 500, step_up(300)))
    run.take([a_signal(500, {"model.latency_ms": 600.0}, at=BEGIN + timedelta(days=6, hours=23))])
    assert statuses(run.alerts) == [(NAME, "firing")]
    run.take([a_signal(501, {"model.latency_ms": 600.0}, at=BEGIN + timedelta(days=7, hours=1))])
    assert statuses(run.alerts) == [(NAME, "firing"), (NAME, "resolved")]
    assert "7 days" in run.alerts[1].description
    assert run.segment().conditions == {}


def test_many_small_steps_are_a_large_one() -> None:
    """Each of the steps is a factor of 1.2, and 1.5 is what alerts."""
    run = Partition().take(latencies(0, 1600, lambda n: 200 * 1.22 ** (n // 400)))
    assert len(run.events) == 3
    (alert,) = run.alerts
    assert alert.causation_id == run.events[2].event_id, "1.2 * 1.2 is under it, three of them are not"


def test_an_alert_is_resolved_when_the_level_is_near_the_baseline_again() -> None:
    """Not the very state of before, so no detector says that it is back; nor would it have alerted."""
    run = Partition().take(latencies(0, 900, lambda n: 200 if n < 300 else 600 if n < 600 else 280))
    assert [event.returned for event in run.events] == [False, False]
    assert statuses(run.alerts) == [(NAME, "firing"), (NAME, "resolved")]


def test_a_signal_without_a_steady_state_alerts_three_times_a_day_at_most() -> None:
    run = Partition().take(latencies(0, 2700, lambda n: 200 * 3.0 ** (n // 300)))
    assert len(run.events) >= 7
    assert len(run.alerts) == 3
    assert set(run.segment().conditions) == {NAME}


def a_burst() -> Iterator[Signal]:
    dice = np.random.default_rng(5)
    for n in range(900):
        yield a_signal(n, {"answer.toxicity": float((0.9 if 500 <= n < 512 else 0.2) + dice.normal(0, 0.02))})


def test_a_burst_is_told_as_information_and_ends_by_itself() -> None:
    run = Partition().take(a_burst())
    (event,), (alert,) = run.events, run.alerts
    assert (event.pattern, alert.name, alert.severity) == ("outlier", "answer_toxicity_burst", "info")
    run.take([a_signal(900, {"answer.toxicity": 0.2}, at=BEGIN + timedelta(hours=2))])
    assert statuses(run.alerts) == [("answer_toxicity_burst", "firing"), ("answer_toxicity_burst", "resolved")]


def a_reference(level: float, count: int = 300) -> bytes:
    period = [Observed(record, 2, record.source_offset) for record in latencies(0, count, lambda n: level)]
    return pinned_reference(period, PARAMETERS)


def test_a_pinned_reference_is_what_the_present_is_compared_with_until_that_is_over() -> None:
    run = Partition().take(latencies(0, 300, lambda n: 600))
    assert run.emits == []
    pin = a_command("pin", reference=a_reference(200), at=BEGIN + timedelta(seconds=300))
    run.take([pin]).take(latencies(300, 700, lambda n: 600))
    (event,), (alert,) = run.events, run.alerts
    assert (event.reference_mode, alert.status) == ("pinned", "firing")
    assert event.before["geometric_mean"] == pytest.approx(200, rel=0.1)
    assert "pinned" in alert.description
    later = BEGIN + timedelta(hours=2)
    noise = np.exp(np.random.default_rng(3).normal(0, 0.25, 100))
    run.take(
        a_signal(700 + n, {"model.latency_ms": 600 * float(noise[n])}, at=later + timedelta(seconds=n))
        for n in range(100)
    )
    assert statuses(run.alerts) == [(NAME, "firing")] * 2, "it goes on: it is told again after an hour"
    run.take(
        a_signal(800 + n, {"model.latency_ms": 200 * float(noise[n % 100])}, at=later + timedelta(seconds=100 + n))
        for n in range(600)
    )
    assert statuses(run.alerts)[2:] == [(NAME, "resolved")]
    assert len(run.events) == 2


def test_a_pinned_condition_that_goes_on_for_days_is_told_every_hour_and_no_oftener() -> None:
    run = Partition().take(latencies(0, 100, lambda n: 200))
    run.take([a_command("pin", reference=a_reference(200), at=BEGIN + timedelta(seconds=100))])
    noise = np.exp(np.random.default_rng(3).normal(0, 0.25, 3000))
    run.take(
        a_signal(n, {"model.latency_ms": 600 * float(noise[n])}, at=BEGIN + timedelta(seconds=30 * n))
        for n in range(101, 3000)
    )
    hours = 2900 * 30 / 3600
    assert len(run.events) == len(run.alerts)
    assert hours / 2 <= len(run.alerts) <= hours + 1
    assert {alert.fingerprint for alert in run.alerts} == {run.alerts[0].fingerprint}


def test_a_pinned_reference_stays_after_a_change_and_unpin_gives_it_up() -> None:
    run = Partition().take(latencies(0, 100, lambda n: 200))
    run.take([a_command("pin", reference=a_reference(200), at=BEGIN + timedelta(seconds=100))])
    assert "model.latency_ms" in run.segment().pinned
    run.take(latencies(100, 300, lambda n: 800))
    (event,) = run.events
    assert run.segment().detectors.numbers["model.latency_ms"].regimes == ()
    run.take([a_command("unpin", at=BEGIN + timedelta(seconds=300))])
    assert len(run.segment().pinned) == 0
    assert event.reference_mode == "pinned"


def test_a_new_segment_is_compared_with_what_its_predecessor_is_pinned_to() -> None:
    run = Partition().take(latencies(0, 100, lambda n: 200))
    run.take([a_command("pin", reference=a_reference(200), at=BEGIN + timedelta(seconds=100))])
    other = "support|extractive|v2|default"
    run.take(latencies(100, 250, lambda n: 800, segment=other))
    assert run.events[0].segment == other
    assert run.events[0].reference_mode == "pinned"


def test_a_pinned_reference_survives_its_encoding_and_brings_no_wealth() -> None:
    given = decode(a_reference(200))
    assert set(given) == {"model.latency_ms"}
    assert given.numbers["model.latency_ms"].wealth == 0.0
    assert given == decode(a_reference(200)), "the same period gives the same bytes"


def test_a_period_with_a_change_in_it_is_a_reference_all_the_same() -> None:
    period = [Observed(record, 2, record.source_offset) for record in latencies(0, 400, step_up(200))]
    state = decode(pinned_reference(period, PARAMETERS)).numbers["model.latency_ms"]
    assert state.seen == 400


def test_a_period_that_is_too_short_is_no_reference() -> None:
    with pytest.raises(InvalidCommand, match="longer"):
        pinned_reference([Observed(a_signal(1, {"cost.usd": 1.0}), 2, 1)], PARAMETERS)
    with pytest.raises(InvalidCommand, match="longer"):
        pinned_reference([], PARAMETERS)


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (a_command("forget"), "rebase, pin, unpin"),
        (a_command("pin"), "penstock drift pin"),
        (a_command("pin", reference=b"\xff\x00"), "penstock drift pin"),
        (a_command("pin", reference=msgspec.msgpack.encode({"format": 9, "detectors": Detectors()})), "make it again"),
        (a_command("pin", segment="support|*|*|elsewhere", reference=a_reference(200)), "has been seen"),
        (a_command("rebase", segment="support"), "team|model|prompt version|route"),
        (a_command("pin", signal="cost.usd", reference=a_reference(200)), "model.latency_ms"),
    ],
    ids=["action", "no reference", "bytes", "format", "segment", "shape", "signal"],
)
def test_a_command_that_cannot_be_carried_out_says_why(command: object, remedy: str) -> None:
    run = Partition().take(latencies(0, 10, lambda n: 200))
    with pytest.raises(InvalidCommand, match=remedy.replace("|", r"\|")):
        run.take([command])  # type: ignore[list-item]


def test_a_rebase_of_what_is_forgotten_does_no_harm() -> None:
    run = Partition().take(latencies(0, 10, lambda n: 200))
    run.take([a_command("rebase", segment="support|*|*|elsewhere")])
    assert run.emits == []


def test_ends_fit_their_schema(codec: Codec) -> None:
    run = Partition().take(latencies(0, 500, step_up(300)))
    run.take([a_command("rebase", at=BEGIN + timedelta(seconds=500))])
    for emit in run.emits:
        assert codec.decode(emit.topic, codec.encode(emit.topic, emit.record)) == emit.record

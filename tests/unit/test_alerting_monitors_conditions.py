"""Conditions over time: told once after they have held, again when worse or as the pace says, and resolved once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import Alert, Severity

from services.alerting.monitors.conditions import PLATFORM, Conditions, Finding, Pace, restored, track

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
NAMES = frozenset({"consumer_lag"})
PACE = Pace(repeat_s=600.0)


def finding(subject: str = "intake", severity: Severity = Severity.WARNING, for_s: float = 60.0) -> Finding:
    return Finding(
        kind="lag", name="consumer_lag", subject=(subject,), severity=severity, title=f"{subject} lags",
        description="figures", suggested_action="do", for_s=for_s, clear_s=60.0, labels={"group": subject},
    )  # fmt: skip


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def play(looks: list[tuple[float, list[Finding]]], state: Conditions | None = None) -> tuple[Conditions, list[Alert]]:
    conditions: Conditions = state or {}
    told: list[Alert] = []
    for seconds, findings in looks:
        conditions, alerts = track(conditions, findings, NAMES, PACE, at(seconds))
        told += alerts
    return conditions, told


def test_what_does_not_hold_for_long_enough_is_not_told() -> None:
    assert play([(0, [finding()]), (45, [finding()]), (60, []), (200, []), (210, [finding()])])[1] == []


def test_it_is_told_once_since_its_begin_and_resolved_once_after_it_is_absent_for_long_enough() -> None:
    looks = [(s, [finding()]) for s in range(0, 300, 15)] + [(s, []) for s in range(300, 600, 15)]
    _, (first, last) = play(looks)
    assert (first.status, first.occurred_at, first.starts_at) == ("firing", at(60), at(0))
    assert (last.status, last.occurred_at, last.fingerprint) == ("resolved", at(360), first.fingerprint)
    assert last.severity == first.severity
    assert first.tenant_id == PLATFORM == first.labels["team"]
    assert last.causation_id == first.event_id != last.event_id


def test_a_gap_shorter_than_the_clearing_time_is_no_end() -> None:
    _, told = play([(0, [finding()]), (60, [finding()]), (75, []), (105, []), (134, [finding()]), (150, [finding()])])
    assert [each.status for each in told] == ["firing"]


def test_worse_is_told_at_once_milder_is_not() -> None:
    worse, milder = finding(severity=Severity.CRITICAL), finding(severity=Severity.INFO)
    _, told = play([(0, [finding()]), (60, [finding()]), (75, [worse]), (90, [milder]), (105, [worse])])
    assert [each.severity for each in told] == ["warning", "critical"]


def test_what_goes_on_is_raised_again_with_its_present_figures_at_the_pace() -> None:
    _, told = play([(s, [finding()]) for s in range(0, 1300, 30)])
    assert [each.occurred_at for each in told] == [at(60), at(660), at(1260)]
    assert len({each.event_id for each in told}) == 3
    assert {each.starts_at for each in told} == {at(0)}


def test_what_was_not_looked_for_neither_ends_nor_begins() -> None:
    state, _ = play([(0, [finding(for_s=0)])])
    state, alerts = track(state, [], frozenset({"dead_letters"}), PACE, at(500))
    assert alerts == []
    assert [each.firing for each in state.values()] == [True]


def test_two_replicas_that_know_the_same_log_make_the_same_events() -> None:
    looks = [(s, [finding()]) for s in range(0, 120, 15)]
    _, (one,) = play(looks)
    _, (other,) = play([(s + 7, f) for s, f in looks])
    assert one.event_id == other.event_id
    log = [one]
    _, ended = play([(340, []), (400, [])], restored(log, NAMES, at(300)))
    _, also = play([(345, []), (409, [])], restored(log, NAMES, at(305)))
    assert [each.event_id for each in ended] == [each.event_id for each in also] != []


def test_a_leader_that_takes_over_tells_nothing_twice_and_resolves_what_the_other_told() -> None:
    _, told = play([(s, [finding()]) for s in range(0, 120, 15)])
    state = restored(told, NAMES, at(200))
    state, again = play([(200, [finding()]), (215, [finding()])], state)
    assert again == []
    _, (over,) = play([(230, []), (290, [])], state)
    assert over.status == "resolved"
    assert over.starts_at == at(0)
    assert play([(300, []), (400, [])], restored([*told, over], NAMES, at(300)))[1] == []


def test_alerts_of_others_are_not_taken_over() -> None:
    _, (mine,) = play([(0, [finding(for_s=0)])])
    assert restored([mine], frozenset({"dead_letters"}), at(10)) == {}


def test_a_condition_that_comes_back_is_another_event_of_the_same_fingerprint() -> None:
    looks = [(0, [finding(for_s=0)]), (30, []), (90, []), (100, [finding(for_s=0)])]
    _, (first, over, second) = play(looks)
    assert first.fingerprint == over.fingerprint == second.fingerprint
    assert len({first.event_id, over.event_id, second.event_id}) == 3
    assert second.starts_at == at(100)


@given(st.lists(st.booleans(), max_size=60))
def test_what_is_told_alternates_and_nothing_leaks(holds: list[bool]) -> None:
    looks = [(15.0 * index, [finding()] if held else []) for index, held in enumerate(holds)]
    silent = [(15.0 * len(holds) + extra, list[Finding]()) for extra in (0, 60, 2 * 86_400)]
    state, told = play([*looks, *silent])
    episodes = [each.status for each in told]
    firing = False
    for status in episodes:
        assert (status == "resolved") <= firing
        firing = status == "firing"
    assert not firing
    assert state == {} or all(not each.firing for each in state.values())
    assert len({each.event_id for each in told}) == len(told)

"""Consumer lag by age, standstill, and messages that expired: one alert for one cause."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from penstock.bus import Partition
from penstock.contracts.records import LogRange, Severity

from services.alerting.monitors.conditions import Finding
from services.alerting.monitors.lag import LagRules, LagState, observe, to_be_dated
from services.alerting.monitors.look import GroupLook, Look, Member, service_of

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RULES = LagRules(late_s=300.0, critical_s=1800.0, stuck_s=300.0, trend_s=120.0, for_s=60.0)
P0, P1 = Partition("requests-screened", 0), Partition("requests-screened", 1)
EVERY = 15


def look(
    seconds: float,
    committed: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    ages: Mapping[Partition, float] | None = None,
    *,
    begins: Mapping[Partition, int] | None = None,
    members: int = 1,
    state: str = "stable",
) -> Look:
    at = START + timedelta(seconds=seconds)
    reads = frozenset(ends)
    group = GroupLook(
        name="retrieval-ground",
        service="retrieval",
        state=state,
        members=tuple(Member(f"m{n}", "penstock-retrieval", "/10.0.0.5", reads) for n in range(members)),
        committed=committed,
    )
    begins = begins or dict.fromkeys(ends, 0)
    written = {
        (place, max(committed.get(place, 0), begins[place])): int((at.timestamp() - age) * 1000)
        for place, age in (ages or {}).items()
    }
    return Look(at=at, topics={}, groups=(group,), begins=begins, ends=ends, written_at=written)


def names(findings: list[Finding]) -> list[str]:
    return [each.name for each in findings]


def test_only_messages_that_stood_there_at_the_last_look_are_dated() -> None:
    first = look(0, {P0: 10}, {P0: 20})
    assert to_be_dated(LagState(), first) == set()
    state, _ = observe(LagState(), first, {}, RULES)
    assert to_be_dated(state, look(15, {P0: 25}, {P0: 30})) == set()
    assert to_be_dated(state, look(15, {P0: 15}, {P0: 30})) == {(P0, 15)}


def test_a_group_that_falls_behind_lags_from_the_age_on_and_is_over_below_half_of_it() -> None:
    state, told = LagState(), {}
    ages = [*range(0, 600, EVERY), *range(600, 0, -30)]
    for step, age in enumerate(ages):
        state, found = observe(state, look(EVERY * step, {P0: 10 + step}, {P0: 10_000}, {P0: age}), {}, RULES)
        told[step] = names(found)
    first = next(step for step, found in told.items() if found)
    last = max(step for step, found in told.items() if found)
    assert ages[first] == 300
    assert ages[last] == 180
    assert all(told[step] == ["consumer_lag"] for step in range(first, last + 1))


def test_a_group_that_catches_up_does_not_lag() -> None:
    state = LagState()
    for step in range(40):
        # Two seconds of backlog a second: as after a restart that took an hour.
        age = 3600 - 2 * EVERY * step
        state, found = observe(state, look(EVERY * step, {P0: 10 + step}, {P0: 9_000}, {P0: age}), {}, RULES)
        assert found == []


def test_a_group_that_gains_too_little_lags() -> None:
    state, seen = LagState(), list[str]()
    for step in range(20):
        age = 3600 - 0.05 * EVERY * step
        state, found = observe(state, look(EVERY * step, {P0: 10 + step}, {P0: 9_000}, {P0: age}), {}, RULES)
        seen += names(found)
    assert "consumer_lag" in seen


def lagging(age: float, retention_ms: int) -> Finding:
    state, found = LagState(), list[Finding]()
    for step in range(10):
        seen = look(EVERY * step, {P0: 10 + step}, {P0: 10_000}, {P0: age + EVERY * step})
        state, found = observe(state, seen, {"requests-screened": retention_ms}, RULES)
    return found[0]


def test_it_is_critical_when_old_or_near_its_expiry() -> None:
    assert lagging(400, 86_400_000).severity == Severity.WARNING
    assert lagging(1900, 86_400_000).severity == Severity.CRITICAL
    assert lagging(400, 900_000).severity == Severity.CRITICAL
    found = lagging(400, 86_400_000)
    assert found.for_s == RULES.for_s
    assert found.evidence == (LogRange(topic="requests-screened", partition=0, first_offset=19, last_offset=9_999),)
    assert (found.labels["group"], found.figures["unread"]) == ("retrieval-ground", 9_981)


def test_a_partition_that_stands_still_is_told_as_that_and_not_as_lag() -> None:
    state, seen = LagState(), {}
    for step in range(60):
        at = EVERY * step
        ages = {P0: float(at)}
        # The other partition goes on.
        state, found = observe(state, look(at, {P0: 10, P1: step * 5 + 5}, {P0: 40, P1: step * 5 + 5}, ages), {}, RULES)
        seen[at] = found
    assert all(found == [] for at, found in seen.items() if at < 300)
    for found in (found for at, found in seen.items() if at >= 300):
        assert names(found) == ["consumer_stuck"]
    last = seen[EVERY * 59][0]
    assert "partition 0" in last.title
    assert "penstock-retrieval at 10.0.0.5" in last.description
    assert last.evidence[0].first_offset == 10


def test_progress_ends_a_standstill() -> None:
    state, found = LagState(), list[Finding]()
    for step in range(30):
        state, found = observe(state, look(EVERY * step, {P0: 10}, {P0: 40}, {P0: 1.0}), {}, RULES)
    assert names(found) == ["consumer_stuck"]
    state, found = observe(state, look(EVERY * 30, {P0: 11}, {P0: 40}, {P0: 1.0}), {}, RULES)
    assert found == []


def test_a_service_that_dies_over_one_message_again_and_again_stands_still() -> None:
    state, seen = LagState(), list[str]()
    for step in range(40):
        up = step % 5 < 4
        each = look(EVERY * step, {P0: 10}, {P0: 40}, {P0: 1.0}, members=up, state="stable" if up else "empty")
        state, found = observe(state, each, {}, RULES)
        assert up or found == []
        seen += names(found)
    assert seen == ["consumer_stuck"] * 16


def test_a_service_that_was_stopped_for_long_does_not_stand_still_when_it_begins() -> None:
    state = LagState()
    for step in range(60):
        stopped = 5 < step < 50
        each = look(
            EVERY * step, {P0: 10}, {P0: 40}, {P0: 1.0}, members=not stopped, state="empty" if stopped else "stable"
        )
        state, found = observe(state, each, {}, RULES)
        assert found == []


def test_a_group_that_rebalances_is_not_told_as_standing_still() -> None:
    state = LagState()
    for step in range(40):
        state, found = observe(state, look(EVERY * step, {P0: 10}, {P0: 40}, {P0: 1.0}, state="rebalancing"), {}, RULES)
        assert found == []


def test_a_group_without_members_is_the_health_monitors_matter() -> None:
    state = LagState()
    for step in range(40):
        state, found = observe(
            state, look(EVERY * step, {P0: 10}, {P0: 40}, {P0: 9999.0}, members=0, state="empty"), {}, RULES
        )
        assert found == []


def test_messages_that_expired_unread_are_counted_with_their_offsets() -> None:
    seen = look(0, {P0: 10, P1: 50}, {P0: 500, P1: 60}, begins={P0: 200, P1: 50}, members=0, state="empty")
    _, (found,) = observe(LagState(), seen, {}, RULES)
    assert (found.name, found.severity, found.figures["expired"]) == ("messages_expired_unread", Severity.CRITICAL, 190)
    assert found.evidence == (LogRange(topic="requests-screened", partition=0, first_offset=10, last_offset=199),)


def test_a_topic_that_a_group_no_longer_reads_is_none_of_its_lag() -> None:
    former = Partition("completions", 0)
    group = GroupLook("drift", "drift", "stable", (Member("m", "c", "h", frozenset({P0})),), {former: 3, P0: 10})
    seen = Look(START, {}, (group,), {former: 0, P0: 0}, {former: 900, P0: 12})
    assert [(each.place, each.count) for each in seen.unread(group)] == [(P0, 2)]


def test_a_partition_without_a_commit_is_unread_from_its_oldest_message() -> None:
    seen = look(0, {}, {P0: 40}, begins={P0: 15})
    (unread,) = seen.unread(seen.groups[0])
    assert (unread.next_offset, unread.count, unread.expired) == (15, 25, 0)


def test_groups_are_their_services_by_name() -> None:
    services = ["alerting", "drift", "intake"]
    assert service_of("intake-settlement", services) == "intake"
    assert service_of("drift", services) == "drift"
    assert service_of("intaker", services) is None
    assert service_of("dlq-replay-intake", services) is None

"""Health as the log shows it: groups, topics, brokers, clocks, and what does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from penstock.bus import Partition
from penstock.contracts.catalogue import Catalogue, Topic
from penstock.contracts.records import Severity

from services.alerting.monitors.conditions import Finding
from services.alerting.monitors.health import HealthRules, HealthState, observe
from services.alerting.monitors.look import GroupLook, Look, Member, PartitionLook

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RULES = HealthRules()
READ = Partition("llm-requests", 0)


@pytest.fixture
def topics(catalogue: Catalogue) -> Mapping[str, Topic]:
    return {name: catalogue.topics[name] for name in ("llm-requests", "dlq-intake")}


def healthy(topics: Mapping[str, Topic], *groups: GroupLook) -> Look:
    partitions = {name: {n: PartitionLook(1, 1, 1) for n in range(topic.partitions)} for name, topic in topics.items()}
    places = [Partition(name, n) for name, topic in topics.items() for n in range(topic.partitions)]
    return Look(START, partitions, groups or (group(),), dict.fromkeys(places, 0), dict.fromkeys(places, 0))


def group(*ids: str, state: str = "stable") -> GroupLook:
    members = tuple(Member(name, "penstock-intake", "/10.0.0.7", frozenset({READ})) for name in ids or ("m1",))
    return GroupLook("intake", "intake", state, members if state != "empty" else (), {READ: 5})


def found(look: Look, topics: Mapping[str, Topic], rules: HealthRules = RULES) -> list[Finding]:
    return observe(HealthState(), look, topics, rules)[1]


def test_a_healthy_cluster_is_silent(topics: Mapping[str, Topic]) -> None:
    assert found(healthy(topics), topics) == []


def test_a_group_without_members_is_critical_where_messages_wait(topics: Mapping[str, Topic]) -> None:
    look = healthy(topics, group(state="empty"))
    (idle,) = found(look, topics)
    assert (idle.name, idle.severity) == ("group_without_members", Severity.WARNING)
    (waiting,) = found(replace(look, ends={**look.ends, READ: 12}), topics)
    assert (waiting.severity, waiting.figures["unread"]) == (Severity.CRITICAL, 7)
    assert (waiting.evidence[0].first_offset, waiting.evidence[0].last_offset) == (5, 11)
    assert idle.fingerprint == waiting.fingerprint


def unsettled(topics: Mapping[str, Topic], groups: list[GroupLook]) -> list[float]:
    state, seconds = HealthState(), list[float]()
    for step, one in enumerate(groups):
        look = replace(healthy(topics, one), at=START + timedelta(seconds=15 * step))
        state, findings = observe(state, look, topics, RULES)
        seconds += [each.figures["unsettled_s"] for each in findings if each.name == "group_rebalancing"]
    return seconds


def test_a_group_that_rebalances_for_long_does_not_settle(topics: Mapping[str, Topic]) -> None:
    assert unsettled(topics, [group(state="rebalancing")] * 4) == [0, 15, 30, 45]


def test_stable_at_every_look_with_other_members_each_time_is_not_settled(topics: Mapping[str, Topic]) -> None:
    assert unsettled(topics, [group(f"m{n}") for n in range(5)]) == [0, 15, 30, 45]


def test_one_rebalance_is_over_with_the_next_look(topics: Mapping[str, Topic]) -> None:
    looks = [group("m1"), group("m1", "m2", state="rebalancing"), group("m1", "m2"), group("m1", "m2"), group("m3")]
    assert unsettled(topics, looks) == [0, 0]


def test_a_group_is_given_time_to_settle(topics: Mapping[str, Topic]) -> None:
    state, _ = observe(HealthState(), healthy(topics, group("m1")), topics, RULES)
    _, (each,) = observe(state, healthy(topics, group("m2")), topics, RULES)
    assert each.for_s == RULES.rebalance_s


def test_a_service_that_never_read_anything_is_missed_once_messages_wait(topics: Mapping[str, Topic]) -> None:
    look = replace(healthy(topics), groups=())
    assert found(look, topics) == []
    (absent,) = found(replace(look, ends={**look.ends, READ: 3}), topics)
    assert (absent.name, absent.labels, absent.figures) == ("service_absent", {"service": "intake"}, {"unread": 3.0})
    assert found(replace(look, ends={**look.ends, READ: 3}, unwatched=frozenset({"intake"})), topics) == []


def test_topics_are_compared_with_the_catalogue(topics: Mapping[str, Topic]) -> None:
    look = healthy(topics)
    (missing,) = found(replace(look, topics={"dlq-intake": look.topics["dlq-intake"]}), topics)
    assert (missing.name, missing.severity) == ("topic_missing", Severity.CRITICAL)
    few = {**look.topics, "llm-requests": {0: PartitionLook(1, 1, 1)}}
    (differs,) = found(replace(look, topics=few), topics)
    assert (differs.name, differs.figures) == ("topic_partitions", {"partitions": 1.0, "wanted": 4.0})
    assert "penstock topics apply" in differs.suggested_action
    many = {**look.topics, "dlq-intake": {n: PartitionLook(1, 1, 1) for n in range(3)}}
    (differs,) = found(replace(look, topics=many), topics)
    assert "schemas/topics/dlq-intake.yaml" in differs.suggested_action


def test_partitions_need_a_leader_and_their_replicas(topics: Mapping[str, Topic]) -> None:
    look = healthy(topics)
    hurt = {
        0: PartitionLook(None, 3, 0),
        1: PartitionLook(1, 3, 2),
        2: PartitionLook(1, 3, 3),
        3: PartitionLook(1, 3, 3),
    }
    findings = found(replace(look, topics={**look.topics, "llm-requests": hurt}), topics)
    assert [(each.name, each.severity, each.title) for each in findings] == [
        ("partition_without_leader", Severity.CRITICAL, "Partition 0 of llm-requests has no leader"),
        (
            "partition_under_replicated",
            Severity.WARNING,
            "Partition 1 of llm-requests has fewer replicas in sync than it should",
        ),
    ]


def test_a_message_from_the_future_is_a_clock_that_is_ahead(topics: Mapping[str, Topic]) -> None:
    ms = int(START.timestamp() * 1000)
    look = replace(healthy(topics), newest={"llm-requests": (READ, 7, ms + 59_000)})
    assert found(look, topics) == []
    (ahead,) = found(replace(look, newest={"llm-requests": (READ, 7, ms + 3_600_000)}), topics)
    assert (ahead.name, ahead.figures["ahead_s"], ahead.evidence[0].first_offset) == ("clock_ahead", 3600.0, 7)


@pytest.mark.parametrize(("name", "severity"), [("redis", Severity.CRITICAL), ("registry", Severity.WARNING)])
def test_what_does_not_answer_is_named_with_the_reason(
    topics: Mapping[str, Topic], name: str, severity: Severity
) -> None:
    (away,) = found(replace(healthy(topics), away={name: "connection refused"}), topics)
    assert (away.name, away.severity, away.for_s) == (f"{name}_away", severity, RULES.unreachable_s)
    assert "connection refused" in away.description

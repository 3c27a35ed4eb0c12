"""Health of the platform as its log shows it, pure: groups, topics, brokers, clocks, and what does not answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
from penstock.contracts.catalogue import Topic
from penstock.contracts.records import LogRange, Severity

from services.alerting.monitors.conditions import Finding
from services.alerting.monitors.look import GroupLook, Look, messages

__all__ = ["NAMES", "HealthRules", "HealthState", "observe"]

NAMES = frozenset(
    {
        "group_without_members", "group_rebalancing", "service_absent", "topic_missing", "topic_partitions",
        "partition_without_leader", "partition_under_replicated", "clock_ahead", "redis_away", "registry_away",
    }
)  # fmt: skip
"""Names of the alerts that are raised here."""


class HealthRules(msgspec.Struct, frozen=True):
    """For how long something may be unwell, seconds.

    Attributes:
        absent_s: a group may be without members.
        rebalance_s: a group may take to settle.
        unreachable_s: Redis or the registry may be away, or a topic missing.
        replicas_s: replicas may be out of sync.
        clock_s: how far a message's time may lie ahead of ours.
    """

    absent_s: float = 60.0
    rebalance_s: float = 180.0
    unreachable_s: float = 30.0
    replicas_s: float = 120.0
    clock_s: float = 60.0


class HealthState(msgspec.Struct, frozen=True):
    """What is remembered from look to look.

    Attributes:
        members: by group, the members at the last look and, in a group that does not settle, since when (Unix time).
    """

    members: Mapping[str, tuple[frozenset[str], float | None]] = {}


def observe(
    state: HealthState, look: Look, catalogue: Mapping[str, Topic], rules: HealthRules
) -> tuple[HealthState, list[Finding]]:
    """Return what is unwell at ``look``. ``catalogue`` holds the topics that should be there."""
    members, rebalancing = _settling(state, look, rules)
    findings = [
        *rebalancing,
        *(_without_members(group, look, rules) for group in look.groups if group.state == "empty"),
        *_absent(look, catalogue, rules),
        *_topics(look, catalogue, rules),
        *_clocks(look, rules),
        *_away(look, rules),
    ]
    return HealthState(members), findings


def _settling(
    state: HealthState, look: Look, rules: HealthRules
) -> tuple[Mapping[str, tuple[frozenset[str], float | None]], list[Finding]]:
    now = look.at.timestamp()
    members: dict[str, tuple[frozenset[str], float | None]] = {}
    findings = []
    for group in look.groups:
        present = frozenset(member.member_id for member in group.members)
        before, since = state.members.get(group.name, (present, None))
        # A group may be stable at every look and have other members each time: that is a rebalance without end as well.
        settled = group.state != "rebalancing" and (before == present or not present)
        since = None if settled else since or now
        members[group.name] = (present, since)
        if since is not None:
            findings.append(_rebalancing(group, now - since, rules))
    return members, findings


def _rebalancing(group: GroupLook, seconds: float, rules: HealthRules) -> Finding:
    clients = sorted({f"{member.client_id} at {member.host.lstrip('/')}" for member in group.members})
    return Finding(
        kind="health",
        name="group_rebalancing",
        subject=(group.name,),
        severity=Severity.CRITICAL,
        title=f"Group {group.name} does not settle",
        description=(
            f"Members of group {group.name} have come and gone, or waited for each other, for {seconds:.0f} s: nobody reads "
            f"meanwhile. Members now: {', '.join(clients) or 'none'}."
        ),
        suggested_action=(
            f"Look for a process of {group.service} that starts again and again, or one that hangs: "
            f"`penstock stack status` and the logs. Stop that one."
        ),
        labels={"service": group.service, "group": group.name},
        figures={"members": float(len(group.members)), "unsettled_s": round(seconds, 1)},
        for_s=rules.rebalance_s,
    )


def _without_members(group: GroupLook, look: Look, rules: HealthRules) -> Finding:
    unread = look.unread(group)
    waiting = sum(each.count for each in unread)
    topics = sorted({each.place.topic for each in unread if each.count})
    waits = f"{messages(waiting)} of {', '.join(topics)} unread" if waiting else "nothing unread"
    return Finding(
        kind="health",
        name="group_without_members",
        subject=(group.name,),
        severity=Severity.CRITICAL if waiting else Severity.WARNING,
        title=f"Nobody reads as group {group.name}" + (f": {messages(waiting)} unread" if waiting else ""),
        description=f"Group {group.name} of {group.service} has no member, with {waits}.",
        suggested_action=(
            f"Start {group.service}; if it runs, see why its group is empty: /readyz and the last lines of its log. A group "
            "that is no longer used: add it to MONITOR_IGNORED_GROUPS, or delete it with Kafka's own tools."
        ),
        labels={"service": group.service, "group": group.name},
        figures={"unread": float(waiting)},
        evidence=tuple(
            LogRange(
                topic=each.place.topic,
                partition=each.place.partition,
                first_offset=each.next_offset,
                last_offset=each.next_offset + each.count - 1,
            )
            for each in unread[:8]
            if each.count
        ),
        for_s=rules.absent_s,
        clear_s=30.0,
    )


def _absent(look: Look, catalogue: Mapping[str, Topic], rules: HealthRules) -> Iterable[Finding]:
    """A service that never read anything has no group to be missed: the catalogue says that it should."""
    services = {name.removeprefix("dlq-") for name in catalogue if name.startswith("dlq-")}
    for service in sorted(services - {group.service for group in look.groups} - look.unwatched):
        waiting = {
            name: sum(
                max(0, look.ends[place] - look.begins.get(place, 0)) for place in look.ends if place.topic == name
            )
            for name, topic in sorted(catalogue.items())
            if service in topic.readers and topic.cleanup == "delete"
        }
        waiting = {name: count for name, count in waiting.items() if count}
        if not waiting:
            continue
        total = sum(waiting.values())
        listed = ", ".join(f"{count:,} of {name}" for name, count in waiting.items())
        yield Finding(
            kind="health",
            name="service_absent",
            subject=(service,),
            severity=Severity.CRITICAL,
            title=f"{service} has never read anything: {messages(total)} unread",
            description=f"No consumer group of {service} is known to the cluster, and it should read {listed}.",
            suggested_action=(
                f"Start {service} (`penstock run {service}`), and see the last lines of its log. If it is left out on "
                f"purpose, add {service} to MONITOR_IGNORED_GROUPS."
            ),
            labels={"service": service},
            figures={"unread": float(total)},
            for_s=max(rules.absent_s, 120.0),
            clear_s=30.0,
        )


def _topics(look: Look, catalogue: Mapping[str, Topic], rules: HealthRules) -> Iterable[Finding]:
    for name, topic in sorted(catalogue.items()):
        partitions = look.topics.get(name)
        labels = {"topic": name, "service": topic.owner}
        if not partitions:
            yield Finding(
                kind="health", name="topic_missing", subject=(name,), severity=Severity.CRITICAL,
                title=f"Topic {name} is missing",
                description=f"The catalogue has topic {name} ({topic.doc.rstrip('.')}); the cluster has not. Written by "
                f"{', '.join(topic.writers)}, read by {', '.join(topic.readers)}.",
                suggested_action="Run `penstock topics apply`. If it was there, its messages are gone: see who deleted it.",
                labels=labels, for_s=rules.unreachable_s,
            )  # fmt: skip
            continue
        if len(partitions) != topic.partitions:
            few = len(partitions) < topic.partitions
            remedy = (
                "Run `penstock topics apply`."
                if few
                else f"Set partitions to {len(partitions)} in schemas/topics/{name}.yaml: Kafka cannot take partitions away."
            )
            yield Finding(
                kind="health", name="topic_partitions", subject=(name,), severity=Severity.WARNING,
                title=f"Topic {name} has {len(partitions)} partitions, not {topic.partitions}",
                description=f"The catalogue gives {name} {topic.partitions} partitions, the cluster has {len(partitions)}. "
                "Topics that are joined must have as many, and a key's partition depends on it.",
                suggested_action=remedy,
                labels=labels,
                figures={"partitions": float(len(partitions)), "wanted": float(topic.partitions)},
                for_s=rules.unreachable_s,
            )  # fmt: skip
        leaderless = sorted(number for number, each in partitions.items() if each.leader is None)
        if leaderless:
            listed = ", ".join(map(str, leaderless))
            yield Finding(
                kind="health", name="partition_without_leader", subject=(name,), severity=Severity.CRITICAL,
                title=f"Partition {listed} of {name} has no leader",
                description=f"No broker leads partition {listed} of {name}: nobody can write or read it.",
                suggested_action="Bring the broker back that held it; its log says why it is gone.",
                labels=labels, figures={"partitions": float(len(leaderless))}, for_s=rules.unreachable_s,
            )  # fmt: skip
        thin = sorted(
            number for number, each in partitions.items() if each.leader is not None and each.in_sync < each.replicas
        )
        if thin:
            listed = ", ".join(map(str, thin))
            yield Finding(
                kind="health", name="partition_under_replicated", subject=(name,), severity=Severity.WARNING,
                title=f"Partition {listed} of {name} has fewer replicas in sync than it should",
                description=f"Of partition {listed} of {name} a replica is behind or away: one more failure may lose "
                "messages or stop writers.",
                suggested_action="See which broker is down or slow; its log and disks.",
                labels=labels, figures={"partitions": float(len(thin))}, for_s=rules.replicas_s,
            )  # fmt: skip


def _clocks(look: Look, rules: HealthRules) -> Iterable[Finding]:
    for topic, (place, offset, written_ms) in sorted(look.newest.items()):
        ahead = written_ms / 1000 - look.at.timestamp()
        if ahead <= rules.clock_s:
            continue
        written = datetime.fromtimestamp(written_ms / 1000, UTC)
        yield Finding(
            kind="health",
            name="clock_ahead",
            subject=(topic,),
            severity=Severity.WARNING,
            title=f"A writer of {topic} has a clock that is {ahead:.0f} s ahead",
            description=(
                f"Message {offset} of partition {place.partition} of {topic} says that it was written at "
                f"{written:%Y-%m-%d %H:%M:%S} UTC, {ahead:.0f} s from now. Ages, windows, deadlines and retention go by "
                "such times."
            ),
            suggested_action=(
                f"Find the writer: `penstock tail {topic} --where --from-start --no-follow` shows the message at that "
                "offset. Have its machine's clock synchronised (NTP). Told of every topic, it is this machine's clock "
                "that is behind."
            ),
            labels={"topic": topic},
            figures={"ahead_s": round(ahead, 1)},
            evidence=(LogRange(topic=topic, partition=place.partition, first_offset=offset, last_offset=offset),),
        )


_DEPENDENCIES = {
    "redis": (
        "Redis",
        Severity.CRITICAL,
        "Budgets, caches, release marks and what was delivered stand in it: services retry, then stop, and go on when it is "
        "back.",
        "Bring Redis back: `penstock stack status`, or its own log. Then see `penstock budgets show` for what it still has.",
    ),
    "registry": (
        "The schema registry",
        Severity.WARNING,
        "Services that run need it no more; those that start wait for it.",
        "Bring the registry back: `penstock stack status`, or its own log. Start nothing anew meanwhile.",
    ),
}  # fmt: skip


def _away(look: Look, rules: HealthRules) -> Iterable[Finding]:
    for name, reason in sorted(look.away.items()):
        title, severity, meaning, remedy = _DEPENDENCIES[name]
        yield Finding(
            kind="health",
            name=f"{name}_away",
            subject=(name,),
            severity=severity,
            title=f"{title} does not answer",
            description=f"{title} does not answer alerting: {reason}. {meaning}",
            suggested_action=remedy,
            labels={"service": name},
            for_s=rules.unreachable_s,
            clear_s=30.0,
        )

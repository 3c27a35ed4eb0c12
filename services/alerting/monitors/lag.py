"""Consumer lag and standstill, pure: by the age of the oldest unread message, since a count says nothing about time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from penstock.bus import Partition
from penstock.contracts.records import LogRange, Severity

from services.alerting.monitors.conditions import Finding
from services.alerting.monitors.look import GroupLook, Look, Unread, messages

__all__ = ["NAMES", "Backlog", "LagRules", "LagState", "Standing", "observe", "to_be_dated"]

NAMES = frozenset({"consumer_lag", "consumer_stuck", "messages_expired_unread"})
"""Names of the alerts that are raised here."""

_EVIDENCE = 8
_CATCHING_UP = 0.1


class LagRules(msgspec.Struct, frozen=True):
    """When a group lags.

    Attributes:
        late_s: age of the oldest unread message from which it lags, seconds; it has caught up below half of that.
        critical_s: age from which that is critical; as is half of the topic's retention.
        stuck_s: time without progress on a partition with unread messages.
        trend_s: what it takes to tell whether it catches up: by at least a tenth of the time that passes.
        for_s: how long it must lag.
    """

    late_s: float = 300.0
    critical_s: float = 1800.0
    stuck_s: float = 300.0
    trend_s: float = 120.0
    for_s: float = 60.0


class Standing(msgspec.Struct, frozen=True):
    """Where a group stands on a partition, since when, and when it last had members (Unix time, seconds)."""

    offset: int
    since: float
    seen: float


class Backlog(msgspec.Struct, frozen=True):
    """A group's lag on a topic: ages of the oldest unread message of the last looks (Unix time, age), and whether it
    lags."""

    ages: tuple[tuple[float, float], ...] = ()
    late: bool = False


class LagState(msgspec.Struct, frozen=True):
    """What is remembered from look to look; of the size of the cluster.

    Attributes:
        ends: where the partitions ended at the last look: what lies before is older than one interval.
        standing: by group and partition with unread messages.
        backlogs: by group and topic.
    """

    ends: Mapping[Partition, int] = {}
    standing: Mapping[tuple[str, Partition], Standing] = {}
    backlogs: Mapping[tuple[str, str], Backlog] = {}


def to_be_dated(state: LagState, look: Look) -> set[tuple[Partition, int]]:
    """Return the messages whose time must be known: the oldest unread ones that stood there at the last look already.

    A message that came since is younger than an interval, and not worth a fetch.
    """
    return {
        (unread.place, unread.next_offset)
        for group in look.groups
        for unread in look.unread(group)
        if unread.count and unread.next_offset < state.ends.get(unread.place, 0)
    }


def observe(
    state: LagState, look: Look, retention_ms: Mapping[str, int], rules: LagRules
) -> tuple[LagState, list[Finding]]:
    """Return what lags, stands still or was lost at ``look``.

    Args:
        state: from the look before.
        look: with the times of :func:`to_be_dated`.
        retention_ms: by topic, where messages expire.
        rules: limits.

    One cause makes one alert: a group without members lags on everything, which is told once, by the health monitor;
    a partition that stands still is told as that and not as lag, unless its topic was lagging before.
    """
    now = look.at.timestamp()
    standing: dict[tuple[str, Partition], Standing] = {}
    backlogs: dict[tuple[str, str], Backlog] = {}
    findings: list[Finding] = []
    for group in look.groups:
        for topic, unread in _by_topic(look.unread(group)):
            findings += _expired(group, topic, unread)
            here = {each.place: _stands(state, group, each, rules, now) for each in unread if each.count}
            standing |= {(group.name, place): one for place, one in here.items()}
            if not group.members:
                if (known := state.backlogs.get((group.name, topic))) is not None:
                    backlogs[group.name, topic] = known
                continue
            waiting = [each for each in unread if each.count]
            stuck = [each for each in waiting if now - here[each.place].since >= rules.stuck_s]
            if group.state != "stable":
                stuck = []  # a rebalance that does not end is the health monitor's matter
            if stuck:
                longest = now - min(here[each.place].since for each in stuck)
                findings.append(_stuck(group, topic, stuck, longest))
            key = (group.name, topic)
            known = state.backlogs.get(key) or Backlog()
            moving = [each for each in waiting if known.late or each not in stuck]
            backlogs[key] = backlog = _followed(known, max((u.age_s for u in moving), default=0.0), now, rules)
            if backlog.late:
                findings.append(_lag(group, topic, moving, retention_ms.get(topic), rules))
    return LagState(dict(look.ends), standing, backlogs), findings


def _stands(state: LagState, group: GroupLook, unread: Unread, rules: LagRules, now: float) -> Standing:
    """A service that dies over one message and is started again stands still as well; one that was stopped does not."""
    before = state.standing.get((group.name, unread.place))
    seen = now if group.members or before is None else before.seen
    if before is None or before.offset != unread.next_offset or now - before.seen > rules.trend_s:
        return Standing(unread.next_offset, now, seen)
    return Standing(before.offset, before.since, seen)


def _by_topic(unread: Sequence[Unread]) -> Iterator[tuple[str, list[Unread]]]:
    topics: dict[str, list[Unread]] = {}
    for each in unread:
        topics.setdefault(each.place.topic, []).append(each)
    yield from topics.items()


def _followed(backlog: Backlog, age: float, now: float, rules: LagRules) -> Backlog:
    ages = (*((at, old) for at, old in backlog.ages if now - at <= rules.trend_s), (now, age))
    if backlog.late:
        return Backlog(ages, age > rules.late_s / 2)
    began, first = ages[0]
    # Whoever looks for the first time cannot tell. Catching up by a tenth of the time that passes, a backlog is gone
    # within ten times its age.
    known = now - began >= rules.trend_s / 2
    catching_up = first - age >= _CATCHING_UP * (now - began)
    return Backlog(ages, age >= rules.late_s and known and not catching_up)


def _lag(group: GroupLook, topic: str, unread: Sequence[Unread], retention_ms: int | None, rules: LagRules) -> Finding:
    oldest = max((each.age_s for each in unread), default=0.0)
    count = sum(each.count for each in unread)
    keeps_s = retention_ms / 1000 if retention_ms and retention_ms > 0 else None
    expiring = keeps_s is not None and oldest >= keeps_s / 2
    members = len(group.members)
    description = (
        f"Group {group.name} has not read {messages(count)} of {topic} on {len(unread)} partition(s); the oldest is "
        f"{_span(oldest)} old and it does not catch up. It has {members} member(s)."
    )
    if keeps_s is not None:
        description += f" Messages expire after {_span(keeps_s)}."
    return Finding(
        kind="lag",
        name="consumer_lag",
        subject=(group.name, topic),
        severity=Severity.CRITICAL if oldest >= rules.critical_s or expiring else Severity.WARNING,
        title=f"{group.name} is {_span(oldest)} behind on {topic}",
        description=description,
        suggested_action=(
            f"See whether {group.service} is slow or short of capacity: its log and penstock_batch_seconds. Add processes "
            f"(`penstock run --replicas {group.service}=N`), up to the partitions of {topic}."
        ),
        labels={"service": group.service, "group": group.name, "topic": topic},
        figures={"age_s": round(oldest, 1), "unread": float(count), "members": float(members)},
        evidence=_places(unread),
        for_s=rules.for_s,
    )


def _stuck(group: GroupLook, topic: str, stuck: Sequence[Unread], longest: float) -> Finding:
    places = {each.place for each in stuck}
    holders = sorted(
        f"{member.client_id} at {member.host.lstrip('/')} ({member.member_id})"
        for member in group.members
        if member.partitions & places
    )
    numbers = ", ".join(str(place.partition) for place in sorted(places))
    return Finding(
        kind="health",
        name="consumer_stuck",
        subject=(group.name, topic),
        severity=Severity.CRITICAL,
        title=f"{group.name} makes no progress on {topic}, partition {numbers}",
        description=(
            f"Group {group.name} has committed nothing on partition {numbers} of {topic} for {_span(longest)}; "
            f"{messages(sum(each.count for each in stuck))} there are unread. Read by {'; '.join(holders) or 'nobody'}."
        ),
        suggested_action=(
            f"See the last lines of the log of {group.service} there: a dependency that is away, or one message that takes "
            "forever. The first offset of the evidence is that message. Then restart that process."
        ),
        labels={"service": group.service, "group": group.name, "topic": topic},
        for_s=45.0,
        figures={
            "still_s": round(longest, 1),
            "unread": float(sum(each.count for each in stuck)),
            "partitions": float(len(stuck)),
        },
        evidence=_places(stuck),
        clear_s=30.0,
    )


def _expired(group: GroupLook, topic: str, unread: Sequence[Unread]) -> list[Finding]:
    lost = [each for each in unread if each.expired]
    if not lost:
        return []
    count = sum(each.expired for each in lost)
    return [
        Finding(
            kind="lag",
            name="messages_expired_unread",
            subject=(group.name, topic),
            severity=Severity.CRITICAL,
            title=f"{messages(count)} of {topic} expired before {group.name} read them",
            description=(
                f"Retention removed {messages(count)} of {topic} that group {group.name} had not read, on "
                f"{len(lost)} partition(s). They are gone from the log."
            ),
            suggested_action=(
                f"Raise retention_ms of {topic} in schemas/topics and run `penstock topics apply`, so that no more is lost; "
                f"then get {group.service} to read. The evidence names the offsets that are gone."
            ),
            labels={"service": group.service, "group": group.name, "topic": topic},
            figures={"expired": float(count)},
            evidence=tuple(
                LogRange(
                    topic=each.place.topic,
                    partition=each.place.partition,
                    first_offset=each.next_offset - each.expired,
                    last_offset=each.next_offset - 1,
                )
                for each in lost[:_EVIDENCE]
            ),
        )
    ]


def _places(unread: Sequence[Unread]) -> tuple[LogRange, ...]:
    oldest_first = sorted(unread, key=lambda each: -each.age_s)
    return tuple(
        LogRange(
            topic=each.place.topic,
            partition=each.place.partition,
            first_offset=each.next_offset,
            last_offset=each.next_offset + each.count - 1,
        )
        for each in oldest_first[:_EVIDENCE]
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"

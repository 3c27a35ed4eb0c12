"""What a look at the cluster shows: topics, groups, offsets, ages. Plain data that the monitors judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from penstock.bus import Partition

__all__ = ["GroupLook", "Look", "Member", "PartitionLook", "Unread", "messages", "service_of"]


@dataclass(frozen=True, slots=True)
class PartitionLook:
    """One partition: the broker that leads it (``None``: none does), its replicas and how many are in sync."""

    leader: int | None
    replicas: int
    in_sync: int


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a group, and what it was given to read."""

    member_id: str
    client_id: str
    host: str
    partitions: frozenset[Partition] = frozenset()


@dataclass(frozen=True, slots=True)
class GroupLook:
    """One consumer group.

    Attributes:
        service: whose it is.
        state: stable, rebalancing or empty.
        committed: offsets by partition, the next to be read.
    """

    name: str
    service: str
    state: str
    members: tuple[Member, ...] = ()
    committed: Mapping[Partition, int] = field(default_factory=dict)

    def reads(self) -> frozenset[Partition]:
        """Return what it reads: what its members were given; without members, what it committed."""
        if self.members:
            return frozenset(place for member in self.members for place in member.partitions)
        return frozenset(self.committed)


@dataclass(frozen=True, slots=True)
class Unread:
    """What a group has not read of a partition.

    Attributes:
        place: the partition.
        next_offset: the first that is unread and still there.
        count: messages up to the end.
        expired: messages that retention took before they were read.
        age_s: age of the oldest, seconds; 0.0 where it came since the last look.
    """

    place: Partition
    next_offset: int
    count: int
    expired: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Look:
    """The cluster at one moment.

    Attributes:
        at: when.
        topics: partitions of every topic, by number.
        groups: the groups of the catalogue's services.
        begins, ends: first offset that is there, and the one after the last.
        written_at: Unix time in ms of the message at an offset, for the oldest unread ones.
        newest: of each topic, the message with the latest time: its partition, offset and Unix time in ms.
        away: what does not answer, by name, with the reason.
        unwatched: services that are left out, by their own name or that of one of their groups.
    """

    at: datetime
    topics: Mapping[str, Mapping[int, PartitionLook]]
    groups: tuple[GroupLook, ...]
    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]
    written_at: Mapping[tuple[Partition, int], int] = field(default_factory=dict)
    newest: Mapping[str, tuple[Partition, int, int]] = field(default_factory=dict)
    away: Mapping[str, str] = field(default_factory=dict)
    unwatched: frozenset[str] = frozenset()

    def unread(self, group: GroupLook) -> list[Unread]:
        """Return what ``group`` has not read, by partition, without those it has read to the end.

        Without a commit a group begins with the oldest message, as all services do.
        """
        found = []
        for place in sorted(group.reads()):
            if place not in self.ends:
                continue
            begin, end = self.begins.get(place, 0), self.ends[place]
            committed = group.committed.get(place, begin)
            following = max(committed, begin)
            if following < end:
                written = self.written_at.get((place, following))
                age = max(0.0, self.at.timestamp() - written / 1000) if written is not None else 0.0
                found.append(Unread(place, following, end - following, max(0, begin - committed), age))
            elif committed < begin:
                found.append(Unread(place, following, 0, begin - committed, 0.0))
        return found


def service_of(group: str, services: Iterable[str]) -> str | None:
    """Return whose group this is: its name is the service's, or begins with it and a hyphen."""
    return next((name for name in services if group == name or group.startswith(f"{name}-")), None)


def messages(count: int) -> str:
    """Return a number of messages in words."""
    return "1 message" if count == 1 else f"{count:,} messages"

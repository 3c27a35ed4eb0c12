"""Kafka's admin API, asked in a process of its own.

librdkafka ends the process that it is in where an assertion of its fails (rd_kafka_enq_once_del_source_return in 2.16, when
a broker goes away), and that must not be the process that delivers alerts.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fnmatch import fnmatchcase
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # re-exported without saying so
from penstock.bus import Partition
from penstock.contracts.provisioning import admin_client
from penstock.settings import KafkaSettings

from services.alerting.monitors.look import GroupLook, Member, PartitionLook, service_of

__all__ = ["AdminProcess", "Read"]

T = TypeVar("T")

_REBALANCING = {ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.COMPLETING_REBALANCING}
_EMPTY = {ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}
_AT: Any = OffsetSpec  # untyped


@dataclass(frozen=True, slots=True)
class Read:
    """What the admin API says; the fields are those of :class:`services.alerting.monitors.look.Look`."""

    topics: Mapping[str, Mapping[int, PartitionLook]]
    groups: tuple[GroupLook, ...]
    unwatched: frozenset[str]
    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]
    newest: Mapping[str, tuple[Partition, int, int]]


class AdminProcess:
    """A process that asks; another one takes its place when it has ended."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._pool: ProcessPoolExecutor | None = None

    async def read(
        self, topics: Sequence[str], services: Sequence[str], ignored: Sequence[str], timeout_s: float
    ) -> Read:
        """Return what there is of topics and groups.

        Args:
            topics: those to look at.
            services: whose groups are looked at.
            ignored: patterns of groups that are not.
            timeout_s: longest time of one request.

        Raises:
            OSError: Kafka does not answer, or the process has ended.
        """
        if self._pool is None:
            # Spawned: a fork of a process with threads and connections would share them.
            self._pool = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_begin, initargs=(self._settings,)
            )
        try:
            asked = self._pool.submit(_read, tuple(topics), tuple(services), tuple(ignored), timeout_s)
            return await asyncio.wrap_future(asked)
        except BrokenProcessPool as error:
            self.close()
            raise OSError("the process that asks Kafka has ended; the next look begins another") from error

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


class _Admin:
    def __init__(self, settings: KafkaSettings) -> None:
        self._admin = admin_client(settings)
        self._timeout_s = 10.0

    def read(self, wanted: Sequence[str], services: Sequence[str], ignored: Sequence[str], timeout_s: float) -> Read:
        self._timeout_s = timeout_s
        metadata = self._admin.list_topics(timeout=timeout_s)
        topics = {
            name: {
                number: PartitionLook(None if each.leader < 0 else each.leader, len(each.replicas), len(each.isrs))
                for number, each in metadata.topics[name].partitions.items()
            }
            for name in wanted
            if name in metadata.topics
        }
        groups, unwatched = self.groups(services, ignored)
        led = [Place(name, n) for name, parts in topics.items() for n, each in parts.items() if each.leader is not None]
        begins = self.offsets(led, _AT.earliest())
        # Ends after the commits: a commit that lies behind its end is then true, and never a negative lag.
        ends = self.offsets(led, _AT.latest())
        return Read(
            topics=topics,
            groups=tuple(groups),
            unwatched=unwatched,
            begins={place: found.offset for place, found in begins.items()},
            ends={place: found.offset for place, found in ends.items()},
            newest=self.newest(led),
        )

    def newest(self, places: Sequence[Place]) -> dict[str, tuple[Partition, int, int]]:
        try:
            latest = self.offsets(places, _AT.max_timestamp())
        except KafkaException:
            return {}  # brokers before 3.0, and tiered topics of some, do not say: clocks are not judged there
        newest: dict[str, tuple[Partition, int, int]] = {}
        for place, found in latest.items():
            if found.timestamp > newest.get(place.topic, (place, -1, -1))[2]:
                newest[place.topic] = (place, found.offset, found.timestamp)
        return newest

    def groups(self, services: Sequence[str], patterns: Sequence[str]) -> tuple[list[GroupLook], frozenset[str]]:
        """Return the groups that are watched, and the services that are left out."""
        listed = self._done(self._admin.list_consumer_groups(request_timeout=self._timeout_s))
        if listed.errors:
            raise listed.errors[0]
        owners = {
            group.group_id: service
            for group in listed.valid
            if (service := service_of(group.group_id, services)) is not None
        }
        ignored = {name for name in {*owners, *services} if any(fnmatchcase(name, each) for each in patterns)}
        unwatched = frozenset(owners.get(name, name) for name in ignored)
        owners = {name: service for name, service in owners.items() if name not in ignored}
        if not owners:
            return [], unwatched
        asked = self._admin.describe_consumer_groups(sorted(owners), request_timeout=self._timeout_s)
        # One group a call is what the API takes; the calls run side by side.
        offsets = {
            name: self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(name)], request_timeout=self._timeout_s
            )[name]
            for name in sorted(owners)
        }
        found = []
        for name, future in asked.items():
            described = self._done(future)
            committed = self._done(offsets[name])
            state = described.state
            members = tuple(
                Member(
                    each.member_id,
                    each.client_id,
                    each.host,
                    frozenset(Partition(p.topic, p.partition) for p in each.assignment.topic_partitions),
                )
                for each in described.members
            )
            found.append(
                GroupLook(
                    name=name,
                    service=owners[name],
                    state="rebalancing" if state in _REBALANCING else "empty" if state in _EMPTY else "stable",
                    members=members,
                    committed={
                        Partition(p.topic, p.partition): p.offset for p in committed.topic_partitions if p.offset >= 0
                    },
                )
            )
        return found, unwatched

    def offsets(self, places: Sequence[Place], spec: Any) -> dict[Partition, Any]:
        if not places:
            return {}
        asked = self._admin.list_offsets(dict.fromkeys(places, spec), request_timeout=self._timeout_s)
        return {Partition(p.topic, p.partition): self._done(future) for p, future in asked.items()}

    def _done(self, future: Future[T]) -> T:
        return future.result(self._timeout_s + 1)


_admin: list[_Admin] = []


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        # Nobody else would end it: a pool's process holds both ends of the queue that it waits for.
        os._exit(0)


def _begin(settings: KafkaSettings) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches the whole group of processes; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _admin.append(_Admin(settings))


def _read(topics: Sequence[str], services: Sequence[str], ignored: Sequence[str], timeout_s: float) -> Read:
    try:
        return _admin[0].read(topics, services, ignored, timeout_s)
    except (KafkaException, TimeoutError) as error:
        # The client's own errors cannot be sent to another process.
        first = error.args[0] if error.args else error
        raise OSError(first.str() if hasattr(first, "str") else str(error) or type(error).__name__) from None

"""What the monitors read: the cluster through Kafka's admin API, Redis and the registry by asking them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # re-exported without saying so
from penstock.bus import Partition
from penstock.bus.kafka import client_options
from penstock.clock import Clock
from penstock.contracts.provisioning import admin_client
from penstock.settings import KafkaSettings
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.alerting.monitors_look import GroupLook, Look, Member, PartitionLook, service_of

__all__ = ["Cluster", "KafkaCluster", "Unseen", "asked_redis", "asked_registry", "reached"]

T = TypeVar("T")
Dated = Callable[[Look], Iterable[tuple[Partition, int]]]
"""Says of which messages the time is needed."""

_REBALANCING = {ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.COMPLETING_REBALANCING}
_EMPTY = {ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}
_DATED_AT_ONCE = 64
_AT: Any = OffsetSpec  # untyped


class Unseen(Exception):
    """The cluster could not be looked at; nothing is known of it now."""


class Cluster(Protocol):
    """Where looks come from."""

    async def look(self, dated: Dated) -> Look:
        """Return the cluster as it is now.

        Raises:
            Unseen: it does not answer.
        """
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class KafkaCluster:
    """A Kafka cluster: six requests a look, and a small fetch for each partition with old unread messages."""

    def __init__(
        self,
        settings: KafkaSettings,
        clock: Clock,
        topics: Sequence[str],
        services: Sequence[str],
        ignored: Sequence[str],
        *,
        timeout_s: float = 10.0,
        away: Callable[[], Any] | None = None,
    ) -> None:
        """Create it; nothing is connected yet.

        Args:
            settings: where Kafka is.
            clock: the time of a look.
            topics: those to look at.
            services: whose groups are looked at.
            ignored: patterns of groups that are not.
            timeout_s: longest time of one request.
            away: asked at each look for what else does not answer; a coroutine function that returns
                :attr:`Look.away`.
        """
        self._admin = admin_client(settings)
        self._options = client_options(settings)
        self._address = settings.kafka_bootstrap
        self._clock = clock
        self._topics = tuple(topics)
        self._services = tuple(services)
        self._ignored = tuple(ignored)
        self._timeout_s = timeout_s
        self._away = away
        self._consumer: AIOKafkaConsumer | None = None
        self._times: dict[Partition, tuple[int, int]] = {}

    async def look(self, dated: Dated) -> Look:
        """Return the cluster as it is now, with the times of the messages that ``dated`` names."""
        try:
            # One bound for all: a broker that answers each request slowly must not make a look last forever.
            async with asyncio.timeout(6 * self._timeout_s):
                return await self._look(dated)
        except (KafkaException, KafkaError, OSError, TimeoutError) as error:
            raise Unseen(f"{self._address}: {_reason(error)}") from error

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None

    async def _look(self, dated: Dated) -> Look:
        away = dict(await self._away()) if self._away else {}
        await reached(self._address)
        metadata = await asyncio.to_thread(self._admin.list_topics, timeout=self._timeout_s)
        topics = {
            name: {
                number: PartitionLook(None if each.leader < 0 else each.leader, len(each.replicas), len(each.isrs))
                for number, each in metadata.topics[name].partitions.items()
            }
            for name in self._topics
            if name in metadata.topics
        }
        groups, unwatched = await self._groups()
        led = [Place(name, n) for name, parts in topics.items() for n, each in parts.items() if each.leader is not None]
        begins = await self._offsets(led, _AT.earliest())
        # Ends after the commits: a commit that lies behind its end is then true, and never a negative lag.
        ends = await self._offsets(led, _AT.latest())
        look = Look(
            at=self._clock.now(),
            topics=topics,
            groups=tuple(groups),
            begins={place: found.offset for place, found in begins.items()},
            ends={place: found.offset for place, found in ends.items()},
            newest=await self._newest(led),
            away=away,
            unwatched=unwatched,
        )
        wanted = list(dated(look))
        return _with_times(look, await self._dates(wanted)) if wanted else look

    async def _newest(self, places: Sequence[Place]) -> dict[str, tuple[Partition, int, int]]:
        try:
            latest = await self._offsets(places, _AT.max_timestamp())
        except KafkaException:
            return {}  # brokers before 3.0, and tiered topics of some, do not say: clocks are not judged there
        newest: dict[str, tuple[Partition, int, int]] = {}
        for place, found in latest.items():
            if found.timestamp > newest.get(place.topic, (place, -1, -1))[2]:
                newest[place.topic] = (place, found.offset, found.timestamp)
        return newest

    async def _groups(self) -> tuple[list[GroupLook], frozenset[str]]:
        """Return the groups that are watched, and the services that are left out."""
        listed = await self._done(self._admin.list_consumer_groups(request_timeout=self._timeout_s))
        if listed.errors:
            raise listed.errors[0]
        owners = {
            group.group_id: service
            for group in listed.valid
            if (service := service_of(group.group_id, self._services)) is not None
        }
        ignored = {
            name for name in {*owners, *self._services} if any(fnmatchcase(name, each) for each in self._ignored)
        }
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
            described = await self._done(future)
            committed = await self._done(offsets[name])
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

    async def _offsets(self, places: Sequence[Place], spec: Any) -> dict[Partition, Any]:
        if not places:
            return {}
        asked = self._admin.list_offsets(dict.fromkeys(places, spec), request_timeout=self._timeout_s)
        return {Partition(p.topic, p.partition): await self._done(future) for p, future in asked.items()}

    async def _done(self, future: Future[T]) -> T:
        return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_s + 1)

    async def _dates(self, wanted: Sequence[tuple[Partition, int]]) -> Mapping[tuple[Partition, int], int]:
        """Return the times of messages, from what was fetched before where the place has not moved.

        Where a message cannot be fetched in time, the last time known of its partition stands for it: it is older, and
        errs to the side of an alert.
        """
        missing = [(place, offset) for place, offset in wanted if self._times.get(place, (-1, 0))[0] != offset]
        for first in range(0, len(missing), _DATED_AT_ONCE):
            self._times.update(await self._fetched(missing[first : first + _DATED_AT_ONCE]))
        return {(place, offset): self._times[place][1] for place, offset in wanted if place in self._times}

    async def _fetched(self, wanted: Sequence[tuple[Partition, int]]) -> dict[Partition, tuple[int, int]]:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **self._options,
                client_id="penstock-alerting-monitors",
                enable_auto_commit=False,
                # The broker sends at least the first batch, however large; more of it is not wanted.
                max_partition_fetch_bytes=4096,
            )
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        consumer = self._consumer
        offsets = {TopicPartition(*place): offset for place, offset in wanted}
        consumer.assign(list(offsets))
        for place, offset in offsets.items():
            consumer.seek(place, offset)
        found: dict[Partition, tuple[int, int]] = {}
        give_up = self._clock.monotonic() + self._timeout_s / 2
        while len(found) < len(offsets) and self._clock.monotonic() < give_up:
            for place, messages in (await consumer.getmany(timeout_ms=500)).items():
                # Compacted or cut: the next message that is there is the oldest unread one.
                if messages and Partition(*place) not in found:
                    found[Partition(*place)] = (offsets[place], messages[0].timestamp)
                    consumer.pause(place)
        consumer.pause(*offsets)
        return found


async def reached(bootstrap: str, timeout_s: float = 2.0) -> None:
    """Return if a broker takes a connection.

    librdkafka's admin client must not be asked while none does: requests that end in a reconnect can trip its assertion
    (in rd_kafka_enq_once_del_source_return, seen in 2.16), which ends the process.

    Args:
        bootstrap: ``host:port``, several with commas between.
        timeout_s: longest time of one try.

    Raises:
        OSError: none does.
    """
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError, ValueError):
            continue
        writer.close()
        return
    raise OSError("no broker takes a connection")


async def asked_redis(redis: Redis, timeout_s: float = 5.0) -> str | None:
    """Return why Redis does not answer, or ``None`` where it does."""
    try:
        async with asyncio.timeout(timeout_s):
            await redis.ping()
    except (RedisError, OSError, TimeoutError) as error:
        return _reason(error) or f"no answer within {timeout_s:g} s"
    return None


async def asked_registry(client: httpx.AsyncClient, url: str, timeout_s: float = 5.0) -> str | None:
    """Return why the schema registry does not answer, or ``None`` where it does."""
    try:
        async with asyncio.timeout(timeout_s):
            response = await client.get(f"{url.rstrip('/')}/config")
    except (httpx.HTTPError, OSError, TimeoutError) as error:
        return _reason(error) or f"no answer within {timeout_s:g} s"
    return f"it answers {response.status_code}" if response.status_code >= 500 else None


def _with_times(look: Look, times: Mapping[tuple[Partition, int], int]) -> Look:
    return Look(
        look.at, look.topics, look.groups, look.begins, look.ends, times, look.newest, look.away, look.unwatched,
    )  # fmt: skip


def _reason(error: BaseException) -> str:
    cause = error.args[0] if error.args else error
    text = str(cause.str()) if hasattr(cause, "str") else str(error)
    return text or type(error).__name__

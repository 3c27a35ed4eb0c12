"""What the monitors read: the cluster through Kafka's admin API, Redis and the registry by asking them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from penstock.bus import Partition
from penstock.bus.kafka import client_options
from penstock.clock import Clock
from penstock.settings import KafkaSettings
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.alerting.monitors.admin import AdminProcess
from services.alerting.monitors.look import Look

__all__ = ["Cluster", "KafkaCluster", "Unseen", "asked_redis", "asked_registry"]

Dated = Callable[[Look], Iterable[tuple[Partition, int]]]
"""Says of which messages the time is needed."""

_DATED_AT_ONCE = 64


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
        self._admin = AdminProcess(settings)
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
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unseen(f"{self._address}: {_reason(error)}") from error

    async def close(self) -> None:
        self._admin.close()
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None

    async def _look(self, dated: Dated) -> Look:
        away = dict(await self._away()) if self._away else {}
        read = await self._admin.read(self._topics, self._services, self._ignored, self._timeout_s)
        look = Look(
            at=self._clock.now(),
            topics=read.topics,
            groups=read.groups,
            begins=read.begins,
            ends=read.ends,
            newest=read.newest,
            away=away,
            unwatched=read.unwatched,
        )
        wanted = list(dated(look))
        return _with_times(look, await self._dates(wanted)) if wanted else look

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

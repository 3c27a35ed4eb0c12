"""The log as Kafka keeps it, through aiokafka."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    RebalanceInProgressError,
)

from penstock.bus.kafka_backlog import backlog_of
from penstock.bus.types import Backlog, Message, Partition, RawConsumer, RawProducer, RawReader, Sent
from penstock.clock import Clock, SystemClock
from penstock.settings import KafkaSettings
from penstock.telemetry import get_logger

__all__ = ["KafkaBus", "KafkaUnavailable", "client_options"]

log = get_logger(__name__)

_LARGEST_MESSAGE = 8 * 1024 * 1024
_LARGEST_FETCH = 8 * 1024 * 1024


class KafkaUnavailable(Exception):
    """No broker answers; the message names the address and the remedy."""


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return what every aiokafka client needs to connect: address, TLS and SASL."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile:
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
        options["ssl_context"] = context
    if settings.kafka_security_protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": password.get_secret_value() if password else None,
        }
    return options


class _KafkaProducer:
    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Awaitable[Sent]:
        try:
            future = await self._producer.send(topic, value, key=key, headers=list(headers), partition=partition)
        except MessageSizeTooLargeError as error:
            raise ValueError(
                f"{topic}: a message of {len(value or b''):,} bytes is over the limit of {_LARGEST_MESSAGE:,}; split it"
            ) from error
        return _Acknowledged(future)


class _Acknowledged(Awaitable[Sent]):
    """aiokafka's future, giving our own type."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def __await__(self) -> Any:
        metadata = yield from self.future.__await__()
        return Sent(metadata.topic, metadata.partition, metadata.offset)


class _KafkaConsumer:
    def __init__(self, consumer: AIOKafkaConsumer, options: Mapping[str, Any]) -> None:
        self._consumer = consumer
        self._options = options

    async def poll(self, timeout_s: float, max_messages: int) -> Sequence[Message]:
        polled = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=max_messages)
        return list(_messages(polled))

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        mine = self._consumer.assignment()
        ours = {TopicPartition(*tp): offset for tp, offset in offsets.items() if TopicPartition(*tp) in mine}
        if not ours:
            return
        try:
            await self._consumer.commit(ours)
        except (CommitFailedError, IllegalStateError, RebalanceInProgressError) as error:
            # The partitions moved: their new owner reads from the last commit, and the identities make it harmless.
            log.info("commit skipped, partitions moved", reason=str(error))
        except KafkaError as error:
            if not error.retriable:
                raise
            # The next interval tries again; until then a restart would only repeat some work.
            log.warning("commit failed, will be repeated", reason=str(error))

    def pause(self) -> None:
        self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        self._consumer.resume(*self._consumer.paused())

    async def backlog(self) -> Mapping[Partition, Backlog]:
        return await backlog_of(self._consumer, self._options)

    async def close(self) -> None:
        await self._consumer.stop()


class _KafkaReader:
    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._ends: Mapping[TopicPartition, int] = {}

    async def poll(self, timeout_s: float) -> Sequence[Message]:
        return list(_messages(await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=1000)))

    async def at_end(self) -> bool:
        # Asking the broker waits behind the fetch under way, up to half a second: it is asked again only once what was the
        # end before is reached.
        if self._ends and await self._before(self._ends):
            return False
        self._ends = await self._consumer.end_offsets(self._consumer.assignment())
        return not await self._before(self._ends)

    async def _before(self, ends: Mapping[TopicPartition, int]) -> bool:
        for partition, end in ends.items():
            if await self._consumer.position(partition) < end:
                return True
        return False

    async def close(self) -> None:
        await self._consumer.stop()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, on_revoke: Callable[[], Awaitable[None]], on_assign: Callable[[], None]) -> None:
        self._on_revoke = on_revoke
        self._on_assign = on_assign
        self._had_some = False

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if self._had_some:
            await self._on_revoke()
        self._had_some = False

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._had_some = True
        self._on_assign()


def _messages(polled: Mapping[TopicPartition, Sequence[Any]]) -> Iterable[Message]:
    for records in polled.values():
        for r in records:
            yield Message(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))


def _fetching(gather_ms: int) -> dict[str, int]:
    # Where nobody waits, fewer and larger fetches: the broker answers when a quarter of a MiB is there, or ten times a
    # second.
    if gather_ms:
        return {"fetch_min_bytes": 256 * 1024, "fetch_max_wait_ms": max(100, gather_ms)}
    return {"fetch_max_wait_ms": 500}


class KafkaBus:
    """A connection to a Kafka cluster. Start it before use, close it after."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        client_id: str = "penstock",
        session_timeout_ms: int = 10_000,
        start_timeout_s: float = 60.0,
        gather_ms: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._options = client_options(settings)
        self._address = settings.kafka_bootstrap
        self._client_id = client_id
        self._session_timeout_ms = session_timeout_ms
        self._start_timeout_s = start_timeout_s
        self._gather_ms = gather_ms
        self._clock = clock or SystemClock()
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaUnavailable: no broker answered within ``start_timeout_s``.
        """
        producer = AIOKafkaProducer(
            **self._options,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            linger_ms=self._gather_ms,
            max_request_size=_LARGEST_MESSAGE + 512 * 1024,
            max_batch_size=256 * 1024,
            # A broker that restarts is back within this; a batch that waits longer fails, and the service with it.
            request_timeout_ms=60_000,
        )
        await self._started(producer)
        self._producer = producer

    async def close(self) -> None:
        """Flush what was sent and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def __aenter__(self) -> KafkaBus:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def producer(self) -> RawProducer:
        """Return the connection's idempotent producer."""
        if self._producer is None:
            raise RuntimeError("the bus is not started")
        return _KafkaProducer(self._producer)

    async def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        on_revoke: Callable[[], Awaitable[None]],
        on_assign: Callable[[], None],
        gather_ms: int = 0,
    ) -> RawConsumer:
        """Join ``group`` as a member that reads ``topics`` from the last commit, else from the beginning."""
        consumer = AIOKafkaConsumer(
            **self._options,
            client_id=self._client_id,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=self._session_timeout_ms // 4,
            **_fetching(max(self._gather_ms, gather_ms)),
            max_partition_fetch_bytes=_LARGEST_FETCH,
            # A topic that is created or grown later is picked up after this.
            metadata_max_age_ms=30_000,
        )
        consumer.subscribe(list(topics), listener=_Listener(on_revoke, on_assign))
        await self._started(consumer)
        return _KafkaConsumer(consumer, self._options | {"client_id": self._client_id})

    async def read(
        self,
        topics: Sequence[str],
        *,
        from_end: bool = False,
        since_ms: int | None = None,
        partitions: Collection[int] | None = None,
    ) -> RawReader:
        """Read ``topics`` without a group: whole, from ``since_ms`` (Unix time) on, or from where they end now.

        Raises:
            KafkaUnavailable: a topic does not exist.
        """
        consumer = AIOKafkaConsumer(
            **self._options,
            client_id=self._client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_LARGEST_FETCH,
        )
        await self._started(consumer)
        places = []
        for topic in topics:
            numbers = consumer.partitions_for_topic(topic) or await self._partitions(consumer, topic)
            if not numbers:
                await consumer.stop()
                raise KafkaUnavailable(f"topic {topic} does not exist at {self._address}; run `penstock topics apply`")
            wanted = numbers if partitions is None else numbers.intersection(partitions)
            places += [TopicPartition(topic, number) for number in sorted(wanted)]
        consumer.assign(places)
        if from_end:
            # Resolved here and not at the first poll: what is produced after this call must be seen.
            for partition, end in (await consumer.end_offsets(places)).items():
                consumer.seek(partition, end)
        elif since_ms is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(places, since_ms))
            ends = await consumer.end_offsets(places)
            for partition in places:
                later = found.get(partition)
                consumer.seek(partition, ends[partition] if later is None else later.offset)
        return _KafkaReader(consumer)

    async def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        """Return the offsets that ``group`` has committed in ``topics``; a partition without a commit is left out."""
        consumer = await self._assigned(group, topics)
        try:
            offsets = {tp: await consumer.committed(tp) for tp in consumer.assignment()}
        finally:
            await consumer.stop()
        return {Partition(tp.topic, tp.partition): offset for tp, offset in offsets.items() if offset is not None}

    async def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Set the offsets of ``group``, which must have no member that runs."""
        consumer = await self._assigned(group, sorted({place.topic for place in offsets}))
        try:
            await consumer.commit({TopicPartition(*place): offset for place, offset in offsets.items()})
        finally:
            await consumer.stop()

    async def _assigned(self, group: str, topics: Sequence[str]) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._options, client_id=self._client_id, group_id=group, enable_auto_commit=False
        )
        await self._started(consumer)
        consumer.assign(
            [
                TopicPartition(topic, number)
                for topic in topics
                for number in sorted(consumer.partitions_for_topic(topic) or await self._partitions(consumer, topic))
            ]
        )
        return consumer

    async def _partitions(self, consumer: AIOKafkaConsumer, topic: str) -> set[int]:
        await consumer._client.add_topic(topic)
        return consumer.partitions_for_topic(topic) or set()

    async def _started(self, client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
        deadline = self._clock.monotonic() + self._start_timeout_s
        while True:
            try:
                await client.start()
                return
            except KafkaConnectionError as error:
                if self._clock.monotonic() >= deadline:
                    await client.stop()
                    raise KafkaUnavailable(
                        f"no Kafka broker answers at {self._address} after {self._start_timeout_s:.0f} s ({error}); "
                        "start the stack with `penstock stack up` or set KAFKA_BOOTSTRAP"
                    ) from error
                log.warning("waiting for Kafka", address=self._address)
                await self._clock.sleep(0.5)

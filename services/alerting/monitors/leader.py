"""Which replica watches: the one that holds the one partition of a consumer group."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, RebalanceInProgressError
from aiokafka.structs import OffsetAndMetadata
from penstock.bus.kafka import client_options
from penstock.settings import KafkaSettings

__all__ = ["KafkaLeadership", "Leadership"]


class Leadership(Protocol):
    """Says who leads, and when the leader looked last."""

    async def held(self) -> bool:
        """Tell whether this replica leads; joins where it has not."""
        ...

    def still_held(self) -> bool:
        """Tell the same as far as is known without asking."""
        ...

    async def looked_at(self) -> datetime | None:
        """Return when a leader, this or another replica, looked last."""
        ...

    async def looked(self, at: datetime) -> None:
        """Note that this replica looked."""
        ...

    async def close(self) -> None:
        """Lead no more."""
        ...


class _Lease(ConsumerRebalanceListener):  # type: ignore[misc]
    """Whether the partition is held. It is let go before the group is joined again, so that no two hold it at once: the
    consumer's own assignment stays until the next one is known, when another may have it already."""

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.held = False

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.held = False

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.held = self.place in set(assigned)


class KafkaLeadership:
    """Leadership by a consumer group on a topic of one partition. No message is read: the partition is the lease.

    The time of the last look stands in the commit's metadata. Kafka refuses a commit of whoever has lost the partition.
    """

    GROUP: ClassVar[str] = "alerting-monitors"
    TOPIC: ClassVar[str] = "dlq-alerting"

    def __init__(
        self, settings: KafkaSettings, *, session_timeout_ms: int, group: str = GROUP, topic: str = TOPIC
    ) -> None:
        self._options: dict[str, Any] = client_options(settings)
        self._group = group
        self._topic = topic
        self._session_timeout_ms = session_timeout_ms
        self._consumer: AIOKafkaConsumer | None = None
        self._lease = _Lease(TopicPartition(topic, 0))

    async def held(self) -> bool:
        """Tell whether this replica leads.

        Raises:
            aiokafka.errors.KafkaError: Kafka is away.
        """
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **self._options,
                client_id="penstock-alerting-monitors",
                group_id=self._group,
                enable_auto_commit=False,
                session_timeout_ms=self._session_timeout_ms,
                heartbeat_interval_ms=self._session_timeout_ms // 4,
            )
            consumer.subscribe([self._topic], listener=self._lease)
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        # Nothing is fetched, but a member that never asks is taken for dead.
        self._consumer.pause(*self._consumer.assignment())
        await self._consumer.getmany(timeout_ms=0)
        return self.still_held()

    def still_held(self) -> bool:
        return self._consumer is not None and self._lease.held

    async def looked_at(self) -> datetime | None:
        """Return the time that the last commit notes; ``None`` without one, or where it is none."""
        if self._consumer is None:
            return None
        place = self._lease.place
        found = await self._consumer._coordinator.fetch_committed_offsets([place])
        note = found[place].metadata if place in found else ""
        try:
            return datetime.fromisoformat(note).astimezone(UTC) if note else None
        except ValueError:
            return None

    async def looked(self, at: datetime) -> None:
        if self._consumer is None:
            return
        note = OffsetAndMetadata(0, at.astimezone(UTC).isoformat(timespec="seconds"))
        try:
            await self._consumer.commit({self._lease.place: note})
        except (CommitFailedError, IllegalStateError, RebalanceInProgressError):
            return  # it moved; the next question to `held` says so

    async def close(self) -> None:
        self._lease.held = False
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None

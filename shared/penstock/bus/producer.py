"""The one way to produce: records in, acknowledgements out."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime

from prometheus_client import Counter

from penstock.bus.types import Message, RawProducer, Sent
from penstock.clock import Clock, SystemClock
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import DeadLetter, Record
from penstock.redaction import without_credentials
from penstock.telemetry import metrics

__all__ = ["REPLAYED", "Producer", "dead_letter"]

REPLAYED = "penstock-replayed"
"""Header of a dead letter that a person sent to its topic again."""

# A dead letter carries its origin's bytes and must itself fit into a message of 8 MiB.
_LARGEST_ORIGIN = 7 * 1024 * 1024
_CUT_ORIGIN = 64 * 1024


class Producer:
    """Encodes and sends. Sends of one partition keep their order; idempotent, acknowledged by all replicas in sync."""

    def __init__(self, raw: RawProducer, codec: Codec, service: str, clock: Clock | None = None) -> None:
        self.codec = codec
        self.service = service
        self._raw = raw
        self._clock = clock or SystemClock()
        self._produced: dict[str, Counter] = {}

    async def send(
        self, topic: str, key: str, record: Record, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Awaitable[Sent]:
        """Send ``record``; the returned future is done when the broker has it.

        Raises:
            penstock.contracts.codec.Invalid: the record does not fit the topic's schema.
        """
        value = self.codec.encode(topic, record)
        self._count(topic)
        if isinstance(record, DeadLetter):
            metrics.DEAD_LETTERS.labels(self.service, record.origin_topic, record.code).inc()
        return await self._raw.send(topic, key.encode(), value, headers)

    async def send_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Awaitable[Sent]:
        """Send bytes that are encoded already."""
        self._count(topic)
        return await self._raw.send(topic, key, value, headers, partition)

    def _count(self, topic: str) -> None:
        counter = self._produced.get(topic)
        if counter is None:
            counter = self._produced[topic] = metrics.PRODUCED.labels(self.service, topic)
        counter.inc()

    async def dead_letter(self, group: str, message: Message, code: str, reason: str) -> Awaitable[Sent]:
        """Put ``message`` aside with its origin and the reason; the future is done when the broker has it."""
        metrics.DEAD_LETTERS.labels(self.service, message.topic, code).inc()
        letter = dead_letter(self.service, group, message, code, reason, self._clock.now())
        topic = f"dlq-{self.service}"
        key = f"{message.topic}/{message.partition}/{message.offset}"
        headers = without_credentials(message.headers)
        return await self._raw.send(topic, key.encode(), self.codec.encode(topic, letter), headers)


def dead_letter(service: str, group: str, message: Message, code: str, reason: str, now: datetime) -> DeadLetter:
    """Return the dead letter of ``message``. Its identity follows from the origin: a replay makes the same one.

    A header that is a credential by its name is left out: dead letters are read by people.
    """
    value = message.value
    truncated = value is not None and len(value) > _LARGEST_ORIGIN
    return DeadLetter(
        event_id=event_id(f"{message.topic}/{message.partition}/{message.offset}", f"dlq/{group}", 0),
        request_id="",
        tenant_id="",
        occurred_at=now.astimezone(UTC),
        causation_id="",
        service=service,
        group=group,
        origin_topic=message.topic,
        origin_partition=message.partition,
        origin_offset=message.offset,
        origin_key=message.key,
        origin_value=value[:_CUT_ORIGIN] if truncated and value is not None else value,
        origin_headers=dict(without_credentials(message.headers)),
        truncated=truncated,
        code=code,
        reason=reason,
    )

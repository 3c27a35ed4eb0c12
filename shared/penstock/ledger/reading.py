"""Reading the ledger from the log: decoded, each cost once, and nothing dropped in silence."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from penstock.bus.history import history
from penstock.bus.types import Event, Message, Transport
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import Cost
from penstock.telemetry import get_logger

__all__ = ["LedgerEntry", "Source", "accounted_at", "decoded", "identity", "read_costs", "read_topic"]

log = get_logger(__name__)

_CLOCKS = timedelta(minutes=10)
"""How far the broker's clock may be behind that of intake, which says when a cost counts."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

OnUndecodable = Callable[[Message, Undecodable], None]
"""What is told of a message that cannot be decoded."""


class Source(Protocol):
    """An open connection to the log."""

    @property
    def bus(self) -> Transport: ...

    @property
    def codec(self) -> Codec: ...


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A cost and where it stands on the topic ``costs``."""

    cost: Cost
    partition: int
    offset: int


def accounted_at(cost: Cost) -> datetime:
    """Return the instant that decides the windows a cost counts in, UTC."""
    return (cost.accounted_at or cost.occurred_at).astimezone(UTC)


def identity(event_id: str) -> bytes | str:
    """Return what stands for an event_id where many are remembered: the 16 bytes of a UUID, else the id itself."""
    return bytes.fromhex(event_id.replace("-", "")) if _UUID.fullmatch(event_id) else event_id


async def read_costs(
    connection: Source,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    undecodable: OnUndecodable | None = None,
) -> AsyncIterator[LedgerEntry]:
    """Yield the costs on the log that count from ``since`` to before ``until``, each once.

    The range is by ``accounted_at`` (``occurred_at`` of costs without it). A cost that stands on the topic again under
    its event_id is left out, whatever it says: the first in the order of its partition counts, as it does for those that
    keep the live sums. The order is that of each partition; memory grows by some 120 bytes a cost.

    Args:
        connection: an open :class:`penstock.cli.connection.Connection`, or another bus with its codec.
        undecodable: called with each message that is no cost; default: it is logged as an error.

    Raises:
        penstock.bus.KafkaUnavailable: Kafka is away, or the topic does not exist.
    """
    # A cost is written after its request was admitted, so what the broker took earlier cannot lie in the range.
    since_ms = None if since is None else max(0, int((since - _CLOCKS).timestamp() * 1000))
    seen: set[bytes | str] = set()
    async for event in read_topic(connection, "costs", since_ms, undecodable=undecodable):
        cost = event.record
        own = identity(cost.event_id)
        if own in seen:
            continue
        seen.add(own)
        at = accounted_at(cost)
        if (since is None or at >= since) and (until is None or at < until):
            yield LedgerEntry(cost, event.partition, event.offset)


async def read_topic(
    connection: Source, topic: str, since_ms: int | None = None, *, undecodable: OnUndecodable | None = None
) -> AsyncIterator[Event[Any]]:
    """Yield what stands on ``topic`` now, decoded, in the order of each partition: whole, or from ``since_ms`` on.

    Args:
        since_ms: first instant by the broker's clock, ms since the epoch.
        undecodable: called with each message that cannot be decoded; default: it is logged as an error.

    Raises:
        penstock.bus.KafkaUnavailable: Kafka is away, or the topic does not exist.
    """
    async with history(connection.bus, [topic], since_ms=since_ms) as messages:
        async for message in messages:
            event = decoded(connection.codec, message, undecodable)
            if event is not None:
                yield event


def decoded(codec: Codec, message: Message, undecodable: OnUndecodable | None = None) -> Event[Any] | None:
    """Return a message with its record; None where it cannot be decoded, after ``undecodable`` was told (or the log)."""
    try:
        return Event(message, codec.decode(message.topic, message.value))
    except Undecodable as error:
        if undecodable is not None:
            undecodable(message, error)
        else:
            log.error(
                "left out: it cannot be decoded",
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                cause=error.reason,
            )
        return None

"""The bus: the one way to produce, consume, decode, retry and dead-letter."""

from penstock.bus.history import history
from penstock.bus.kafka import KafkaBus, KafkaUnavailable
from penstock.bus.memory import MemoryBus
from penstock.bus.producer import Producer
from penstock.bus.runner import run_hops
from penstock.bus.turns import READ_AHEAD, by_priority, by_team, urgency_of
from penstock.bus.types import (
    Backlog,
    Emit,
    Event,
    Handler,
    Hop,
    Message,
    Outcome,
    Partition,
    Reject,
    Sent,
    Transient,
    Transport,
    Urgency,
)

__all__ = [
    "READ_AHEAD", "Backlog", "Emit", "Event", "Handler", "Hop", "KafkaBus", "KafkaUnavailable", "MemoryBus", "Message",
    "Outcome", "Partition", "Producer", "Reject", "Sent", "Transient", "Transport", "Urgency", "by_priority", "by_team",
    "history", "run_hops", "urgency_of",
]  # fmt: skip

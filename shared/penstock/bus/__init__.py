"""The bus: the one way to produce, consume, decode, retry and dead-letter."""

from penstock.bus.history import history
from penstock.bus.kafka import KafkaBus, KafkaUnavailable
from penstock.bus.memory import MemoryBus
from penstock.bus.producer import Producer
from penstock.bus.runner import run_hops
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
    "Backlog", "Emit", "Event", "Handler", "Hop", "KafkaBus", "KafkaUnavailable", "MemoryBus", "Message", "Outcome",
    "Partition", "Producer", "Reject", "Sent", "Transient", "Transport", "Urgency", "history", "run_hops",
]  # fmt: skip

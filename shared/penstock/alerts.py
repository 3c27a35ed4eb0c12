"""What every alert has in common, whichever service raises it."""

from __future__ import annotations

from hashlib import blake2b

from penstock.bus import Emit, Message
from penstock.contracts.records import Alert, LogRange

__all__ = ["alert_emit", "fingerprint", "log_range"]


def fingerprint(*parts: str) -> str:
    """Return the identity of a condition: equal for every alert about it."""
    return blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()


def log_range(message: Message) -> LogRange:
    """Return where ``message`` stands in the log."""
    return LogRange(
        topic=message.topic, partition=message.partition, first_offset=message.offset, last_offset=message.offset
    )


def alert_emit(alert: Alert) -> Emit:
    """Return ``alert`` on its way to its topic."""
    return Emit("alerts", alert.fingerprint, alert)

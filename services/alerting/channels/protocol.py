"""What is sent to a receiver, how one try ends, and what every channel can do."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

import msgspec
from penstock.contracts.records import Alert

__all__ = ["Attempt", "Channel", "Misconfigured", "Notification", "Purpose"]

Purpose = Literal["firing", "resolved", "repeat", "escalation"]
"""Why something is sent: a condition began, it ended, it goes on, or nobody has acknowledged it."""


class Misconfigured(ValueError):
    """A receiver cannot be opened: a variable is not set, or its address is not allowed. Says what to do."""


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver.

    Attributes:
        notification_id: identity of the message, equal for every try: the receiver's idempotency key.
        receiver: name of the receiver.
        purpose: why it is sent.
        group: the fields that its alerts agree in, by name.
        alerts: what it tells, oldest first; at least one.
        created_at: when it was put together, UTC.
        left_out: alerts that are not in it because the receiver's hourly rate was reached; they stand in
            ``alert-deliveries``.
    """

    notification_id: str
    receiver: str
    purpose: Purpose
    group: dict[str, str]
    alerts: tuple[Alert, ...]
    created_at: datetime
    left_out: int = 0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How one try ended.

    Attributes:
        outcome: ``delivered``: the receiver has it; ``retry``: it may have it later; ``dead``: it never will.
        status_code: the answer's status, of HTTP or SMTP; ``None`` without an answer.
        reason: what went wrong, for people; without credentials.
        retry_after_s: pause that the receiver asked for.
    """

    outcome: Literal["delivered", "retry", "dead"]
    status_code: int | None = None
    reason: str | None = None
    retry_after_s: float | None = None


class Channel(Protocol):
    """A way to one receiver."""

    name: str
    """webhook, slack, pagerduty, alertmanager, email or console."""
    destination: str
    """Where to, without credentials."""

    async def send(self, notification: Notification) -> Attempt:
        """Try once; ends within the receiver's ``timeout_s`` and raises nothing but cancellation."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...

"""Alert delivery, pure: whether an alert is sent, with which others, what is sent, and what an answer means."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal

import msgspec
from penstock.bus import Emit
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, AlertDelivery, Severity

__all__ = [
    "Decision", "Policy", "Receipt", "Remembered", "Silence", "backoff", "decide", "group_of", "idempotency_key",
    "meaning_of", "payload", "recorded", "remembered", "runbook_of", "signature",
]  # fmt: skip

_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
_NAMESPACE = uuid.UUID("0c6f8f3e-5b57-5d0e-9a55-2f1d6a2c7e41")


class Silence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Alerts that match are not delivered until a moment."""

    match: dict[str, str]
    """Patterns (``*`` and ``?``) by field: kind, name, severity, team, fingerprint, or a label of the alert. All must
    match."""
    until: datetime
    """Aware moment at which the silence ends."""
    reason: str = ""

    def covers(self, alert: Alert, now: datetime) -> bool:
        """Tell whether the alert is silenced at ``now``."""
        if not self.match or now >= self.until:
            return False
        fields = _fields(alert)
        return all(name in fields and fnmatchcase(fields[name], pattern) for name, pattern in self.match.items())


class Policy(msgspec.Struct, frozen=True):
    """What is held back."""

    window: timedelta = timedelta(hours=1)
    """An alert with the fingerprint, status and severity of one delivered less than this before it is a repetition."""
    max_age: timedelta = timedelta(hours=24)
    """An older alert is no news: a group that reads its topic from the beginning must not wake anyone."""
    silences: tuple[Silence, ...] = ()


class Remembered(msgspec.Struct, frozen=True):
    """The last alert of a fingerprint that was delivered."""

    event_id: str
    occurred_at: datetime
    status: str
    severity: str


class Decision(msgspec.Struct, frozen=True):
    """Whether an alert is delivered; where not, why."""

    deliver: bool
    reason: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """How a delivery ended. ``dead`` is final: the receiver refused it, or it could not be reached in time."""

    outcome: Literal["delivered", "suppressed", "dead"]
    channel: str
    destination: str
    attempts: int = 0
    status_code: int | None = None
    reason: str | None = None
    at: datetime | None = None
    """When it ended."""


def decide(alert: Alert, last: Remembered | None, policy: Policy, now: datetime) -> Decision:
    """Decide whether an alert is delivered.

    Args:
        alert: the alert.
        last: the last delivered alert of its fingerprint, if any is remembered.
        policy: window, age, silences.
        now: the present, for silences and age. Repetition is measured between the alerts, so that a replay decides
            alike.
    """
    if now - alert.occurred_at > policy.max_age:
        return Decision(False, f"stale: it occurred {now - alert.occurred_at} ago, the limit is {policy.max_age}")
    for silence in policy.silences:
        if silence.covers(alert, now):
            return Decision(False, f"silenced until {silence.until.isoformat()}: {silence.reason or 'no reason given'}")
    if alert.status == "resolved":
        if last is None:
            return Decision(False, "resolved, but its alert was never delivered")
        if last.status == "resolved":
            return Decision(False, "resolved already")
        return Decision(True)
    if last is None or last.status == "resolved" or last.event_id == alert.event_id:
        return Decision(True)
    if _rank(alert.severity) > _rank(last.severity):
        return Decision(True)
    # Events of one fingerprint may come out of order: earlier by a little is a repetition as well.
    if alert.occurred_at - last.occurred_at < policy.window:
        return Decision(False, f"repeats {last.event_id} within {policy.window}")
    return Decision(True)


def remembered(alert: Alert) -> Remembered:
    """Return what is kept of a delivered alert."""
    return Remembered(alert.event_id, alert.occurred_at, alert.status, alert.severity)


def group_of(alert: Alert) -> str:
    """Return the key of the alerts that are sent together: of one team, kind and status."""
    return f"{alert.tenant_id}/{alert.kind}/{alert.status}"


def idempotency_key(alerts: Sequence[Alert]) -> str:
    """Return the key under which a receiver drops a repetition: the event_id, or for several alerts one made of theirs.

    A repeated delivery with one alert more must not be dropped, so the key of a group depends on all its members.
    """
    if len(alerts) == 1:
        return alerts[0].event_id
    return str(uuid.uuid5(_NAMESPACE, "/".join(sorted(alert.event_id for alert in alerts))))


def runbook_of(alert: Alert, base_url: str) -> str:
    """Return the runbook page's address, or its path in the project where no address is set."""
    path = alert.runbook or f"services/alerting/runbooks/{alert.kind}.md"
    return f"{base_url.rstrip('/')}/{path}" if base_url else path


def payload(alerts: Sequence[Alert], runbook_base_url: str) -> bytes:
    """Return the JSON body of a webhook: the group, and every field of its alerts."""
    first = alerts[0]
    body = {
        "version": 1,
        "idempotency_key": idempotency_key(alerts),
        "group": {"team": first.tenant_id, "kind": first.kind, "status": first.status},
        "alerts": [{**msgspec.to_builtins(alert), "runbook": runbook_of(alert, runbook_base_url)} for alert in alerts],
    }
    return msgspec.json.encode(body)


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """Return the signature header: ``t=<seconds>,v1=<HMAC-SHA-256 of "<seconds>.<body>", hex>``.

    The moment is signed as well, so that a receiver can refuse what was recorded and sent again later.
    """
    digest = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def meaning_of(status_code: int) -> Literal["delivered", "retry", "dead"]:
    """Return what a receiver's answer means. A redirect is not followed: it could lead anywhere."""
    if 200 <= status_code < 300:
        return "delivered"
    if status_code >= 500 or status_code in {408, 425, 429}:
        return "retry"
    return "dead"


def backoff(attempt: int, chance: float, retry_after_s: float | None = None) -> float:
    """Return the seconds to wait after the ``attempt``-th failure (from 1): full jitter below 0.5 s doubled each
    time, 30 s at most.

    Args:
        attempt: failures so far.
        chance: from 0 to 1, random.
        retry_after_s: what the receiver asked for; obeyed up to 30 s.
    """
    limit = min(30.0, 0.5 * 2.0 ** min(attempt, 10))
    # Never at once: a receiver that fails fast would be hammered whenever the dice fall low.
    jittered = limit * (0.25 + 0.75 * chance)
    return max(jittered, min(retry_after_s or 0.0, 30.0))


def recorded(alert: Alert, receipt: Receipt) -> Emit:
    """Return the record of what became of an alert at a destination; equal for equal receipts."""
    record = AlertDelivery(
        **derive(alert, f"alerting.{receipt.channel}", 0, receipt.at or alert.occurred_at),
        fingerprint=alert.fingerprint,
        alert_kind=alert.kind,
        channel=receipt.channel,
        destination=receipt.destination,
        outcome=receipt.outcome,
        attempts=receipt.attempts,
        status_code=receipt.status_code,
        reason=receipt.reason,
    )
    return Emit("alert-deliveries", alert.fingerprint, record)


def _fields(alert: Alert) -> Mapping[str, str]:
    return {
        **alert.labels,
        "kind": alert.kind,
        "name": alert.name,
        "severity": str(alert.severity),
        "team": alert.tenant_id,
        "fingerprint": alert.fingerprint,
    }


def _rank(severity: str) -> int:
    return _RANK.get(Severity(severity), 0) if severity in set(Severity) else 0

"""PagerDuty, through its Events API v2 (developer.pagerduty.com/docs/events-api-v2): one event an alert."""

from __future__ import annotations

import asyncio
from datetime import UTC
from hashlib import blake2b
from typing import Any

import msgspec
from penstock.contracts.records import Alert, Severity

from services.alerting.channels.posting import Answer, Poster, attempt_of
from services.alerting.channels.progress import Progress
from services.alerting.channels.protocol import Attempt, Notification
from services.alerting.rendering import evidence, headline, link_of, one_line, printable, runbook_of, severity_of

__all__ = ["DEFAULT_URL", "PagerDuty", "event"]

DEFAULT_URL = "https://events.pagerduty.com/v2/enqueue"
_SEVERITIES = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "critical"}
_MOST_SUMMARY = 1024
_MOST_KEY = 255
_MOST_TEXT = 20_000
"""Characters of one detail: an event may have 512 KiB."""


class PagerDuty:
    """Triggers and resolves incidents. ``dedup_key`` is the alert's fingerprint, so an event that is sent again, after
    a try whose answer was lost or for a condition that goes on, adds to its incident and opens no other."""

    name = "pagerduty"

    def __init__(self, poster: Poster, routing_key: str, timeout_s: float, runbook_base_url: str = "") -> None:
        """Create the channel.

        Args:
            poster: leads to the events API.
            routing_key: the integration's; its secret.
            timeout_s: longest time of one try with all its events; what is left is sent by the next one.
            runbook_base_url: put before the runbooks' paths.
        """
        self.destination = poster.destination
        self._poster = poster
        self._key = routing_key
        self._timeout_s = timeout_s
        self._base = runbook_base_url
        self._progress = Progress()

    async def send(self, notification: Notification) -> Attempt:
        """Send an event for each alert that was not taken by an earlier try."""
        identity = notification.notification_id
        taken = self._progress.taken(identity)
        refused: list[Attempt] = []
        attempt = Attempt(outcome="delivered", status_code=202)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        for index, alert in enumerate(notification.alerts):
            if str(index) in taken:
                continue
            attempt = await self._event(notification, alert, deadline)
            if attempt.outcome == "retry":
                break
            self._progress.note(identity, str(index))
            if attempt.outcome == "dead":
                refused.append(attempt)
        if attempt.outcome == "retry":
            return attempt
        self._progress.forget(identity)
        if refused:
            count = f"{len(refused)} of {len(notification.alerts)} events "
            return msgspec.structs.replace(refused[0], reason=count + (refused[0].reason or "refused"))
        return attempt

    async def _event(self, notification: Notification, alert: Alert, deadline: float) -> Attempt:
        body = msgspec.json.encode(event(notification, alert, self._key, self._base))
        answer = await self._poster.post(body, read=True, deadline=deadline)
        if answer.status_code is not None and 200 <= answer.status_code < 300 and not _accepted(answer):
            return Attempt(
                outcome="retry",
                status_code=answer.status_code,
                reason=f"HTTP {answer.status_code}, but not PagerDuty's 202: something else answers at this address",
            )
        return attempt_of(answer, _said(answer))

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def event(notification: Notification, alert: Alert, routing_key: str, runbook_base_url: str) -> dict[str, Any]:
    """Return the event of one alert."""
    head: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if alert.status == "resolved" else "trigger",
        "dedup_key": _dedup_key(alert),
    }
    if alert.status == "resolved":
        return head
    details = {
        "description": one_line(alert.description, _MOST_TEXT),
        "first": one_line(alert.suggested_action, _MOST_TEXT),
        "runbook": runbook_of(alert, runbook_base_url),
        "figures": {printable(name): value for name, value in alert.figures.items()},
        "labels": {printable(name): one_line(value, 1000) for name, value in alert.labels.items()},
        "sample_requests": [one_line(each, 300) for each in alert.sample_requests[-20:]],
        "evidence": evidence(alert)[:20],
        "purpose": notification.purpose,
        "notification_id": notification.notification_id,
        "alert_id": alert.event_id,
        "fingerprint": alert.fingerprint,
        "left_out": notification.left_out,
    }
    alone = msgspec.structs.replace(notification, alerts=(alert,))
    link = link_of(alert, runbook_base_url)
    return head | {
        "client": "penstock",
        "links": [{"href": link, "text": "Runbook"}] if link else [],
        "payload": {
            "summary": headline(alone, _MOST_SUMMARY),
            "source": one_line(f"penstock/{alert.tenant_id or 'platform'}", 255),
            "severity": _SEVERITIES[severity_of(alert)],
            "timestamp": (alert.starts_at or alert.occurred_at).astimezone(UTC).isoformat(),
            "component": one_line(alert.labels.get("route") or alert.kind, 255),
            "group": one_line(alert.tenant_id, 255),
            "class": one_line(f"{alert.kind}/{alert.name}", 255),
            "custom_details": details,
        },
    }


def _dedup_key(alert: Alert) -> str:
    if 0 < len(alert.fingerprint) <= _MOST_KEY:
        return alert.fingerprint
    return blake2b((alert.fingerprint or alert.event_id).encode(), digest_size=16).hexdigest()


def _accepted(answer: Answer) -> bool:
    if answer.status_code == 202:
        return True
    try:
        said = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        return False
    return isinstance(said, dict) and said.get("status") == "success"


def _said(answer: Answer) -> str:
    """The errors that PagerDuty names."""
    try:
        said = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        return ""
    if not isinstance(said, dict):
        return ""
    errors = said.get("errors")
    words = [said.get("message"), *(errors if isinstance(errors, list) else [])]
    return one_line("; ".join(each for each in words if isinstance(each, str)), 300)

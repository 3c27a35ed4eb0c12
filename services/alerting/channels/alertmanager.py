"""Prometheus Alertmanager, through its API v2 (POST /api/v2/alerts)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from penstock.clock import Clock
from penstock.contracts.records import Alert

from services.alerting.channels.posting import Answer, Poster, attempt_of
from services.alerting.channels.protocol import Attempt, Notification
from services.alerting.rendering import acknowledging, evidence, link_of, one_line, printable, runbook_of, severity_of

__all__ = ["HOLD", "AlertmanagerV2", "label_name", "labels", "posted"]

HOLD = timedelta(days=3)
"""How long Alertmanager keeps a firing alert that it hears no more of. Without an end of its own it would forget one
after resolve_timeout (5 min), long before the next repetition. Penstock says when a condition ends; the bound only clears
what it could not say, and outlasts a weekend on which an acknowledged alert is not repeated."""

_OCCURRED = "occurred_at"
"""Annotation by which the older of two is told."""
_MOST_HELD = 1024 * 1024
# Fingerprints that mean themselves in a regular expression; all of Penstock's do.
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_]")


class _Held(msgspec.Struct):
    """An alert as Alertmanager tells it, in its names."""

    labels: dict[str, str]
    annotations: dict[str, str]
    startsAt: datetime


class AlertmanagerV2:
    """Posts the alerts of a notification in one request; equal alerts are one to Alertmanager, so a repetition does
    not harm."""

    name = "alertmanager"

    def __init__(
        self, poster: Poster, clock: Clock, timeout_s: float, runbook_base_url: str = "", hold: timedelta = HOLD
    ) -> None:
        """Create the channel.

        Args:
            poster: leads to ``/api/v2/alerts``; carries the bearer token where one is needed.
            clock: from which ``hold`` is counted.
            timeout_s: longest time of one try.
            runbook_base_url: put before the runbooks' paths.
            hold: after it a firing alert that is not sent again has ended for Alertmanager; longer than the interval
                of repetitions.
        """
        self.destination = poster.destination
        self._poster = poster
        self._clock = clock
        self._timeout_s = timeout_s
        self._base = runbook_base_url
        self._hold = hold

    async def send(self, notification: Notification) -> Attempt:
        """Post once. Of several alerts Alertmanager keeps the valid ones even where it answers 400 for another."""
        began = asyncio.get_running_loop().time()
        former = await self._former(notification.alerts, began + self._timeout_s / 3)
        now = self._clock.now()
        alerts = [posted(alert, now, self._hold, self._base) for alert in notification.alerts]
        ended = [each | {"endsAt": max(each["startsAt"], now)} for each in former]
        body = msgspec.json.encode([*alerts, *ended])
        answer = await self._poster.post(body, read=True, deadline=began + self._timeout_s)
        return attempt_of(answer, _said(answer))

    async def aclose(self) -> None:
        """Nothing of its own is open."""

    async def _former(self, alerts: Sequence[Alert], deadline: float) -> list[dict[str, Any]]:
        """What Alertmanager holds of the same conditions under other labels, such as a lower severity: to it that is
        another alert, which nobody would end. What it does not tell in time ends with its bound."""
        current = {alert.fingerprint: alert for alert in alerts if _PLAIN.fullmatch(alert.fingerprint)}
        if not current:
            return []
        query = {"filter": f'fingerprint=~"{"|".join(current)}"'}
        answer = await self._poster.get(query, _MOST_HELD, deadline)
        try:
            held = msgspec.json.decode(answer.body, type=list[_Held])
        except msgspec.MsgspecError:
            return []
        return [
            {"labels": each.labels, "annotations": each.annotations, "startsAt": each.startsAt}
            for each in held
            if _replaces(current.get(each.labels.get("fingerprint", "")), each)
        ]


def _replaces(alert: Alert | None, held: _Held) -> bool:
    """Whether an alert is news of what is held under other labels; a late try of an older one is not."""
    if alert is None or labels(alert) == held.labels:
        return False
    try:
        told = datetime.fromisoformat(held.annotations.get(_OCCURRED, ""))
    except ValueError:
        return False  # not ours
    return told <= alert.occurred_at


def posted(alert: Alert, now: datetime, hold: timedelta, runbook_base_url: str) -> dict[str, Any]:
    """Return an alert as Alertmanager takes it."""
    began = alert.starts_at or alert.occurred_at
    ended = max(began, min(alert.occurred_at, now)) if alert.status == "resolved" else max(began, now) + hold
    annotations = {
        "summary": one_line(alert.title, 1000),
        "description": one_line(alert.description, 10_000),
        "action": one_line(alert.suggested_action, 10_000),
        "runbook_url": runbook_of(alert, runbook_base_url),
        "requests": one_line(", ".join(alert.sample_requests[-20:]), 2000),
        "evidence": "; ".join(evidence(alert)[:20]),
        "acknowledge": acknowledging(alert),
        _OCCURRED: alert.occurred_at.isoformat(),
    }
    for name, value in sorted(alert.figures.items()):
        annotations.setdefault(label_name(f"figure_{name}"), f"{value:.6g}")
    body: dict[str, Any] = {
        "labels": labels(alert),
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": began,
        "endsAt": ended,
    }
    if link := link_of(alert, runbook_base_url):
        body["generatorURL"] = link
    return body


def labels(alert: Alert) -> dict[str, str]:
    """Return the labels, by which Alertmanager tells alerts apart: the alert's own under legal names, and ours.

    Where two of the alert's names become one legal name, the later in order of name gets a number, so that equal
    alerts have equal labels.
    """
    ours = {
        "alertname": one_line(alert.name, 500) or "penstock",
        "severity": str(severity_of(alert)),
        "kind": alert.kind,
        "team": alert.tenant_id,
        "fingerprint": alert.fingerprint,
    }
    named: dict[str, str] = {}
    # Legal names first: they keep their spelling.
    for name in sorted(alert.labels, key=lambda name: (label_name(name) != name, name)):
        legal, number = label_name(name), 2
        if legal in ours:
            continue
        while legal in named:
            legal, number = label_name(f"{label_name(name)}_{number}"), number + 1
        named[legal] = one_line(alert.labels[name], 1000)
    return {name: value for name, value in (named | ours).items() if value}


def label_name(name: str) -> str:
    """Return a legal label name (``[a-zA-Z_][a-zA-Z0-9_]*``): other characters become ``_``, and a leading pair of them,
    which Prometheus keeps for itself, one."""
    legal = _ILLEGAL.sub("_", printable(name))
    if not legal or legal[0].isdigit():
        legal = f"_{legal}"
    return re.sub(r"^_{2,}", "_", legal)


def _said(answer: Answer) -> str:
    """Alertmanager's message, a JSON string or an object's ``message``."""
    try:
        said = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        return ""
    if isinstance(said, dict):
        said = said.get("message")
    return one_line(said, 300) if isinstance(said, str) else ""

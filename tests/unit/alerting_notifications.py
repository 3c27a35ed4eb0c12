"""Alerts and notifications that the tests of channels send."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from penstock.contracts.records import Alert, LogRange

from services.alerting.channels.protocol import Notification

__all__ = ["NOW", "a_notification", "an_alert"]

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def an_alert(fingerprint: str = "f1", **changes: object) -> Alert:
    """An alert with every field set."""
    alert = Alert(
        event_id=f"event-{fingerprint}",
        request_id="r1",
        tenant_id="support",
        occurred_at=NOW,
        causation_id="c1",
        kind="drift",
        name="topic_shift",
        severity="warning",
        title="support: the prompts' topic has shifted",
        description="The newest 12 lie away from the 40 before.",
        suggested_action="Read the sample requests.",
        fingerprint=fingerprint,
        labels={"team": "support", "route": "default", "prompt.version": "v7"},
        figures={"distance": 0.4321, "messages": 12.0},
        evidence=[LogRange(topic="signals", partition=3, first_offset=100, last_offset=140)],
        sample_requests=["r1", "r2"],
        starts_at=NOW - timedelta(minutes=5),
    )
    return msgspec.structs.replace(alert, **changes)


def a_notification(*alerts: Alert, **changes: object) -> Notification:
    """A notification of these alerts, or of one."""
    notification = Notification(
        notification_id="0b6cb5b2-98c7-5f32-8a53-6f1a3a1c9f10",
        receiver="oncall",
        purpose="firing",
        group={"team": "support", "kind": "drift"},
        alerts=alerts or (an_alert(),),
        created_at=NOW,
    )
    return msgspec.structs.replace(notification, **changes)

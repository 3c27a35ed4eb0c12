"""Which way an alert takes, pure: the route, its receivers, and the group that it is told with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b

from penstock.config.alerting import Alerting, AlertRoute, Escalation, Receiver
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Alert

from services.alerting.channels.protocol import Purpose

__all__ = [
    "BUILT_IN", "MISCONFIGURED", "Directory", "Plan", "built_in", "fields_of", "group_fields", "group_id", "plan_of",
    "receiver_key",
]  # fmt: skip

BUILT_IN = "built-in"
"""Name of the entry that holds where none is published."""
MISCONFIGURED = "receiver_misconfigured"
"""Name of the alert about a receiver that cannot be opened."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where an alert goes.

    Attributes:
        entry: name of the configuration's entry.
        receivers: who is told, by name.
        known: every receiver of the entry: whether it is told when a condition has ended.
        max_age: older alerts wake no one.
    """

    entry: str
    route: AlertRoute
    receivers: tuple[str, ...]
    known: Mapping[str, bool]
    max_age: timedelta

    @property
    def escalate(self) -> tuple[Escalation, ...]:
        return self.route.escalate

    @property
    def repeat_interval(self) -> timedelta:
        return timedelta(seconds=self.route.repeat_interval_s)

    @property
    def resolve_after(self) -> timedelta | None:
        after_s = self.route.resolve_after_s
        return None if after_s is None else timedelta(seconds=after_s)


def fields_of(alert: Alert) -> dict[str, str]:
    """Return what routes, groups and silences go by: the labels, and kind, name, severity, team and fingerprint."""
    return {
        **alert.labels,
        "kind": alert.kind,
        "name": alert.name,
        "severity": str(alert.severity),
        "team": alert.tenant_id,
        "fingerprint": alert.fingerprint,
    }


def plan_of(alert: Alert, alerting: Alerting, max_age: timedelta) -> Plan | None:
    """Return the way of the first route that matches, or ``None``.

    An alert about a receiver that cannot be opened does not go to that one: where its route leads to no other, all others
    are told.
    """
    fields = fields_of(alert)
    known = {receiver.name: receiver.send_resolved for receiver in alerting.receivers}
    for route in alerting.routes:
        if route.covers(fields):
            receivers = route.receivers
            if alert.name == MISCONFIGURED and alert.kind == "health":
                broken = alert.labels.get("receiver", "")
                known.pop(broken, None)
                receivers = tuple(name for name in receivers if name != broken) or tuple(known)
            return Plan(alerting.name, route, receivers, known, max_age)
    return None


class Directory:
    """The ways that hold now: what is published, else what is built in."""

    def __init__(self, plane: ConfigPlane, otherwise: Alerting, max_age: timedelta) -> None:
        self.max_age = max_age
        self._plane = plane
        self._otherwise = otherwise

    def plan(self, alert: Alert) -> Plan | None:
        """Return the way of an alert; ``None`` where no route takes it."""
        return plan_of(alert, self._plane.alerting(alert.tenant_id) or self._otherwise, self.max_age)

    def receiver(self, entry: str, name: str) -> Receiver | None:
        """Return a receiver of an entry; ``None`` where there is none any more."""
        found = self._plane.entries("alerting").get(entry)
        alerting = found if isinstance(found, Alerting) else self._otherwise if entry == self._otherwise.name else None
        if alerting is None:
            return None
        return next((receiver for receiver in alerting.receivers if receiver.name == name), None)

    def longest_timeout_s(self) -> float:
        """Return the longest time that a try may take at any receiver."""
        entries = [entry for entry in self._plane.entries("alerting").values() if isinstance(entry, Alerting)]
        return max(receiver.timeout_s for entry in [*entries, self._otherwise] for receiver in entry.receivers)


def receiver_key(entry: str, receiver: str) -> str:
    """Return the name of a receiver among those of all entries."""
    return f"{entry}/{receiver}"


def group_fields(alert: Alert, route: AlertRoute) -> dict[str, str]:
    """Return the fields in which the alerts of one message agree; a label that the alert lacks is empty."""
    fields = fields_of(alert)
    return {name: fields.get(name, "") for name in route.group_by}


def group_id(plan: Plan, receiver: str, purpose: Purpose, fields: Mapping[str, str]) -> str:
    """Return the identity of the group that a message belongs to: of entry, route, receiver, purpose and fields."""
    parts = [plan.entry, sorted(plan.route.match.items()), receiver, purpose, sorted(fields.items())]
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def built_in(
    *, webhook: bool, signed: bool, timeout_s: float, retry_for_s: float, group_wait_s: float, repeat_interval_s: float
) -> Alerting:
    """Return the entry that holds where none is published: one route to the webhook of ``ALERT_WEBHOOK_URL``, or to the
    console where that is not set."""
    receiver = (
        Receiver(
            name="webhook",
            type="webhook",
            url_env="ALERT_WEBHOOK_URL",
            secret_env="ALERT_WEBHOOK_SECRET" if signed else None,
            timeout_s=timeout_s,
            retry_for_s=retry_for_s,
        )
        if webhook
        else Receiver(name="console", type="console", timeout_s=timeout_s, retry_for_s=retry_for_s)
    )
    route = AlertRoute(
        receivers=(receiver.name,),
        group_wait_s=group_wait_s,
        group_interval_s=group_wait_s,
        repeat_interval_s=repeat_interval_s,
    )
    return Alerting(name=BUILT_IN, receivers=(receiver,), routes=(route,))

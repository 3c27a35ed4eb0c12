"""Incidents, pure: what is known of one condition, and what each receiver was told of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

import msgspec
from msgspec.structs import replace
from penstock.contracts.records import Alert, AlertAction, Severity

from services.alerting.channels.protocol import Purpose

__all__ = [
    "Acknowledgement", "Incident", "Message", "Settled", "Silence", "Tell", "Told", "act", "observe", "rank", "released",
    "settle",
]  # fmt: skip

Settled = Literal["delivered", "dead", "left_out", "withheld"]
"""How a message ended: the receiver has it; it never will; it was only counted in a summary; it was taken back because of an
acknowledgement or a silence, as if it had not been decided on."""

_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


class Silence(msgspec.Struct, frozen=True):
    """Alerts that match are not delivered in a span of time.

    Attributes:
        match: patterns (``*`` and ``?``) by field: kind, name, severity, team, fingerprint, or a label. All must match.
        starts_at: first instant, ``None`` for always.
        ends_at: first instant at which it is over.
    """

    silence_id: str
    match: dict[str, str]
    starts_at: datetime | None
    ends_at: datetime
    author: str = ""
    reason: str = ""

    def covers(self, fields: Mapping[str, str], now: datetime) -> bool:
        """Tell whether an alert with these fields is silenced at ``now``."""
        if not self.match or now >= self.ends_at or (self.starts_at is not None and now < self.starts_at):
            return False
        return all(name in fields and fnmatchcase(fields[name], pattern) for name, pattern in self.match.items())


class Acknowledgement(msgspec.Struct, frozen=True):
    """Someone has the incident in hand. Ends at ``until``, when it is resolved, or when it gets worse than ``severity``."""

    at: datetime
    until: datetime | None
    severity: str
    author: str


class Message(msgspec.Struct, frozen=True):
    """One message about an incident to one receiver."""

    event_id: str
    """Alert that is told."""
    purpose: Purpose
    severity: str
    episode: int
    at: datetime
    """When it was decided on, and when it ended once it has."""


class Told(msgspec.Struct, frozen=True):
    """What one receiver knows of an incident.

    Attributes:
        queued: message on its way.
        last: last message that ended, and how in ``outcome``.
        fires: whether it was told that the incident fires, and not that it has ended.
        counted: alert that was told last, and how often.
    """

    queued: Message | None = None
    last: Message | None = None
    outcome: Settled | None = None
    fires: bool = False
    counted: tuple[str, int] = ("", 0)


class Incident(msgspec.Struct, frozen=True):
    """One condition, by its fingerprint.

    Attributes:
        alert: what is told of it: its newest alert, or the one that made it worse.
        severity: worst severity of the episode.
        episode: number of times that it began to fire.
        newest: ``occurred_at`` of the newest alert that says it fires.
        resolved_at: ``occurred_at`` of the alert that resolved it last.
        count: alerts of the episode that said it fires.
        alerted_at: since when someone is to look at it: the escalation's clock.
        action_at: newest action, older ones change nothing.
        escalated: receivers that an escalation of this episode reached.
    """

    fingerprint: str
    alert: Alert | None = None
    status: Literal["firing", "resolved"] = "resolved"
    severity: str = Severity.INFO
    episode: int = 0
    began_at: datetime | None = None
    newest: datetime | None = None
    resolved_at: datetime | None = None
    count: int = 0
    alerted_at: datetime | None = None
    acknowledgement: Acknowledgement | None = None
    action_at: datetime | None = None
    told: dict[str, Told] = {}
    escalated: tuple[str, ...] = ()


class Tell(msgspec.Struct, frozen=True):
    """A message to decide on its way: ``number`` tells repeated messages about one alert apart."""

    receiver: str
    purpose: Purpose
    alert: Alert
    number: int


def rank(severity: str) -> int:
    """Return how bad a severity is; an unknown one counts as info."""
    return _RANK.get(Severity(severity), 0) if severity in set(Severity) else 0


def observe(incident: Incident | None, alert: Alert) -> tuple[Incident, str | None]:
    """Take one alert into account, in whatever order alerts come.

    Returns:
        The incident, and why the alert changes nothing, if so.
    """
    known = incident or Incident(alert.fingerprint)
    at = alert.occurred_at
    if alert.status == "resolved":
        if known.status == "resolved":
            if known.resolved_at is None or at > known.resolved_at:
                known = replace(known, resolved_at=at)
            return known, "resolved already" if known.episode else "resolved, but it was never raised"
        if known.newest is not None and at < known.newest:
            return known, f"it was raised again at {known.newest.isoformat()}"
        return replace(known, alert=alert, status="resolved", resolved_at=at, acknowledgement=None), None
    if known.status == "resolved":
        if known.resolved_at is not None and at <= known.resolved_at:
            return known, f"it was resolved at {known.resolved_at.isoformat()}"
        return replace(
            known,
            alert=alert,
            status="firing",
            severity=alert.severity,
            episode=known.episode + 1,
            began_at=alert.starts_at or at,
            newest=at,
            count=1,
            alerted_at=None,
            acknowledgement=_kept(known, alert),
            escalated=(),
        ), None
    worse = rank(alert.severity) > rank(known.severity)
    assert known.newest is not None
    acknowledgement, escalated, alerted_at = known.acknowledgement, known.escalated, known.alerted_at
    if worse and alerted_at is not None:
        # Whoever is called has to have had the time to answer to this; what came before may be hours ago.
        alerted_at = max(alerted_at, at)
    if acknowledgement is not None and rank(alert.severity) > rank(acknowledgement.severity):
        acknowledgement, escalated = None, ()
    return replace(
        known,
        alert=alert if worse or at >= known.newest else known.alert,
        severity=alert.severity if worse else known.severity,
        newest=max(at, known.newest),
        count=known.count + 1,
        alerted_at=alerted_at,
        acknowledgement=acknowledgement,
        escalated=escalated,
    ), None


def _kept(known: Incident, alert: Alert) -> Acknowledgement | None:
    """An acknowledgement is of one episode. It may come before the alert: people read the same log as alerting does."""
    acknowledgement = known.acknowledgement
    if acknowledgement is None or (known.episode > 0 and alert.occurred_at > acknowledgement.at):
        return None
    if known.episode == 0 and acknowledgement.until is None and alert.occurred_at > acknowledgement.at:
        return None
    return replace(acknowledgement, severity=alert.severity)


def act(incident: Incident | None, fingerprint: str, action: AlertAction) -> Incident:
    """Take an acknowledgement, or its end, into account; one that is older than the newest changes nothing."""
    known = incident or Incident(fingerprint)
    if known.action_at is not None and action.occurred_at < known.action_at:
        return known
    acknowledgement = None
    if action.action == "acknowledge":
        acknowledgement = Acknowledgement(action.occurred_at, action.ends_at, known.severity, action.author)
    elif known.acknowledgement is not None:
        known = released(known, action.occurred_at)
    return replace(known, acknowledgement=acknowledgement, action_at=action.occurred_at)


def released(incident: Incident, at: datetime) -> Incident:
    """Return the incident as nobody has it in hand any more: the escalation begins anew."""
    alerted_at = at if incident.alerted_at is not None else None
    return replace(incident, acknowledgement=None, alerted_at=alerted_at, escalated=())


def settle(
    incident: Incident, receiver: str, event_id: str, purpose: Purpose, outcome: Settled, at: datetime
) -> Incident:
    """Take into account how a message ended. What is no longer on its way is taken as it is said to be."""
    told = incident.told.get(receiver, Told())
    queued = told.queued
    ours = queued is not None and queued.event_id == event_id
    if outcome == "withheld":
        settled = replace(told, queued=None if ours else queued)
    else:
        ended = queued if ours and queued else Message(event_id, purpose, incident.severity, incident.episode, at)
        fires = told.fires if outcome != "delivered" else purpose != "resolved"
        settled = replace(
            told, queued=None if ours else queued, last=replace(ended, at=at), outcome=outcome, fires=fires
        )
    escalated = incident.escalated
    if purpose == "escalation" and outcome == "withheld":
        escalated = tuple(name for name in escalated if name != receiver)
    elif purpose == "escalation" and receiver not in escalated:
        escalated = (*escalated, receiver)
    return replace(incident, told={**incident.told, receiver: settled}, escalated=escalated)

"""Incidents, pure: what is known of one condition, what each receiver was told of it, and what is told next.

What is told follows from the state and not from the event that came last: :func:`decide` compares what holds with what each
receiver was told. So duplicates, events out of order and restarts change nothing, and at most one message about an incident
is on its way to a receiver: what holds when it has ended is told then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal

import msgspec
from msgspec.structs import replace
from penstock.contracts.records import Alert, AlertAction, Severity

from services.alerting.channels.protocol import Purpose
from services.alerting.routing import Plan, fields_of

__all__ = [
    "Acknowledgement", "Incident", "Message", "Settled", "Silence", "Tell", "Told", "act", "covering", "decide", "expired",
    "observe", "rank", "settle", "wake_at",
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
    acknowledgement = known.acknowledgement
    if acknowledgement is not None and rank(alert.severity) > rank(acknowledgement.severity):
        acknowledgement = None
    return replace(
        known,
        alert=alert if worse or at >= known.newest else known.alert,
        severity=alert.severity if worse else known.severity,
        newest=max(at, known.newest),
        count=known.count + 1,
        acknowledgement=acknowledgement,
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
        if known.status == "resolved" and known.episode > 0:
            return known
        acknowledgement = Acknowledgement(action.occurred_at, action.ends_at, known.severity, action.author)
    return replace(known, acknowledgement=acknowledgement, action_at=action.occurred_at)


def covering(incident: Incident, silences: Iterable[Silence], now: datetime) -> Silence | None:
    """Return the silence that covers the incident longest, if one does."""
    if incident.alert is None:
        return None
    fields = fields_of(incident.alert)
    return max((s for s in silences if s.covers(fields, now)), key=lambda s: s.ends_at, default=None)


def decide(
    incident: Incident, plan: Plan | None, silences: Iterable[Silence], now: datetime
) -> tuple[Incident, list[Tell], dict[str, str]]:
    """Decide what is told now, and to whom.

    Args:
        plan: where the incident's alerts go; ``None`` where no route takes them.

    Returns:
        The incident with the messages as queued; the messages; why the other receivers are told nothing, by name, where
        the empty name stands for all of them.
    """
    acknowledgement = incident.acknowledgement
    if acknowledgement is not None and acknowledgement.until is not None and now >= acknowledgement.until:
        # Who had it in hand has let go of it: the time until somebody else is called begins anew.
        restarted = now if incident.alerted_at is not None else None
        incident = replace(incident, acknowledgement=None, alerted_at=restarted)
    alert = incident.alert
    if alert is None:
        return incident, [], {}
    if (reason := _common_reason(incident, plan, silences, now)) is not None or plan is None:
        return incident, [], {"": reason or "no route takes it"}
    tells: list[Tell] = []
    reasons: dict[str, str] = {}
    told = dict(incident.told)
    escalated = list(incident.escalated)
    purposes: dict[str, Purpose] = {}
    for name in _escalation(incident, plan, now):
        escalated.append(name)
        if told.get(name, Told()).queued is None:
            purposes[name] = "escalation"
    for name in _audience(incident, plan):
        purpose, reason = _purpose(incident, told.get(name, Told()), name, plan, now)
        if purpose is not None:
            purposes.setdefault(name, purpose)
        elif name not in purposes:
            reasons[name] = reason
    for name, purpose in purposes.items():
        known = told.get(name, Told())
        counted_id, count = known.counted
        number = count if counted_id == alert.event_id else 0
        tells.append(Tell(name, purpose, alert, number))
        queued = Message(alert.event_id, purpose, incident.severity, incident.episode, now)
        told[name] = replace(known, queued=queued, counted=(alert.event_id, number + 1))
    alerted_at = incident.alerted_at
    if incident.status == "firing" and tells and alerted_at is None:
        alerted_at = now
    incident = replace(incident, told=told, escalated=tuple(escalated), alerted_at=alerted_at)
    if not tells and not reasons:
        reasons[""] = "the route has no receivers" if incident.status == "firing" else "nobody was told that it fires"
    return incident, tells, reasons


def _common_reason(incident: Incident, plan: Plan | None, silences: Iterable[Silence], now: datetime) -> str | None:
    assert incident.alert is not None
    seen = incident.newest if incident.status == "firing" else incident.resolved_at
    if plan is not None and seen is not None and now - seen > plan.max_age:
        return f"stale: it occurred {now - seen} ago, the limit is {plan.max_age}"
    if (silence := covering(incident, silences, now)) is not None:
        return f"silenced until {silence.ends_at.isoformat()}: {silence.reason or 'no reason given'}"
    acknowledgement = incident.acknowledgement
    if incident.status == "firing" and acknowledgement is not None:
        until = "" if acknowledgement.until is None else f" until {acknowledgement.until.isoformat()}"
        return f"acknowledged{until} by {acknowledgement.author or 'someone'}"
    return None


def _audience(incident: Incident, plan: Plan) -> list[str]:
    names = list(plan.receivers) if incident.status == "firing" else []
    names += [name for name in incident.escalated if incident.status == "firing"]
    names += [name for name, told in incident.told.items() if incident.status == "resolved" and _concerned(told)]
    return [name for name in dict.fromkeys(names) if name in plan.known]


def _concerned(told: Told) -> bool:
    return told.fires or told.queued is not None


def _escalation(incident: Incident, plan: Plan, now: datetime) -> list[str]:
    """Return who is to be called because nobody has acknowledged."""
    if incident.status != "firing" or incident.alerted_at is None:
        return []
    return [
        name
        for step in plan.escalate
        if now >= incident.alerted_at + timedelta(seconds=step.after_s)
        and rank(incident.severity) >= rank(step.severity)
        for name in step.receivers
        if name not in incident.escalated and name in plan.known
    ]


def _purpose(incident: Incident, told: Told, name: str, plan: Plan, now: datetime) -> tuple[Purpose | None, str]:
    if told.queued is not None:
        return None, f"{told.queued.event_id} is on its way; what holds when that has ended is told then"
    last = told.last
    if incident.status == "resolved":
        if not plan.known[name]:
            return None, "the receiver wants no word of ends"
        if not told.fires or (last is not None and last.purpose == "resolved" and last.episode == incident.episode):
            return None, "it was not told that it fires"
        return "resolved", ""
    if last is None or last.purpose == "resolved" or last.episode != incident.episode:
        return "firing", ""
    if rank(incident.severity) > rank(last.severity):
        return "firing", ""
    assert incident.alert is not None
    if told.outcome == "dead" and last.event_id != incident.alert.event_id:
        return "firing", ""
    if now - last.at >= plan.repeat_interval:
        return "repeat", ""
    return None, f"repeats {last.event_id} within {plan.repeat_interval}"


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


def expired(incident: Incident, plan: Plan | None, now: datetime) -> bool:
    """Tell whether the incident is over because it was not raised again for long enough."""
    if incident.status != "firing" or incident.newest is None or plan is None or plan.resolve_after is None:
        return False
    return now - incident.newest >= plan.resolve_after


def wake_at(incident: Incident, plan: Plan | None, silences: Iterable[Silence], now: datetime) -> datetime | None:
    """Return when :func:`decide` is to be asked again though nothing happened, if ever."""
    if plan is None or incident.alert is None:
        return None
    moments: list[datetime] = []
    silence = covering(incident, silences, now)
    if silence is not None:
        moments.append(silence.ends_at)
    if incident.status == "firing" and incident.newest is not None:
        if plan.resolve_after is not None:
            moments.append(incident.newest + plan.resolve_after)
        acknowledgement = incident.acknowledgement
        if acknowledgement is not None:
            moments += [acknowledgement.until] if acknowledgement.until is not None else []
        elif silence is None and now - incident.newest <= plan.max_age:
            moments += _reminders(incident, plan)
    return min((moment for moment in moments if moment > now), default=None)


def _reminders(incident: Incident, plan: Plan) -> list[datetime]:
    moments = [
        told.last.at + plan.repeat_interval
        for name in _audience(incident, plan)
        if (told := incident.told.get(name, Told())).last is not None and told.queued is None
    ]
    if incident.alerted_at is not None:
        moments += [
            incident.alerted_at + timedelta(seconds=step.after_s)
            for step in plan.escalate
            if rank(incident.severity) >= rank(step.severity) and not set(step.receivers) <= set(incident.escalated)
        ]
    return moments

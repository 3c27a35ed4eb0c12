"""What is told next, pure: it follows from the state, and not from the event that came last.

:func:`decide` compares what holds with what each receiver was told. So duplicates, events out of order and restarts change
nothing, and at most one message about an incident is on its way to a receiver: what holds when it has ended is told then.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec.structs import replace

from services.alerting.channels.protocol import Purpose
from services.alerting.incidents import Incident, Message, Silence, Tell, Told, rank, released
from services.alerting.routing import Plan, fields_of

__all__ = ["covering", "decide", "expired", "wake_at"]


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
        incident = released(incident, now)
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
        if last is not None and last.purpose == "resolved" and last.episode == incident.episode:
            return None, f"its end was tried, and was {told.outcome}"
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

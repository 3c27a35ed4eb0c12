"""Conditions of the platform over time, pure: what holds long enough is told once, told again when it gets worse or goes
on, and resolved when it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec
from penstock.alerts import fingerprint
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Alert, LogRange, Severity

__all__ = ["PLATFORM", "Condition", "Conditions", "Finding", "Pace", "restored", "track"]

PLATFORM = "platform"
"""Whose alerts these are (``tenant_id``): an alerting entry of this name routes them, else ``default`` does."""

_KEPT = timedelta(days=1)
_CLEAR_S = 30.0
_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that holds now.

    Attributes:
        kind: dlq, lag or health: the page of the runbook.
        name: name of the alert: the section of the page.
        subject: what it is about; with the name it is the identity of the condition.
        for_s: seconds that it must hold before anyone is told.
        clear_s: seconds that it must be absent before it counts as over.
        samples: request_id of some requests concerned.
    """

    kind: str
    name: str
    subject: tuple[str, ...]
    severity: Severity
    title: str
    description: str
    suggested_action: str
    labels: dict[str, str] = {}
    figures: dict[str, float] = {}
    evidence: tuple[LogRange, ...] = ()
    samples: tuple[str, ...] = ()
    for_s: float = 0.0
    clear_s: float = 60.0

    @property
    def fingerprint(self) -> str:
        """Identity of the condition."""
        return fingerprint(self.kind, self.name, *self.subject)


class Pace(msgspec.Struct, frozen=True):
    """How often a condition that goes on is raised again, seconds."""

    repeat_s: float = 3600.0


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that holds, or did a moment ago.

    Attributes:
        name: name of its alert.
        since: when it was first seen.
        seen_at: when it was last seen.
        clear_s: as in :class:`Finding`.
        absent_since: the first look since then that did not see it.
        told: the last alert about it; ``None`` while it has not held for long enough.
        over: whether it has ended; it is kept for a day for its identity, from which that of the next is derived.
    """

    name: str
    since: datetime
    seen_at: datetime
    clear_s: float
    absent_since: datetime | None = None
    told: Alert | None = None
    over: bool = False

    @property
    def firing(self) -> bool:
        """Whether someone was told, and not yet that it is over."""
        return self.told is not None and self.told.status == "firing"


Conditions = Mapping[str, Condition]
"""Conditions by fingerprint."""


def track(
    state: Conditions, findings: Iterable[Finding], judged: frozenset[str], pace: Pace, now: datetime
) -> tuple[Conditions, list[Alert]]:
    """Take over what holds now and return the alerts that follow from it.

    Args:
        state: what was known; not changed.
        findings: all that holds now, of the names in ``judged``.
        judged: names of the alerts that were looked for. What was not looked for neither begins nor ends.
        pace: how often it is told.
        now: the time of the look.

    Identities follow from the last alert of the condition, so that two replicas that know the same log make the same.
    """
    after = dict(state)
    alerts: list[Alert] = []
    holding = {finding.fingerprint: finding for finding in findings}
    for key, finding in holding.items():
        known = state.get(key)
        if known is None or known.over:
            told = known.told if known else None
            known = Condition(name=finding.name, since=now, seen_at=now, clear_s=finding.clear_s, told=told)
        condition = msgspec.structs.replace(known, seen_at=now, clear_s=finding.clear_s, absent_since=None)
        if _due(condition, finding, pace, now):
            alert = _raised(finding, condition, now)
            alerts.append(alert)
            condition = msgspec.structs.replace(condition, told=alert)
        after[key] = condition
    for key, condition in state.items():
        if key in holding or condition.name not in judged:
            continue
        if condition.over:
            if now - condition.seen_at > _KEPT:
                del after[key]
            continue
        absent = condition.absent_since or now
        if (now - absent).total_seconds() < condition.clear_s:
            after[key] = msgspec.structs.replace(condition, absent_since=absent)
        elif condition.firing:
            alert = _resolved(condition, now)
            alerts.append(alert)
            after[key] = msgspec.structs.replace(condition, absent_since=absent, told=alert, over=True)
        elif condition.told is None:
            del after[key]
        else:
            after[key] = msgspec.structs.replace(condition, absent_since=absent, over=True)
    return after, alerts


def restored(alerts: Iterable[Alert], names: frozenset[str], now: datetime) -> Conditions:
    """Return the conditions that a former leader told, from the alerts in the log, oldest first.

    Those that fire count as seen now: whether they have ended is for the next looks to say.
    """
    found: dict[str, Condition] = {}
    for alert in alerts:
        if alert.name not in names or alert.tenant_id != PLATFORM:
            continue
        firing = alert.status == "firing"
        found[alert.fingerprint] = Condition(
            name=alert.name,
            since=alert.starts_at or alert.occurred_at,
            seen_at=now if firing else alert.occurred_at,
            clear_s=_CLEAR_S,
            told=alert,
            over=not firing,
        )
    return found


def _due(condition: Condition, finding: Finding, pace: Pace, now: datetime) -> bool:
    told = condition.told
    if told is None or not condition.firing:
        return (now - condition.since).total_seconds() >= finding.for_s
    if _RANK[finding.severity] > _RANK.get(Severity(told.severity), 0):
        return True
    return (now - told.occurred_at).total_seconds() >= pace.repeat_s


def _raised(finding: Finding, condition: Condition, now: datetime) -> Alert:
    return Alert(
        event_id=_next_id(finding.fingerprint, condition, "firing"),
        request_id="",
        tenant_id=PLATFORM,
        occurred_at=now,
        causation_id=condition.told.event_id if condition.told else "",
        kind=finding.kind,
        name=finding.name,
        severity=finding.severity,
        title=finding.title,
        description=finding.description,
        suggested_action=finding.suggested_action,
        fingerprint=finding.fingerprint,
        labels={"team": PLATFORM, **finding.labels},
        figures=finding.figures,
        evidence=list(finding.evidence),
        sample_requests=list(finding.samples),
        runbook=f"services/alerting/runbooks/{finding.kind}.md",
        starts_at=condition.since,
    )


def _resolved(condition: Condition, now: datetime) -> Alert:
    told = condition.told
    assert told is not None
    # The severity stays: routes go by it, and the end must go where the beginning went.
    return msgspec.structs.replace(
        told,
        event_id=_next_id(told.fingerprint, condition, "resolved"),
        occurred_at=now,
        causation_id=told.event_id,
        status="resolved",
        title=f"Over: {told.title}",
        description=f"It held from {condition.since:%Y-%m-%d %H:%M:%S} to {condition.seen_at:%Y-%m-%d %H:%M:%S} UTC. "
        f"Last told: {told.description}",
        suggested_action="",
    )


def _next_id(key: str, condition: Condition, status: str) -> str:
    # Without a predecessor the day is part of it: what held a year ago is another event.
    cause = condition.told.event_id if condition.told else f"{key}/{condition.since:%Y-%m-%d}"
    return event_id(cause, f"alerting.monitor.{status}")

"""What fires now, pure: alerts, what people did about them and what became of them, folded from the log.

The rules are those that alerting delivers by: an alert that is resolved by a later one is over, an acknowledgement ends with
the episode or when it gets worse, a silence covers what matches in its span. Order of reading does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from penstock.contracts.records import Alert, AlertAction, AlertDelivery, Severity

__all__ = ["Acknowledged", "Board", "Incident", "Silence", "Told", "fields_of", "fold", "rank"]

_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
ResolveAfter = Callable[[Alert], timedelta | None]
"""How long after an alert was raised last it counts as over; ``None``: never by time."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts that match are not delivered from ``starts_at`` until ``ends_at``."""

    silence_id: str
    match: dict[str, str]
    starts_at: datetime
    ends_at: datetime
    author: str
    comment: str

    def covers(self, alert: Alert, now: datetime) -> bool:
        """Tell whether the alert is silenced at ``now``."""
        if not self.match or not self.starts_at <= now < self.ends_at:
            return False
        return self.matches(alert)

    def matches(self, alert: Alert) -> bool:
        """Tell whether the patterns fit the alert, whenever that is."""
        fields = fields_of(alert)
        return all(name in fields and fnmatchcase(fields[name], pattern) for name, pattern in self.match.items())


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Someone has it in hand, until ``until`` where that is set."""

    at: datetime
    until: datetime | None
    author: str
    comment: str
    severity: str


@dataclass(frozen=True, slots=True)
class Told:
    """How delivery to one receiver stands: the last record of it that was no suppression."""

    receiver: str
    last: AlertDelivery

    @property
    def fails(self) -> bool:
        """Whether it has not arrived."""
        return self.last.outcome in ("failed", "dead")


@dataclass(frozen=True, slots=True)
class Incident:
    """One condition, by its fingerprint.

    Attributes:
        alert: the newest alert of it.
        severity: worst of the episode.
        began_at: when the episode began, as far as it is known.
        newest_at: when it was raised last.
        ended_at: when it was resolved; ``None`` while it fires.
        count: how often it was raised in the episode.
        acknowledged: while that holds.
        silence: that covers it now, the longest.
        alerts, deliveries, actions: all about it, oldest first.
    """

    fingerprint: str
    alert: Alert
    severity: str
    began_at: datetime
    newest_at: datetime
    ended_at: datetime | None = None
    count: int = 1
    acknowledged: Acknowledged | None = None
    silence: Silence | None = None
    alerts: tuple[Alert, ...] = ()
    deliveries: tuple[AlertDelivery, ...] = ()
    actions: tuple[AlertAction, ...] = ()

    @property
    def firing(self) -> bool:
        """Whether it fires."""
        return self.ended_at is None

    def told(self) -> list[Told]:
        """Return how delivery stands, by receiver."""
        last: dict[str, AlertDelivery] = {}
        for each in self.deliveries:
            if each.outcome != "suppressed":
                last[each.receiver or each.channel] = each
        return [Told(name, each) for name, each in sorted(last.items())]

    def held_back(self) -> str | None:
        """Return why nobody was told, where nobody was."""
        if any(each.outcome != "suppressed" for each in self.deliveries):
            return None
        return next((each.reason for each in reversed(self.deliveries) if each.reason), None)


@dataclass(frozen=True, slots=True)
class Board:
    """All incidents, the worst that fires first; and the silences that have not ended."""

    incidents: tuple[Incident, ...]
    silences: tuple[Silence, ...]
    ended_silences: tuple[Silence, ...] = ()

    def firing(self) -> list[Incident]:
        """Return what fires now."""
        return [each for each in self.incidents if each.firing]


@dataclass(slots=True)
class _Episode:
    """An incident while it is folded."""

    alert: Alert | None = None
    severity: str = Severity.INFO
    began_at: datetime | None = None
    newest_at: datetime | None = None
    ended_at: datetime | None = None
    count: int = 0
    acknowledged: Acknowledged | None = None
    alerts: list[Alert] = field(default_factory=list)
    deliveries: list[AlertDelivery] = field(default_factory=list)
    actions: list[AlertAction] = field(default_factory=list)


def rank(severity: str) -> int:
    """Return how bad a severity is; an unknown one counts as info."""
    return _RANK.get(Severity(severity), 0) if severity in set(Severity) else 0


def fields_of(alert: Alert) -> dict[str, str]:
    """Return what routes and silences go by: the labels, and kind, name, severity, team and fingerprint."""
    return {
        **alert.labels,
        "kind": alert.kind,
        "name": alert.name,
        "severity": str(alert.severity),
        "team": alert.tenant_id,
        "fingerprint": alert.fingerprint,
    }


def fold(
    alerts: Iterable[Alert],
    deliveries: Iterable[AlertDelivery],
    actions: Iterable[AlertAction],
    now: datetime,
    resolve_after: ResolveAfter = lambda alert: None,
) -> Board:
    """Return what the records come to at ``now``. Records that stand in the log twice count once."""
    episodes: dict[str, _Episode] = {}
    silences: dict[str, Silence] = {}
    events: Sequence[Alert | AlertAction] = sorted(
        [*{each.event_id: each for each in alerts}.values(), *{each.event_id: each for each in actions}.values()],
        key=lambda each: (each.occurred_at, isinstance(each, AlertAction)),
    )
    for event in events:
        if isinstance(event, Alert):
            _raised(episodes.setdefault(event.fingerprint, _Episode()), event)
        elif event.fingerprint is not None:
            _acted(episodes.setdefault(event.fingerprint, _Episode()), event)
        elif event.silence_id is not None:
            _silenced(silences, event)
    for each in sorted({one.event_id: one for one in deliveries}.values(), key=lambda one: one.occurred_at):
        if each.fingerprint in episodes:
            episodes[each.fingerprint].deliveries.append(each)
    found = [
        incident
        for fingerprint, episode in episodes.items()
        if (incident := _incident(fingerprint, episode, silences.values(), now, resolve_after)) is not None
    ]
    found.sort(key=lambda each: (not each.firing, -rank(each.severity), -each.newest_at.timestamp()))
    by_end = sorted(silences.values(), key=lambda each: each.ends_at)
    return Board(
        tuple(found), tuple(s for s in by_end if s.ends_at > now), tuple(s for s in by_end if s.ends_at <= now)
    )


def _raised(episode: _Episode, alert: Alert) -> None:
    episode.alerts.append(alert)
    at = alert.occurred_at
    if alert.status == "resolved":
        if episode.alert is not None and episode.ended_at is None:
            episode.ended_at, episode.acknowledged = at, None
        elif episode.alert is None:
            episode.alert, episode.began_at, episode.newest_at = alert, alert.starts_at or at, at
            episode.ended_at, episode.severity = at, alert.severity
        return
    if episode.alert is None or episode.ended_at is not None:
        if episode.ended_at is not None:
            episode.acknowledged = None
        episode.severity, episode.began_at, episode.count, episode.ended_at = (
            alert.severity,
            alert.starts_at or at,
            1,
            None,
        )
    else:
        episode.count += 1
        if rank(alert.severity) > rank(episode.severity):
            episode.severity = alert.severity
    held = episode.acknowledged
    if held is not None and rank(alert.severity) > rank(held.severity):
        episode.acknowledged = None
    episode.alert, episode.newest_at = alert, at


def _acted(episode: _Episode, action: AlertAction) -> None:
    episode.actions.append(action)
    if action.action == "acknowledge" and episode.ended_at is None:
        severity = episode.severity if episode.alert is not None else Severity.CRITICAL
        episode.acknowledged = Acknowledged(action.occurred_at, action.ends_at, action.author, action.comment, severity)
    elif action.action == "unacknowledge":
        episode.acknowledged = None
    elif action.action == "resolve" and episode.alert is not None and episode.ended_at is None:
        episode.ended_at, episode.acknowledged = action.occurred_at, None


def _silenced(silences: dict[str, Silence], action: AlertAction) -> None:
    assert action.silence_id is not None
    known = silences.get(action.silence_id)
    if action.action == "silence" and action.ends_at is not None:
        silences[action.silence_id] = Silence(
            action.silence_id,
            dict(action.match),
            action.starts_at or action.occurred_at,
            action.ends_at,
            action.author,
            action.comment,
        )
    elif action.action == "unsilence" and known is not None:
        silences[action.silence_id] = replace(known, ends_at=min(known.ends_at, action.occurred_at))


def _incident(
    fingerprint: str, episode: _Episode, silences: Iterable[Silence], now: datetime, resolve_after: ResolveAfter
) -> Incident | None:
    alert = episode.alert
    if alert is None or episode.began_at is None or episode.newest_at is None:
        return None  # acted upon, but raised before what was read
    ended_at = episode.ended_at
    limit = resolve_after(alert)
    if ended_at is None and limit is not None and now - episode.newest_at >= limit:
        ended_at = episode.newest_at + limit
    held = episode.acknowledged
    if ended_at is not None or (held is not None and held.until is not None and now >= held.until):
        held = None
    covering = max((s for s in silences if s.covers(alert, now)), key=lambda s: s.ends_at, default=None)
    return Incident(
        fingerprint=fingerprint,
        alert=alert,
        severity=episode.severity,
        began_at=episode.began_at,
        newest_at=episode.newest_at,
        ended_at=ended_at,
        count=episode.count,
        acknowledged=held,
        silence=covering if ended_at is None else None,
        alerts=tuple(episode.alerts),
        deliveries=tuple(episode.deliveries),
        actions=tuple(episode.actions),
    )

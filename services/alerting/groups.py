"""Groups of alerts that are told together, and the job that a group makes of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal

import msgspec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Alert

from services.alerting.channels.protocol import Attempt, Notification, Purpose
from services.alerting.decisions import covering
from services.alerting.incidents import Incident, Silence, Tell, rank
from services.alerting.routing import Plan, fields_of, group_fields, group_id, receiver_key

__all__ = [
    "Ending", "Entry", "Group", "Held", "Job", "Lease", "composed", "ending_of", "entry_of", "fresh_group",
    "notification_of", "overflowing", "reduced", "retried", "summary_of", "tried", "withheld",
]  # fmt: skip


class Entry(msgspec.Struct, frozen=True):
    """One alert that is to be told."""

    entry_id: str
    alert: Alert
    number: int
    queued_at: datetime


class Held(msgspec.Struct, frozen=True):
    """An alert that is not told after all, or that waits for a summary."""

    entry: Entry
    outcome: Literal["withheld", "left_out", "waits"]
    reason: str
    at: datetime
    until: datetime | None = None
    """When a summary tells it."""


class Ending(msgspec.Struct, frozen=True):
    """How the newest try ended. It is noted before it is recorded, so that a try that succeeded is never repeated."""

    outcome: Literal["delivered", "failed", "dead", "withheld"]
    at: datetime
    status_code: int | None = None
    reason: str | None = None
    next_try_at: datetime | None = None


class Lease(msgspec.Struct, frozen=True):
    """Who works on a group, and until when nobody else does."""

    holder: str
    until: datetime


class Job(msgspec.Struct, frozen=True):
    """One message, until it has ended. ``held`` and ``ending`` are what is not recorded yet."""

    notification_id: str
    entries: tuple[Entry, ...]
    created_at: datetime
    left_out: int = 0
    attempts: int = 0
    held: tuple[Held, ...] = ()
    ending: Ending | None = None
    channel: str = ""
    destination: str = ""
    more: bool = False
    """Sends nothing, only accounts for what was taken out; what still waits is taken up at once."""


class Group(msgspec.Struct, frozen=True):
    """Alerts that are told together; ``busy`` while it gathers or has a job.

    A job whose first try failed goes on as a group of its own (``retries``), by the message's identity: what gathers
    after it does not wait for it.

    A summary of more than it takes at once is put together in several steps: ``gravest`` are the alerts that it is to name
    of those that were taken so far, ``counted`` how many were left out.
    """

    group_id: str
    config: str
    receiver: str
    purpose: Purpose
    fields: dict[str, str]
    wait_s: float
    interval_s: float
    most_per_hour: int
    summary: bool = False
    retries: bool = False
    busy: bool = False
    sent_at: datetime | None = None
    job: Job | None = None
    lease: Lease | None = None
    gravest: tuple[Entry, ...] = ()
    counted: int = 0

    @property
    def key(self) -> str:
        """Name of the receiver among those of all entries."""
        return receiver_key(self.config, self.receiver)


def notification_of(group: Group) -> Notification:
    """Return the message of a group's job."""
    assert group.job is not None
    return Notification(
        notification_id=group.job.notification_id,
        receiver=group.receiver,
        purpose=group.purpose,
        group=group.fields,
        alerts=tuple(entry.alert for entry in group.job.entries),
        created_at=group.job.created_at,
        left_out=group.job.left_out,
    )


def entry_of(plan: Plan, tell: Tell, now: datetime) -> Entry:
    """Return a message about one alert, with an identity that a restart gives again."""
    stage = f"alerting/{plan.entry}/{tell.receiver}/entry"
    return Entry(event_id(tell.alert.event_id, stage, tell.number), tell.alert, tell.number, now)


def fresh_group(plan: Plan, tell: Tell) -> Group:
    """Return the group that a message belongs to, as it is before the first."""
    route = plan.route
    fields = group_fields(tell.alert, route)
    return Group(
        group_id(plan, tell.receiver, tell.purpose, fields),
        plan.entry,
        tell.receiver,
        tell.purpose,
        fields,
        route.group_wait_s,
        route.group_interval_s,
        route.most_per_hour,
    )


def retried(group: Group) -> Group:
    """Return the group in which the job of a group waits for its next try."""
    job = group.job
    assert job is not None
    identity = group.group_id if group.retries else job.notification_id
    settled = msgspec.structs.replace(job, ending=None, held=())
    return msgspec.structs.replace(group, group_id=identity, retries=True, lease=None, job=settled)


def summary_of(group: Group) -> Group:
    """Return the group that takes what is over the rate of a receiver."""
    digest = blake2b(f"{group.key}/{group.purpose}/summary".encode(), digest_size=16).hexdigest()
    return msgspec.structs.replace(
        group,
        group_id=digest,
        summary=True,
        fields={},
        busy=False,
        job=None,
        lease=None,
        sent_at=None,
        gravest=(),
        counted=0,
    )


def composed(group: Group, entries: Sequence[Entry], most: int, now: datetime) -> Group:
    """Return the group with a job of these alerts; of a summary that has too many, the gravest and newest are named."""
    entries, held = _parted(group, entries, most, now)
    # Alerts are told oldest first, however they came.
    ordered = tuple(sorted(entries, key=lambda entry: entry.alert.occurred_at))
    stage = f"alerting/{group.key}/{group.purpose}/notification"
    name = event_id("/".join(sorted(entry.entry_id for entry in ordered)), stage, len(held))
    fields = _agreed(entry.alert for entry in ordered) if group.summary else group.fields
    job = Job(name, ordered, now, left_out=group.counted + len(held), held=held)
    return msgspec.structs.replace(group, fields=fields, job=job, gravest=(), counted=0)


def reduced(group: Group, entries: Sequence[Entry], most: int, now: datetime) -> Group:
    """Return a summary that has more than it takes at once, with the gravest of what was taken so far, and a job that
    records that the rest is only counted."""
    entries, held = _parted(group, entries, most, now)
    job = Job("", (), now, held=held, ending=Ending("withheld", now), more=True)
    return msgspec.structs.replace(group, job=job, gravest=tuple(entries), counted=group.counted + len(held))


def _parted(
    group: Group, entries: Sequence[Entry], most: int, now: datetime
) -> tuple[Sequence[Entry], tuple[Held, ...]]:
    if len(entries) <= most:
        return entries, ()
    chosen = {entry.entry_id for entry in sorted(entries, key=_importance, reverse=True)[:most]}
    reason = f"over the rate of {group.most_per_hour} messages an hour: only counted in the summary"
    held = tuple(Held(entry, "left_out", reason, now) for entry in entries if entry.entry_id not in chosen)
    return [entry for entry in entries if entry.entry_id in chosen], held


def overflowing(group: Group, entries: Sequence[Entry], until: datetime, now: datetime) -> Group:
    """Return the group with a job that sends nothing and records that its alerts wait for the summary."""
    reason = f"over the rate of {group.most_per_hour} messages an hour: the summary of {until:%H:%M:%S} UTC tells it"
    held = tuple(Held(entry, "waits", reason, now, until) for entry in entries)
    job = Job("", (), now, held=held, ending=Ending("withheld", now), more=True)
    return msgspec.structs.replace(group, job=job)


def ending_of(job: Job, attempt: Attempt, pause_s: float, retry_for_s: float, now: datetime) -> Ending:
    """Return how a try ended, and when the next one is; after ``retry_for_s`` none is begun any more."""
    if attempt.outcome != "retry":
        return Ending(attempt.outcome, now, attempt.status_code, attempt.reason)
    spent_s = (now - job.created_at).total_seconds()
    if spent_s + pause_s > retry_for_s:
        reason = f"{attempt.reason or 'it failed'}; given up after {job.attempts + 1} tries in {spent_s:.0f} s"
        return Ending("dead", now, attempt.status_code, reason)
    next_try_at = now + timedelta(seconds=pause_s)
    return Ending("failed", now, attempt.status_code, attempt.reason, next_try_at)


def tried(found: Group, job: Job) -> bool:
    """Tell whether ``job``, in which a try is counted, follows on the job of a group as it stands."""
    return (
        found.job is not None
        and found.job.notification_id == job.notification_id
        and found.job.attempts == job.attempts - 1
        and found.job.ending is None
    )


def withheld(incident: Incident | None, purpose: Purpose, silences: Sequence[Silence], now: datetime) -> str | None:
    """Return why an alert is not sent after all, ``None`` where it is."""
    if incident is None:
        return None
    acknowledgement = incident.acknowledgement
    holds = acknowledgement is not None and (acknowledgement.until is None or now < acknowledgement.until)
    if acknowledgement is not None and holds and purpose != "resolved":
        return f"acknowledged by {acknowledgement.author or 'someone'} before it was sent"
    if (silence := covering(incident, silences, now)) is not None:
        return f"silenced until {silence.ends_at.isoformat()}: {silence.reason or 'no reason given'}"
    if purpose in {"repeat", "escalation"} and incident.status == "resolved":
        return "resolved before it was sent"
    return None


def _importance(entry: Entry) -> tuple[int, datetime, str]:
    return rank(entry.alert.severity), entry.alert.occurred_at, entry.entry_id


def _agreed(alerts: Iterable[Alert]) -> dict[str, str]:
    """Return team and kind where all alerts agree in them."""
    every = [fields_of(alert) for alert in alerts]
    return {name: every[0][name] for name in ("team", "kind") if len({fields[name] for fields in every}) == 1}

"""What alerting writes to the log, pure: what became of each alert at each receiver, and the alerts that it raises."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec
from msgspec.structs import replace
from penstock.alerts import alert_emit, fingerprint
from penstock.bus import Emit
from penstock.contracts.envelope import derive, event_id
from penstock.contracts.records import Alert, AlertDelivery, Severity

from services.alerting.groups import Group
from services.alerting.routing import MISCONFIGURED, fields_of
from services.alerting.store import milliseconds

__all__ = ["about_receiver", "held_at_once", "misconfigured", "pause_s", "resolution", "settled", "usable_again"]

_LONGEST_PAUSE_S = 600.0
_LONGEST_ASKED_S = 3600.0
_WHY_MOST = 1_000
_DESCRIPTION_MOST = 10_000
_LARGE = 1024 * 1024
"""Size, in bytes, of an alert of which only what is needed is repeated when it ends; a message may have 8 MiB."""
_RUNBOOK = "services/alerting/runbooks/health.md"


def pause_s(attempts: int, chance: float, asked_s: float | None = None) -> float:
    """Return the seconds to wait after the ``attempts``-th failure (from 1): between a half and the whole of 1 s doubled
    each time, 10 minutes at most.

    Args:
        chance: from 0 to 1, random.
        asked_s: what the receiver asked for; obeyed up to an hour.
    """
    limit = min(_LONGEST_PAUSE_S, 2.0 ** min(attempts - 1, 20))
    return max(limit * (0.5 + chance / 2), min(asked_s or 0.0, _LONGEST_ASKED_S))


def held_at_once(alert: Alert, receiver: str, reason: str, at: datetime, place: str = "") -> Emit:
    """Return the record of an alert that was told to nobody, or not to ``receiver``, when it came.

    Args:
        place: where in the log it stands, for one that was sent again.
    """
    record = AlertDelivery(
        **derive(alert, f"alerting/held/{receiver}{place}", 0, at),
        fingerprint=alert.fingerprint,
        alert_kind=alert.kind,
        channel="",
        destination="",
        outcome="suppressed",
        reason=reason,
        receiver=receiver,
        purpose="resolved" if alert.status == "resolved" else "firing",
    )
    return Emit("alert-deliveries", alert.fingerprint, record)


def settled(group: Group) -> Iterator[Emit]:
    """Yield the records of a group's newest try and of what was taken out of it; the same again whenever it is asked for."""
    job = group.job
    assert job is not None
    for held in job.held:
        alert, number = held.entry.alert, held.entry.number
        yield _delivery(group, alert, number, 0, "suppressed", held.at, held.reason, next_try_at=held.until)
    if job.ending is None:
        return
    ending = job.ending
    for entry in job.entries:
        yield _delivery(
            group,
            entry.alert,
            entry.number,
            job.attempts,
            ending.outcome,
            ending.at,
            ending.reason,
            ending.status_code,
            ending.next_try_at,
        )


def _delivery(
    group: Group,
    alert: Alert,
    number: int,
    attempts: int,
    outcome: str,
    at: datetime,
    reason: str | None,
    status_code: int | None = None,
    next_try_at: datetime | None = None,
) -> Emit:
    assert group.job is not None
    # The time tells tries apart that have one number: those before and after a rebuilding count from one.
    stage = f"alerting/{group.key}/{group.purpose}/{number}/{milliseconds(at)}"
    record = AlertDelivery(
        **derive(alert, stage, attempts, at),
        fingerprint=alert.fingerprint,
        alert_kind=alert.kind,
        channel=group.job.channel,
        destination=group.job.destination,
        outcome=outcome,
        attempts=attempts,
        status_code=status_code,
        reason=reason,
        receiver=group.receiver,
        notification_id=group.job.notification_id,
        purpose=group.purpose,
        next_try_at=next_try_at,
    )
    return Emit("alert-deliveries", alert.fingerprint, record)


def resolution(alert: Alert, cause_id: str, why: str, now: datetime) -> Emit:
    """Return the alert that says that a condition has ended, because of ``cause_id``.

    The description is cut, so that it is no longer than that of an alert that already takes as much as a message may.
    """
    description = f"{why[:_WHY_MOST]} {alert.description}"
    if len(description) > _DESCRIPTION_MOST:
        description = f"{description[: _DESCRIPTION_MOST - 1]}…"
    large = len(msgspec.json.encode(alert)) > _LARGE
    resolved = replace(
        alert,
        event_id=event_id(cause_id, f"alerting.resolved/{alert.fingerprint}"),
        causation_id=cause_id,
        occurred_at=now,
        status="resolved",
        description=description,
        # What is not needed to say that it has ended makes room for why.
        suggested_action="" if large else alert.suggested_action,
        sample_requests=[] if large else alert.sample_requests,
        evidence=[] if large else alert.evidence,
    )
    return alert_emit(resolved)


def misconfigured(group: Group, reason: str, now: datetime) -> Emit | None:
    """Return what the other receivers are told of one that cannot be opened.

    ``None`` where the message was itself about such a receiver: two that are both misconfigured would tell of each other
    for ever.
    """
    assert group.job is not None
    alerts = [entry.alert for entry in group.job.entries]
    if not alerts or all(alert.name == MISCONFIGURED for alert in alerts):
        return None
    return alert_emit(
        replace(
            _about(group, alerts[0], now),
            severity=Severity.CRITICAL,
            title=f"Alerts do not reach receiver {group.receiver} of {group.config}",
            description=f"Receiver {group.receiver} of the alerting entry {group.config} cannot be opened: {reason}. "
            "What was to be delivered there stands among the dead letters of alerting.",
            suggested_action="Set the variable or the address that the reason names, or correct the receiver with `penstock "
            "config apply`; then send the letters again with `penstock dlq replay alerting`.",
        )
    )


def about_receiver(entry: str, receiver: str) -> str:
    """Return the fingerprint of alerts about a receiver that cannot be opened."""
    return fingerprint("health", MISCONFIGURED, entry, receiver)


def usable_again(alert: Alert, removed: bool, now: datetime) -> Emit:
    """Return what the other receivers are told once a receiver can be opened again, or is no longer wanted.

    Args:
        alert: what they were told when it could not be opened.
        removed: whether it stands no longer in the configuration.
    """
    receiver = f"Receiver {alert.labels.get('receiver', '')} of {alert.labels.get('entry', '')}"
    if removed:
        title, description = f"{receiver} was removed", "It stands no longer in the configuration."
    else:
        title, description = f"{receiver} can be reached again", "It could be opened."
    return alert_emit(
        replace(
            alert,
            event_id=event_id(alert.event_id, f"alerting.{MISCONFIGURED}/resolved"),
            causation_id=alert.event_id,
            # Its beginning may have been dated by another clock.
            occurred_at=max(now, alert.occurred_at),
            status="resolved",
            title=title,
            description=f"{description} Dead letters from before wait for `penstock dlq replay alerting`.",
            suggested_action="",
        )
    )


def _about(group: Group, alert: Alert, now: datetime) -> Alert:
    assert group.job is not None
    return Alert(
        event_id=event_id(group.job.notification_id, f"alerting.{MISCONFIGURED}/firing"),
        request_id="",
        tenant_id=alert.tenant_id,
        occurred_at=now,
        causation_id=alert.event_id,
        kind="health",
        name=MISCONFIGURED,
        severity=Severity.INFO,
        status="firing",
        title="",
        description="",
        fingerprint=about_receiver(group.config, group.receiver),
        labels={"team": fields_of(alert)["team"], "receiver": group.receiver, "entry": group.config},
        runbook=_RUNBOOK,
    )

"""What the log says of incidents, silences and deliveries, folded into what alerting knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import itemgetter

import msgspec
from msgspec.structs import replace
from penstock.bus import Message
from penstock.contracts.records import Alert, AlertAction, AlertDelivery, Record

from services.alerting.channels.protocol import Purpose
from services.alerting.decisions import decide
from services.alerting.desk import forgiven, invalid
from services.alerting.incidents import Incident, Settled, Silence, Tell, act, observe, settle
from services.alerting.register import Kept
from services.alerting.routing import Directory, Plan
from services.alerting.store import moment

__all__ = ["Past", "in_time"]

_ORDER = {Alert: 0, AlertAction: 1, AlertDelivery: 2}


class Past:
    """What alerting knew, as far as the log says."""

    def __init__(self, directory: Directory, always: Sequence[Silence]) -> None:
        self.incidents: dict[str, Incident] = {}
        self.silences: dict[str, Silence] = {}
        self.kept: dict[str, Kept] = {}
        self.told: set[str] = set()
        """Alerts that were to be told to someone, or could be when they came."""
        self.outstanding: dict[tuple[str, str], tuple[Plan, Tell]] = {}
        """What was to be told, by fingerprint and receiver, and of which the log does not say how it ended."""
        self._directory = directory
        self._always = tuple(always)

    def take(self, at: datetime, message: Message, record: Record) -> None:
        """Take one event over; events come in the order of :func:`in_time`."""
        if isinstance(record, Alert):
            self._alert(message, record, at)
        elif isinstance(record, AlertAction):
            self._action(record, at)
        elif isinstance(record, AlertDelivery):
            self._delivery(record)

    def _alert(self, message: Message, alert: Alert, at: datetime) -> None:
        known = self.kept.get(alert.event_id)
        if known is not None and known.stands_at(message):
            return
        incident: Incident | None = self.incidents.get(alert.fingerprint)
        reason = None
        place = ""
        if known is None:
            incident, reason = observe(incident, alert)
        else:
            place = f"/{message.partition}/{message.offset}"
            incident = forgiven(incident, alert.event_id)
            if incident is None:
                return
        reasons = self._decide(incident, at)
        held = [("", reason, at)] if reason is not None else [(name, why, at) for name, why in reasons.items()]
        self.kept[alert.event_id] = Kept.of(message, held, place)
        newest = incident.alert
        if newest is not None and newest.event_id == alert.event_id:
            self.told.add(alert.event_id)

    def _action(self, action: AlertAction, at: datetime) -> None:
        if invalid(action) is not None:
            return
        if action.action == "silence" and action.ends_at is not None and action.silence_id is not None:
            self.silences[action.silence_id] = Silence(
                action.silence_id, action.match, action.starts_at, action.ends_at, action.author, action.comment
            )
        elif action.action == "unsilence":
            self.silences.pop(action.silence_id or "", None)
        elif action.action != "resolve" and action.fingerprint is not None:
            # A resolution stands among the alerts.
            self._decide(act(self.incidents.get(action.fingerprint), action.fingerprint, action), at)

    def _delivery(self, record: AlertDelivery) -> None:
        if record.next_try_at is not None or record.fingerprint not in self.incidents:
            # It was to be tried again, or waited for a summary.
            return
        receivers = [record.receiver]
        if not record.receiver:
            told = self.incidents[record.fingerprint].told
            receivers = [name for name, known in told.items() if known.queued is not None]
        for name in receivers:
            self._ended(record, name)

    def _ended(self, record: AlertDelivery, receiver: str) -> None:
        place = (record.fingerprint, receiver)
        event_id, at = record.causation_id, record.occurred_at
        waiting = self.outstanding.get(place)
        ours = waiting is not None and waiting[1].alert.event_id == event_id
        alike = waiting is not None and record.receiver != "" and waiting[1].purpose == record.purpose
        purpose = waiting[1].purpose if waiting is not None and ours else msgspec.convert(record.purpose, Purpose)
        if record.outcome == "suppressed":
            if not ours:
                return
            del self.outstanding[place]
            incident = settle(self.incidents[record.fingerprint], receiver, event_id, purpose, "withheld", at)
            self._decide(incident, at)
            again = self.outstanding.get(place)
            if again is not None and again[1].alert.event_id == event_id:
                # It was not told though it could be: it was only counted in a summary.
                del self.outstanding[place]
                incident = settle(self.incidents[record.fingerprint], receiver, event_id, purpose, "left_out", at)
                self._decide(incident, at)
            return
        if waiting is not None and (ours or alike):
            del self.outstanding[place]
            event_id = waiting[1].alert.event_id
        outcome: Settled = "dead" if record.outcome == "dead" else "delivered"
        incident = settle(self.incidents[record.fingerprint], receiver, event_id, purpose, outcome, at)
        if incident.alerted_at is None and incident.status == "firing":
            incident = replace(incident, alerted_at=at)
        self._decide(incident, at)

    def _decide(self, incident: Incident, at: datetime) -> dict[str, str]:
        plan = None if incident.alert is None else self._directory.plan(incident.alert)
        incident, tells, reasons = decide(incident, plan, [*self._always, *self.silences.values()], at)
        self.incidents[incident.fingerprint] = incident
        if plan is not None:
            self.outstanding |= {(incident.fingerprint, tell.receiver): (plan, tell) for tell in tells}
            self.told |= {tell.alert.event_id for tell in tells}
        return reasons


def in_time(events: Iterable[tuple[Message, Record]]) -> list[tuple[datetime, Message, Record]]:
    """Return events in the order of their time: topics have none among each other."""
    alerts: dict[str, datetime] = {}
    timed: list[tuple[datetime, int, Message, Record]] = []
    for message, record in events:
        at = moment(message.timestamp_ms)
        if isinstance(record, Alert):
            alerts.setdefault(record.event_id, at)
        timed.append((at, _ORDER.get(type(record), 3), message, record))
    # A delivery came after its alert, whatever the clocks of those who wrote them say.
    ordered = sorted(
        (
            (max(at, alerts.get(record.causation_id, at)), order, message, record)
            for at, order, message, record in timed
        ),
        key=itemgetter(0, 1),
    )
    return [(at, message, record) for at, _, message, record in ordered]

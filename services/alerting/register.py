"""The incidents as they stand in Redis, and what an event does to one: each a step inside a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from penstock.bus import Message

from services.alerting.decisions import covering, decide, expired, wake_at
from services.alerting.incidents import Incident, Silence, Tell
from services.alerting.routing import MISCONFIGURED, Directory, Plan, receiver_key
from services.alerting.store import Keys, Store, Transaction

__all__ = ["Kept", "Register"]

_INCIDENT_S = 30 * 86_400
_TOLD_S = 9 * 86_400
"""Longer than any receiver is tried: a dead letter carries the alert as it stood in the log."""
_MARGIN_S = 3600.0


class Kept(msgspec.Struct, frozen=True):
    """What is kept of one alert that came: that it did, where it stands, and what was recorded of it at once.

    Attributes:
        held: receiver (empty for all), why it is not told, and when that was decided.
        place: what tells the records of a copy that was sent again from those of the first.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    held: tuple[tuple[str, str, datetime], ...] = ()
    place: str = ""

    @classmethod
    def of(cls, message: Message, held: Sequence[tuple[str, str, datetime]], place: str = "") -> Kept:
        """Keep a message."""
        return cls(
            message.topic,
            message.partition,
            message.offset,
            message.timestamp_ms,
            message.key,
            message.value,
            message.headers,
            tuple(held),
            place,
        )

    def stands_at(self, message: Message) -> bool:
        """Tell whether this is the very message, and not a copy that was sent again."""
        return (self.topic, self.partition, self.offset) == (message.topic, message.partition, message.offset)

    def message(self) -> Message:
        """Return the message."""
        return Message(self.topic, self.partition, self.offset, self.timestamp_ms, self.key, self.value, self.headers)


class Register:
    """The incidents, the silences, and the ways that hold."""

    def __init__(self, store: Store, directory: Directory, always: Sequence[Silence]) -> None:
        """Create the register.

        Args:
            always: silences of the settings, beside those that people begin.
        """
        self.store = store
        self.directory = directory
        self._always = tuple(always)

    async def incidents(self, transaction: Transaction, fingerprints: Iterable[str]) -> dict[str, Incident]:
        """Return the incidents that are known of some fingerprints."""
        names = list(dict.fromkeys(fingerprints))
        found = await transaction.load_many(Incident, [Keys.incident(name) for name in names])
        return {name: incident for name, incident in zip(names, found, strict=True) if incident is not None}

    async def silences(self, transaction: Transaction) -> list[Silence]:
        """Return every silence, ended ones among them."""
        return [*self._always, *await transaction.mapped(Silence, Keys.SILENCES)]

    def proceed(
        self, transaction: Transaction, incident: Incident, silences: Sequence[Silence], now: datetime
    ) -> tuple[list[tuple[Plan, Tell]], dict[str, str]]:
        """Decide what is told of an incident now, and keep it.

        Returns:
            The messages, which the caller queues, and why other receivers are told nothing (as :func:`decide` does).
        """
        plan = None if incident.alert is None else self.directory.plan(incident.alert)
        incident, tells, reasons = decide(incident, plan, silences, now)
        name = incident.fingerprint
        transaction.put(Keys.incident(name), incident, _INCIDENT_S)
        wake = wake_at(incident, plan, silences, now)
        if wake is None:
            transaction.unschedule(Keys.WAKE, name)
        else:
            transaction.schedule(Keys.WAKE, name, wake)
        # Those of the settings are never ended, so nothing is ever looked up by them.
        if (silence := covering(incident, silences, now)) is not None and silence not in self._always:
            transaction.join(Keys.silenced(silence.silence_id), name)
        return [(plan, tell) for tell in tells] if plan is not None else [], reasons

    def kept_s(self, told: bool) -> float:
        """Return how long an alert is kept from when it came, s.

        Args:
            told: whether it is told to someone, or may still be. Another is only kept until nothing would be told of it
                were it read again.
        """
        short_s = self.directory.max_age.total_seconds() + _MARGIN_S
        return max(short_s, _TOLD_S) if told else short_s

    def keep(self, transaction: Transaction, incidents: Iterable[Incident], now: datetime) -> None:
        """Keep incidents as they are, to be looked at ``now`` but for those that are over and of which all was told."""
        for incident in incidents:
            transaction.put(Keys.incident(incident.fingerprint), incident, _INCIDENT_S)
            if incident.alert is None:
                continue
            if incident.status == "firing" and incident.alert.name == MISCONFIGURED and incident.alert.kind == "health":
                labels = incident.alert.labels
                key = receiver_key(labels.get("entry", ""), labels.get("receiver", ""))
                transaction.join(Keys.MISCONFIGURED, key)
            plan = self.directory.plan(incident.alert)
            # An end that a silence holds back is told after it, so silences do not count here.
            if incident.status == "firing" or decide(incident, plan, (), now)[1]:
                transaction.schedule(Keys.WAKE, incident.fingerprint, now)

    def over(self, incident: Incident, now: datetime) -> bool:
        """Tell whether an incident has ended by time."""
        plan = None if incident.alert is None else self.directory.plan(incident.alert)
        return expired(incident, plan, now)

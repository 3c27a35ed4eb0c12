"""What alerting knew, rebuilt from the log: alerts, actions and deliveries stand there, Redis only holds what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TypeVar

import msgspec
from msgspec.structs import replace
from penstock.bus import Message, Transient, Transport
from penstock.bus.types import RawReader
from penstock.clock import Clock
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import Alert, AlertAction, AlertDelivery, Record
from penstock.telemetry import get_logger

from services.alerting.channels.protocol import Purpose
from services.alerting.desk import forgiven, invalid
from services.alerting.incidents import Incident, Settled, Silence, Tell, act, decide, observe, settle
from services.alerting.outbox import Outbox
from services.alerting.register import Kept, Register
from services.alerting.routing import Directory, Plan
from services.alerting.store import Keys, Store, Transaction, milliseconds, moment

__all__ = ["Past", "Recovery"]

log = get_logger(__name__)

T = TypeVar("T")

_ORDER = {Alert: 0, AlertAction: 1, AlertDelivery: 2}
_KEPT_S = 9 * 86_400
_CHUNK = 500
_POLL_S = 0.5
_LOCK_S = 30.0
_LOOK_S = 2.0
_GRACE_S = 2.0


class Past:
    """Folds the log into what alerting knows. Pure: the times are those of the log."""

    def __init__(self, directory: Directory, always: Sequence[Silence]) -> None:
        self.incidents: dict[str, Incident] = {}
        self.silences: dict[str, Silence] = {}
        self.kept: dict[str, Kept] = {}
        self.outstanding: dict[tuple[str, str], tuple[Plan, Tell]] = {}
        """What was to be told, by fingerprint and receiver, and of which the log does not say how it ended."""
        self._directory = directory
        self._always = tuple(always)

    def fold(self, events: Iterable[tuple[Message, Record]]) -> None:
        """Take all events over, in the order of their time: topics have none among each other."""
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
        for at, _, message, record in ordered:
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
        if record.outcome == "failed" or record.fingerprint not in self.incidents:
            return
        receivers = [record.receiver]
        if not record.receiver:
            receivers = [name for fingerprint, name in self.outstanding if fingerprint == record.fingerprint]
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
        return reasons


class Recovery:
    """Notices that Redis lost what alerting knew, and rebuilds it; one replica does, the others wait."""

    def __init__(
        self,
        store: Store,
        register: Register,
        outbox: Outbox,
        transport: Transport,
        codec: Codec,
        clock: Clock,
        *,
        holder: str,
        always: Sequence[Silence],
        horizon: timedelta,
    ) -> None:
        """Create the recovery.

        Args:
            holder: name of this replica.
            always: silences of the settings.
            horizon: how far back alerts and deliveries are read. Actions are read whole.
        """
        self._store = store
        self._register = register
        self._outbox = outbox
        self._transport = transport
        self._codec = codec
        self._clock = clock
        self._holder = holder
        self._always = always
        self._horizon = horizon
        self._one = asyncio.Lock()

    async def watch(self, stopping: asyncio.Event) -> None:
        """Look, until ``stopping`` is set, whether Redis is still the one that all was written to.

        A Redis that restarted may have come back with what it held some time ago: that is not trusted.
        """
        stopped = asyncio.create_task(stopping.wait())
        while not stopping.is_set():
            pause = asyncio.create_task(self._clock.sleep(_LOOK_S))
            await asyncio.wait({stopped, pause}, return_when=asyncio.FIRST_COMPLETED)
            pause.cancel()
            if not stopping.is_set():
                # How long Redis may be away is the dispatcher's to judge.
                with suppress(Transient):
                    await self._store.forget_if_restarted()
        stopped.cancel()

    async def restore(self) -> None:
        """Return once what alerting knows stands in Redis.

        Raises:
            penstock.bus.Transient: Redis is away.
            penstock.bus.KafkaUnavailable: Kafka is away.
        """
        async with self._one:
            while not await self._store.holds():
                if await self._store.lock(self._holder, _LOCK_S):
                    try:
                        await self._rebuild()
                    finally:
                        await self._store.unlock(self._holder)
                    return
                await self._clock.sleep(_POLL_S)

    async def _rebuild(self) -> None:
        started = self._clock.now()
        since_ms = milliseconds(started - self._horizon)
        recent = await self._transport.read(["alerts", "alert-deliveries"], since_ms=since_ms)
        try:
            actions = await self._transport.read(["alert-actions"])
            try:
                events: list[tuple[Message, Record]] = []
                events += await self._read(actions)
                events += await self._read(recent)
                past = self._folded(events)
                if past.outstanding:
                    # What another replica is sending now ends within this, and is recorded: it need not be sent again.
                    await self._clock.sleep(self._register.directory.longest_timeout_s() + _GRACE_S)
                    events += await self._read(recent)
                    past = self._folded(events)
            finally:
                await actions.close()
        finally:
            await recent.close()
        await self._write(past)
        log.info(
            "rebuilt from the log",
            events=len(events),
            incidents=len(past.incidents),
            silences=len(past.silences),
            queued=len(past.outstanding),
            seconds=(self._clock.now() - started).total_seconds(),
        )

    def _folded(self, events: Sequence[tuple[Message, Record]]) -> Past:
        past = Past(self._register.directory, self._always)
        past.fold(events)
        return past

    async def _read(self, reader: RawReader) -> list[tuple[Message, Record]]:
        found: list[tuple[Message, Record]] = []
        while not await reader.at_end():
            for message in await reader.poll(_POLL_S):
                try:
                    found.append((message, self._codec.decode(message.topic, message.value)))
                except Undecodable:
                    continue  # a dead letter of the hop
            await self._store.lock(self._holder, _LOCK_S)
        return found

    async def _write(self, past: Past) -> None:
        await self._store.clear()
        now = self._clock.now()

        async def silences(transaction: Transaction) -> None:
            for name, silence in past.silences.items():
                if silence.ends_at > now:
                    transaction.map(Keys.SILENCES, name, silence)

        await self._store.run(silences, rebuilding=True)
        for chunk in _chunks(list(past.kept.items())):

            async def kept(transaction: Transaction, chunk: Sequence[tuple[str, Kept]] = chunk) -> None:
                for event_id, one in chunk:
                    transaction.put(Keys.alert(event_id), one, _KEPT_S)

            await self._store.run(kept, rebuilding=True)
        for group in _chunks(list(past.incidents.values())):

            async def incidents(transaction: Transaction, group: Sequence[Incident] = group) -> None:
                self._register.keep(transaction, group, now)

            await self._store.run(incidents, rebuilding=True)
        for tells in _chunks(list(past.outstanding.values())):

            async def queued(transaction: Transaction, tells: Sequence[tuple[Plan, Tell]] = tells) -> None:
                await self._outbox.queue(transaction, tells, now)

            await self._store.run(queued, rebuilding=True)
        await self._store.open()


def _chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))

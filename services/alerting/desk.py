"""What an alert, an action, or the time does: one transaction each, after which the log's offset may be committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace
from penstock.bus import Emit, Event, Outcome, Reject
from penstock.clock import Clock
from penstock.contracts.records import Alert, AlertAction

from services.alerting.core import held_at_once, resolution
from services.alerting.incidents import Incident, Silence, Tell, Told, act, observe
from services.alerting.outbox import Outbox
from services.alerting.register import Kept, Register
from services.alerting.store import Keys, Transaction

__all__ = ["Desk", "forgiven", "invalid"]

_AGAIN = timedelta(minutes=1)


class Desk:
    """Takes alerts and actions in, and looks at incidents whose time has come."""

    def __init__(self, register: Register, outbox: Outbox, clock: Clock) -> None:
        self._register = register
        self._outbox = outbox
        self._clock = clock

    async def alert(self, event: Event[Alert]) -> Sequence[Emit]:
        """Take an alert in: the incident, and what is to be told, stand in Redis when this returns.

        Returns:
            The records of who is not told, and why. A second call gives the same ones and changes nothing.

        Raises:
            services.alerting.store.Emptied: what alerting knew is gone.
            penstock.bus.Transient: Redis is away.
        """
        alert, message = event.record, event.message

        async def body(transaction: Transaction) -> Sequence[Emit]:
            now = self._clock.now()
            kept = await transaction.load(Kept, Keys.alert(alert.event_id))
            found = await self._register.incidents(transaction, [alert.fingerprint])
            incident = found.get(alert.fingerprint)
            place = ""
            reason = None
            if kept is None:
                incident, reason = observe(incident, alert)
            elif kept.stands_at(message):
                return [held_at_once(alert, *held, kept.place) for held in kept.held]
            else:
                incident = forgiven(incident, alert.event_id)
                if incident is None:
                    return []
                place = f"/{message.partition}/{message.offset}"
            silences = await self._register.silences(transaction)
            tells, reasons = self._register.proceed(transaction, incident, silences, now)
            await self._outbox.queue(transaction, tells, now)
            told, held = _accounted(alert, [tell for _, tell in tells], reasons, reason, now)
            later = incident.alert is not None and incident.alert.event_id == alert.event_id
            entry = Kept.of(message, held, place)
            transaction.put(Keys.alert(alert.event_id), entry, self._register.kept_s(told or later))
            return [held_at_once(alert, *one, place) for one in held]

        return await self._register.store.run(body)

    async def action(self, event: Event[AlertAction]) -> Outcome:
        """Take an action in.

        Returns:
            The alert that says that a condition has ended, where someone says so; or why the action is none.

        Raises:
            services.alerting.store.Emptied: what alerting knew is gone.
            penstock.bus.Transient: Redis is away.
        """
        action = event.record
        if (problem := invalid(action)) is not None:
            return Reject("invalid_action", problem)
        if action.action in {"silence", "unsilence"}:
            await self._silence(action)
            return []
        fingerprint = action.fingerprint or ""

        async def body(transaction: Transaction) -> Sequence[Emit]:
            now = self._clock.now()
            incident = (await self._register.incidents(transaction, [fingerprint])).get(fingerprint)
            if action.action == "resolve":
                return [] if incident is None else _resolved_by(incident, action)
            silences = await self._register.silences(transaction)
            acted = act(incident, fingerprint, action)
            tells, _ = self._register.proceed(transaction, acted, silences, now)
            await self._outbox.queue(transaction, tells, now)
            return []

        return await self._register.store.run(body)

    async def _silence(self, action: AlertAction) -> None:
        name = action.silence_id or ""
        held = await self._register.store.members(Keys.silenced(name))

        async def body(transaction: Transaction) -> None:
            now = self._clock.now()
            if action.action == "silence" and action.ends_at is not None:
                silence = Silence(
                    name,
                    action.match,
                    action.starts_at,
                    action.ends_at,
                    action.author,
                    action.comment,
                )
                transaction.map(Keys.SILENCES, name, silence)
            else:
                transaction.unmap(Keys.SILENCES, name)
                transaction.delete(Keys.silenced(name))
            # Its end may have moved: what it held back is looked at anew.
            for fingerprint in held:
                transaction.schedule(Keys.WAKE, fingerprint, now)

        await self._register.store.run(body)

    async def wake(self, fingerprint: str) -> Sequence[Emit]:
        """Look at an incident whose time has come: to repeat, to escalate, to tell after a silence, to resolve.

        Returns:
            The alert that says that the condition has ended, where it was not raised again for long enough.
        """

        async def body(transaction: Transaction) -> Sequence[Emit]:
            now = self._clock.now()
            incident = (await self._register.incidents(transaction, [fingerprint])).get(fingerprint)
            if incident is None:
                transaction.unschedule(Keys.WAKE, fingerprint)
                return []
            if self._register.over(incident, now) and incident.alert is not None:
                # The incident ends when this alert comes back from the log; until then it is let be.
                transaction.schedule(Keys.WAKE, fingerprint, now + _AGAIN)
                why = "It was not raised again for the time after which its route holds it for resolved."
                return [resolution(incident.alert, incident.alert.event_id, why, now)]
            silences = await self._register.silences(transaction)
            tells, _ = self._register.proceed(transaction, incident, silences, now)
            await self._outbox.queue(transaction, tells, now)
            return []

        return await self._register.store.run(body)

    async def forget_silences(self) -> None:
        """Remove the silences that have ended, after what they held back was told."""

        async def body(transaction: Transaction) -> None:
            now = self._clock.now()
            for silence in await transaction.mapped(Silence, Keys.SILENCES):
                if now - silence.ends_at > _AGAIN:
                    transaction.unmap(Keys.SILENCES, silence.silence_id)
                    transaction.delete(Keys.silenced(silence.silence_id))

        await self._register.store.run(body)


def invalid(action: AlertAction) -> str | None:
    """Return why an action cannot be taken, with the remedy; ``None`` where it can."""
    if action.action in {"acknowledge", "unacknowledge", "resolve"}:
        return None if action.fingerprint else f"{action.action} names no alert: give its fingerprint"
    if action.action == "unsilence":
        return None if action.silence_id else "unsilence names no silence: give its silence_id"
    if action.action != "silence":
        return f"there is no action {action.action!r}; there are acknowledge, unacknowledge, resolve, silence and unsilence"
    if not action.silence_id:
        return "the silence has no silence_id, by which it could be ended"
    if action.ends_at is None:
        return "the silence has no end: give ends_at"
    if not action.match:
        return 'an empty match silences nothing: name a field, or {"kind": "*"} for everything'
    return None


def _resolved_by(incident: Incident, action: AlertAction) -> Sequence[Emit]:
    if incident.status != "firing" or incident.alert is None or incident.newest is None:
        return []
    why = f"Resolved by {action.author or 'someone'}{': ' if action.comment else ''}{action.comment}."
    at = max(action.occurred_at, incident.newest)
    return [resolution(incident.alert, action.event_id, why, at)]


def forgiven(incident: Incident | None, event_id: str) -> Incident | None:
    """Return the incident with the receivers at which this alert is dead as if they had not been tried; ``None`` without
    such."""
    if incident is None:
        return None
    told = dict(incident.told)
    for name, known in incident.told.items():
        dead = known.outcome == "dead" and known.last is not None and known.last.event_id == event_id
        if dead and known.queued is None:
            told[name] = Told(fires=known.fires, counted=known.counted)
    return None if told == incident.told else replace(incident, told=told)


def _accounted(
    alert: Alert, tells: Sequence[Tell], reasons: dict[str, str], reason: str | None, now: datetime
) -> tuple[bool, list[tuple[str, str, datetime]]]:
    """Return whether this alert is told to someone, and to whom it is not, why, and since when."""
    if reason is not None:
        return False, [("", reason, now)]
    told = any(tell.alert.event_id == alert.event_id for tell in tells)
    instead = [
        (tell.receiver, f"{tell.alert.event_id} is told instead", now)
        for tell in tells
        if tell.alert.event_id != alert.event_id
    ]
    return told, [(name, why, now) for name, why in reasons.items()] + instead

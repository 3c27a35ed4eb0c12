"""The dispatcher: every replica runs one; together they send each message until it has ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from msgspec.structs import replace
from penstock.bus import Emit, KafkaUnavailable, Producer, Transient
from penstock.clock import Clock
from penstock.config.alerting import Receiver
from penstock.telemetry import get_logger, metrics

from services.alerting.channels.protocol import Attempt, Channel, Misconfigured
from services.alerting.core import about_receiver, misconfigured, pause_s, settled, usable_again
from services.alerting.desk import Desk
from services.alerting.groups import Group, ending_of, notification_of
from services.alerting.incidents import Incident
from services.alerting.outbox import Outbox
from services.alerting.register import Kept, Register
from services.alerting.store import Emptied, Keys, Transaction

__all__ = ["Channels", "Dispatcher", "Opener"]

log = get_logger(__name__)
T = TypeVar("T")

Opener = Callable[[Receiver], Channel]
"""Opens the way to a receiver; raises :class:`Misconfigured`."""

_LEASE_MARGIN_S = 5.0
_RECORD_S = 20.0
_POLL_S = 0.2
_MEASURE_S = 5.0
_WAKES = 256
_SETTLES = timedelta(minutes=1)
"""Time in which an alert that was sent has come back from the log."""


class Channels:
    """The ways to the receivers, opened when they are first needed and again when their configuration changes."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._open: dict[str, tuple[Receiver, Channel]] = {}

    async def to(self, key: str, receiver: Receiver) -> Channel:
        """Return the way to a receiver.

        Raises:
            Misconfigured: it cannot be opened.
        """
        found = self._open.get(key)
        if found is not None and found[0] == receiver:
            return found[1]
        channel = self._opener(receiver)
        self._open[key] = (receiver, channel)
        if found is not None:
            await found[1].aclose()
        return channel

    async def aclose(self) -> None:
        """Close every connection."""
        for _, channel in self._open.values():
            await channel.aclose()
        self._open.clear()


class Dispatcher:
    """Claims what is due, sends it, notes how that ended, records it, and lets what follows be decided."""

    def __init__(
        self,
        register: Register,
        outbox: Outbox,
        desk: Desk,
        channels: Channels,
        producer: Producer,
        clock: Clock,
        *,
        holder: str,
        per_receiver: int = 4,
        retry_timeout_s: float = 60.0,
        dice: random.Random | None = None,
    ) -> None:
        """Create the dispatcher.

        Args:
            holder: name of this replica, different from all others.
            per_receiver: messages on their way to one receiver at once: one that hangs holds up nobody else.
            retry_timeout_s: how long Redis may be away before the service stops.
            dice: jitter.
        """
        self._register = register
        self._outbox = outbox
        self._desk = desk
        self._channels = channels
        self._producer = producer
        self._clock = clock
        self._holder = holder
        self._per_receiver = per_receiver
        self._retry_timeout_s = retry_timeout_s
        self._dice = dice or random.Random()
        self._running: dict[str, dict[str, asyncio.Task[None]]] = {}
        self._measured_at: float | None = None

    async def run(self, stopping: asyncio.Event, restore: Callable[[], Awaitable[None]]) -> None:
        """Work until ``stopping`` is set, then until what was begun has ended.

        Args:
            restore: awaited whenever what alerting knew is gone.

        Raises:
            Transient: Redis stayed away.
        """
        stopped = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                await self._insist(self._sweep_or_restore, restore)
                pause = asyncio.create_task(self._clock.sleep(_POLL_S))
                await asyncio.wait({stopped, pause}, return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
            await self.idle()
        finally:
            stopped.cancel()
            tasks = [task for running in self._running.values() for task in running.values()]
            for task in tasks:
                # What was being sent is sent by another replica once the lease has ended.
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep_or_restore(self, restore: Callable[[], Awaitable[None]]) -> None:
        try:
            await self.sweep()
        except Emptied:
            try:
                await restore()
            except KafkaUnavailable as error:
                raise Transient(f"what alerting knew cannot be rebuilt from the log: {error}") from error

    async def sweep(self) -> None:
        """Look at the incidents whose time has come, and begin to work on the groups whose time has.

        Raises:
            services.alerting.store.Emptied: what alerting knew is gone.
            Transient: Redis is away, or stayed away from a delivery.
        """
        self._reap()
        store, now = self._register.store, self._clock.now()
        emits: list[Emit] = []
        try:
            for fingerprint in await store.due(Keys.WAKE, now, _WAKES):
                emits += await self._desk.wake(fingerprint)
        finally:
            # Together: to wait for Kafka after each would take minutes where tens of thousands end at once.
            await self._send(emits)
        for key in sorted(await store.members(Keys.RECEIVERS)):
            running = self._running.setdefault(key, {})
            free = self._per_receiver - len(running)
            if free > 0:
                # Those that run may be due as well until they are claimed.
                due = await store.due(Keys.due(key), now, self._per_receiver)
                for identity in [identity for identity in due if identity not in running][:free]:
                    running[identity] = asyncio.create_task(self._work(identity, key))
        await self._measure(now)

    async def idle(self) -> None:
        """Wait until nothing that was begun is under way."""
        while tasks := [task for running in self._running.values() for task in running.values()]:
            await asyncio.wait(tasks)
            self._reap()

    def _reap(self) -> None:
        for running in self._running.values():
            for identity, task in list(running.items()):
                if task.done():
                    del running[identity]
                    task.result()

    async def _measure(self, now: datetime) -> None:
        if self._measured_at is not None and self._clock.monotonic() - self._measured_at < _MEASURE_S:
            return
        self._measured_at = self._clock.monotonic()
        store = self._register.store
        for key in await store.members(Keys.RECEIVERS):
            count, oldest = await store.standing(Keys.waiting(key))
            metrics.ALERT_QUEUE.labels(key).set(count)
            metrics.ALERT_OLDEST_SECONDS.labels(key).set((now - oldest).total_seconds() if oldest else 0.0)
        await self._desk.forget_silences()
        for key in await store.members(Keys.MISCONFIGURED):
            await self._look_again(key, now)

    async def _look_again(self, key: str, now: datetime) -> None:
        """Tell that a receiver that could not be opened can be, or stands no longer in the configuration."""
        config, _, name = key.partition("/")
        receiver = self._register.directory.receiver(config, name)
        if receiver is not None:
            try:
                await self._channels.to(key, receiver)
            except Misconfigured:
                return

        about = about_receiver(config, name)

        async def body(transaction: Transaction) -> Incident | None:
            return (await self._register.incidents(transaction, [about])).get(about)

        incident = await self._register.store.run(body)
        # Where it is not known yet, what says that it cannot be opened is on its way here.
        if incident is None or incident.alert is None:
            return
        if incident.status == "firing":
            await self._send([usable_again(incident.alert, receiver is None, now)])
        elif incident.resolved_at is None or now - incident.resolved_at < _SETTLES:
            return
        # Only now: where it could not be sent, it is looked at again.
        await self._register.store.leave(Keys.MISCONFIGURED, key)

    async def _work(self, identity: str, key: str) -> None:
        try:
            await self._deliver(identity, key)
        except Emptied:
            log.warning("what was known is gone; it is rebuilt from the log", receiver=key)

    async def _deliver(self, identity: str, key: str) -> None:
        config, _, name = key.partition("/")
        receiver = self._register.directory.receiver(config, name)
        timeout_s = receiver.timeout_s if receiver is not None else 0.0
        lease_s = timeout_s + _LEASE_MARGIN_S
        group = await self._outbox.claim(identity, key, self._holder, lease_s, self._clock.now())
        if group is None or group.job is None:
            return
        if group.job.ending is None:
            group, attempt = await self._try(group, receiver, timeout_s + _LEASE_MARGIN_S / 2)
            noted = await self._noted(group, attempt, receiver)
            if noted is None:
                return
            group = noted
        await self._record(group)
        await self._insist(self._outbox.finish, group, self._clock.now())

    async def _try(self, group: Group, receiver: Receiver | None, limit_s: float) -> tuple[Group, Attempt]:
        job = group.job
        assert job is not None
        if receiver is None:
            reason = f"receiver {group.receiver} stands no longer in the alerting entry {group.config}"
            return group, Attempt(outcome="dead", reason=reason)
        try:
            channel = await self._channels.to(group.key, receiver)
        except Misconfigured as error:
            await self._misconfigured(group, str(error))
            return replace(group, job=replace(job, channel=receiver.type)), Attempt(
                outcome="dead", reason=f"receiver {group.receiver} cannot be opened: {error}"
            )
        group = replace(group, job=replace(job, channel=channel.name, destination=channel.destination))
        try:
            # A channel keeps to the receiver's time itself; the lease must not outlive one that does not.
            async with asyncio.timeout(limit_s):
                return group, await channel.send(notification_of(group))
        except TimeoutError:
            return group, Attempt(outcome="retry", reason=f"no answer within {limit_s:g} s")
        except Exception as error:
            log.error("a channel failed", receiver=group.key, channel=channel.name, exc_info=error)
            return group, Attempt(outcome="retry", reason=f"{type(error).__name__}: {error}")

    async def _noted(self, group: Group, attempt: Attempt, receiver: Receiver | None) -> Group | None:
        """Note how a try ended; ``None`` where another replica has, or is to try again."""
        assert group.job is not None
        job, now = group.job, self._clock.now()
        pause = pause_s(job.attempts + 1, self._dice.random(), attempt.retry_after_s)
        retry_for_s = receiver.retry_for_s if receiver is not None else 0.0
        ending = ending_of(job, attempt, pause, retry_for_s, now)
        log.info(
            "tried",
            receiver=group.key,
            notification_id=job.notification_id,
            purpose=group.purpose,
            alerts=len(job.entries),
            outcome=ending.outcome,
            attempt=job.attempts + 1,
            status_code=ending.status_code,
            reason=ending.reason,
        )
        metrics.ALERT_DELIVERIES.labels(group.key, ending.outcome).inc()
        noted = replace(group, job=replace(job, attempts=job.attempts + 1, ending=ending))
        try:
            return await self._insist(self._outbox.note, noted, group.lease, _RECORD_S, now)
        except Emptied:
            if ending.outcome == "delivered":
                # Only the log can say now that it need not be sent again.
                await self._send(settled(noted))
            raise

    async def _record(self, group: Group) -> None:
        assert group.job is not None
        if group.job.ending is not None and group.job.ending.outcome == "dead":
            await self._bury(group, group.job.ending.reason or "the receiver refused it")
        await self._send(settled(group))

    async def _bury(self, group: Group, reason: str) -> None:
        assert group.job is not None
        keys = [Keys.alert(entry.alert.event_id) for entry in group.job.entries]

        async def body(transaction: Transaction) -> list[Kept | None]:
            return await transaction.load_many(Kept, keys)

        acks = []
        for kept in await self._insist(self._register.store.run, body):
            if kept is None:
                log.error("an alert is no longer kept, so it has no dead letter", receiver=group.key)
                continue
            why = f"alert not delivered to {group.key}: {reason}"
            acks.append(await self._producer.dead_letter("alerting", kept.message(), "undelivered", why))
        for ack in acks:
            await ack

    async def _misconfigured(self, group: Group, reason: str) -> None:
        log.error("receiver is misconfigured", receiver=group.key, reason=reason)

        async def body(transaction: Transaction) -> None:
            transaction.join(Keys.MISCONFIGURED, group.key)

        await self._insist(self._register.store.run, body)
        await self._send(one for one in [misconfigured(group, reason, self._clock.now())] if one is not None)

    async def _send(self, emits: Iterable[Emit]) -> None:
        acks = [await self._producer.send(emit.topic, emit.key, emit.record) for emit in emits]
        for ack in acks:
            await ack

    async def _insist(self, step: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Repeat a step while Redis is away: what a receiver has answered must not be forgotten because of that."""
        give_up = self._clock.monotonic() + self._retry_timeout_s
        while True:
            try:
                return await step(*arguments)
            except Transient as error:
                if self._clock.monotonic() >= give_up:
                    raise
                log.warning("waiting", reason=str(error))
                await self._clock.sleep(0.5)

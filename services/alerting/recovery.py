"""What alerting knew, rebuilt from the log: alerts, actions and deliveries stand there, Redis only holds what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from penstock.bus import Message, Transient, Transport
from penstock.bus.types import RawReader
from penstock.clock import Clock
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import Record
from penstock.telemetry import get_logger

from services.alerting.incidents import Incident, Silence, Tell
from services.alerting.outbox import Outbox
from services.alerting.past import Past, in_time
from services.alerting.register import Kept, Register
from services.alerting.routing import Plan
from services.alerting.store import Body, Keys, Store, Transaction, milliseconds, moment

__all__ = ["Recovery"]

log = get_logger(__name__)

T = TypeVar("T")

_CHUNK = 500
_POLL_S = 0.5
_LOCK_S = 30.0
_LOOK_S = 2.0
_GRACE_S = 5.0
"""Beyond the longest time of a try: until its answer is recorded."""


class _Overtaken(Exception):
    """The right to rebuild has run out."""


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
                    except _Overtaken:
                        log.warning("another replica rebuilds: this one was too slow")
                    finally:
                        await self._store.unlock(self._holder)
                    continue
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
                past = await self._folded(events)
                if past.outstanding:
                    # What another replica is sending now ends within this, and is recorded: it need not be sent again.
                    grace_s = self._register.directory.longest_timeout_s() + _GRACE_S
                    await self._hold(grace_s + _LOCK_S)
                    await self._clock.sleep(grace_s)
                    events += await self._read(recent)
                    past = await self._folded(events)
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

    async def _folded(self, events: Sequence[tuple[Message, Record]]) -> Past:
        past = Past(self._register.directory, self._always)
        for count, event in enumerate(in_time(events)):
            past.take(*event)
            if count % _CHUNK == 0:
                # A long log must not keep this process from telling Kafka that it lives, nor cost it the right to rebuild.
                await asyncio.sleep(0)
                await self._hold(_LOCK_S)
        return past

    async def _read(self, reader: RawReader) -> list[tuple[Message, Record]]:
        found: list[tuple[Message, Record]] = []
        while not await reader.at_end():
            for message in await reader.poll(_POLL_S):
                try:
                    found.append((message, self._codec.decode(message.topic, message.value)))
                except Undecodable:
                    continue  # a dead letter of the hop
            await self._hold(_LOCK_S)
        return found

    async def _hold(self, ttl_s: float) -> None:
        if not await self._store.lock(self._holder, ttl_s):
            raise _Overtaken

    async def _write(self, past: Past) -> None:
        await self._hold(_LOCK_S)
        await self._store.clear()
        now = self._clock.now()

        async def written(body: Body[None]) -> None:
            # Whoever else had the right meanwhile has cleared what was written before: this must not be opened then.
            await self._hold(_LOCK_S)
            await self._store.run(body, rebuilding=True)

        async def silences(transaction: Transaction) -> None:
            for name, silence in past.silences.items():
                if silence.ends_at > now:
                    transaction.map(Keys.SILENCES, name, silence)

        await written(silences)
        # What is tried anew may take as long as if it had come now.
        underway = {tell.alert.event_id for _, tell in past.outstanding.values()}
        living: list[tuple[str, Kept, float]] = []
        for event_id, one in past.kept.items():
            since = now if event_id in underway else min(now, moment(one.timestamp_ms))
            left_s = self._register.kept_s(event_id in past.told) - (now - since).total_seconds()
            if left_s > 0:
                living.append((event_id, one, left_s))
        for chunk in _chunks(living):

            async def kept(transaction: Transaction, chunk: Sequence[tuple[str, Kept, float]] = chunk) -> None:
                for event_id, one, left_s in chunk:
                    transaction.put(Keys.alert(event_id), one, left_s)

            await written(kept)
        for group in _chunks(list(past.incidents.values())):

            async def incidents(transaction: Transaction, group: Sequence[Incident] = group) -> None:
                self._register.keep(transaction, group, now)

            await written(incidents)
        for tells in _chunks(list(past.outstanding.values())):

            async def queued(transaction: Transaction, tells: Sequence[tuple[Plan, Tell]] = tells) -> None:
                await self._outbox.queue(transaction, tells, now)

            await written(queued)
        await self._hold(_LOCK_S)
        await self._store.open()


def _chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))

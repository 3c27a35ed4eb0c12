"""The monitors' shell: one replica of alerting watches the platform, raises what it finds, and takes back what has ended.

All that it must remember stands in the log: what was told in ``alerts``, and up to when dead letters were counted in the
commits of its consumer group. Whoever holds the group's one partition watches; Kafka's group protocol sees to it that there
is one, and with Redis away there still is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
from aiokafka.errors import KafkaError
from penstock.alerts import alert_emit
from penstock.bus import KafkaUnavailable, Producer, Transport
from penstock.bus.types import RawReader
from penstock.clock import Clock
from penstock.contracts.catalogue import Topic
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import Alert, DeadLetter, LogRange
from penstock.contracts.registry import RegistryError
from penstock.redis_client import redis_client
from penstock.service import Runtime
from penstock.telemetry import get_logger

from services.alerting.monitors import dlq as monitors_dlq
from services.alerting.monitors import health as monitors_health
from services.alerting.monitors import lag as monitors_lag
from services.alerting.monitors.cluster import Cluster, KafkaCluster, Unseen, asked_redis, asked_registry
from services.alerting.monitors.conditions import Conditions, restored, track
from services.alerting.monitors.dlq import DlqState, Letter
from services.alerting.monitors.health import HealthState
from services.alerting.monitors.lag import LagState
from services.alerting.monitors.leader import KafkaLeadership, Leadership
from services.alerting.monitors.settings import MonitorSettings

__all__ = ["NAMES", "Watcher", "start", "watch"]

log = get_logger(__name__)

NAMES = monitors_dlq.NAMES | monitors_lag.NAMES | monitors_health.NAMES
"""Names of the alerts that the monitors raise."""

_REMEMBERED = timedelta(days=7)
_CAUGHT_UP = timedelta(hours=24)


def start(runtime: Runtime[Any]) -> None:
    """Watch the platform beside the service's hops, until it stops; ``runtime.settings`` are :class:`MonitorSettings`."""
    settings: MonitorSettings = runtime.settings
    if not settings.monitor_enabled:
        log.info("monitors are off", remedy="MONITOR_ENABLED=true")
        return
    catalogue = runtime.codec.catalogue.topics
    services = sorted(name.removeprefix("dlq-") for name in catalogue if name.startswith("dlq-"))
    redis = redis_client(settings)
    client = httpx.AsyncClient(follow_redirects=False)

    async def away() -> Mapping[str, str]:
        answers = {
            "redis": await asked_redis(redis),
            "registry": await asked_registry(client, settings.schema_registry_url),
        }
        return {name: reason for name, reason in answers.items() if reason is not None}

    cluster = KafkaCluster(
        settings,
        runtime.clock,
        topics=sorted(catalogue),
        services=services,
        ignored=(KafkaLeadership.GROUP, *settings.monitor_ignored_groups),
        away=away,
    )
    leadership = KafkaLeadership(settings, session_timeout_ms=settings.session_timeout_ms)
    for close in (redis.aclose, client.aclose, cluster.close, leadership.close):
        runtime.on_stop(close)
    watcher = Watcher(runtime.bus, runtime.codec, cluster, runtime.producer(), runtime.clock, settings)
    runtime.background(watch(watcher, leadership, runtime.clock, settings.monitor_interval_s, runtime.stopping))


@dataclass(slots=True)
class _Known:
    """What the leader knows; rebuilt from the log by the next."""

    conditions: Conditions
    dlq: DlqState
    lag: LagState
    health: HealthState
    letters: RawReader | None
    letters_since: datetime


class Watcher:
    """Looks, judges and tells, for as long as it leads."""

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        cluster: Cluster,
        producer: Producer,
        clock: Clock,
        settings: MonitorSettings,
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._catalogue: Mapping[str, Topic] = codec.catalogue.topics
        self._cluster = cluster
        self._producer = producer
        self._clock = clock
        self._settings = settings
        self._known: _Known | None = None

    async def take_over(self, looked_at: datetime | None) -> None:
        """Begin to lead: read back what was told, and find the dead letters that were not counted.

        Args:
            looked_at: when the leader before looked last; ``None`` where there was none: history wakes nobody.
        """
        await self.forget()
        now = self._clock.now()
        conditions = restored(await self._told(now - _REMEMBERED), NAMES, now)
        window = now - timedelta(seconds=self._settings.monitor_dlq_window_s)
        since = min(window, max(looked_at or window, now - _CAUGHT_UP))
        self._known = _Known(conditions, {}, LagState(), HealthState(), None, since)
        log.info("watching the platform", restored=sum(each.firing for each in conditions.values()), since=since)

    async def forget(self) -> None:
        """Lead no more."""
        known, self._known = self._known, None
        if known is not None and known.letters is not None:
            await known.letters.close()

    async def step(self, still_leads: Callable[[], bool]) -> list[Alert]:
        """Look once and tell what follows; what cannot be sent is told again by the next step, under the same identity.

        Raises:
            Unseen: the cluster did not answer; dead letters were counted all the same.
        """
        known = self._known
        assert known is not None, "take over first"
        settings = self._settings
        told: list[Alert] = []
        if await self._opened(known):
            letters = await self._letters(known)
            now = self._clock.now()
            known.dlq, findings = monitors_dlq.observe(known.dlq, letters, settings.dlq_rules(), now)
            told += await self._tell(known, findings, monitors_dlq.NAMES, now, still_leads)
        look = await self._cluster.look(lambda seen: monitors_lag.to_be_dated(known.lag, seen))
        retention = {name: topic.retention_ms for name, topic in self._catalogue.items() if topic.retention_ms}
        known.lag, lagging = monitors_lag.observe(known.lag, look, retention, settings.lag_rules())
        known.health, unwell = monitors_health.observe(known.health, look, self._catalogue, settings.health_rules())
        judged = monitors_lag.NAMES | monitors_health.NAMES
        return told + await self._tell(known, [*lagging, *unwell], judged, look.at, still_leads)

    async def _tell(
        self, known: _Known, findings: Any, judged: frozenset[str], now: datetime, still_leads: Callable[[], bool]
    ) -> list[Alert]:
        after, alerts = track(known.conditions, findings, judged, self._settings.pace(), now)
        if alerts and not still_leads():
            return []
        sent: list[Awaitable[Any]] = []
        for alert in alerts:
            emit = alert_emit(alert)
            sent.append(await self._producer.send(emit.topic, emit.key, emit.record))
        for acknowledged in sent:
            await acknowledged
        known.conditions = after
        for alert in alerts:
            log.info("raised", kind=alert.kind, name=alert.name, status=alert.status, severity=alert.severity)
        return alerts

    async def _opened(self, known: _Known) -> bool:
        """Tell whether dead letters can be read. Where one of the topics is missing they cannot, and that is told."""
        if known.letters is None:
            dlqs = sorted(name for name in self._catalogue if name.startswith("dlq-"))
            try:
                since_ms = int(known.letters_since.timestamp() * 1000)
                known.letters = await self._transport.read(dlqs, since_ms=since_ms)
            except KafkaUnavailable as error:
                log.warning("dead letters are not watched", reason=str(error))
                return False
        return True

    async def _letters(self, known: _Known) -> list[Letter]:
        found: list[Letter] = []
        while known.letters is not None and not await known.letters.at_end():
            for message in await known.letters.poll(0.2):
                try:
                    record = self._codec.decode(message.topic, message.value)
                except Undecodable as error:
                    log.warning("no dead letter", topic=message.topic, offset=message.offset, reason=error.reason)
                    continue
                if isinstance(record, DeadLetter):
                    place = LogRange(
                        topic=message.topic,
                        partition=message.partition,
                        first_offset=message.offset,
                        last_offset=message.offset,
                    )
                    found.append(self._letter(record, place))
        return found

    def _letter(self, record: DeadLetter, place: LogRange) -> Letter:
        origin = LogRange(
            topic=record.origin_topic,
            partition=record.origin_partition,
            first_offset=record.origin_offset,
            last_offset=record.origin_offset,
        )
        return Letter(
            place=place,
            written_at=record.occurred_at,
            service=record.service,
            code=record.code,
            origin=origin,
            reason=record.reason,
            request_id=self._request_of(record),
        )

    def _request_of(self, record: DeadLetter) -> str:
        if record.truncated or record.origin_value is None or record.origin_topic not in self._catalogue:
            return ""
        try:
            return self._codec.decode(record.origin_topic, record.origin_value).request_id
        except Undecodable:
            return ""

    async def _told(self, since: datetime) -> list[Alert]:
        reader = await self._transport.read(["alerts"], since_ms=int(since.timestamp() * 1000))
        found: list[Alert] = []
        try:
            while not await reader.at_end():
                for message in await reader.poll(0.5):
                    try:
                        record = self._codec.decode(message.topic, message.value)
                    except Undecodable:
                        continue  # alerting's own hop puts it aside
                    if isinstance(record, Alert) and record.name in NAMES:
                        found.append(record)
        finally:
            await reader.close()
        return found


async def watch(
    watcher: Watcher, leadership: Leadership, clock: Clock, interval_s: float, stopping: asyncio.Event
) -> None:
    """Look every ``interval_s`` while this replica leads, until ``stopping`` is set.

    What is away stops no monitor: it is logged, and the next look tries again.
    """
    leads, complained = False, False

    async def look() -> None:
        nonlocal leads, complained
        try:
            if not await leadership.held():
                if leads:
                    log.info("another replica watches the platform")
                    await watcher.forget()
                leads = False
            else:
                if not leads:
                    await watcher.take_over(await leadership.looked_at())
                    leads = True
                await watcher.step(leadership.still_held)
                await leadership.looked(clock.now())
            complained = False
        except (Unseen, KafkaUnavailable, RegistryError, KafkaError, OSError, TimeoutError) as error:
            if not complained:
                log.warning("could not look at the platform, will try again", reason=str(error) or type(error).__name__)
            complained = True
        except Exception as error:
            # A defect of a monitor must not end the delivery of alerts, which this process is for.
            log.error("a monitor failed, will try again", reason=str(error), kind=type(error).__name__, exc_info=error)

    async def pause() -> None:
        waits = [asyncio.ensure_future(clock.sleep(interval_s)), asyncio.ensure_future(stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    while not stopping.is_set():
        for part in (look, pause):
            try:
                await part()
            except asyncio.CancelledError as error:
                # Kafka's clients cancel what waits for an answer when a connection closes. Whoever ends the service says so
                # before.
                task = asyncio.current_task()
                if stopping.is_set() or task is None:
                    raise
                while task.cancelling():
                    task.uncancel()
                log.warning("a look at the platform was broken off, will try again", exc_info=error)
    await watcher.forget()

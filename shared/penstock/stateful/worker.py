"""Runs a Faust app inside the service's own event loop, under the service's own signals and deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from penstock.bus.kafka import client_options
from penstock.settings import ServiceSettings
from penstock.stateful.changelog import Changelog, create_changelogs
from penstock.stateful.guard import StallGuard
from penstock.stateful.processor import StatefulProcessor
from penstock.stateful.protocols import AppLike, TableLike
from penstock.telemetry import get_logger

__all__ = ["FaustWorker", "PartitionMismatch", "RecoveryStalled", "faust_settings", "partition_count"]

log = get_logger(__name__)

_TICK_S = 0.5
# Faust's consumer asks aiokafka for records with a timeout of 1 s; beyond this something else is wrong.
_FETCH_ENDS_S = 30.0
_POLL_S = 0.02
# Between two records of a changelog lie milliseconds, also on a busy machine.
_RECOVERY_STALLS_S = 30.0


class PartitionMismatch(RuntimeError):
    """Topics that are joined, or a table and its source, do not have the same partitions."""


def faust_settings(
    settings: ServiceSettings, partitions: int, sasl: Callable[..., Any] | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of ``faust.App`` with which it loses nothing and comes back quickly.

    Args:
        settings: brokers, log-in and session timeout.
        partitions: partitions of the source topics, which the changelogs must share.
        sasl: ``faust.SASLCredentials``, needed where the brokers ask for a password.

    Raises:
        ValueError: the settings ask for SASL and ``sasl`` is not given.
    """
    session_s = settings.session_timeout_ms / 1000
    client = client_options(settings)
    login: dict[str, Any] = {}
    if "sasl_mechanism" in client:
        if sasl is None:
            raise ValueError("the brokers ask for SASL: pass faust.SASLCredentials to faust_settings")
        login["broker_credentials"] = sasl(
            username=client["sasl_plain_username"],
            password=client["sasl_plain_password"],
            ssl_context=client.get("ssl_context"),
            mechanism=client["sasl_mechanism"],
        )
    elif "ssl_context" in client:
        login["ssl_context"] = client["ssl_context"]
    return login | {
        "broker": [f"kafka://{address.strip()}" for address in settings.kafka_bootstrap.split(",")],
        # Raw bytes everywhere: decoding happens inside the agent, where an error can be caught before it acknowledges.
        "key_serializer": "raw",
        "value_serializer": "raw",
        "store": "memory://",
        # Faust makes folders for stores on disk, which are not used: not where the service was started.
        "datadir": _scratch_folder(),
        "topic_partitions": partitions,
        # The leader topic serves app.timer(on_leader=True), which is not used, and costs a topic and a consumer.
        "topic_disable_leader": True,
        "web_enabled": False,
        # With the default of 60 s the partitions of a killed worker stand still for a minute.
        "broker_session_timeout": session_s,
        "broker_heartbeat_interval": session_s / 4,
        "broker_request_timeout": max(30.0, session_s),
        "broker_commit_interval": 0.5,
        # Nobody reads a standby's copy, and it costs the changelog's traffic again.
        "table_standby_replicas": 0,
        "stream_wait_empty": True,
        "consumer_auto_offset_reset": "earliest",
        "autodiscover": False,
        "worker_redirect_stdouts": False,
    }


def _scratch_folder() -> str:
    # One a user, and empty: a process that is killed leaves nothing to clear away.
    folder = Path(tempfile.gettempdir()) / f"penstock-faust-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


async def partition_count(settings: ServiceSettings, topics: Sequence[str]) -> int:
    """Return how many partitions all of ``topics`` have.

    Raises:
        PartitionMismatch: they differ, or a topic does not exist.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
    missing = [topic for topic in topics if not counts.get(topic)]
    if missing:
        raise PartitionMismatch(f"missing topics: {', '.join(missing)}; run `penstock topics apply`")
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{topic} has {count}" for topic, count in sorted(counts.items()))
        raise PartitionMismatch(f"topics that are joined need as many partitions each: {listed}")
    return counts[topics[0]]


class RecoveryStalled(RuntimeError):
    """Faust waits for records of a changelog that do not come."""


class FaustWorker:
    """Starts, watches and stops one Faust app and its processors."""

    def __init__(
        self,
        app: AppLike,
        processors: Mapping[StatefulProcessor[Any, Any], TableLike | None],
        *,
        sources: Mapping[str, Sequence[str]],
        settings: ServiceSettings,
        guard: StallGuard,
        ready: Callable[[], None] = lambda: None,
        recovery_stalls_s: float = _RECOVERY_STALLS_S,
    ) -> None:
        """Wire the processors to the app; call before the app starts.

        Args:
            app: the Faust app, its agents and tables declared.
            processors: each processor with its table.
            sources: the topics that each changelog holds the state of: their assigned partitions must be equal.
            settings: brokers, and how long finishing what is in hand may take when stopping.
            guard: ticked while the worker runs.
            ready: called each time the tables are restored and events are about to flow.
            recovery_stalls_s: how long Faust's recovery may stand still before the worker gives up.
        """
        self._app = app
        self._processors = list(processors)
        self._sources = sources
        self._guard = guard
        self._settings = settings
        self._stop_timeout_s = settings.stop_timeout_s
        self._restoring = asyncio.Lock()
        self._rewound: int | None = None
        self._ready = ready
        self._recovery_stalls_s = recovery_stalls_s
        self._recovering = {processor.name for processor, table in processors.items() if table is not None}
        for processor, table in processors.items():
            if table is not None:
                table.on_recover(self._on_recover(processor, table))

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until ``stopping`` is set; then finish and checkpoint what is in hand, commit and leave the group.

        Raises:
            Exception: the app crashed, a processor failed, or the process had stood still. The caller ends the process
                with a non-zero status; nothing unfinished was acknowledged.
        """
        told = asyncio.ensure_future(stopping.wait())
        own = [told, asyncio.ensure_future(self._run_app()), asyncio.ensure_future(self._watch_recovery())]
        watched: list[asyncio.Future[Any]] = [*own, *(processor.failed for processor in self._processors)]
        ended = threading.Event()
        threading.Thread(target=self._tick, args=(ended,), name="stall-guard", daemon=True).start()
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            failures = [error for future in done if (error := future.exception()) is not None]
            if failures:
                await self._abandon()
                raise failures[0]
            if not told.done():
                raise RuntimeError("the Faust app stopped by itself")
            await self._finish()
        finally:
            ended.set()
            for future in own:
                future.cancel()

    async def _finish(self) -> None:
        try:
            await asyncio.wait_for(self._app.stop(), self._stop_timeout_s)
        except TimeoutError:
            log.warning("Faust did not stop in time; the rest will be delivered again", timeout_s=self._stop_timeout_s)
        for processor in self._processors:
            await processor.close()

    async def _run_app(self) -> None:
        if self._sources:
            await create_changelogs(self._settings, self._sources)
        await self._app.start()
        await self._app.wait_until_stopped()
        if self._app.crash_reason is not None:
            raise self._app.crash_reason

    async def _watch_recovery(self) -> None:
        """Raise where Faust's own recovery stands still.

        What is told of sources in :meth:`_rewind` holds for changelogs too: records that were fetched while Faust paused
        their partition are dropped, and it waits for them until something new is written there, which nobody does
        meanwhile. Seen after two SIGKILLs within seconds; a new process recovers from the beginning.

        Raises:
            RecoveryStalled: no record has come for ``recovery_stalls_s``.
        """
        now = asyncio.get_running_loop().time
        seen: tuple[int, int] | None = None
        since = now()
        while True:
            await asyncio.sleep(min(1.0, self._recovery_stalls_s / 4))
            if not self._app.in_recovery:
                seen = None
                continue
            remaining = self._app.tables.recovery.active_remaining_total()
            at = self._app.consumer_generation_id, remaining
            if at != seen:
                seen, since = at, now()
            elif now() - since > self._recovery_stalls_s:
                raise RecoveryStalled(
                    f"Faust has waited for {self._recovery_stalls_s:g} s for {remaining:,} records of changelogs that do "
                    "not come; a new process reads them from the beginning"
                )

    def _tick(self, ended: threading.Event) -> None:
        while not ended.wait(_TICK_S):
            self._guard.tick()

    async def _abandon(self) -> None:
        """Leave without acknowledging: what was not checkpointed is delivered again."""
        self._app.conf.stream_wait_empty = False
        for processor in self._processors:
            await processor.close()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._app.stop(), self._stop_timeout_s)

    def _on_recover(self, processor: StatefulProcessor[Any, Any], table: TableLike) -> Callable[[], Any]:
        changelog = Changelog(self._settings, table.changelog_topic.get_topic_name(), processor.contents)

        async def recovered() -> None:
            # Faust calls this after its own recovery and before events flow; what is raised here it would swallow. Where
            # another rebalance follows at once, it calls again without waiting: the last call decides.
            async with self._restoring:
                generation = self._app.consumer_generation_id
                try:
                    partitions = self._partitions(changelog.topic)
                    await self._rewind()
                    # Faust restored a copy of its own, which nobody reads.
                    table.data.clear()
                    await processor.recover(lambda contents: changelog.restore(partitions))
                    self._guard.reset()
                except Exception as error:
                    if self._app.rebalancing and self._app.consumer_generation_id != generation:
                        return  # overtaken by another rebalance, after which this is called again
                    processor.refuse(error)
                    return
            self._recovering.discard(processor.name)
            if not self._recovering:
                self._ready()

        return recovered

    async def _rewind(self) -> None:
        """Stop fetching and return to the committed offsets, or the beginning where there are none, once a rebalance.

        A fetch that began in the recovery asks aiokafka for the records of a set of partitions that Faust changes under
        it: emptied, which aiokafka takes for all, or filled with the sources before Faust has sought their offsets. What it
        returns is dropped, or handed to the agents and then cleared from their queues, while the reading goes on behind it:
        events that are never seen, or seen out of turn. So nothing may be fetched until Faust has sought the committed
        offsets; it lets the flow go on after that, which comes after this callback.

        Raises:
            TimeoutError: a fetch did not end.
        """
        consumer = self._app.consumer
        generation = self._app.consumer_generation_id
        if generation == self._rewound or not consumer.assignment():
            return
        consumer.stop_flow()
        await _fetches_ended(consumer)
        committed = await consumer.seek_to_committed()
        topics = {source for sources in self._sources.values() for source in sources}
        # Faust's own seek leaves these where the dropped records end.
        fresh = {tp for tp, offset in committed.items() if not offset and tp.topic in topics}
        if fresh:
            earliest = await consumer.earliest_offsets(*fresh)
            await consumer.seek_wait({tp: earliest[tp] for tp in fresh})
        self._rewound = generation

    def _partitions(self, changelog: str) -> set[int]:
        """Return the partitions of a changelog that are ours.

        Raises:
            PartitionMismatch: they are not those of its sources.
        """
        assigned: dict[str, set[int]] = {}
        for tp in self._app.assignor.assigned_actives():
            assigned.setdefault(tp.topic, set()).add(tp.partition)
        ours = assigned.get(changelog, set())
        for source in self._sources.get(changelog, ()):
            theirs = assigned.get(source, set())
            if theirs != ours:
                raise PartitionMismatch(
                    f"{source} is assigned as {sorted(theirs)} but its changelog {changelog} as {sorted(ours)}; both need "
                    "as many partitions: delete the changelog topic and rebuild the state from the source"
                )
        return ours


async def _fetches_ended(consumer: Any) -> None:
    """Wait until no fetch of a stopped consumer is under way; the consumer begins no other until its flow goes on.

    Faust's ``wait_for_stopped_flow`` does not wait: the event it looks at is never cleared. aiokafka counts the fetches.

    Raises:
        TimeoutError: one did not end in time.
    """
    subscription = consumer._thread._consumer._subscription  # nothing public tells
    async with asyncio.timeout(_FETCH_ENDS_S):
        while not subscription.fetcher_idle_time:  # noqa: ASYNC110  # nothing to wait on
            await asyncio.sleep(_POLL_S)

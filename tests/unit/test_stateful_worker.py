"""The worker around a Faust app: settings, partitions that must agree, failures that end the process, the clean stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from penstock.clock import ManualClock
from penstock.settings import ServiceSettings
from penstock.stateful import (
    FaustWorker,
    PartitionMismatch,
    RecoveryStalled,
    StallGuard,
    StatefulProcessor,
    faust_settings,
)
from penstock.stateful.entries import EntryCodec, expiry_of, partition_of, state_key

from tests.unit.stateful_fakes import Broker, BrokerAway, FakeTopic, processor_of

SETTINGS = ServiceSettings(kafka_bootstrap="a:1,b:2", session_timeout_ms=8000, stop_timeout_s=0.05)


class Place(NamedTuple):
    topic: str
    partition: int


@dataclass
class FakeFetches:
    """What aiokafka tells of fetches: the one under way ends after it has been asked for a few times."""

    asked: int = 0

    @property
    def fetcher_idle_time(self) -> float:
        self.asked += 1
        return 0.0 if self.asked < 3 else 0.1


@dataclass
class FakeThread:
    """Where Faust keeps the consumer of aiokafka."""

    fetches: FakeFetches = field(default_factory=FakeFetches)

    @property
    def _consumer(self) -> FakeThread:
        return self

    @property
    def _subscription(self) -> FakeFetches:
        return self.fetches


@dataclass
class FakeConsumer:
    """A consumer of which ``costs/0`` has a committed offset and ``costs/1`` has one where ``fresh`` is not set."""

    fresh: bool = True
    sought: dict[Place, int] = field(default_factory=dict)
    stopped: int = 0
    calls: list[str] = field(default_factory=list)
    _thread: FakeThread = field(default_factory=FakeThread)

    def assignment(self) -> set[Place]:
        return {Place("costs", 0), Place("costs", 1)}

    async def seek_to_committed(self) -> Mapping[Place, int | None]:
        self.calls.append(f"seek after {self._thread.fetches.asked}")
        return {Place("costs", 0): 17, Place("costs", 1): None if self.fresh else 4}

    def stop_flow(self) -> None:
        self.calls.append("stop")
        self.stopped += 1

    async def earliest_offsets(self, *places: Place) -> Mapping[Place, int]:
        return dict.fromkeys(places, 5)

    async def seek_wait(self, places: Mapping[Place, int]) -> None:
        self.sought.update(places)


@dataclass
class FakeAssignor:
    actives: set[Place]

    def assigned_actives(self) -> set[Place]:
        return self.actives


@dataclass
class FakeConf:
    stream_wait_empty: bool = True


@dataclass
class FakeRecovery:
    """Records of changelogs that are still to come."""

    remaining: int = 0

    def active_remaining_total(self) -> int:
        return self.remaining


@dataclass
class FakeTables:
    recovery: FakeRecovery = field(default_factory=FakeRecovery)


@dataclass
class FakeApp:
    assignor: FakeAssignor = field(default_factory=lambda: FakeAssignor(set()))
    consumer: FakeConsumer = field(default_factory=FakeConsumer)
    conf: FakeConf = field(default_factory=FakeConf)
    consumer_generation_id: int = 1
    rebalancing: bool = False
    in_recovery: bool = False
    tables: FakeTables = field(default_factory=FakeTables)
    crash_reason: BaseException | None = None
    hangs_when_stopped: bool = False
    stops: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.stops += 1
        if self.hangs_when_stopped:
            await asyncio.Event().wait()
        self.ended.set()

    async def wait_until_stopped(self) -> None:
        await self.ended.wait()


@dataclass
class RecoveringTable:
    """A table that keeps the worker's callback."""

    data: MutableMapping[bytes, bytes] = field(default_factory=dict)
    changelog_topic: FakeTopic = field(default_factory=FakeTopic)
    callbacks: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def on_recover(self, fun: Callable[[], Awaitable[None]]) -> None:
        self.callbacks.append(fun)


def worker_of(
    app: FakeApp, processor: StatefulProcessor[Any, Any], table: RecoveringTable | None = None
) -> FaustWorker:
    """A worker; without a table it has no changelog to create, so that no broker is needed to run it."""
    sources = {"changelog": ["costs"]} if table is not None else {}
    guard = StallGuard(ManualClock(), 5.0)
    return FaustWorker(app, {processor: table}, sources=sources, settings=SETTINGS, guard=guard, recovery_stalls_s=0.2)


def test_the_settings_that_faust_needs() -> None:
    made = faust_settings(SETTINGS, partitions=4)
    assert made["broker"] == ["kafka://a:1", "kafka://b:2"]
    assert (made["broker_session_timeout"], made["broker_heartbeat_interval"]) == (8.0, 2.0)
    assert (made["topic_partitions"], made["topic_disable_leader"], made["web_enabled"]) == (4, True, False)
    assert "processing_guarantee" not in made


def test_a_password_reaches_faust_or_is_asked_for() -> None:
    secret = ServiceSettings(
        kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_mechanism="PLAIN", kafka_sasl_username="u",
        kafka_sasl_password="p",  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"pass faust\.SASLCredentials"):
        faust_settings(secret, 4)
    made = faust_settings(secret, 4, dict)
    assert made["broker_credentials"] == {"username": "u", "password": "p", "ssl_context": None, "mechanism": "PLAIN"}


async def test_told_to_stop_it_stops_the_app_and_ends_well() -> None:
    app = FakeApp()
    stopping = asyncio.Event()
    stopping.set()
    await worker_of(app, processor_of(Broker())).run(stopping)
    assert app.stops == 1


async def test_an_app_that_does_not_stop_is_left_at_the_deadline() -> None:
    app = FakeApp(hangs_when_stopped=True)
    stopping = asyncio.Event()
    stopping.set()
    async with asyncio.timeout(5):
        await worker_of(app, processor_of(Broker())).run(stopping)


async def test_a_recovery_that_stands_still_ends_the_worker() -> None:
    app = FakeApp(in_recovery=True)
    app.tables.recovery.remaining = 1_234
    async with asyncio.timeout(5):
        with pytest.raises(RecoveryStalled, match=r"1,234 records of changelogs"):
            await worker_of(app, processor_of(Broker())).run(asyncio.Event())


@pytest.mark.parametrize("recovering", [True, False])
async def test_a_recovery_that_moves_and_an_app_that_recovers_nothing_go_on(recovering: bool) -> None:
    app = FakeApp(in_recovery=recovering)
    app.tables.recovery.remaining = 1_000
    stopping = asyncio.Event()
    running = asyncio.create_task(worker_of(app, processor_of(Broker())).run(stopping))
    begun = asyncio.get_running_loop().time()
    # Three times as long as it may stand still.
    while asyncio.get_running_loop().time() < begun + 0.6:
        app.tables.recovery.remaining -= recovering
        await asyncio.sleep(0.01)
    assert not running.done()
    stopping.set()
    await running


async def test_a_failed_processor_ends_the_worker_without_waiting_for_acknowledgements() -> None:
    app = FakeApp()
    processor = processor_of(Broker())
    processor.refuse(BrokerAway("gone"))
    with pytest.raises(BrokerAway):
        await worker_of(app, processor).run(asyncio.Event())
    assert app.conf.stream_wait_empty is False


async def test_a_crashed_app_ends_the_worker_with_its_reason() -> None:
    app = FakeApp(crash_reason=ZeroDivisionError("inside Faust"))
    app.ended.set()
    with pytest.raises(ZeroDivisionError, match="inside Faust"):
        await worker_of(app, processor_of(Broker())).run(asyncio.Event())


async def test_an_app_that_ends_by_itself_is_a_failure() -> None:
    app = FakeApp()
    app.ended.set()
    with pytest.raises(RuntimeError, match="stopped by itself"):
        await worker_of(app, processor_of(Broker())).run(asyncio.Event())


async def test_a_source_and_its_changelog_must_be_assigned_alike() -> None:
    places = {Place("costs", 0), Place("costs", 1), Place("changelog", 0)}
    app, table, processor = FakeApp(FakeAssignor(places)), RecoveringTable(), processor_of(Broker())
    worker_of(app, processor, table)
    await table.callbacks[0]()
    with pytest.raises(PartitionMismatch, match=r"costs is assigned as \[0, 1\] but its changelog changelog as \[0\]"):
        processor.failed.result()


async def test_partitions_without_a_commit_begin_at_their_beginning_once_a_rebalance() -> None:
    """Nothing is assigned to the table, so that no broker is needed to restore it."""
    app, table = FakeApp(), RecoveringTable(data={b"0/k/a": b"what Faust restored"})
    processor = processor_of(Broker())
    worker_of(app, processor, table)
    await table.callbacks[0]()
    assert app.consumer.sought == {Place("costs", 1): 5}
    assert app.consumer.stopped == 1
    assert table.data == {}
    await table.callbacks[0]()
    assert app.consumer.stopped == 1
    app.consumer_generation_id = 2
    await table.callbacks[0]()
    assert app.consumer.stopped == 2
    assert not processor.failed.done()


@pytest.mark.parametrize("fresh", [True, False])
async def test_nothing_is_fetched_between_the_seek_and_the_flow_that_goes_on(fresh: bool) -> None:
    app, table, processor = FakeApp(consumer=FakeConsumer(fresh=fresh)), RecoveringTable(), processor_of(Broker())
    worker_of(app, processor, table)
    await table.callbacks[0]()
    assert app.consumer.calls == ["stop", "seek after 3"]
    assert not processor.failed.done()


def test_entries_keep_partition_offsets_state_and_expiry() -> None:
    codec = EntryCodec(dict[str, int])
    entry = codec.pack({"costs": 7}, {"count": 3}, 1_700_000_000_000_000)
    assert codec.unpack(entry) == ({"costs": 7}, {"count": 3}, 1_700_000_000_000_000)
    assert expiry_of(entry) == 1_700_000_000_000_000
    assert partition_of(state_key(12, "team/with/slashes")) == 12
    with pytest.raises(ValueError, match="format 9, this version reads 1"):
        expiry_of(b"\x09" + entry[1:])

"""The monitors' shell on a log in memory: what is raised, taken over, and sent again; and who watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from penstock.bus import KafkaUnavailable, Message, Partition, Producer
from penstock.bus.memory import MemoryBus
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Alert, LlmRequest

from services.alerting.monitors.cluster import Dated, Unseen
from services.alerting.monitors.look import GroupLook, Look, Member, PartitionLook
from services.alerting.monitors.settings import MonitorSettings
from services.alerting.monitors.watching import Watcher, watch

READ = Partition("llm-requests", 0)


class FakeCluster:
    """Shows a cluster that the test sets up; ``broken`` does not answer."""

    def __init__(self, catalogue: Catalogue, clock: ManualClock) -> None:
        self.clock = clock
        self.broken = False
        topics = {t.name: {n: PartitionLook(1, 1, 1) for n in range(t.partitions)} for t in catalogue.topics.values()}
        places = [Partition(name, n) for name, partitions in topics.items() for n in partitions]
        member = Member("m1", "penstock-intake", "/10.0.0.7", frozenset({READ}))
        groups = (GroupLook("intake", "intake", "stable", (member,), {READ: 0}),)
        self.now = Look(clock.now(), topics, groups, dict.fromkeys(places, 0), dict.fromkeys(places, 0))

    async def look(self, dated: Dated) -> Look:
        if self.broken:
            raise Unseen("no broker answers")
        look = replace(self.now, at=self.clock.now())
        return replace(look, written_at=dict.fromkeys(dated(look), 0))

    def leave(self) -> None:
        """The one member of intake's group is gone."""
        self.now = replace(self.now, groups=(replace(self.now.groups[0], state="empty", members=()),))

    async def close(self) -> None: ...


class Platform:
    """A log, a clock, a cluster, and as many replicas as a test wants."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(catalogue, self.clock)
        self.cluster = FakeCluster(catalogue, self.clock)
        self.settings = MonitorSettings()

    def replica(self) -> Watcher:
        producer = Producer(self.bus.producer(), self.bus.codec, "alerting", self.clock)
        return Watcher(self.bus, self.bus.codec, self.cluster, producer, self.clock, self.settings)

    async def dead_letter(self, offset: int, code: str = "step_failed") -> None:
        request = LlmRequest(
            event_id=f"e{offset}", request_id=f"r{offset}", tenant_id="t", occurred_at=self.clock.now(), causation_id=""
        )
        value = self.bus.codec.encode("llm-requests", request)
        producer = Producer(self.bus.producer(), self.bus.codec, "intake", self.clock)
        origin = Message("llm-requests", 1, offset, 0, b"k", value)
        await (await producer.dead_letter("intake", origin, code, "a defect"))

    async def steps(self, watcher: Watcher, count: int, every: float = 15.0) -> list[Alert]:
        told: list[Alert] = []
        for _ in range(count):
            self.clock.advance(every)
            told += await watcher.step(lambda: True)
        return told

    def alerts(self) -> list[Alert]:
        return [self.bus.codec.decode("alerts", message.value) for message in self.bus.messages("alerts")]  # type: ignore[misc]


@pytest.fixture
def platform(catalogue: Catalogue) -> Platform:
    return Platform(catalogue)


async def test_dead_letters_are_told_with_their_places_and_requests_and_resolved(platform: Platform) -> None:
    watcher = platform.replica()
    await watcher.take_over(None)
    for offset in range(6):
        await platform.dead_letter(offset)
    (told,) = await platform.steps(watcher, 1)
    assert (told.kind, told.name, told.severity) == ("dlq", "dead_letters", "warning")
    assert [(each.topic, each.first_offset, each.last_offset) for each in told.evidence] == [
        ("dlq-intake", 0, 5), ("llm-requests", 0, 5),
    ]  # fmt: skip
    assert told.sample_requests == ["r1", "r2", "r3", "r4", "r5"]
    (over,) = await platform.steps(watcher, 70)
    assert (over.status, over.fingerprint) == ("resolved", told.fingerprint)
    assert platform.alerts() == [told, over]


async def test_the_next_leader_goes_on_where_the_last_one_was(platform: Platform) -> None:
    first = platform.replica()
    await first.take_over(None)
    await platform.dead_letter(0)
    platform.cluster.leave()
    told = await platform.steps(first, 8)
    assert sorted(each.name for each in told) == ["dead_letters", "group_without_members"]
    looked_at = platform.clock.now()
    platform.clock.advance(5)
    second = platform.replica()
    await second.take_over(looked_at)
    assert await platform.steps(second, 4) == []
    platform.cluster.now = FakeCluster(platform.bus.catalogue, platform.clock).now
    ends = await platform.steps(second, 70)
    assert sorted(each.name for each in ends if each.status == "resolved") == ["dead_letters", "group_without_members"]
    assert {each.causation_id for each in ends} == {each.event_id for each in told}


async def test_letters_of_the_time_without_a_leader_are_told_and_history_is_not(platform: Platform) -> None:
    for offset in range(60):
        await platform.dead_letter(offset)
    platform.clock.advance(4 * 3600)
    fresh = platform.replica()
    await fresh.take_over(None)
    assert await platform.steps(fresh, 2) == []
    heir = platform.replica()
    await heir.take_over(datetime.fromisoformat("2026-01-05T08:59:00+00:00"))
    (told,) = await platform.steps(heir, 2)
    assert (told.severity, told.figures["total"]) == ("critical", 60.0)


async def test_an_alert_that_could_not_be_sent_is_sent_by_the_next_step_as_the_same_event(platform: Platform) -> None:
    watcher = platform.replica()
    await watcher.take_over(None)
    await platform.dead_letter(0)
    platform.bus.fail_sends = 1
    platform.clock.advance(15)
    with pytest.raises(ConnectionError):
        await watcher.step(lambda: True)
    assert platform.alerts() == []
    (told,) = await platform.steps(watcher, 1)
    assert platform.alerts() == [told]
    twin = platform.replica()
    await twin.take_over(None)
    assert await platform.steps(twin, 1) == []


async def test_who_no_longer_leads_tells_nothing(platform: Platform) -> None:
    watcher = platform.replica()
    await watcher.take_over(None)
    await platform.dead_letter(0)
    assert await watcher.step(lambda: False) == []
    assert platform.alerts() == []


async def test_a_cluster_that_does_not_answer_ends_no_condition(platform: Platform) -> None:
    watcher = platform.replica()
    await watcher.take_over(None)
    platform.cluster.leave()
    (told,) = await platform.steps(watcher, 6)
    assert told.name == "group_without_members"
    platform.cluster.broken = True
    for _ in range(20):
        platform.clock.advance(15)
        with pytest.raises(Unseen):
            await watcher.step(lambda: True)
    platform.cluster.broken = False
    assert await platform.steps(watcher, 3) == []
    assert platform.alerts() == [told]


async def test_a_dlq_that_is_missing_is_told_and_the_rest_is_watched(platform: Platform) -> None:
    class WithoutLetters(MemoryBus):
        missing = True

        async def read(self, topics: Sequence[str], **options: Any) -> Any:
            if self.missing and "dlq-intake" in topics:
                raise KafkaUnavailable("topic dlq-intake does not exist")
            return await super().read(topics, **options)

    platform.bus = bus = WithoutLetters(platform.bus.catalogue, platform.clock)
    cluster = platform.cluster
    complete = cluster.now
    topics = {name: partitions for name, partitions in complete.topics.items() if name != "dlq-intake"}
    cluster.now = replace(complete, topics=topics)
    watcher = platform.replica()
    await watcher.take_over(None)
    (missing,) = await platform.steps(watcher, 4)
    assert (missing.name, missing.labels["topic"]) == ("topic_missing", "dlq-intake")
    bus.missing, cluster.now = False, complete
    await platform.dead_letter(0)
    (letter,) = await platform.steps(watcher, 1)
    assert letter.name == "dead_letters"


class FakeLeadership:
    """Held as the script says, one entry a question; raises what it finds there."""

    def __init__(self, script: Sequence[bool | Exception], stopping: asyncio.Event) -> None:
        self.script = list(script)
        self.stopping = stopping
        self.looks: list[datetime] = []

    async def held(self) -> bool:
        answer = self.script.pop(0)
        if not self.script:
            self.stopping.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def still_held(self) -> bool:
        return True

    async def looked_at(self) -> datetime | None:
        return self.looks[-1] if self.looks else None

    async def looked(self, at: datetime) -> None:
        self.looks.append(at)

    async def close(self) -> None: ...


class Recorder:
    """A watcher that only says what it was asked."""

    def __init__(self, fail: Callable[[int], BaseException | None] = lambda step: None) -> None:
        self.asked: list[str] = []
        self.fail = fail

    async def take_over(self, looked_at: datetime | None) -> None:
        self.asked.append("take over")

    async def forget(self) -> None:
        self.asked.append("forget")

    async def step(self, still_leads: Any) -> list[Alert]:
        self.asked.append("step")
        if (error := self.fail(len(self.asked))) is not None:
            raise error
        return []


async def played(script: Sequence[bool | Exception], recorder: Recorder) -> FakeLeadership:
    clock, stopping = ManualClock(), asyncio.Event()
    leadership = FakeLeadership(script, stopping)
    job = asyncio.create_task(watch(recorder, leadership, clock, 15.0, stopping))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while not job.done():
            await asyncio.sleep(0)
            clock.advance(15.0)
    await job
    return leadership


async def test_only_who_leads_watches() -> None:
    recorder = Recorder()
    leadership = await played([False, True, True, False, True], recorder)
    assert recorder.asked == ["take over", "step", "step", "forget", "take over", "step", "forget"]
    assert len(leadership.looks) == 3


async def test_what_is_away_stops_no_monitor() -> None:
    recorder = Recorder(lambda step: Unseen("away") if step == 2 else None)
    leadership = await played([OSError("no route"), True, True, TimeoutError(), True], recorder)
    assert recorder.asked == ["take over", "step", "step", "step", "forget"]
    assert len(leadership.looks) == 2


async def test_a_defect_of_a_monitor_does_not_end_alerting() -> None:
    recorder = Recorder(lambda step: ZeroDivisionError("a defect") if step == 2 else None)
    await played([True, True, True], recorder)
    assert recorder.asked == ["take over", "step", "step", "step", "forget"]


async def test_a_client_that_cancels_its_own_call_does_not_end_alerting() -> None:
    recorder = Recorder(lambda step: asyncio.CancelledError() if step == 2 else None)
    await played([True, True, True], recorder)
    assert recorder.asked == ["take over", "step", "step", "step", "forget"]


async def test_the_watch_ends_when_it_is_told_to_and_not_before() -> None:
    stopping = asyncio.Event()
    recorder = Recorder()
    job = asyncio.create_task(
        watch(recorder, FakeLeadership([True] * 9, stopping), ManualClock(), 15.0, stopping)  # type: ignore[arg-type]
    )
    for _ in range(3):
        await asyncio.sleep(0)
        job.cancel()
    await asyncio.sleep(0)
    assert not job.done()
    assert "step" in recorder.asked
    stopping.set()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job


def test_settings_name_what_contradicts() -> None:
    with pytest.raises(ValueError, match="MONITOR_DLQ_CRITICAL is below"):
        MonitorSettings(monitor_dlq_warning=10, monitor_dlq_critical=5)
    with pytest.raises(ValueError, match="MONITOR_LAG_CRITICAL_S is below"):
        MonitorSettings(monitor_lag_s=100, monitor_lag_critical_s=50)
    assert MonitorSettings().lag_rules().late_s == 300.0

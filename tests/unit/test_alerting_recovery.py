"""Redis is emptied at any moment: nothing is lost, nothing that was taken is sent again, actions hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.bus import Event, Transient
from penstock.contracts.catalogue import Catalogue

from services.alerting.app import alert_hop
from services.alerting.channels.protocol import Attempt
from services.alerting.incidents import Incident
from services.alerting.store import Body, Keys, Transaction, Write
from tests.unit.alerting_fakes import FakeChannel, Platform, an_action, an_alert, an_entry
from tests.unit.alerting_memory_store import MemoryStore

T = TypeVar("T")

FAILED = Attempt(outcome="retry", status_code=500, reason="HTTP 500")


async def test_undelivered_is_queued_again_and_delivered_is_not(catalogue: Catalogue) -> None:
    platform = Platform(catalogue, an_entry("oncall", "down"))
    down = platform.channels["down"] = FakeChannel(always=FAILED)
    await platform.publish(an_alert("a1"), an_alert("b1", fingerprint="f2"))
    await platform.work(60)
    platform.store.flush()
    down.always = None
    await platform.work(60)
    for name in ("oncall", "down"):
        told = Counter(each for _, ids in platform.channels[name].told() for each in ids)
        assert told == {"a1": 1, "b1": 1}, name


async def test_what_is_answered_while_redis_is_emptied_is_not_sent_again(catalogue: Catalogue) -> None:
    platform = Platform(catalogue, an_entry("oncall"))
    platform.channels["oncall"] = FakeChannel(meanwhile=platform.store.flush)
    await platform.publish(an_alert())
    await platform.work(120)
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]
    assert platform.outcomes() == [("a1", "oncall", "delivered")]


class Slow(MemoryStore):
    """Once, the right to rebuild runs out while it is written, and another replica has it for a moment."""

    writes = 0
    taken = False
    opened = 0

    async def run(self, body: Body[T], *, rebuilding: bool = False) -> T:
        self.writes += rebuilding
        return await super().run(body, rebuilding=rebuilding)

    async def lock(self, holder: str, ttl_s: float) -> bool:
        if self.writes == 2 and not self.taken:
            self.taken = True
            await self.clear()
            await self.unlock(holder)
            return False
        return await super().lock(holder, ttl_s)

    async def open(self) -> None:
        self.opened += 1
        await super().open()


async def test_what_was_overtaken_while_it_was_written_is_not_taken_for_whole(catalogue: Catalogue) -> None:
    store = Slow()
    platform = Platform(catalogue, an_entry("oncall"), store)
    platform.channels["oncall"] = FakeChannel(always=FAILED)
    await platform.publish(an_alert("a1"))
    await platform.work(5)
    platform.channels["oncall"].always = None
    store.flush()
    await platform.work(60)
    assert store.taken
    assert store.opened == 1
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]
    assert store.data[Keys.incident("f1")], "what the other had cleared stands again"
    assert store.data[Keys.alert("a1")]


async def test_what_another_replica_is_sending_is_waited_for(catalogue: Catalogue) -> None:
    """The answer comes, and is recorded, after the rebuilding began to read the log."""
    platform = Platform(catalogue, an_entry("oncall"))
    channel = platform.channels["oncall"]
    answered = asyncio.Event()

    async def slow(notification: object) -> Attempt:
        channel.got.append((notification, "delivered"))  # type: ignore[arg-type]
        await answered.wait()
        return Attempt(outcome="delivered", status_code=200)

    channel.send = slow  # type: ignore[method-assign,assignment]
    await platform.publish(an_alert())
    await platform.dispatcher.sweep()
    while not channel.got:
        await asyncio.sleep(0)
    platform.store.flush()
    _, second, recovery = platform.replica("two")
    rebuilding = asyncio.create_task(recovery.restore())
    for _ in range(100):
        await asyncio.sleep(0)
    answered.set()
    await platform.dispatcher.idle()
    while not rebuilding.done():
        platform.clock.advance(1)
        await asyncio.sleep(0)
    platform.dispatcher = second
    await platform.work(120)
    assert len(channel.got) == 1


async def test_silences_acknowledgements_and_what_was_told_hold(catalogue: Catalogue) -> None:
    platform = Platform(catalogue, an_entry("oncall"))
    now = platform.clock.now()
    await platform.publish(an_alert("a1"), an_alert("b1", fingerprint="f2"))
    await platform.act(
        an_action(
            "silence",
            now,
            fingerprint=None,
            silence_id="s1",
            match={"kind": "cost"},
            ends_at=now + timedelta(hours=2),
        )
    )
    await platform.publish(an_alert("c1", fingerprint="f3", kind="cost"))
    await platform.work(5)
    await platform.act(an_action("acknowledge", platform.clock.now()))
    platform.store.flush()
    await platform.work(3600, step=60)
    at = platform.clock.now()
    platform.store.flush()
    await platform.publish(an_alert("a2", at=at), an_alert("b2", at=at, fingerprint="f2", status="resolved"))
    await platform.work(60)
    oncall = platform.channels["oncall"].told()
    assert Counter(each for _, ids in oncall for each in ids) == {"a1": 1, "b1": 1, "b2": 1}
    reasons = {r.causation_id: r.reason or "" for r in platform.deliveries() if r.outcome == "suppressed"}
    assert "acknowledged" in reasons["a2"]
    assert "silenced" in reasons["c1"]
    await platform.work(4000, step=60)
    assert ("firing", ["c1"]) in platform.channels["oncall"].told(), "the silence ended"


async def test_an_escalation_is_neither_forgotten_nor_repeated(catalogue: Catalogue) -> None:
    steps = [{"after_s": 300, "receivers": ["boss"]}]
    platform = Platform(catalogue, an_entry("oncall", "boss", escalate=steps))
    await platform.publish(an_alert())
    await platform.work(60)
    platform.store.flush()
    await platform.work(300, step=10)
    platform.store.flush()
    await platform.work(300, step=10)
    assert platform.channels["boss"].told() == [("escalation", ["a1"])]
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]


async def test_what_was_only_counted_is_not_told_by_name_afterwards(catalogue: Catalogue) -> None:
    entry = an_entry("oncall", group_by=["fingerprint"], most_per_hour=1, repeat_interval_s=86_400)
    platform = Platform(catalogue, entry)
    platform.group_most = 2
    platform.desk, platform.dispatcher, platform.recovery = platform.replica("one")
    await platform.publish(*(an_alert(f"a{n}", fingerprint=f"f{n}") for n in range(6)))
    await platform.work(4000, step=60)
    sent = len(platform.channels["oncall"].got)
    assert sent == 2
    platform.store.flush()
    await platform.work(2 * 3600, step=60)
    assert len(platform.channels["oncall"].got) == sent


async def test_what_waits_for_a_summary_is_not_forgotten(catalogue: Catalogue) -> None:
    platform = Platform(
        catalogue, an_entry("oncall", group_by=["fingerprint"], most_per_hour=1, repeat_interval_s=86_400)
    )
    await platform.publish(*(an_alert(f"a{n}", fingerprint=f"f{n}") for n in range(6)))
    await platform.work(5)
    assert len(platform.channels["oncall"].got) == 1
    platform.store.flush()
    await platform.work(3600, step=60)
    told = Counter(each for _, ids in platform.channels["oncall"].told() for each in ids)
    assert told == {f"a{n}": 1 for n in range(6)}


async def test_the_dead_stay_dead_and_a_replay_still_reaches_them(catalogue: Catalogue) -> None:
    platform = Platform(catalogue, an_entry("oncall", repeat_interval_s=86_400))
    platform.channels["oncall"].answers = [Attempt(outcome="dead", status_code=400)]
    await platform.publish(an_alert())
    await platform.work(30)
    platform.store.flush()
    await platform.work(60)
    assert len(platform.channels["oncall"].got) == 1
    (origin,) = platform.bus.messages("alerts")
    await platform.bus.append("alerts", origin.key, origin.value, partition=origin.partition)
    await platform.take()
    await platform.work(30)
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]


async def test_a_replay_that_is_under_way_is_not_forgotten(catalogue: Catalogue) -> None:
    platform = Platform(catalogue, an_entry("oncall", repeat_interval_s=86_400))
    channel = platform.channels["oncall"] = FakeChannel(answers=[Attempt(outcome="dead", status_code=400)])
    await platform.publish(an_alert())
    await platform.work(30)
    channel.always = FAILED
    (origin,) = platform.bus.messages("alerts")
    await platform.bus.append("alerts", origin.key, origin.value, partition=origin.partition)
    await platform.take()
    await platform.work(30)
    assert {outcome for _, outcome in channel.got[1:]} == {"retry"}
    platform.store.flush()
    channel.always = None
    await platform.work(60)
    assert channel.told() == [("firing", ["a1"])]


async def test_a_log_that_cannot_be_read_makes_no_dead_letter_of_an_alert(catalogue: Catalogue) -> None:
    platform = Platform(catalogue, an_entry("oncall"))
    tries: list[str] = []

    async def restore() -> None:
        tries.append("restore")
        if len(tries) == 1:
            raise ConnectionError("the broker is away")
        await platform.restore()

    platform.store.flush()
    await platform.bus.publish("alerts", "f1", an_alert())
    (message,) = platform.bus.messages("alerts")
    event = Event(message, platform.bus.codec.decode(message.topic, message.value))
    hop = alert_hop(platform.desk, restore, 16)
    with pytest.raises(Transient, match="the broker is away"):
        await hop.handler([event])
    assert await hop.handler([event]) == [[]]
    platform.taken = 1
    await platform.work(30)
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]


async def test_while_one_replica_rebuilds_the_others_wait(catalogue: Catalogue) -> None:
    platform = Platform(catalogue, an_entry("oncall"))
    await platform.publish(*(an_alert(f"a{n}", fingerprint=f"f{n}") for n in range(20)))
    platform.store.flush()
    recoveries = [platform.recovery, platform.replica("two")[2], platform.replica("three")[2]]
    tasks = [asyncio.create_task(recovery.restore()) for recovery in recoveries]
    while not all(task.done() for task in tasks):
        platform.clock.advance(0.5)
        await asyncio.sleep(0)
    await platform.work(60)
    told = Counter(each for _, ids in platform.channels["oncall"].told() for each in ids)
    assert told == {f"a{n}": 1 for n in range(20)}


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("alert"),
            st.integers(0, 2),
            st.sampled_from(["firing", "firing", "resolved"]),
            st.sampled_from(["warning", "critical"]),
        ),
        st.tuples(st.just("work"), st.sampled_from([0, 1, 30, 400, 4000])),
        st.tuples(st.just("mood"), st.sampled_from(["works", "fails"])),
        st.tuples(st.just("flush")),
        st.tuples(st.just("flush while sending")),
        st.tuples(st.sampled_from(["acknowledge", "unacknowledge"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["silence", "unsilence"])),
        st.tuples(st.just("again"), st.integers(0, 50)),
    ),
    min_size=3,
    max_size=25,
)


async def scenario(catalogue: Catalogue, events: list[tuple[object, ...]]) -> None:
    platform = Platform(catalogue, an_entry("oncall", repeat_interval_s=1_000_000))
    channel = platform.channels["oncall"]
    published = 0
    for kind, *rest in events:
        now = platform.clock.now()
        if kind == "alert":
            published += 1
            number, status, severity = rest
            fingerprint = f"f{number}"
            alert = an_alert(f"a{published}", at=now, fingerprint=fingerprint, status=status, severity=severity)
            await platform.publish(alert)
            platform.clock.advance(0.01)
        elif kind == "work":
            await platform.work(float(str(rest[0])), step=50)
        elif kind == "mood":
            channel.always = FAILED if rest[0] == "fails" else None
        elif kind == "flush":
            platform.store.flush()
        elif kind == "flush while sending":
            channel.meanwhile = platform.store.flush
        elif kind in ("acknowledge", "unacknowledge"):
            await platform.act(an_action(str(kind), now, fingerprint=f"f{rest[0]}"))
        elif kind == "silence":
            ends_at = now + timedelta(hours=1)
            await platform.act(
                an_action("silence", now, fingerprint=None, silence_id="s", match={"kind": "*"}, ends_at=ends_at)
            )
        elif kind == "unsilence":
            await platform.act(an_action("unsilence", now, fingerprint=None, silence_id="s"))
        elif kind == "again" and platform.bus.messages("alerts"):
            messages = platform.bus.messages("alerts")
            await platform.deliver(messages[int(str(rest[0])) % len(messages)])
    channel.always = None
    await platform.work(5000, step=100)

    told = Counter((purpose, each) for purpose, ids in channel.told() for each in ids)
    assert all(count == 1 for (purpose, _), count in told.items() if purpose != "repeat"), "nothing is sent twice"
    accounted = {record.causation_id for record in platform.deliveries()}
    assert accounted == {f"a{number + 1}" for number in range(published)}, "every alert is on record"
    delivered = Counter((r.purpose, r.causation_id) for r in platform.deliveries() if r.outcome == "delivered")
    assert delivered == told, "the record says what was sent"
    by_fingerprint: dict[str, list[str]] = {}
    for notification, outcome in channel.got:
        for alert in notification.alerts if outcome == "delivered" else ():
            by_fingerprint.setdefault(alert.fingerprint, []).append(notification.purpose)

    async def standing(transaction: Transaction) -> list[Incident | None]:
        return await transaction.load_many(Incident, [Keys.incident(f"f{number}") for number in range(3)])

    for incident in await platform.whole(lambda: platform.store.run(standing)):
        if incident is None or incident.alert is None:
            continue
        purposes = by_fingerprint.get(incident.fingerprint, [])
        assert not purposes or purposes[0] != "resolved"
        assert "resolved" not in [one for one, two in pairwise(purposes) if one == two]
        if incident.status == "firing" and incident.acknowledgement is None:
            assert purposes, "what fires was told"
            assert purposes[-1] != "resolved"
        if incident.status == "resolved" and purposes:
            assert purposes[-1] == "resolved", "who was told that it fires knows that it has ended"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(EVENTS)
def test_whatever_happens_and_whenever_redis_is_emptied(catalogue: Catalogue, events: list[tuple[object, ...]]) -> None:
    asyncio.run(scenario(catalogue, events))


@pytest.mark.parametrize(
    "events",
    [
        [("mood", "fails"), ("alert", 0, "firing", "warning"), ("work", 30), ("flush",), ("mood", "works")],
        [("alert", 0, "firing", "warning"), ("flush while sending",), ("work", 30)],
        [("silence",), ("alert", 0, "firing", "warning"), ("flush",), ("work", 4000)],
    ],
)
async def test_known_courses(catalogue: Catalogue, events: list[tuple[object, ...]]) -> None:
    await scenario(catalogue, events)


class Remembering(MemoryStore):
    """Also notes for how long each key was set."""

    def __init__(self) -> None:
        super().__init__()
        self.ttl_s: dict[str, int] = {}

    def _apply(self, write: Write) -> None:
        super()._apply(write)
        if write[0] == "SET":
            self.ttl_s[str(write[1])] = int(write[4])


async def test_what_is_rebuilt_lives_no_longer_than_it_would_have(catalogue: Catalogue) -> None:
    store = Remembering()
    platform = Platform(catalogue, an_entry("oncall", repeat_interval_s=86_400 * 20), store)
    await platform.publish(an_alert("a1"), an_alert("b1", fingerprint="f2"))
    await platform.publish(an_alert("stale", at=platform.clock.now() - timedelta(days=2), status="resolved"))
    end = platform.clock.now() + timedelta(seconds=1)
    await platform.work(5)
    await platform.publish(an_alert("b2", at=end, fingerprint="f2", status="resolved"))
    await platform.work(5)
    assert store.ttl_s[Keys.alert("stale")] == 25 * 3600
    await platform.work(2 * 86_400, step=3600)
    store.flush()
    store.ttl_s.clear()
    # Only what is written, not what is looked at after it.
    await platform.restore()
    day = 86_400
    assert 6.9 * day < store.ttl_s[Keys.alert("a1")] < 7 * day, "told two days ago"
    assert Keys.alert("stale") not in store.ttl_s, "nobody was told, and it is older than a day"
    assert store.sorted[Keys.WAKE].keys() == {"f1"}, "f2 is over, and everybody knows"

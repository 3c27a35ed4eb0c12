"""What is sent, when, to whom, and what is recorded: the desk, the outbox and the dispatcher on a store in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TypeVar

import pytest
from msgspec.structs import replace
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Alert, DeadLetter
from prometheus_client import REGISTRY

from services.alerting.channels.protocol import Attempt
from services.alerting.core import pause_s
from services.alerting.store import Body, Keys, Transaction
from tests.unit.alerting_fakes import FakeChannel, Platform, PlatformOf, an_alert, an_entry
from tests.unit.alerting_memory_store import MemoryStore

T = TypeVar("T")

FAILED = Attempt(outcome="retry", status_code=500, reason="HTTP 500")
REFUSED = Attempt(outcome="dead", status_code=400, reason="refused with 400")


@pytest.fixture
def platform_of(catalogue: Catalogue) -> PlatformOf:
    return lambda entry: Platform(catalogue, entry)


def several(count: int, **changes: object) -> list[Alert]:
    return [an_alert(f"a{number}", fingerprint=f"f{number}", **changes) for number in range(count)]


async def test_an_alert_is_told_once_and_recorded(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    await platform.publish(an_alert())
    await platform.work(10)
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]
    (record,) = platform.deliveries()
    assert (record.outcome, record.attempts, record.status_code, record.receiver) == ("delivered", 1, 200, "oncall")
    assert record.notification_id == platform.channels["oncall"].got[0][0].notification_id
    assert await platform.store.standing(Keys.due("default/oncall")) == (0, None)


async def test_a_receiver_that_fails_for_hours_gets_it_in_the_end_and_only_once(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    channel = platform.channels["oncall"] = FakeChannel(always=FAILED)
    await platform.publish(an_alert())
    await platform.work(5 * 3600, step=30)
    assert {outcome for _, outcome in channel.got} == {"retry"}
    failed = platform.deliveries()
    assert len(failed) == len(channel.got) > 30
    assert [record.attempts for record in failed] == list(range(1, len(failed) + 1))
    pauses = [(r.next_try_at - r.occurred_at).total_seconds() for r in failed if r.next_try_at]
    assert pauses[0] <= 1
    assert max(pauses) <= 600
    assert min(pauses[12:]) >= 300
    channel.always = None
    await platform.work(600, step=30)
    assert channel.told() == [("firing", ["a1"])]
    assert len({notification.notification_id for notification, _ in channel.got}) == 1, "the idempotency key"
    assert platform.deliveries()[-1].outcome == "delivered"
    assert not platform.bus.messages("dlq-alerting")


async def test_what_is_given_up_is_a_dead_letter_that_a_replay_delivers(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall", "other", repeat_interval_s=86_400))
    channel = platform.channels["oncall"] = FakeChannel(always=FAILED)
    await platform.publish(an_alert())
    await platform.work(7 * 3600, step=60)
    (dead,) = [record for record in platform.deliveries("oncall") if record.outcome == "dead"]
    assert "given up after" in (dead.reason or "")
    tries = len(channel.got)
    (message,) = platform.bus.messages("dlq-alerting")
    letter = platform.bus.codec.decode(message.topic, message.value)
    assert isinstance(letter, DeadLetter)
    (origin,) = platform.bus.messages("alerts")
    assert (letter.origin_topic, letter.origin_offset, letter.origin_value) == ("alerts", origin.offset, origin.value)
    assert "default/oncall" in letter.reason

    await platform.deliver(origin)
    await platform.work(60)
    assert len(channel.got) == tries, "the same message read again is no replay"
    channel.always = None
    await platform.bus.append("alerts", letter.origin_key, letter.origin_value, partition=letter.origin_partition)
    await platform.take()
    await platform.work(60)
    assert channel.told() == [("firing", ["a1"])]
    assert platform.channels["other"].told() == [("firing", ["a1"])], "who had it is not told again"
    await platform.bus.append("alerts", letter.origin_key, letter.origin_value, partition=letter.origin_partition)
    await platform.take()
    await platform.work(60)
    assert len(channel.told()) == 1


async def test_a_refusal_is_dead_at_once_and_the_next_alert_is_tried_anew(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    platform.channels["oncall"].answers = [REFUSED]
    await platform.publish(an_alert())
    await platform.work(60)
    assert platform.outcomes() == [("a1", "oncall", "dead")]
    await platform.publish(an_alert("a2"))
    await platform.work(60)
    assert platform.channels["oncall"].told() == [("firing", ["a2"])]


async def test_a_receiver_that_hangs_holds_up_nobody_else(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("slow", "quick", group_by=["fingerprint"]))
    slow = platform.channels["slow"] = FakeChannel(answers=["hangs"] * 100)
    await platform.publish(*several(20))
    for _ in range(200):
        await platform.dispatcher.sweep()
        await asyncio.sleep(0)
    assert len(slow.got) == 4, "no more at once than the receiver's share"
    assert Counter(each for _, ids in platform.channels["quick"].told() for each in ids) == Counter(
        alert.event_id for alert in several(20)
    )


async def test_a_message_that_fails_holds_up_none_that_follow_on_it(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall", group_interval_s=60))
    channel = platform.channels["oncall"] = FakeChannel(answers=[FAILED] * 9)
    await platform.publish(an_alert())
    await platform.work(100)
    await platform.publish(an_alert("b1", fingerprint="f2"))
    channel.answers = []
    await platform.work(10)
    assert channel.told() == [("firing", ["b1"])], "the first waits for its next try"
    await platform.work(300, step=5)
    assert channel.told() == [("firing", ["b1"]), ("firing", ["a1"])]
    assert await platform.store.standing(Keys.waiting("default/oncall")) == (0, None)


async def test_two_replicas_send_nothing_twice(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall", group_by=["fingerprint"]))
    platform.channels["oncall"] = FakeChannel(ticks=50)
    _, second, _ = platform.replica("two")
    await platform.publish(*several(30))
    for _ in range(60):
        await asyncio.gather(platform.dispatcher.sweep(), second.sweep())
        await asyncio.gather(platform.dispatcher.idle(), second.idle())
    told = Counter(each for _, ids in platform.channels["oncall"].told() for each in ids)
    assert told == Counter(alert.event_id for alert in several(30))
    assert len(platform.deliveries()) == 30


async def test_another_replica_takes_over_what_a_killed_one_was_sending(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    channel = platform.channels["oncall"] = FakeChannel(answers=["hangs"])
    await platform.publish(an_alert())
    await platform.dispatcher.sweep()
    await channel.begun.wait()
    _, platform.dispatcher, _ = platform.replica("two")
    await platform.work(10)
    assert channel.told() == [], "the first may still be sending"
    await platform.work(10)
    assert channel.told() == [("firing", ["a1"])]
    assert len({notification.notification_id for notification, _ in channel.got}) == 1


async def test_what_was_acknowledged_but_not_recorded_is_recorded_and_not_sent_again(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    await platform.publish(an_alert())
    platform.bus.fail_sends = 1
    with pytest.raises(ConnectionError):
        await platform.work()
    _, platform.dispatcher, _ = platform.replica("two")
    await platform.work(120)
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]
    assert platform.outcomes() == [("a1", "oncall", "delivered")]


async def test_a_hundred_alerts_of_a_group_are_one_message_and_the_next_waits_for_the_interval(
    platform_of: PlatformOf,
) -> None:
    platform = platform_of(an_entry("oncall", group_wait_s=10, group_interval_s=60))
    alerts = several(100)
    await platform.publish(*alerts[:60])
    await platform.work(5)
    assert not platform.channels["oncall"].got
    await platform.publish(*alerts[60:])
    await platform.work(6)
    ((_, told),) = platform.channels["oncall"].told()
    assert sorted(told) == sorted(alert.event_id for alert in alerts)
    notification = platform.channels["oncall"].got[0][0]
    assert notification.group == {"team": "support", "kind": "drift"}
    await platform.publish(an_alert("late", fingerprint="late"))
    await platform.work(50)
    assert len(platform.channels["oncall"].got) == 1
    await platform.work(15)
    assert platform.channels["oncall"].told()[1] == ("firing", ["late"])


async def test_groups_are_of_the_fields_that_the_route_names(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall", group_by=["team"], group_wait_s=5))
    await platform.publish(
        an_alert("a1"),
        an_alert("a2", fingerprint="f2", kind="cost"),
        an_alert("b1", fingerprint="f3", tenant_id="other"),
    )
    await platform.work(10)
    assert sorted(platform.channels["oncall"].told()) == [("firing", ["a1", "a2"]), ("firing", ["b1"])]


async def test_what_is_over_the_rate_is_told_in_one_summary(platform_of: PlatformOf) -> None:
    entry = an_entry("oncall", group_by=["fingerprint"], most_per_hour=3, repeat_interval_s=86_400)
    platform = platform_of(entry)
    platform.group_most = 5
    platform.desk, platform.dispatcher, platform.recovery = platform.replica("one")
    channel = platform.channels["oncall"]
    alerts = [*several(10), an_alert("worst", fingerprint="w", severity="warning")]
    await platform.publish(*alerts)
    await platform.work(5)
    assert len(channel.got) == 3
    waiting = [record for record in platform.deliveries() if record.outcome == "suppressed"]
    assert len(waiting) == 8, "those that wait for the summary are on record"
    assert all(record.next_try_at is not None for record in waiting)
    await platform.work(10)
    assert len(channel.got) == 4
    summary = channel.got[-1][0]
    told = [each for _, ids in channel.told() for each in ids]
    assert summary.left_out == 11 - len(told) == 3
    assert "worst" in told
    counted = [r for r in platform.deliveries() if r.outcome == "suppressed" and r.next_try_at is None]
    assert {record.notification_id for record in counted} == {summary.notification_id}
    assert Counter(told + [record.causation_id for record in counted]) == Counter(a.event_id for a in alerts)

    # One summary an hour: what comes later waits for the next, unless the hour has room again before.
    await platform.publish(
        *(replace(each, event_id=f"late-{each.event_id}", fingerprint=f"late-{each.event_id}") for each in several(5))
    )
    await platform.work(3000, step=60)
    assert len(channel.got) == 4
    await platform.work(1200, step=60)
    assert len(channel.got) == 5
    assert len(channel.told()[-1][1]) == 5
    await platform.publish(an_alert("calm", platform.clock.now(), fingerprint="calm"))
    await platform.work(5)
    assert channel.told()[-1] == ("firing", ["calm"])


async def test_what_is_critical_does_not_wait_behind_the_rest(platform_of: PlatformOf) -> None:
    entry = an_entry("oncall", group_by=["fingerprint"], most_per_hour=3, repeat_interval_s=86_400)
    platform = platform_of(entry)
    channel = platform.channels["oncall"]
    await platform.publish(*several(10))
    await platform.work(60)
    assert len(channel.got) == 4, "three messages and the summary of the hour"
    worse = [an_alert(f"c{n}", platform.clock.now(), fingerprint=f"c{n}", severity="critical") for n in range(5)]
    await platform.publish(*worse)
    await platform.work(10)
    assert sorted(channel.told()[4:]) == [("firing", [f"c{n}"]) for n in range(3)], (
        "as many messages again, and no more"
    )
    await platform.work(3600, step=60)
    told = Counter(each for _, ids in channel.told() for each in ids)
    assert told == {each.event_id: 1 for each in [*several(10), *worse]}


class Flooded(MemoryStore):
    """Whatever a transaction reads, more has gathered before it ends, as long as the flood goes on."""

    left = 50

    async def run(self, body: Body[T], *, rebuilding: bool = False) -> T:
        async def during(transaction: Transaction) -> T:
            result = await body(transaction)
            for key in [key for key, found in self.lists.items() if found and self.left]:
                self._apply(("RPUSH", key, self.lists[key][-1]))
                self.left -= 1
            return result

        return await super().run(during, rebuilding=rebuilding)


async def test_a_flood_does_not_keep_its_group_from_being_sent(catalogue: Catalogue) -> None:
    store = Flooded()
    platform = Platform(catalogue, an_entry("oncall", group_wait_s=1), store)
    await platform.publish(an_alert("a1"))
    await platform.work(120)
    assert store.left == 0
    assert store.conflicts == 0
    assert platform.channels["oncall"].told()[0] == ("firing", ["a1"])


async def test_a_receiver_that_cannot_be_opened_is_told_of_to_the_others(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("broken", "oncall"))
    platform.misconfigured = {"broken"}
    await platform.publish(an_alert())
    await platform.work(30)
    (dead,) = [r for r in platform.deliveries("broken") if r.outcome == "dead"]
    assert "BROKEN_URL is not set" in (dead.reason or "")
    names = [alert.name for n, _ in platform.channels["oncall"].got for alert in n.alerts]
    assert sorted(names) == ["receiver_misconfigured", "topic_shift"]
    assert len(platform.bus.messages("dlq-alerting")) == 1
    platform.misconfigured = set()
    await platform.publish(an_alert("b1", at=platform.clock.now(), fingerprint="f2"))
    await platform.work(30)
    assert ("firing", ["b1"]) in platform.channels["broken"].told()
    last = platform.channels["oncall"].got[-1][0]
    assert (last.purpose, last.alerts[0].name) == ("resolved", "receiver_misconfigured")


@pytest.mark.parametrize("remedy", ["removed", "set"])
@pytest.mark.parametrize("forgotten", [False, True])
async def test_what_is_told_of_a_receiver_ends_though_nothing_is_sent_to_it_any_more(
    platform_of: PlatformOf, remedy: str, forgotten: bool
) -> None:
    platform = platform_of(an_entry("oncall", "broken", repeat_interval_s=86_400))
    platform.misconfigured = {"broken"}
    await platform.publish(an_alert())
    await platform.work(30)
    if forgotten:
        platform.store.flush()
        await platform.work(30)
    assert [n.purpose for n, _ in platform.channels["oncall"].got] == ["firing", "firing"]
    if remedy == "removed":
        platform.plane.put("default", an_entry("oncall", repeat_interval_s=86_400))
    else:
        platform.misconfigured = set()
    await platform.work(30)
    last = platform.channels["oncall"].got[-1][0]
    assert (last.purpose, last.alerts[0].name) == ("resolved", "receiver_misconfigured")
    assert ("removed" in last.alerts[0].title) == (remedy == "removed")
    assert not await platform.store.members(Keys.MISCONFIGURED)
    count = len(platform.bus.messages("alerts"))
    await platform.work(120)
    assert len(platform.bus.messages("alerts")) == count == 3


async def test_receivers_that_are_all_misconfigured_do_not_tell_of_each_other_for_ever(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("one", "two"))
    platform.misconfigured = {"one", "two"}
    await platform.publish(an_alert())
    await platform.work(600, step=5)
    assert len(platform.bus.messages("alerts")) == 3


async def test_every_alert_is_accounted_for_though_nobody_is_told(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall", match={"kind": "drift"}))
    old = platform.clock.now() - timedelta(days=2)
    await platform.publish(
        an_alert("unrouted", kind="cost", fingerprint="x"),
        an_alert("stale", at=old, fingerprint="y"),
        an_alert("end", fingerprint="z", status="resolved"),
        an_alert("a1"),
        an_alert("a2"),
    )
    await platform.work(5)
    reasons = {r.causation_id: (r.outcome, r.reason or "") for r in platform.deliveries()}
    assert {event: outcome for event, (outcome, _) in reasons.items()} == {
        "unrouted": "suppressed", "stale": "suppressed", "end": "suppressed", "a1": "delivered", "a2": "suppressed",
    }  # fmt: skip
    for event, word in (("unrouted", "no route"), ("stale", "stale"), ("end", "never raised"), ("a2", "a1")):
        assert word in reasons[event][1]


async def test_a_message_read_again_gives_the_same_records_and_changes_nothing(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    await platform.publish(an_alert("a1"), an_alert("a2"))
    await platform.work(5)
    before = platform.deliveries()
    for message in platform.bus.messages("alerts"):
        await platform.deliver(message)
    await platform.work(60)
    assert platform.deliveries() == before
    assert len(platform.channels["oncall"].got) == 1


async def test_configuration_is_live(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("first"))
    channel = platform.channels["first"] = FakeChannel(always=FAILED)
    await platform.publish(an_alert())
    await platform.work(10)
    platform.plane.put("default", an_entry("second"))
    await platform.work(30)
    assert {r.outcome for r in platform.deliveries("first")} == {"failed", "dead"}
    assert "no longer" in (platform.deliveries("first")[-1].reason or "")
    tries = len(channel.got)
    await platform.publish(an_alert("b1", fingerprint="f2"))
    await platform.work(5)
    assert platform.channels["second"].told() == [("firing", ["a1"]), ("firing", ["b1"])]
    assert len(channel.got) == tries


@pytest.mark.parametrize("attempts", [1, 2, 5, 10, 11, 50, 1000])
def test_pauses_grow_to_ten_minutes(attempts: int) -> None:
    low, high = pause_s(attempts, 0.0), pause_s(attempts, 1.0)
    assert 0.5 <= low <= high <= 600
    assert high == min(600, 2.0 ** (attempts - 1))
    assert pause_s(attempts, 0.5, 90) >= 90
    assert pause_s(attempts, 0.5, 1e9) == 3600


async def test_the_queue_can_be_watched(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("watched", group_by=["fingerprint"]))
    platform.channels["watched"] = FakeChannel(always=FAILED)
    await platform.publish(*several(3))
    await platform.work(600, step=10)

    def metric(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"receiver": "default/watched", **labels}) or 0.0

    assert metric("penstock_alert_messages_waiting") == 3
    assert 590 <= metric("penstock_alert_oldest_seconds") <= 600
    assert metric("penstock_alert_tries_total", outcome="failed") == len(platform.deliveries())
    platform.channels["watched"].always = None
    await platform.work(1300, step=10)
    assert metric("penstock_alert_messages_waiting") == metric("penstock_alert_oldest_seconds") == 0
    assert metric("penstock_alert_tries_total", outcome="delivered") == 3

"""What is told as time passes and people act: silences, escalation, acknowledgement, repeats, ends."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from penstock.contracts.catalogue import Catalogue

from services.alerting.channels.protocol import Attempt
from services.alerting.incidents import Silence
from services.alerting.store import Keys, Transaction
from tests.unit.alerting_fakes import FakeChannel, Platform, PlatformOf, an_action, an_alert, an_entry

FAILED = Attempt(outcome="retry", status_code=500, reason="HTTP 500")


@pytest.fixture
def platform_of(catalogue: Catalogue) -> PlatformOf:
    return lambda entry: Platform(catalogue, entry)


async def test_a_silence_holds_back_and_what_still_fires_is_told_when_it_ends(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    now = platform.clock.now()
    await platform.act(
        an_action(
            "silence",
            now,
            fingerprint=None,
            silence_id="s1",
            match={"route": "def*"},
            ends_at=now + timedelta(hours=1),
        )
    )
    await platform.publish(an_alert("a1"), an_alert("b1", fingerprint="f2"), an_alert("c1", labels={}, fingerprint="c"))
    await platform.work(1800, step=60)
    assert platform.channels["oncall"].told() == [("firing", ["c1"])]
    await platform.publish(an_alert("b2", at=platform.clock.now(), fingerprint="f2", status="resolved"))
    await platform.work(1900, step=60)
    assert platform.channels["oncall"].told() == [("firing", ["c1"]), ("firing", ["a1"])]
    assert [outcome for event, _, outcome in platform.outcomes() if event == "a1"] == ["suppressed", "delivered"]

    async def silences(transaction: Transaction) -> list[Silence]:
        return await transaction.mapped(Silence, Keys.SILENCES)

    assert await platform.store.run(silences) == []


async def test_a_silence_that_is_ended_early_lets_through_at_once(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    now = platform.clock.now()
    silence = an_action(
        "silence", now, fingerprint=None, silence_id="s1", match={"kind": "*"}, ends_at=now + timedelta(hours=1)
    )
    await platform.act(silence)
    await platform.publish(an_alert())
    await platform.work(60, step=10)
    await platform.act(an_action("unsilence", platform.clock.now(), fingerprint=None, silence_id="s1"))
    await platform.work(5)
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]


async def test_nobody_answers_and_the_next_is_called_in_steps(platform_of: PlatformOf) -> None:
    steps = [{"after_s": 300, "receivers": ["boss"]}, {"after_s": 900, "receivers": ["boss2"], "severity": "critical"}]
    platform = platform_of(an_entry("oncall", "boss", "boss2", escalate=steps))
    await platform.publish(an_alert(), an_alert("b1", fingerprint="f2", severity="critical"))
    await platform.work(290, step=10)
    assert not platform.channels["boss"].got
    await platform.work(30, step=10)
    assert {each for p, ids in platform.channels["boss"].told() for each in ids if p == "escalation"} == {"a1", "b1"}
    await platform.work(900, step=10)
    assert platform.channels["boss2"].told() == [("escalation", ["b1"])]
    await platform.publish(an_alert("b2", at=platform.clock.now(), fingerprint="f2", status="resolved"))
    await platform.work(60)
    for name in ("oncall", "boss", "boss2"):
        assert ("resolved", ["b2"]) in platform.channels[name].told()


async def test_an_acknowledgement_ends_retries_escalation_and_repeats(platform_of: PlatformOf) -> None:
    steps = [{"after_s": 300, "receivers": ["boss"]}]
    platform = platform_of(an_entry("oncall", "down", "boss", escalate=steps, repeat_interval_s=600))
    down = platform.channels["down"] = FakeChannel(always=FAILED)
    await platform.publish(an_alert())
    await platform.work(120, step=5)
    tries = len(down.got)
    assert tries > 3
    until = platform.clock.now() + timedelta(hours=1)
    await platform.act(an_action("acknowledge", platform.clock.now(), ends_at=until))
    await platform.work(3000, step=30)
    assert len(down.got) == tries
    assert not platform.channels["boss"].got
    assert platform.channels["oncall"].told() == [("firing", ["a1"])]
    (held,) = [r for r in platform.deliveries("down") if r.outcome == "suppressed"]
    assert "acknowledged by ada" in (held.reason or "")
    await platform.work(700, step=10)
    assert platform.channels["oncall"].told()[1:] == [("repeat", ["a1"])], "it ended, and the condition goes on"
    assert len(down.got) > tries
    await platform.work(310, step=10)
    assert platform.channels["boss"].told() == [("escalation", ["a1"])]


async def test_when_an_acknowledgement_ends_the_escalation_begins_anew(platform_of: PlatformOf) -> None:
    steps = [{"after_s": 300, "receivers": ["boss"]}, {"after_s": 600, "receivers": ["boss2"]}]
    platform = platform_of(an_entry("oncall", "boss", "boss2", escalate=steps, repeat_interval_s=80_000))
    platform.channels["boss2"] = FakeChannel(always=FAILED)
    await platform.publish(an_alert())
    await platform.work(660, step=10)
    assert platform.channels["boss"].told() == [("escalation", ["a1"])]
    assert platform.channels["boss2"].got
    until = platform.clock.now() + timedelta(hours=1)
    await platform.act(an_action("acknowledge", platform.clock.now(), ends_at=until))
    await platform.work(60, step=10)
    platform.channels["boss2"] = FakeChannel()
    platform.desk, platform.dispatcher, platform.recovery = platform.replica("two")
    await platform.work(3800, step=20)
    assert len(platform.channels["boss"].told()) == 1
    await platform.work(60, step=10)
    assert platform.channels["boss"].told() == [("escalation", ["a1"])] * 2
    assert not platform.channels["boss2"].got
    await platform.act(an_action("acknowledge", platform.clock.now()))
    await platform.work(600, step=20)
    await platform.act(an_action("unacknowledge", platform.clock.now()))
    await platform.work(590, step=10)
    assert not platform.channels["boss2"].got
    await platform.work(30, step=10)
    assert platform.channels["boss2"].told() == [("escalation", ["a1"])]
    assert len(platform.channels["boss"].told()) == 3


async def test_what_gets_worse_is_told_though_acknowledged(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    await platform.publish(an_alert())
    await platform.work(5)
    await platform.act(an_action("acknowledge", platform.clock.now()))
    await platform.publish(an_alert("a2", at=platform.clock.now(), severity="critical"))
    await platform.work(5)
    assert platform.channels["oncall"].told() == [("firing", ["a1"]), ("firing", ["a2"])]


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_what_gets_worse_leaves_the_time_to_answer_before_the_next_is_called(
    platform_of: PlatformOf, acknowledged: bool
) -> None:
    steps = [{"after_s": 300, "receivers": ["boss"], "severity": "critical"}]
    platform = platform_of(an_entry("oncall", "boss", escalate=steps, repeat_interval_s=80_000))
    await platform.publish(an_alert())
    await platform.work(30)
    if acknowledged:
        await platform.act(an_action("acknowledge", platform.clock.now()))
    await platform.work(3600, step=60)
    await platform.publish(an_alert("a2", at=platform.clock.now(), severity="critical"))
    await platform.work(290, step=10)
    assert platform.channels["oncall"].told() == [("firing", ["a1"]), ("firing", ["a2"])]
    assert not platform.channels["boss"].got
    await platform.work(30, step=10)
    assert platform.channels["boss"].told() == [("escalation", ["a2"])]


async def test_a_silence_of_the_settings_keeps_no_list_of_what_it_covers(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    platform.silences = (Silence("settings-0", {"kind": "*"}, None, platform.clock.now() + timedelta(days=900)),)
    platform.desk, platform.dispatcher, platform.recovery = platform.replica("one")
    await platform.publish(an_alert())
    await platform.work(30)
    assert not platform.channels["oncall"].got
    assert await platform.store.members(Keys.silenced("settings-0")) == set()


async def test_someone_resolves_and_those_who_were_told_hear_it(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    await platform.publish(an_alert())
    await platform.work(5)
    await platform.act(an_action("resolve", platform.clock.now()))
    await platform.work(5)
    purposes = [purpose for purpose, _ in platform.channels["oncall"].told()]
    assert purposes == ["firing", "resolved"]
    resolved = platform.channels["oncall"].got[-1][0].alerts[0]
    assert resolved.status == "resolved"
    assert resolved.description.startswith("Resolved by ada: looking.")


async def test_a_condition_that_is_not_raised_again_is_resolved(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall", resolve_after_s=600))
    await platform.publish(an_alert())
    await platform.work(500, step=10)
    await platform.publish(an_alert("a2", at=platform.clock.now()))
    await platform.work(590, step=10)
    assert [purpose for purpose, _ in platform.channels["oncall"].told()] == ["firing"]
    await platform.work(120, step=10)
    assert [purpose for purpose, _ in platform.channels["oncall"].told()] == ["firing", "resolved"]
    assert len(platform.bus.messages("alerts")) == 3, "that it ended stands on the log"


async def test_an_end_is_told_after_the_beginning_however_long_that_takes(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall"))
    channel = platform.channels["oncall"] = FakeChannel(always=FAILED)
    await platform.publish(an_alert())
    await platform.work(100, step=5)
    await platform.publish(an_alert("a2", at=platform.clock.now(), status="resolved"))
    await platform.work(100, step=5)
    channel.always = None
    await platform.work(200, step=5)
    assert channel.told() == [("firing", ["a1"]), ("resolved", ["a2"])]


async def test_what_goes_on_is_repeated_until_it_is_too_old(platform_of: PlatformOf) -> None:
    platform = platform_of(an_entry("oncall", repeat_interval_s=4 * 3600))
    await platform.publish(an_alert())
    await platform.work(48 * 3600, step=900)
    purposes = Counter(purpose for purpose, _ in platform.channels["oncall"].told())
    assert purposes == {"firing": 1, "repeat": 6}
    assert len({n.notification_id for n, _ in platform.channels["oncall"].got}) == 7

"""What alerting writes to the log, its settings, and which way an alert takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from penstock.config.alerting import Alerting, AlertRoute, Receiver
from penstock.config.plane import ConfigPlane
from penstock.contracts.codec import Codec
from penstock.settings import SettingsError, load_settings

from services.alerting.channels.protocol import Attempt
from services.alerting.core import about_receiver, held_at_once, misconfigured, resolution, settled, usable_again
from services.alerting.groups import Ending, Entry, Group, Held, Job, composed, ending_of, notification_of
from services.alerting.routing import BUILT_IN, Directory, group_fields, group_id, plan_of
from services.alerting.settings import Settings
from tests.unit.alerting_fakes import MAX_AGE, an_alert, an_entry

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RUNBOOKS = Path(__file__).resolve().parents[2] / "services" / "alerting" / "runbooks"


def entry(event_id: str, minutes: float = 0, **changes: object) -> Entry:
    alert = an_alert(event_id, NOW + timedelta(minutes=minutes), **changes)
    return Entry(f"entry-{event_id}", alert, 0, NOW)


def a_group(*entries: Entry, **changes: object) -> Group:
    job = Job("n1", entries, NOW, channel="webhook", destination="https://hooks.example")
    group = Group("g1", "default", "oncall", "firing", {"team": "support"}, 10, 60, 60, busy=True, job=job)
    return replace(group, **changes)


def test_what_is_recorded_is_the_same_after_a_replay_and_differs_by_try_receiver_and_purpose(codec: Codec) -> None:
    group = a_group(entry("a1"))
    assert group.job is not None

    def ids(changed: Group, attempts: int, **job: object) -> list[str]:
        assert changed.job is not None
        ended = replace(changed.job, attempts=attempts, ending=Ending("failed", NOW, 500, "HTTP 500", NOW), **job)
        emits = list(settled(replace(changed, job=ended)))
        assert emits == list(settled(replace(changed, job=ended)))
        for emit in emits:
            assert codec.decode("alert-deliveries", codec.encode(emit.topic, emit.record)) == emit.record
            assert emit.key == "f1"
        return [emit.record.event_id for emit in emits]

    held = (Held(entry("a2"), "withheld", "silenced", NOW),)
    every = [
        *ids(group, 1, held=held),
        *ids(group, 2),
        *ids(replace(group, receiver="boss"), 1),
        *ids(replace(group, purpose="repeat"), 1),
        held_at_once(an_alert(), "", "no route takes it", NOW).record.event_id,
        held_at_once(an_alert(), "oncall", "repeats a0", NOW).record.event_id,
    ]
    assert len(every) == len(set(every)) == 7


def test_a_message_names_its_alerts_oldest_first_and_its_identity_depends_on_each() -> None:
    plain = a_group().__class__("g1", "default", "oncall", "firing", {}, 10, 60, 60)
    some = [entry("a2", 2), entry("a1", 1), entry("a3", 3)]
    first = composed(plain, some, 100, NOW)
    assert [alert.event_id for alert in notification_of(first).alerts] == ["a1", "a2", "a3"]
    again = composed(plain, some[::-1], 100, NOW)
    assert notification_of(again).notification_id == notification_of(first).notification_id
    fewer = composed(plain, some[:2], 100, NOW)
    assert notification_of(fewer).notification_id != notification_of(first).notification_id
    other = composed(replace(plain, receiver="boss"), some, 100, NOW)
    assert notification_of(other).notification_id != notification_of(first).notification_id


def test_tries_end_after_the_receivers_time() -> None:
    job = Job("n1", (entry("a1"),), NOW)
    failed = Attempt(outcome="retry", status_code=503, reason="HTTP 503")
    assert ending_of(job, failed, 100, 600, NOW + timedelta(seconds=499)).outcome == "failed"
    given_up = ending_of(job, failed, 100, 600, NOW + timedelta(seconds=501))
    assert (given_up.outcome, given_up.status_code, given_up.next_try_at) == ("dead", 503, None)
    assert ending_of(job, Attempt(outcome="dead"), 100, 600, NOW).outcome == "dead"
    assert ending_of(job, Attempt(outcome="delivered"), 100, 600, NOW).outcome == "delivered"


def test_that_a_condition_ended_is_the_same_alert_however_often_it_is_said() -> None:
    first, again = (resolution(an_alert(), "cause", "It ended.", NOW) for _ in range(2))
    assert first == again
    assert (first.topic, first.key, first.record.status) == ("alerts", "f1", "resolved")
    assert first.record.event_id != resolution(an_alert(), "other", "It ended.", NOW).record.event_id


def test_that_a_condition_ended_is_never_longer_than_that_it_began(codec: Codec) -> None:
    long = "ä" * 4_000_000
    for alert in (
        an_alert(description=long),
        an_alert(suggested_action=long),
        an_alert(sample_requests=["r" * 100] * 80_000),
    ):
        ended = resolution(alert, "cause", long, NOW).record
        assert len(codec.encode("alerts", ended)) < len(codec.encode("alerts", alert))
    ended = resolution(an_alert(description="Short."), "cause", "It ended.", NOW).record
    assert (ended.description, ended.sample_requests) == ("It ended. Short.", ["r1", "r2"])


def test_alerts_about_a_receiver_name_it_and_end_under_the_same_fingerprint(codec: Codec) -> None:
    group = a_group(entry("a1"))
    begun = misconfigured(group, "the variable X is not set", NOW)
    assert begun is not None
    ended = usable_again(begun.record, False, NOW)
    assert begun.key == ended.key == about_receiver("default", "oncall")
    assert ended.record.status == "resolved"
    assert codec.decode("alerts", codec.encode("alerts", begun.record)) == begun.record
    assert begun.record.labels == {"team": "support", "receiver": "oncall", "entry": "default"}
    assert "the variable X is not set" in begun.record.description
    about = a_group(Entry("e", begun.record, 0, NOW))
    assert misconfigured(about, "also this one", NOW) is None


def test_the_first_route_that_matches_counts_and_what_is_published_goes_before_what_is_built_in() -> None:
    receivers = tuple(Receiver(name=name, type="console") for name in ("cost", "rest", "boss"))
    routes = (
        AlertRoute(match={"kind": "cost"}, receivers=("cost",)),
        AlertRoute(match={"severity": "c*", "route": "def*"}, receivers=("boss",)),
        AlertRoute(receivers=("rest",)),
    )
    alerting = Alerting(name="default", receivers=receivers, routes=routes)
    for alert, wanted in [
        (an_alert(kind="cost", severity="critical"), "cost"),
        (an_alert(severity="critical"), "boss"),
        (an_alert(severity="critical", labels={}), "rest"),
        (an_alert(), "rest"),
    ]:
        plan = plan_of(alert, alerting, MAX_AGE)
        assert plan is not None
        assert plan.receivers == (wanted,)
    assert plan_of(an_alert(), Alerting(name="x", receivers=receivers, routes=routes[:1]), MAX_AGE) is None
    plane = ConfigPlane.of([])
    directory = Directory(plane, an_entry("builtin"), MAX_AGE)
    plan = directory.plan(an_alert())
    assert plan is not None
    assert plan.receivers == ("builtin",)
    plane.put("support", an_entry("own"))
    plan = directory.plan(an_alert())
    assert plan is not None
    assert plan.receivers == ("own",)


def test_an_alert_about_a_receiver_does_not_go_to_it() -> None:
    broken = an_alert(kind="health", name="receiver_misconfigured", labels={"receiver": "one"})
    both, alone = an_entry("one", "two"), an_entry("one")
    plan = plan_of(broken, both, MAX_AGE)
    assert plan is not None
    assert plan.receivers == ("two",)
    elsewhere = Alerting(name="x", receivers=both.receivers, routes=(AlertRoute(receivers=("one",)),))
    plan = plan_of(broken, elsewhere, MAX_AGE)
    assert plan is not None
    assert plan.receivers == ("two",)
    plan = plan_of(broken, alone, MAX_AGE)
    assert plan is not None
    assert plan.receivers == ()


def test_groups_differ_by_what_the_route_says_receiver_and_purpose() -> None:
    plan = plan_of(an_alert(), an_entry("oncall", group_by=["team", "route"]), MAX_AGE)
    assert plan is not None
    fields = group_fields(an_alert(), plan.route)
    assert fields == {"team": "support", "route": "default"}
    assert group_fields(an_alert(labels={}), plan.route)["route"] == ""
    same = group_id(plan, "oncall", "firing", group_fields(an_alert("a9", kind="cost"), plan.route))
    assert same == group_id(plan, "oncall", "firing", fields)
    others = {
        group_id(plan, "boss", "firing", fields),
        group_id(plan, "oncall", "resolved", fields),
        group_id(plan, "oncall", "firing", fields | {"team": "other"}),
    }
    assert len({same} | others) == 4


@pytest.mark.parametrize("kind", ["cost", "toxicity", "quality", "drift", "guardrail", "health"])
def test_every_kind_has_its_runbook(kind: str) -> None:
    assert (RUNBOOKS / f"{kind}.md").read_text().startswith(f"# {kind.capitalize()}\n")


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ALERT_WEBHOOK_URL", "ftp://somewhere/x", "http:// or https://"),
        ("ALERT_SILENCES", '[{"match": {"kind": "drift"}, "until": "2026-01-01T00:00:00"}]', "time zone"),
        ("ALERT_SILENCES", '[{"match": {}, "until": "2026-01-01T00:00:00Z"}]', "empty match"),
        ("ALERT_SILENCES", '[{"matches": {}}]', "matches"),
        ("ALERT_ALLOWED_DESTINATIONS", '["https://x/y"]', "host name"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as refused:
        load_settings(Settings)
    assert told in str(refused.value)


def test_settings_make_the_built_in_way_and_hide_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    (receiver,) = load_settings(Settings).otherwise().receivers
    assert receiver.type == "console"
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "https://hooks.example/services/T0/secret-part")
    monkeypatch.setenv("ALERT_WEBHOOK_SECRET", "whsec_x")
    monkeypatch.setenv("ALERT_WEBHOOK_RETRY_S", "300")
    monkeypatch.setenv(
        "ALERT_SILENCES", '[{"match": {"kind": "drift"}, "until": "2026-01-05T10:00:00Z", "reason": "x"}]'
    )
    settings = load_settings(Settings)
    built_in = settings.otherwise()
    assert built_in.name == BUILT_IN
    (receiver,) = built_in.receivers
    assert (receiver.type, receiver.url_env, receiver.secret_env) == (
        "webhook", "ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET",
    )  # fmt: skip
    assert receiver.retry_for_s == 300
    assert built_in.routes[0].group_wait_s == 2
    (silence,) = settings.silences()
    assert silence.covers({"kind": "drift"}, NOW)
    assert not silence.covers({"kind": "drift"}, NOW + timedelta(hours=1))
    assert not silence.covers({"kind": "cost"}, NOW)
    assert "secret-part" not in str(settings.redacted())

"""The incident as a state machine: whatever comes in whatever order, nobody is told too much and every alert is
accounted for."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from penstock.contracts.records import Alert

from services.alerting.decisions import decide, expired, wake_at
from services.alerting.incidents import Incident, Settled, Silence, Tell, act, observe, rank, settle
from services.alerting.routing import Plan, plan_of
from tests.unit.alerting_fakes import an_action, an_alert, an_entry

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
STEPS = [{"after_s": 600, "receivers": ["boss"]}]
ENTRY = an_entry("oncall", "log", "boss", escalate=STEPS, repeat_interval_s=3600, resolve_after_s=20_000)


def a_plan(alert: Alert | None) -> Plan | None:
    return None if alert is None else plan_of(alert, ENTRY, timedelta(hours=24))


class Incidents(RuleBasedStateMachine):
    """One incident, three receivers, a reader of the log that repeats and reorders, and a dispatcher that is slow."""

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.incident: Incident | None = None
        self.silences: list[Silence] = []
        self.under_way: dict[str, Tell] = {}
        self.delivered: list[tuple[str, Tell]] = []
        self.seen: set[str] = set()
        self.accounted: Counter[str] = Counter()
        self.published = 0

    def decided(self) -> tuple[list[Tell], dict[str, str]]:
        assert self.incident is not None
        plan = a_plan(self.incident.alert)
        before = self.incident
        self.incident, tells, reasons = decide(self.incident, plan, self.silences, self.now)
        again, more, _ = decide(self.incident, plan, self.silences, self.now)
        assert (again, more) == (self.incident, []), "asked again, nothing more is told"
        silenced = before.alert is not None and any(
            s.covers({"kind": before.alert.kind, "team": "support"}, self.now) for s in self.silences
        )
        for tell in tells:
            assert tell.receiver not in self.under_way, "one message at a time"
            assert not silenced
            if self.incident.status == "firing":
                assert self.incident.acknowledgement is None, "no message after an acknowledgement"
                assert tell.purpose != "resolved"
            else:
                assert tell.purpose == "resolved"
                assert any(name == tell.receiver for name, _ in self.delivered), "told that it ends, not that it fires"
            if tell.receiver == "boss" and tell.purpose != "resolved":
                assert tell.purpose in {"escalation", "repeat", "firing"}
                assert "boss" in self.incident.escalated
            self.under_way[tell.receiver] = tell
        wake = wake_at(self.incident, plan, self.silences, self.now)
        assert wake is None or wake > self.now
        return tells, reasons

    @rule(
        target=sent,
        age_s=st.integers(0, 3000),
        status=st.sampled_from(["firing", "firing", "resolved"]),
        severity=st.sampled_from(["info", "warning", "critical"]),
    )
    def publish(self, age_s: int, status: str, severity: str) -> Alert:
        self.published += 1
        at = self.now - timedelta(seconds=age_s)
        alert = an_alert(f"a{self.published}", at, status=status, severity=severity)
        self.take(alert)
        return alert

    @rule(alert=sent)
    def repeat(self, alert: Alert) -> None:
        """The log gives an alert twice: whoever keeps the events that came does not ask the incident again."""
        self.take(alert)

    def take(self, alert: Alert) -> None:
        if alert.event_id in self.seen:
            return
        self.seen.add(alert.event_id)
        self.incident, reason = observe(self.incident, alert)
        tells, reasons = self.decided()
        told = any(tell.alert.event_id == alert.event_id for tell in tells)
        if reason is None:
            assert told or reasons or tells, "every alert is told, or there is a reason why not"
            names = [tell.receiver for tell in tells] + list(reasons)
            assert len(names) == len(set(names)), "a receiver is told or not"
            if "" not in reasons and self.incident.status == "firing":
                assert {"oncall", "log"} <= set(names), "every receiver of the route is accounted for"
        self.accounted[alert.event_id] += 1

    @rule(seconds=st.sampled_from([1, 60, 599, 601, 3601, 20_001, 90_000]))
    def pass_time(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        if self.incident is not None:
            self.decided()

    @rule(minutes=st.one_of(st.none(), st.integers(1, 600)))
    def acknowledge(self, minutes: int | None) -> None:
        ends_at = None if minutes is None else self.now + timedelta(minutes=minutes)
        self.incident = act(self.incident, "f1", an_action("acknowledge", self.now, ends_at=ends_at))
        tells, _ = self.decided()
        assert not [tell for tell in tells if tell.purpose != "resolved"] or self.incident.acknowledgement is None

    @rule()
    def unacknowledge(self) -> None:
        self.incident = act(self.incident, "f1", an_action("unacknowledge", self.now))
        self.decided()

    @rule(minutes=st.integers(1, 600))
    def silence(self, minutes: int) -> None:
        ends_at = self.now + timedelta(minutes=minutes)
        self.silences.append(Silence(f"s{len(self.silences)}", {"kind": "dri*"}, None, ends_at))

    @rule()
    def unsilence(self) -> None:
        self.silences.clear()
        if self.incident is not None:
            self.decided()

    @rule(pick=st.integers(0, 2), outcome=st.sampled_from(["delivered", "delivered", "dead", "left_out", "withheld"]))
    def end(self, pick: int, outcome: Settled) -> None:
        if not self.under_way or self.incident is None:
            return
        name = sorted(self.under_way)[pick % len(self.under_way)]
        tell = self.under_way.pop(name)
        if outcome == "delivered":
            self.delivered.append((name, tell))
        self.incident = settle(self.incident, name, tell.alert.event_id, tell.purpose, outcome, self.now)
        self.decided()

    @invariant()
    def what_is_under_way_is_known(self) -> None:
        if self.incident is None:
            return
        queued = {name: told.queued.event_id for name, told in self.incident.told.items() if told.queued is not None}
        assert queued == {name: tell.alert.event_id for name, tell in self.under_way.items()}
        assert all(count == 1 for count in self.accounted.values())

    @invariant()
    def receivers_are_told_in_turn(self) -> None:
        for receiver in ("oncall", "log", "boss"):
            ends = [tell.purpose == "resolved" for name, tell in self.delivered if name == receiver]
            assert not ends or not ends[0], "the first word is never an end"
            assert not any(one and two for one, two in itertools.pairwise(ends)), "no end is told twice"

    @invariant()
    def the_worst_is_told_in_the_end(self) -> None:
        incident = self.incident
        if incident is None or incident.status != "firing" or incident.acknowledgement or self.under_way:
            return
        fresh = incident.newest is not None and self.now - incident.newest <= timedelta(hours=24)
        if not fresh or any(s.covers({"kind": "drift"}, self.now) for s in self.silences):
            return
        told = incident.told.get("oncall")
        if told is None or told.last is None:
            return
        if told.outcome == "delivered":
            assert rank(told.last.severity) >= rank(incident.severity) or told.last.episode != incident.episode


Incidents.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None, derandomize=True)
test_incidents = Incidents.TestCase


def told(alert: Alert, incident: Incident | None = None, now: datetime = NOW) -> tuple[Incident, list[Tell]]:
    known, _ = observe(incident, alert)
    known, tells, _ = decide(known, a_plan(known.alert), [], now)
    for tell in tells:
        known = settle(known, tell.receiver, tell.alert.event_id, tell.purpose, "delivered", now)
    return known, tells


@pytest.mark.parametrize(
    ("minutes", "changes", "purposes", "reason"),
    [
        (59, {}, [], "repeats a0"),
        (60, {}, ["repeat", "repeat"], None),
        (5, {"severity": "critical"}, ["firing", "firing"], None),
        (5, {"severity": "info"}, [], "repeats a0"),
        (5, {"status": "resolved"}, ["resolved", "resolved"], None),
    ],
)
def test_what_follows_on_an_alert(
    minutes: int, changes: dict[str, object], purposes: list[str], reason: str | None
) -> None:
    # Before the time of the escalation, which has its own tests.
    incident, _ = told(an_alert("a0", NOW))
    incident = Incident(**{f: getattr(incident, f) for f in incident.__struct_fields__} | {"escalated": ("boss",)})
    now = NOW + timedelta(minutes=minutes)
    known, superseded = observe(incident, an_alert("a1", now, **changes))
    assert superseded is None
    _, tells, reasons = decide(known, a_plan(known.alert), [], now)
    assert [tell.purpose for tell in tells if tell.receiver != "boss"] == purposes
    assert {why for name, why in reasons.items() if name != "boss"} == (
        set() if reason is None else {f"{reason} within 1:00:00"}
    )


def test_events_out_of_order_change_nothing_that_newer_ones_say() -> None:
    incident, _ = told(an_alert("a0", NOW))
    incident, tells = told(an_alert("a1", NOW + timedelta(minutes=2), status="resolved"), incident)
    assert len(tells) == 2
    known, why = observe(incident, an_alert("late", NOW + timedelta(minutes=1)))
    assert (known.status, why) == ("resolved", f"it was resolved at {(NOW + timedelta(minutes=2)).isoformat()}")
    incident, tells = told(an_alert("a3", NOW + timedelta(minutes=5)), incident)
    assert [tell.purpose for tell in tells] == ["firing", "firing"]
    known, why = observe(incident, an_alert("old end", NOW + timedelta(minutes=4), status="resolved"))
    assert known.status == "firing"
    assert "raised again" in (why or "")


def test_an_acknowledgement_that_comes_before_its_alert_holds_and_ends_with_the_episode() -> None:
    incident = act(None, "f1", an_action("acknowledge", NOW + timedelta(seconds=5)))
    incident, _ = observe(incident, an_alert("a0", NOW))
    incident, tells, reasons = decide(incident, a_plan(incident.alert), [], NOW)
    assert not tells
    assert "acknowledged by ada" in reasons[""]
    incident, _ = observe(incident, an_alert("a1", NOW + timedelta(minutes=1), status="resolved"))
    incident, tells = told(an_alert("a2", NOW + timedelta(minutes=2)), incident)
    assert len(tells) == 2


def test_an_incident_ends_by_time_and_not_before() -> None:
    incident, _ = told(an_alert("a0", NOW))
    plan = a_plan(incident.alert)
    assert not expired(incident, plan, NOW + timedelta(seconds=19_999))
    assert expired(incident, plan, NOW + timedelta(seconds=20_000))
    assert not expired(incident, None, NOW + timedelta(days=9))

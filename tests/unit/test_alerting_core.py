"""Alert delivery, pure: decisions, keys, signatures, the meaning of answers."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.codec import Codec
from penstock.contracts.records import Alert
from penstock.settings import SettingsError, load_settings

from services.alerting.core import (
    Policy,
    Receipt,
    Remembered,
    Silence,
    backoff,
    decide,
    group_of,
    idempotency_key,
    meaning_of,
    payload,
    recorded,
    remembered,
    runbook_of,
    signature,
)
from services.alerting.rendering import render
from services.alerting.settings import Settings

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RUNBOOKS = Path(__file__).resolve().parents[2] / "services" / "alerting" / "runbooks"


def an_alert(event_id: str = "a1", minutes: float = 0, **changes: object) -> Alert:
    alert = Alert(
        event_id=event_id,
        request_id="r1",
        tenant_id="support",
        occurred_at=NOW + timedelta(minutes=minutes),
        causation_id="c1",
        kind="drift",
        name="topic_shift",
        severity="warning",
        title="support: the prompts' topic has shifted",
        description="The newest 12 lie away from the 40 before.",
        suggested_action="Read the sample requests.",
        fingerprint="f1",
        labels={"team": "support", "route": "default"},
        sample_requests=["r1", "r2"],
    )
    return msgspec.structs.replace(alert, **changes)


def last(event_id: str = "a0", minutes: float = 0, status: str = "firing", severity: str = "warning") -> Remembered:
    return Remembered(event_id, NOW + timedelta(minutes=minutes), status, severity)


def later(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("alert", "before", "deliver", "reason"),
    [
        (an_alert(), None, True, None),
        (an_alert(minutes=59), last(), False, "repeats a0"),
        (an_alert(minutes=60), last(), True, None),
        (an_alert(minutes=-5), last(), False, "repeats a0"),
        (an_alert(minutes=5, severity="critical"), last(), True, None),
        (an_alert(minutes=5, severity="info"), last(), False, "repeats a0"),
        (an_alert(minutes=5), last(status="resolved"), True, None),
        (an_alert(minutes=5, status="resolved"), last(), True, None),
        (an_alert(minutes=5, status="resolved"), last(status="resolved"), False, "resolved already"),
        (an_alert(minutes=5, status="resolved"), None, False, "never delivered"),
        (an_alert("a0", minutes=0), last("a0"), True, None),
        (an_alert(minutes=-24 * 60), None, False, "stale"),
    ],
)
def test_decisions(alert: Alert, before: Remembered | None, deliver: bool, reason: str | None) -> None:
    decision = decide(alert, before, Policy(), later(60))
    assert decision.deliver is deliver
    assert decision.reason is None if reason is None else reason in (decision.reason or "")


@pytest.mark.parametrize(
    ("match", "covered"),
    [
        ({"kind": "drift"}, True),
        ({"kind": "dri*", "team": "support", "route": "default"}, True),
        ({"kind": "cost"}, False),
        ({"kind": "drift", "route": "other"}, False),
        ({"no_such_label": "*"}, False),
        ({}, False),
    ],
)
def test_silences(match: dict[str, str], covered: bool) -> None:
    silence = Silence(match, until=later(10), reason="load test")
    policy = Policy(silences=(silence,))
    assert decide(an_alert(), None, policy, later(9)).deliver is not covered
    assert decide(an_alert(), None, policy, later(10)).deliver, "a silence ends"


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["info", "warning", "critical"])), max_size=30))
def test_a_fingerprint_is_not_delivered_twice_in_a_window_unless_it_got_worse(events: list[tuple[int, str]]) -> None:
    rank = ["info", "warning", "critical"].index
    before: Remembered | None = None
    for number, (minute, severity) in enumerate(sorted(events)):
        alert = an_alert(f"a{number}", minute, severity=severity)
        if decide(alert, before, Policy(), alert.occurred_at).deliver:
            if before is not None and rank(severity) <= rank(before.severity):
                assert alert.occurred_at - before.occurred_at >= timedelta(hours=1)
            before = remembered(alert)
        else:
            assert before is not None


def test_the_key_of_one_alert_is_its_event_id_and_a_groups_depends_on_every_member() -> None:
    one, two, three = an_alert("a1"), an_alert("a2"), an_alert("a3")
    assert idempotency_key([one]) == "a1"
    assert idempotency_key([one, two]) == idempotency_key([two, one])
    assert idempotency_key([one, two]) not in {"a1", "a2", idempotency_key([one, two, three])}


def test_groups_are_of_one_team_kind_and_status() -> None:
    alerts = [
        an_alert(),
        an_alert(name="other"),
        an_alert(tenant_id="t2"),
        an_alert(kind="cost"),
        an_alert(status="resolved"),
    ]
    assert [group_of(alert) == group_of(alerts[0]) for alert in alerts] == [True, True, False, False, False]


def test_the_payload_is_json_with_every_field_and_a_runbook() -> None:
    body = json.loads(payload([an_alert(), an_alert("a2")], "https://runbooks.example/tree/main/"))
    assert body["version"] == 1
    assert body["group"] == {"team": "support", "kind": "drift", "status": "firing"}
    assert [alert["event_id"] for alert in body["alerts"]] == ["a1", "a2"]
    assert set(body["alerts"][0]) == {field.name for field in msgspec.structs.fields(Alert)}
    assert body["alerts"][0]["runbook"] == "https://runbooks.example/tree/main/services/alerting/runbooks/drift.md"


@pytest.mark.parametrize("kind", ["cost", "toxicity", "quality", "drift", "guardrail", "health"])
def test_every_kind_has_its_runbook(kind: str) -> None:
    path = runbook_of(an_alert(kind=kind), "")
    page = RUNBOOKS.parents[2] / path
    assert page.read_text().startswith(f"# {kind.capitalize()}\n")


def test_the_signature_is_what_the_readme_says() -> None:
    header = signature(b"secret", 1767603600, b'{"version":1}')
    fields = dict(part.split("=", 1) for part in header.split(","))
    expected = hmac.new(b"secret", b'1767603600.{"version":1}', hashlib.sha256).hexdigest()
    assert fields == {"t": "1767603600", "v1": expected}


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(status, "delivered") for status in (200, 202, 204)]
    + [(status, "dead") for status in (301, 304, 400, 401, 404, 410)]
    + [(status, "retry") for status in (408, 425, 429, 500, 503)],
)
def test_what_answers_mean(status: int, meaning: str) -> None:
    assert meaning_of(status) == meaning


@given(st.integers(1, 1000), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1e9)))
def test_pauses_grow_are_never_zero_and_are_bounded(attempt: int, chance: float, asked: float | None) -> None:
    pause = backoff(attempt, chance, asked)
    assert 0.25 <= pause <= 30
    assert pause >= min(asked or 0, 30)
    assert backoff(attempt + 1, chance) >= backoff(attempt, chance)


def test_what_is_recorded_is_the_same_after_a_replay(codec: Codec) -> None:
    receipt = Receipt("delivered", "webhook", "https://hooks.example", 2, 200, at=later(1))
    first, again = recorded(an_alert(), receipt), recorded(an_alert(), receipt)
    assert first == again
    assert first.key == "f1"
    assert codec.decode("alert-deliveries", codec.encode(first.topic, first.record)) == first.record


def test_rendering_is_short_and_cannot_steer_the_terminal() -> None:
    text = render(an_alert(title="shift\x1b[2J\r\nof topic", labels={}), "", colour=False)
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[0].startswith("WARNING drift/topic_shift: shift")
    assert len(lines) <= 8
    assert max(map(len, lines)) <= 110
    assert any("services/alerting/runbooks/drift.md" in line for line in lines)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ALERT_WEBHOOK_URL", "ftp://somewhere/x", "http:// or https://"),
        ("ALERT_SILENCES", '[{"match": {"kind": "drift"}, "until": "2026-01-01T00:00:00"}]', "time zone"),
        ("ALERT_SILENCES", '[{"match": {}, "until": "2026-01-01T00:00:00Z"}]', "empty match"),
        ("ALERT_SILENCES", '[{"matches": {}}]', "matches"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as refused:
        load_settings(Settings)
    assert told in str(refused.value)


def test_settings_make_a_policy_and_hide_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "https://hooks.example/services/T0/secret-part")
    monkeypatch.setenv(
        "ALERT_SILENCES", '[{"match": {"kind": "drift"}, "until": "2026-01-05T10:00:00Z", "reason": "x"}]'
    )
    settings = load_settings(Settings)
    assert not decide(an_alert(), None, settings.policy(), NOW).deliver
    assert "secret-part" not in str(settings.redacted())

"""What channels send, checked against the libraries and limits of their receivers, and what opens none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import standardwebhooks
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.contracts.records import Alert
from slack_sdk.models.attachments import BlockAttachment
from slack_sdk.models.blocks import Block

from services.alerting.channels.alertmanager import HOLD, label_name, labels, posted
from services.alerting.channels.email import composed
from services.alerting.channels.pagerduty import event
from services.alerting.channels.slack import MOST_BLOCKS, MOST_TEXT, escape, message
from services.alerting.channels.webhook import payload, signature, signing_keys
from tests.unit.alerting_notifications import NOW, a_notification, an_alert

BASE = "https://runbooks.example.com/main"
text = st.text(st.characters(codec="utf-8"), max_size=80)
# What Slack reads as a mention, a link or a date, between other text.
hostile = st.lists(
    st.one_of(text, st.sampled_from(["<!channel>", "<!here|x>", "<@U1>", "<https://evil.example|ok>", "&lt;!h&gt;", "`"])),
    max_size=6,
).map("".join)  # fmt: skip
alerts = st.builds(
    an_alert,
    fingerprint=text,
    title=hostile,
    description=st.one_of(hostile, hostile.map(lambda value: value * 40)),
    suggested_action=hostile,
    kind=hostile,
    name=hostile,
    runbook=hostile,
    severity=st.sampled_from(["info", "warning", "critical", "odd"]),
    status=st.sampled_from(["firing", "resolved"]),
    figures=st.dictionaries(hostile, st.floats(), max_size=12),
    labels=st.dictionaries(hostile, hostile, max_size=5),
    sample_requests=st.lists(hostile, max_size=10),
)


# -- the generic webhook ---------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(alerts, min_size=1, max_size=3), st.binary(min_size=1, max_size=64))
def test_a_library_verifies_the_signature_and_reads_every_field(told: list[Alert], key: bytes) -> None:
    notification = a_notification(*told, left_out=1)
    body = payload(notification, BASE)
    stamp = int(datetime.now(UTC).timestamp())
    signed = signature(key, notification.notification_id, stamp, body)
    headers = {"webhook-id": notification.notification_id, "webhook-timestamp": str(stamp), "webhook-signature": signed}
    read = standardwebhooks.Webhook(key).verify(body, headers)
    assert read["notification_id"] == notification.notification_id
    assert (read["version"], read["purpose"], read["group"], read["left_out"]) == (2, "firing", notification.group, 1)
    for alert, each in zip(told, read["alerts"], strict=True):
        assert each.keys() == msgspec.to_builtins(alert).keys()
        assert each["runbook"].startswith(BASE)
        assert (each["title"], each["fingerprint"]) == (alert.title, alert.fingerprint)
    for changed in (body + b" ", body.replace(b'"version":2', b'"version":3')):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(key).verify(changed, headers)


def test_secrets_are_those_of_the_specification_or_plain_and_may_be_several() -> None:
    assert signing_keys("whsec_c2VjcmV0") == (b"secret",)
    assert signing_keys("whsec_c2VjcmV0cw plain ") == (b"secrets", b"plain")
    assert signing_keys("c2VjcmV0") == (b"c2VjcmV0",)
    for wrong in ("whsec_", "whsec_!!", "whsec_ä"):
        with pytest.raises(ValueError, match="no base64"):
            signing_keys(wrong)


# -- Slack -----------------------------------------------------------------------------------------------------------


def mrkdwn(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every text object of a message."""
    for block in [*told["blocks"], *(block for each in told["attachments"] for block in each["blocks"])]:
        yield from block.get("fields") or block.get("elements") or [block["text"]]


@settings(max_examples=60, deadline=None)
@given(st.lists(alerts, min_size=1, max_size=15), st.integers(0, 5), st.sampled_from(["", BASE]))
def test_slack_parses_nothing_of_an_alerts_text_and_its_limits_are_kept(
    told: list[Alert], left_out: int, base: str
) -> None:
    sent = message(a_notification(*told, left_out=left_out), base)
    blocks = [*sent["blocks"], *(block for each in sent["attachments"] for block in each["blocks"])]
    assert len(blocks) <= MOST_BLOCKS
    assert sum(len(each["text"]) for each in mrkdwn(sent)) <= 13_000
    for block in blocks:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.validate_json()
        assert len(block.get("fields", [])) <= 10
        assert len(block.get("elements", [])) <= 10
    for each in sent["attachments"]:
        BlockAttachment(blocks=[Block.parse(block) for block in each["blocks"]], color=each["color"]).validate_json()
    for each in mrkdwn(sent):
        assert 0 < len(each["text"]) <= MOST_TEXT
        # The only links are the runbooks'.
        links = re.findall(r"<[^>]*>", each["text"])
        assert all(
            re.fullmatch(rf"<{re.escape(BASE)}/[!-;=?-~]*\|Runbook>", link) and "|" not in link[1:-9] for link in links
        )
        bare = re.sub(r"<[^>]*\|Runbook>", "", each["text"])
        assert not set(bare) & set("<>")
        assert re.fullmatch(r"(?:[^&]|&(?:amp|lt|gt);)*", bare)
        assert each["type"] == "plain_text" or each["verbatim"] is True
    assert (sent["parse"], sent["link_names"]) == ("none", False)
    shown = len(sent["attachments"])
    assert shown >= 1
    assert shown == len(told) or any(f"And {len(told) - shown} more" in each["text"] for each in mrkdwn(sent))


@given(hostile, st.integers(1, 60))
def test_escaping_never_cuts_an_entity(value: str, most: int) -> None:
    escaped = escape(value, most)
    assert len(escaped) <= most
    assert re.fullmatch(r"(?:[^&<>]|&(?:amp|lt|gt);)*", escaped)


def test_a_slack_message_holds_what_is_needed_to_act() -> None:
    sent = message(a_notification(), BASE)
    words = "\n".join(each["text"] for each in mrkdwn(sent))
    for each in (
        "*WARNING* drift/topic_shift", "0.4321", "*First:* Read the sample requests.", "`r1`, `r2`",
        f"<{BASE}/services/alerting/runbooks/drift.md|Runbook>", "`penstock alerts ack f1`", "`signals[3] 100-140`",
    ):  # fmt: skip
        assert each in words
    assert {each["color"] for each in message(a_notification(an_alert(severity="critical")), BASE)["attachments"]} == {
        "#b71c1c"
    }
    assert "penstock alerts ack" not in json.dumps(message(a_notification(an_alert(status="resolved")), BASE))


# -- PagerDuty -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(alerts)
def test_events_keep_pagerdutys_limits_and_one_condition_is_one_incident(alert: Alert) -> None:
    notification = a_notification(alert)
    sent = event(notification, alert, "key", BASE)
    assert 0 < len(sent["dedup_key"]) <= 255
    assert (
        sent["dedup_key"]
        == event(notification, an_alert(alert.fingerprint or "", event_id=alert.event_id), "key", "")["dedup_key"]
    )
    assert json.loads(msgspec.json.encode(sent))["routing_key"] == "key"
    if alert.status == "resolved":
        assert sent.keys() == {"routing_key", "event_action", "dedup_key"}
        assert sent["event_action"] == "resolve"
        return
    assert sent["event_action"] == "trigger"
    inside = sent["payload"]
    assert 0 < len(inside["summary"]) <= 1024
    assert 0 < len(inside["source"]) <= 255
    assert inside["severity"] in {"critical", "error", "warning", "info"}
    assert datetime.fromisoformat(inside["timestamp"]) == alert.starts_at
    assert len(msgspec.json.encode(sent)) < 512 * 1024
    assert all(link["href"].startswith(f"{BASE}/") for link in sent["links"])


def test_an_event_tells_what_is_needed_to_act() -> None:
    sent = event(a_notification(purpose="escalation"), an_alert("f" * 300, severity="critical"), "key", BASE)
    inside = sent["payload"]
    assert inside["severity"] == "critical"
    assert inside["summary"].startswith("[CRITICAL] nobody has acknowledged: ")
    assert inside["custom_details"]["figures"] == {"distance": 0.4321, "messages": 12.0}
    assert inside["custom_details"]["sample_requests"] == ["r1", "r2"]
    assert sent["links"] == [{"href": f"{BASE}/services/alerting/runbooks/drift.md", "text": "Runbook"}]
    assert len(sent["dedup_key"]) == 32
    assert event(a_notification(), an_alert(), "key", "")["links"] == []


# -- Alertmanager ----------------------------------------------------------------------------------------------------


@given(st.dictionaries(text, text, max_size=8))
def test_label_names_are_legal_equal_for_equal_alerts_and_none_is_lost(given_labels: dict[str, str]) -> None:
    alert = an_alert(labels=given_labels)
    told = labels(alert)
    assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name, re.ASCII) and not name.startswith("__") for name in told)
    assert all(told.values())
    assert told == labels(an_alert(labels=dict(reversed(given_labels.items()))))
    assert (told["alertname"], told["fingerprint"], told["severity"]) == ("topic_shift", "f1", "warning")
    kept = [" ".join(value.split()) for name, value in given_labels.items() if value.isprintable() and value.split()
            if label_name(name) not in {"alertname", "severity", "kind", "team", "fingerprint"}]  # fmt: skip
    assert set(kept) <= set(told.values())


def test_firing_alerts_outlast_resolve_timeout_and_resolved_ones_have_ended() -> None:
    now = NOW + timedelta(hours=1)
    assert posted(an_alert(), now, HOLD, "")["endsAt"] == now + HOLD
    assert "generatorURL" not in posted(an_alert(), now, HOLD, "")
    over = an_alert(status="resolved", occurred_at=NOW + timedelta(minutes=30))
    assert posted(over, now, HOLD, BASE)["endsAt"] == NOW + timedelta(minutes=30)
    # A clock that is ahead must not leave a resolved alert firing, nor end one before it began.
    ahead = an_alert(status="resolved", occurred_at=now + timedelta(hours=2), starts_at=None)
    assert posted(ahead, now, HOLD, "")["endsAt"] == posted(ahead, now, HOLD, "")["startsAt"]
    began = an_alert(status="resolved", occurred_at=now + timedelta(hours=2), starts_at=NOW)
    assert posted(began, now, HOLD, "")["endsAt"] == now


# -- e-mail ----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(alerts, min_size=1, max_size=3), text)
def test_no_text_of_an_alert_adds_a_header_or_a_part(told: list[Alert], identity: str) -> None:
    notification = a_notification(*told, notification_id=identity)
    sent = composed(notification, "alerts@example.com", ["a@example.com", "b@example.com"], BASE)
    head = sent.as_bytes().split(b"\r\n\r\n", 1)[0]
    names = [line.split(b":")[0] for line in re.sub(rb"\r\n[ \t]", b" ", head).split(b"\r\n")]
    assert sorted(names) == sorted(
        [b"Message-ID", b"Date", b"From", b"To", b"Subject", b"In-Reply-To", b"References", b"Auto-Submitted",
         b"MIME-Version", b"Content-Type"]
    )  # fmt: skip
    assert [part.get_content_type() for part in sent.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert re.fullmatch(r"<[A-Za-z0-9_-]+@example\.com>", sent["Message-ID"].strip())
    assert sent["Message-ID"] == composed(notification, "alerts@example.com", [], BASE)["Message-ID"]
    assert sent["In-Reply-To"].strip() in sent["References"]

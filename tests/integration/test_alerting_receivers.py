"""Channels against receivers that this project did not write: Prometheus Alertmanager, and Debian's webhook server with
the Standard Webhooks library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from penstock.clock import SystemClock
from penstock.config.alerting import Receiver
from penstock.demo import webhook as demo

from services.alerting.channels.opening import open_channel
from services.alerting.channels.posting import open_http_client
from services.alerting.channels.protocol import Channel
from services.alerting.destinations import Destinations
from tests.integration.real_receivers import SECRET, active, alertmanager, free_port, verified, webhook_server
from tests.unit.alerting_notifications import a_notification, an_alert

RUNBOOKS = "https://runbooks.example.com/main"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_http_client() as opened:
        yield opened


def a_channel(client: httpx.AsyncClient, environ: dict[str, str] | None = None, **fields: Any) -> Channel:
    receiver = Receiver.model_validate({"name": "oncall", "timeout_s": 10.0, **fields})
    return open_channel(receiver, environ or {}, Destinations(["127.0.0.0/8"]), SystemClock(), client, RUNBOOKS)


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A real Alertmanager."""
    async with alertmanager(tmp_path, free_port()) as started:
        yield started


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[str]:
    """A webhook server, which verifies what comes."""
    async with webhook_server(tmp_path) as started:
        yield started


# -- Alertmanager ----------------------------------------------------------------------------------------------------


async def test_alertmanager_takes_alerts_keeps_them_over_its_own_bound_and_ends_them(
    address: str, client: httpx.AsyncClient
) -> None:
    channel = a_channel(client, type="alertmanager", url=address)
    now = datetime.now(UTC)
    began = now - timedelta(minutes=5)
    odd = {
        "team": "support",
        "prompt.version": "v7",
        "prompt-version": "v8",
        "9lives": "ä ✓",
        "__name__": "x",
        "empty": "",
    }
    alerts = [
        an_alert("f1", occurred_at=now, starts_at=began, labels=odd),
        an_alert("f2", occurred_at=now, starts_at=None, severity="critical", title="line\nfeed <b>"),
    ]
    attempt = await channel.send(a_notification(*alerts))
    assert (attempt.outcome, attempt.status_code, attempt.reason) == ("delivered", 200, None)
    stored = {alert["labels"]["fingerprint"]: alert for alert in await active(address)}
    assert set(stored) == {"f1", "f2"}
    first = stored["f1"]
    assert first["labels"] == {
        "alertname": "topic_shift", "severity": "warning", "kind": "drift", "team": "support", "fingerprint": "f1",
        "prompt_version": "v8", "prompt_version_2": "v7", "_9lives": "ä ✓", "_name__": "x",
    }  # fmt: skip
    assert abs(datetime.fromisoformat(first["startsAt"]) - began) < timedelta(seconds=0.01)
    # Without an end of its own Alertmanager forgets an alert after five minutes.
    assert datetime.fromisoformat(first["endsAt"]) > now + timedelta(days=2)
    assert first["generatorURL"] == f"{RUNBOOKS}/services/alerting/runbooks/drift.md"
    assert first["annotations"]["description"] == alerts[0].description
    assert first["annotations"]["figure_distance"] == "0.4321"
    assert stored["f2"]["annotations"]["summary"] == "line feed <b>"

    # Told again it is the same alert; resolved, it is gone, and the other one stays.
    assert (await channel.send(a_notification(*alerts, purpose="repeat"))).outcome == "delivered"
    assert len(await active(address)) == 2
    ended = an_alert("f1", occurred_at=datetime.now(UTC), starts_at=began, labels=odd, status="resolved")
    assert (await channel.send(a_notification(ended, purpose="resolved"))).outcome == "delivered"
    assert [alert["labels"]["fingerprint"] for alert in await active(address)] == ["f2"]


async def test_an_alert_that_got_worse_replaces_what_alertmanager_had_of_it(
    address: str, client: httpx.AsyncClient
) -> None:
    channel = a_channel(client, type="alertmanager", url=address)
    now = datetime.now(UTC)
    for severity, status in (("warning", "firing"), ("critical", "firing")):
        alert = an_alert("f1", occurred_at=now, severity=severity, status=status)
        assert (await channel.send(a_notification(alert))).outcome == "delivered"
    assert [alert["labels"]["severity"] for alert in await active(address)] == ["critical"]
    # A late try of an older message does not end what is newer.
    late = an_alert("f1", occurred_at=now - timedelta(minutes=1), severity="info")
    assert (await channel.send(a_notification(late))).outcome == "delivered"
    assert {alert["labels"]["severity"] for alert in await active(address)} == {"critical", "info"}
    ended = an_alert("f1", occurred_at=datetime.now(UTC), severity="info", status="resolved", labels={})
    assert (await channel.send(a_notification(ended, purpose="resolved"))).outcome == "delivered"
    assert await active(address) == []


async def test_an_address_below_a_path_that_is_not_alertmanagers_is_refused_for_good(
    address: str, client: httpx.AsyncClient
) -> None:
    attempt = await a_channel(client, type="alertmanager", url=f"{address}/elsewhere").send(a_notification())
    assert (attempt.outcome, attempt.status_code) == ("dead", 404)


# -- Standard Webhooks -----------------------------------------------------------------------------------------------


async def test_a_webhook_server_verifies_with_the_standard_library_and_takes_rotated_secrets(
    hook: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    alerts = (an_alert("f1", title='"quoted" ✓ $(id)'), an_alert("f2"))
    for secrets in (SECRET, f"whsec_bmV4dCBzZWNyZXQ= {SECRET}"):
        channel = a_channel(client, {"SIGNING": secrets}, type="webhook", url=hook, secret_env="SIGNING")
        attempt = await channel.send(a_notification(*alerts, left_out=2))
        assert (attempt.outcome, attempt.status_code) == ("delivered", 200)
    kept = verified(tmp_path)
    assert [each["id"] for each in kept] == [a_notification().notification_id] * 2
    assert [alert["title"] for alert in kept[0]["body"]["alerts"]] == ['"quoted" ✓ $(id)', alerts[1].title]
    assert (kept[0]["body"]["left_out"], kept[0]["body"]["purpose"]) == (2, "firing")


async def test_a_wrong_secret_is_refused_by_the_library_and_tried_again(
    hook: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    channel = a_channel(client, {"SIGNING": "whsec_b3RoZXI="}, type="webhook", url=hook, secret_env="SIGNING")
    attempt = await channel.send(a_notification())
    assert (attempt.outcome, attempt.status_code) == ("retry", 500)
    assert verified(tmp_path) == []


async def test_the_demos_receiver_takes_what_the_built_in_route_sends(client: httpx.AsyncClient) -> None:
    with demo.Receiver() as receiver:
        environ = receiver.environment()
        names = {"url_env": "ALERT_WEBHOOK_URL", "secret_env": "ALERT_WEBHOOK_SECRET"}
        attempt = await a_channel(client, environ, type="webhook", **names).send(a_notification(an_alert("f1")))
        assert (attempt.outcome, attempt.status_code) == ("delivered", 204)
        assert receiver.received() == {"f1": True}
        wrong = await a_channel(client, environ | {"ALERT_WEBHOOK_SECRET": "other"}, type="webhook", **names).send(
            a_notification(an_alert("f2"))
        )
        assert (wrong.outcome, wrong.status_code) == ("dead", 401)
        assert receiver.received() == {"f1": True, "f2": False}

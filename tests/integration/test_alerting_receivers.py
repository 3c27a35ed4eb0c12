"""Channels against receivers that this project did not write: Prometheus Alertmanager, and Debian's webhook server with
the Standard Webhooks library."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
from tests.integration.debian_program import program
from tests.unit.alerting_notifications import a_notification, an_alert

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RUNBOOKS = "https://runbooks.example.com/main"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_http_client() as opened:
        yield opened


def a_channel(client: httpx.AsyncClient, environ: dict[str, str] | None = None, **fields: Any) -> Channel:
    receiver = Receiver.model_validate({"name": "oncall", "timeout_s": 10.0, **fields})
    return open_channel(receiver, environ or {}, Destinations(["127.0.0.0/8"]), SystemClock(), client, RUNBOOKS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def process(*command: str, ready: Callable[[], Awaitable[bool]], log: int) -> AsyncIterator[None]:
    """A program, from when it is ready."""
    started = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(60):
            while not await ready():
                assert started.returncode is None, os.pread(log, 4000, 0).decode(errors="replace")
                await asyncio.sleep(0.05)
        yield
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


async def answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as probe:
        try:
            return (await probe.get(url)).status_code < 500
        except httpx.HTTPError:
            return False


# -- Alertmanager ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def alertmanager(tmp_path: Path) -> AsyncIterator[str]:
    """A real Alertmanager; its address."""
    binary = program("prometheus-alertmanager", "usr/bin/prometheus-alertmanager")
    port = free_port()
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    address = f"http://127.0.0.1:{port}"
    command = [
        *binary, f"--config.file={config}", f"--storage.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    with (tmp_path / "alertmanager.log").open("w+b") as log:
        async with process(*command, ready=lambda: answers(f"{address}/-/ready"), log=log.fileno()):
            yield address


async def active(address: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False) as probe:
        answer = await probe.get(f"{address}/api/v2/alerts", params={"active": "true"})
        answer.raise_for_status()
        return list(answer.json())


async def test_alertmanager_takes_alerts_keeps_them_over_its_own_bound_and_ends_them(
    alertmanager: str, client: httpx.AsyncClient
) -> None:
    channel = a_channel(client, type="alertmanager", url=alertmanager)
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
    stored = {alert["labels"]["fingerprint"]: alert for alert in await active(alertmanager)}
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
    assert len(await active(alertmanager)) == 2
    ended = an_alert("f1", occurred_at=datetime.now(UTC), starts_at=began, labels=odd, status="resolved")
    assert (await channel.send(a_notification(ended, purpose="resolved"))).outcome == "delivered"
    assert [alert["labels"]["fingerprint"] for alert in await active(alertmanager)] == ["f2"]


async def test_an_alert_that_got_worse_replaces_what_alertmanager_had_of_it(
    alertmanager: str, client: httpx.AsyncClient
) -> None:
    channel = a_channel(client, type="alertmanager", url=alertmanager)
    now = datetime.now(UTC)
    for severity, status in (("warning", "firing"), ("critical", "firing")):
        alert = an_alert("f1", occurred_at=now, severity=severity, status=status)
        assert (await channel.send(a_notification(alert))).outcome == "delivered"
    assert [alert["labels"]["severity"] for alert in await active(alertmanager)] == ["critical"]
    # A late try of an older message does not end what is newer.
    late = an_alert("f1", occurred_at=now - timedelta(minutes=1), severity="info")
    assert (await channel.send(a_notification(late))).outcome == "delivered"
    assert {alert["labels"]["severity"] for alert in await active(alertmanager)} == {"critical", "info"}
    ended = an_alert("f1", occurred_at=datetime.now(UTC), severity="info", status="resolved", labels={})
    assert (await channel.send(a_notification(ended, purpose="resolved"))).outcome == "delivered"
    assert await active(alertmanager) == []


async def test_an_address_below_a_path_that_is_not_alertmanagers_is_refused_for_good(
    alertmanager: str, client: httpx.AsyncClient
) -> None:
    attempt = await a_channel(client, type="alertmanager", url=f"{alertmanager}/elsewhere").send(a_notification())
    assert (attempt.outcome, attempt.status_code) == ("dead", 404)


# -- Standard Webhooks -----------------------------------------------------------------------------------------------

VERIFY = """
import json, os, sys
import standardwebhooks
headers = {name: os.environ["HOOK_" + name.replace("-", "_").upper()] for name in
           ("webhook-id", "webhook-timestamp", "webhook-signature")}
body = sys.argv[1].encode()
standardwebhooks.Webhook(os.environ["HOOK_SECRET"]).verify(body, headers)
with open(sys.argv[2], "a") as log:
    log.write(json.dumps({"id": headers["webhook-id"], "body": json.loads(body)}) + "\\n")
"""


@pytest.fixture
async def webhook_server(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """Debian's webhook server, which runs the Standard Webhooks library on each delivery and answers 500 where that
    refuses; its address, and the file of what was verified."""
    binary = program("webhook", "usr/bin/webhook")
    log, script, port = tmp_path / "verified.jsonl", tmp_path / "verify.py", free_port()
    script.write_text(VERIFY)
    headers = ["webhook-id", "webhook-timestamp", "webhook-signature"]
    hook = {
        "id": "alerts",
        "execute-command": sys.executable,
        "pass-arguments-to-command": [
            {"source": "string", "name": str(script)},
            {"source": "raw-request-body"},
            {"source": "string", "name": str(log)},
        ],
        "pass-environment-to-command": [
            *(
                {"source": "header", "name": name, "envname": "HOOK_" + name.replace("-", "_").upper()}
                for name in headers
            ),
            {"source": "string", "name": SECRET, "envname": "HOOK_SECRET"},
        ],
        "include-command-output-in-response": True,
    }
    hooks = tmp_path / "hooks.json"
    hooks.write_text(json.dumps([hook]))
    address = f"http://127.0.0.1:{port}"
    command = [*binary, "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port), "-verbose"]
    with (tmp_path / "webhook.log").open("w+b") as output:
        async with process(*command, ready=lambda: answers(address), log=output.fileno()):
            yield f"{address}/hooks/alerts", log


async def test_a_webhook_server_verifies_with_the_standard_library_and_takes_rotated_secrets(
    webhook_server: tuple[str, Path], client: httpx.AsyncClient
) -> None:
    address, log = webhook_server
    alerts = (an_alert("f1", title='"quoted" ✓ $(id)'), an_alert("f2"))
    for secrets in (SECRET, f"whsec_bmV4dCBzZWNyZXQ= {SECRET}"):
        channel = a_channel(client, {"SIGNING": secrets}, type="webhook", url=address, secret_env="SIGNING")
        attempt = await channel.send(a_notification(*alerts, left_out=2))
        assert (attempt.outcome, attempt.status_code) == ("delivered", 200)
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["id"] for each in kept] == [a_notification().notification_id] * 2
    assert [alert["title"] for alert in kept[0]["body"]["alerts"]] == ['"quoted" ✓ $(id)', alerts[1].title]
    assert (kept[0]["body"]["left_out"], kept[0]["body"]["purpose"]) == (2, "firing")


async def test_a_wrong_secret_is_refused_by_the_library_and_tried_again(
    webhook_server: tuple[str, Path], client: httpx.AsyncClient
) -> None:
    address, log = webhook_server
    channel = a_channel(client, {"SIGNING": "whsec_b3RoZXI="}, type="webhook", url=address, secret_env="SIGNING")
    attempt = await channel.send(a_notification())
    assert (attempt.outcome, attempt.status_code) == ("retry", 500)
    assert not log.exists()


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

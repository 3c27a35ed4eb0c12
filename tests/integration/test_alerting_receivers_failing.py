"""Receivers that hang, drip, reset, lie, redirect or answer garbage: every try ends in time, with the right meaning, and
tells nothing secret."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from services.alerting.channels.posting import open_http_client
from services.alerting.channels.protocol import Attempt, Channel
from services.alerting.destinations import Destinations
from tests.integration.raw_receivers import (
    TIMEOUT_S,
    Serve,
    a_channel,
    answering,
    dripping,
    endless,
    mailing,
    mailing_forever,
    resetting,
    serving,
    silent,
)
from tests.unit.alerting_notifications import a_notification, an_alert


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_http_client() as opened:
        yield opened


def nothing_told(attempt: Attempt, channel: Channel) -> None:
    assert "hunter2" not in repr(attempt)
    assert "hunter2" not in channel.destination


HTTP_KINDS = ["webhook", "slack", "pagerduty", "alertmanager"]


@pytest.mark.parametrize("kind", [*HTTP_KINDS, "email"])
@pytest.mark.parametrize("serve", [silent, dripping, resetting], ids=["hangs", "drips", "resets"])
async def test_a_receiver_that_does_not_answer_is_tried_again_and_holds_nobody_up(
    client: httpx.AsyncClient, kind: str, serve: Serve
) -> None:
    async with serving(serve) as port:
        channel = a_channel(client, kind, port)
        began = time.monotonic()
        attempt = await channel.send(a_notification(an_alert("f1"), an_alert("f2")))
        assert time.monotonic() - began < TIMEOUT_S + 5
    assert (attempt.outcome, attempt.status_code) == ("retry", None)
    assert attempt.reason
    nothing_told(attempt, channel)


@pytest.mark.parametrize("kind", [*HTTP_KINDS, "email"])
async def test_a_port_that_nobody_listens_on_is_tried_again(client: httpx.AsyncClient, kind: str) -> None:
    async with serving(silent) as port:
        pass
    attempt = await a_channel(client, kind, port).send(a_notification())
    assert attempt.outcome == "retry"
    assert "refused" in (attempt.reason or "").lower() or "connect call failed" in (attempt.reason or "").lower()


@pytest.mark.parametrize("kind", HTTP_KINDS)
@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno", "retry"),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n", "retry"),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n", "retry"),
        (b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n", "retry"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 14\r\n\r\nhunter2hunter2", "dead"),
        (b'HTTP/1.1 400 Bad\r\n\r\n{"message": "no key-of-hunter2 at /services/T0/B0/hunter2hunter2"}', "dead"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "dead"),
        (b"HTTP/1.1 307 Moved\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", "dead"),
        (b"HTTP/1.1 404 None\r\nContent-Length: 10000000\r\n\r\nxx", "dead"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "retry"),
        (b"\x00\xff\xfe\r\n\r\n", "retry"),
        (b"HTTP/1.1 99999 What\r\n\r\n", "retry"),
        (b"", "retry"),
    ],
    ids=["500", "503", "429", "408", "400", "400-key", "301", "307", "404-long", "ssh", "binary", "status", "empty"],
)
async def test_what_answers_mean(client: httpx.AsyncClient, kind: str, raw: bytes, outcome: str) -> None:
    async with serving(answering(raw)) as port:
        channel = a_channel(client, kind, port)
        attempt = await channel.send(a_notification())
    assert attempt.outcome == outcome
    assert attempt.retry_after_s == (17 if b"Retry-After" in raw else None)
    assert attempt.reason
    nothing_told(attempt, channel)


async def test_a_body_without_end_is_not_read(client: httpx.AsyncClient) -> None:
    async with serving(endless) as port:
        assert (await a_channel(client, "webhook", port).send(a_notification())).outcome == "delivered"
        assert (await a_channel(client, "slack", port).send(a_notification())).outcome == "retry"


@pytest.mark.parametrize(
    ("kind", "status", "said", "outcome"),
    [
        ("slack", 200, b"ok", "delivered"),
        ("slack", 200, b"<html>sign in</html>", "retry"),
        ("slack", 200, b"", "retry"),
        ("slack", 403, b"action_prohibited", "dead"),
        ("slack", 404, b"no_service", "dead"),
        ("pagerduty", 202, b'{"status":"success","dedup_key":"f1"}', "delivered"),
        ("pagerduty", 202, b"", "delivered"),
        ("pagerduty", 200, b"<html>sign in</html>", "retry"),
        ("pagerduty", 400, b'{"status":"invalid event","message":"Event object is invalid","errors":["x"]}', "dead"),
        ("webhook", 204, b"", "delivered"),
        ("alertmanager", 200, b"", "delivered"),
    ],
)
async def test_only_the_receivers_own_acknowledgement_counts(
    client: httpx.AsyncClient, kind: str, status: int, said: bytes, outcome: str
) -> None:
    raw = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(said)}\r\n\r\n".encode() + said
    async with serving(answering(raw, "hang")) as port:
        attempt = await a_channel(client, kind, port).send(a_notification())
    assert (attempt.outcome, attempt.status_code) == (outcome, status)
    if status == 400:
        assert "Event object is invalid; x" in (attempt.reason or "")
    if status in {403, 404}:
        assert said.decode() in (attempt.reason or "")


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("pagerduty", b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\n"),
        ("alertmanager", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("webhook", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
async def test_an_acknowledgement_counts_though_its_body_never_comes(
    client: httpx.AsyncClient, kind: str, head: bytes
) -> None:
    async with serving(answering(head, "hang")) as port:
        attempt = await a_channel(client, kind, port).send(a_notification())
    assert attempt.outcome == "delivered"


async def test_mail_that_was_taken_is_delivered_though_the_server_does_not_say_goodbye(
    client: httpx.AsyncClient,
) -> None:
    for serve in (mailing, mailing_forever):
        async with serving(serve) as port:
            began = time.monotonic()
            attempt = await a_channel(client, "email", port, timeout_s=3.0).send(a_notification())
            assert time.monotonic() - began < 3.0
        assert (attempt.outcome, attempt.status_code) == ("delivered", 250)


async def test_events_that_pagerduty_has_are_not_sent_again_by_the_next_try(client: httpx.AsyncClient) -> None:
    answers = [202, 500, 429, 202, 202, 202]
    got: list[tuple[str, str]] = []

    async def enqueue(request: web.Request) -> web.Response:
        body = await request.json()
        got.append((body["dedup_key"], body["event_action"]))
        return web.json_response({"status": "success"}, status=answers.pop(0), headers={"Retry-After": "3"})

    app = web.Application()
    app.router.add_post("/v2/enqueue", enqueue)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    channel = a_channel(client, "pagerduty", 0, url_env=None, url=f"http://127.0.0.1:{runner.addresses[0][1]}",
                        destinations=Destinations(["127.0.0.1"]), timeout_s=5.0)  # fmt: skip
    try:
        notification = a_notification(an_alert("f1"), an_alert("f2", status="resolved"), an_alert("f3"))
        attempts = [await channel.send(notification) for _ in range(3)]
        assert [(each.outcome, each.status_code) for each in attempts] == [
            ("retry", 500),
            ("retry", 429),
            ("delivered", 202),
        ]
        assert attempts[1].retry_after_s == 3
        f1, f2, f3 = ("f1", "trigger"), ("f2", "resolve"), ("f3", "trigger")
        assert got == [f1, f2, f2, f2, f3]
        # What goes on is told again: with the same dedup_key, which opens no other incident.
        await channel.send(a_notification(an_alert("f1"), notification_id="next", purpose="repeat"))
        assert got[-1] == f1
    finally:
        await runner.cleanup()


SENDING = """
import asyncio, sys
from penstock.clock import SystemClock
from penstock.config.alerting import Receiver
from penstock.telemetry import configure_logging, get_logger
from services.alerting.channels.opening import open_channel
from services.alerting.channels.posting import open_http_client
from services.alerting.destinations import Destinations
from tests.unit.alerting_notifications import a_notification

async def main(port):
    environ = {"ADDRESS": f"http://127.0.0.1:{port}/services/hunter2hunter2", "KEY": "key-of-hunter2"}
    async with open_http_client() as client:
        for kind in ("webhook", "slack", "pagerduty", "alertmanager"):
            receiver = Receiver(name="oncall", type=kind, url_env="ADDRESS", secret_env="KEY")
            channel = open_channel(receiver, environ, Destinations(), SystemClock(), client, "")
            get_logger(kind).info("sent", attempt=repr(await channel.send(a_notification())))

configure_logging("alerting", "debug")
asyncio.run(main(int(sys.argv[1])))
"""


async def test_logs_hold_no_address_that_is_a_credential(project: Path) -> None:
    async with serving(answering(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")) as port:
        sending = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SENDING, str(port)), cwd=project, env=os.environ | {"PYTHONPATH": "shared:."},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await sending.communicate())[0].decode()
    assert sending.returncode == 0, said
    assert said.count("HTTP 500") == 4
    assert "hunter2" not in said

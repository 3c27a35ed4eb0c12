"""What answers mean, how receivers are opened, and what opens none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.clock import ManualClock
from penstock.config.alerting import Receiver

from services.alerting.channels.console import Console
from services.alerting.channels.opening import open_channel
from services.alerting.channels.posting import (
    Answer,
    attempt_of,
    meaning_of,
    open_http_client,
    problem_of,
    retry_after,
)
from services.alerting.channels.progress import Progress
from services.alerting.channels.protocol import Channel, Misconfigured
from services.alerting.destinations import Destinations
from tests.unit.alerting_notifications import NOW, a_notification

BASE = "https://runbooks.example.com/main"


# -- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(200, "delivered"), (202, "delivered"), (204, "delivered"), (301, "dead"), (400, "dead"), (401, "dead"),
     (404, "dead"), (408, "retry"), (410, "dead"), (425, "retry"), (429, "retry"), (500, "retry"), (503, "retry"),
     (None, "retry")],
)  # fmt: skip
def test_what_an_answer_means(status: int | None, meaning: str) -> None:
    assert meaning_of(status) == meaning
    attempt = attempt_of(Answer(status_code=status, problem=f"HTTP {status}", retry_after_s=3.0))
    assert (attempt.outcome, attempt.status_code) == (meaning, status)
    assert attempt.retry_after_s == (3.0 if meaning == "retry" else None)
    assert (attempt.reason is None) == (meaning == "delivered")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("0", 0), ("17", 17), (" 17 ", 17), ("-3", None), ("1.5", None), ("soon", None), ("", None),
        ("999999999999999", 86_400), ("9" * 400, None), ("١٧", None), ("Mon, 05 Jan 2026 09:02:00 GMT", 120),
        ("Mon, 05 Jan 2026 08:00:00 GMT", 0), ("Monday, 05-Jan-26 09:01:00 GMT", 60),
        ("Mon, 05 Jan 2099 09:00:00 GMT", 86_400),
        ("Mon, 99 Jan 2026 09:00:00 GMT", None), ("Mon, 05 Jan 2026 09:02:00", 120),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_bounded(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_takes_anything(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= 86_400


def test_problems_are_named_without_what_was_choked_on() -> None:
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as inner:
            raise ValueError("Illegal header value b'Bearer hunter2'") from inner
    except ValueError as error:
        assert problem_of(error) == "ValueError: Connection refused"
    assert problem_of(ValueError("hunter2")) == "ValueError"


def test_progress_is_bounded_and_forgotten_at_the_end() -> None:
    progress = Progress(most=2)
    progress.note("a", "1")
    progress.note("a", "2")
    progress.note("b", "1")
    assert progress.taken("a") == {"1", "2"}
    progress.note("c", "1")
    assert progress.taken("a") == set()
    progress.forget("b")
    assert progress.taken("b") == set()
    assert progress.taken("c") == {"1"}


async def test_a_console_that_cannot_be_written_is_tried_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    assert (await Console(BASE).send(a_notification(left_out=2))).outcome == "delivered"
    printed = capsys.readouterr().out
    assert "WARNING drift/topic_shift" in printed
    assert "2 more alerts" in printed
    closed = (tmp_path / "out").open("w")
    closed.close()
    assert (await Console(BASE, closed).send(a_notification())).outcome == "retry"


# -- opening ---------------------------------------------------------------------------------------------------------

ENVIRON = {
    "HOOK": "https://hooks.slack.com/services/T0/B0/hunter2hunter2",
    "WITH_LOGIN": "https://user:hunter2@alertmanager.example.com/am",
    "NO_URL": "hunter2 is no address",
    "METADATA": "http://169.254.169.254/latest",
    "MAIL": "smtps://penstock:hunter2@mail.example.com",
    "KEY": "hunter2",
    "BROKEN": "hunter2\nX-Injected: 1",
    "SIGNING": "whsec_hunter2!",
    "EMPTY": " ",
}
MAIL = {"type": "email", "sender": "alerts@example.com", "to": ["oncall@example.com"]}


async def opened(listed: list[str], **fields: Any) -> Channel:
    async with open_http_client() as client:
        receiver = Receiver.model_validate({"name": "oncall", **fields})
        return open_channel(receiver, ENVIRON, Destinations(listed), ManualClock(), client, BASE)


@pytest.mark.parametrize(
    ("listed", "fields", "name", "destination"),
    [
        ([], {"type": "console"}, "console", "stdout"),
        ([], {"type": "slack", "url_env": "HOOK"}, "slack", "https://hooks.slack.com"),
        ([], {"type": "webhook", "url_env": "METADATA"}, "webhook", "http://169.254.169.254"),
        ([], {"type": "pagerduty", "secret_env": "KEY"}, "pagerduty", "https://events.pagerduty.com"),
        (["events.eu.pagerduty.com"], {"type": "pagerduty", "secret_env": "KEY", "url": "https://events.eu.pagerduty.com"},
         "pagerduty", "https://events.eu.pagerduty.com"),
        (["10.0.0.0/8"], {"type": "alertmanager", "url": "http://10.0.0.5:9093", "secret_env": "KEY"}, "alertmanager",
         "http://10.0.0.5:9093"),
        ([], {"type": "alertmanager", "url_env": "WITH_LOGIN"}, "alertmanager", "https://alertmanager.example.com"),
        (["*.example.com"], {**MAIL, "url": "smtp://mail.example.com:587"}, "email", "smtp://mail.example.com:587"),
        ([], {**MAIL, "url_env": "MAIL"}, "email", "smtps://mail.example.com"),
    ],
)  # fmt: skip
async def test_receivers_open(listed: list[str], fields: dict[str, Any], name: str, destination: str) -> None:
    channel = await opened(listed, **fields)
    assert (channel.name, channel.destination) == (name, destination)
    await channel.aclose()


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"type": "slack", "url_env": "MISSING"}, "the variable MISSING is not set; set it to the receiver's address"),
        ({"type": "slack", "url_env": "EMPTY"}, "the variable EMPTY is not set"),
        ({"type": "slack", "url_env": "NO_URL"}, "the address in NO_URL must begin with https:// or http://"),
        ({"type": "webhook", "url_env": "MAIL"}, "the address in MAIL must begin with https:// or http://"),
        ({"type": "webhook", "url": "https://hooks.example.com/x"}, "hooks.example.com:443 is not listed; if alerts may"),
        ({"type": "webhook", "url": "http://127.0.0.1:6379/"}, "127.0.0.1, which is not listed"),
        ({"type": "webhook", "url": "http://2130706433/"}, "spells its host as a number"),
        ({"type": "webhook", "url": "http://169.254.169.254/latest/meta-data"}, "169.254.169.254, which is not listed"),
        ({"type": "webhook", "url": "http://[::ffff:169.254.169.254]/"}, "which is not listed"),
        ({"type": "pagerduty", "secret_env": "KEY", "url": "https://events.evil.example"}, "not listed"),
        ({"type": "pagerduty", "secret_env": "MISSING"}, "set it to the integration's routing key"),
        ({"type": "pagerduty", "secret_env": "BROKEN"}, "BROKEN holds blanks or characters that are not ASCII"),
        ({"type": "webhook", "url_env": "HOOK", "secret_env": "SIGNING"}, "SIGNING begins with whsec_, but what follows"),
        ({"type": "alertmanager", "url_env": "WITH_LOGIN", "secret_env": "KEY"}, "both hold credentials"),
        ({**MAIL, "url": "smtp://mail.example.com"}, "mail.example.com:25 is not listed"),
        ({**MAIL, "url_env": "MAIL", "to": ["käthe@example.com"]}, "is no ASCII address"),
        ({**MAIL, "url_env": "MAIL", "to": ["a\x01b@example.com"]}, "is no ASCII address"),
        ({**MAIL, "url_env": "HOOK"}, "must begin with smtp:// or smtps://"),
    ],
)  # fmt: skip
async def test_receivers_that_cannot_be_opened_say_why_and_what_to_do(fields: dict[str, Any], cause: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        await opened([], **fields)
    assert cause in str(refused.value)
    assert str(refused.value).startswith("receiver oncall: ")
    assert "hunter2" not in str(refused.value)


async def test_half_a_login_is_refused() -> None:
    for half in ({"username": "penstock"}, {"secret_env": "KEY"}):
        with pytest.raises(Misconfigured, match="a login needs both name and password"):
            await opened(["mail.example.com"], **MAIL, url="smtp://mail.example.com", **half)

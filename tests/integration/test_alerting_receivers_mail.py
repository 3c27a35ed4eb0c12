"""The channel email against aiosmtpd as the mail server: plain, with STARTTLS and a login, and in TLS."""

from __future__ import annotations

import email
import ssl
from collections.abc import AsyncIterator, Sequence
from email.message import EmailMessage
from email.policy import default
from typing import Any

import httpx
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from penstock.clock import SystemClock
from penstock.config.alerting import Receiver

from services.alerting.channels.opening import open_channel
from services.alerting.channels.posting import open_http_client
from services.alerting.channels.protocol import Channel
from services.alerting.destinations import Destinations
from tests.integration.real_receivers import free_port
from tests.unit.alerting_notifications import a_notification, an_alert

RUNBOOKS = "https://runbooks.example.com/main"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_http_client() as opened:
        yield opened


class Mailbox:
    """Keeps what came, and refuses recipients as told."""

    def __init__(self) -> None:
        self.refuse: dict[str, str] = {}
        self.answer = "250 taken"
        self.got: list[tuple[list[str], EmailMessage]] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answer.startswith("250"):
            message = email.message_from_bytes(envelope.content, policy=default)
            assert isinstance(message, EmailMessage)
            self.got.append((list(envelope.rcpt_tos), message))
        return self.answer

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"pass word", handled=False)


AUTHORITY = trustme.CA()


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def mail_server(mailbox: Mailbox) -> Any:
    """Starts mail servers: plain, with STARTTLS and a login, or in TLS from the beginning."""
    started: list[Controller] = []

    def start(kind: str = "plain") -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert("mail.example.com").configure_cert(context)
        options: dict[str, Any] = {"hostname": "127.0.0.1", "port": free_port()}
        if kind == "starttls":
            options |= {"tls_context": context, "require_starttls": True, "authenticator": mailbox.authenticate}
            options |= {"auth_required": True}
        if kind == "tls":
            options |= {"ssl_context": context}
        controller = Controller(mailbox, **options)
        controller.start()
        started.append(controller)
        return int(options["port"])

    yield start
    for each in started:
        each.stop()


async def local(host: str, port: int) -> Sequence[str]:
    """A name server for which every name is this machine."""
    return ["127.0.0.1"]


def a_mail_channel(
    client: httpx.AsyncClient, url: str, environ: dict[str, str] | None = None, **fields: Any
) -> Channel:
    trusted = ssl.create_default_context()
    AUTHORITY.configure_trust(trusted)
    receiver = Receiver.model_validate(
        {"name": "mail", "type": "email", "url": url, "sender": "alerts@example.com", "to": ["oncall@example.com"]}
        | {"timeout_s": 10.0}
        | fields
    )
    allowed = Destinations(["mail.example.com=127.0.0.0/8", "other.example.com=127.0.0.0/8"], local)
    return open_channel(receiver, environ or {}, allowed, SystemClock(), client, RUNBOOKS, tls=trusted)


async def test_mail_arrives_as_text_and_html_and_an_incident_is_one_thread(
    mailbox: Mailbox, mail_server: Any, client: httpx.AsyncClient
) -> None:
    channel = a_mail_channel(client, f"smtp://mail.example.com:{mail_server()}")
    forged = an_alert("f1", title="shift\r\nBcc: everyone@example.com\r\n\r\n<script>alert(1)</script>")
    attempt = await channel.send(a_notification(forged, an_alert("f2")))
    assert (attempt.outcome, attempt.status_code, attempt.reason) == ("delivered", 250, None)
    assert (await channel.send(a_notification(forged, an_alert("f2")))).outcome == "delivered"
    ended = a_notification(an_alert("f2", status="resolved"), notification_id="other", purpose="resolved")
    assert (await channel.send(ended)).outcome == "delivered"
    (recipients, first), (_, again), (_, last) = mailbox.got
    assert recipients == ["oncall@example.com"]
    assert first["Bcc"] is None
    assert first["Subject"].startswith("[WARNING] 2 alerts (kind drift, team support): shift Bcc: everyone@example.com")
    assert first["Message-ID"] == again["Message-ID"] == f"<{a_notification().notification_id}@example.com>"
    assert last["Message-ID"] == "<other@example.com>"
    assert set(last["References"].split()) < set(first["References"].split())
    plain, page = first.get_body(("plain",)), first.get_body(("html",))
    assert plain is not None
    assert page is not None
    assert "acknowledge: penstock alerts ack f1" in plain.get_content()
    assert "messages: 12" in plain.get_content()
    assert "&lt;script&gt;" in page.get_content()
    assert "<script>" not in page.get_content()
    assert f'href="{RUNBOOKS}/services/alerting/runbooks/drift.md"' in page.get_content()
    assert last["Subject"].startswith("[RESOLVED] ")


async def test_a_login_goes_over_tls_only(mailbox: Mailbox, mail_server: Any, client: httpx.AsyncClient) -> None:
    login = {"username": "penstock", "secret_env": "MAIL_PASSWORD"}
    environ = {"MAIL_PASSWORD": "pass word"}
    port = mail_server("starttls")
    attempt = await a_mail_channel(client, f"smtp://mail.example.com:{port}", environ, **login).send(a_notification())
    assert attempt.outcome == "delivered"
    assert mailbox.logins == [(b"penstock", b"pass word")]
    assert len(mailbox.got) == 1

    wrong = await a_mail_channel(client, f"smtp://mail.example.com:{port}", {"MAIL_PASSWORD": "guess"}, **login).send(
        a_notification()
    )
    assert (wrong.outcome, wrong.status_code) == ("dead", 535)
    assert "guess" not in str(wrong)

    tried = len(mailbox.logins)
    # The certificate is another's: nothing is sent to whoever holds it.
    stolen = await a_mail_channel(client, f"smtp://other.example.com:{port}", environ, **login).send(a_notification())
    assert stolen.outcome == "retry"
    assert "certificate" in (stolen.reason or "")

    # A server without STARTTLS does not get the password.
    clear = await a_mail_channel(client, f"smtp://mail.example.com:{mail_server()}", environ, **login).send(
        a_notification()
    )
    assert clear.outcome == "retry"
    assert "STARTTLS" in (clear.reason or "")
    assert len(mailbox.logins) == tried
    assert len(mailbox.got) == 1


async def test_mail_in_tls_from_the_beginning(mailbox: Mailbox, mail_server: Any, client: httpx.AsyncClient) -> None:
    attempt = await a_mail_channel(client, f"smtps://mail.example.com:{mail_server('tls')}").send(a_notification())
    assert (attempt.outcome, len(mailbox.got)) == ("delivered", 1)


async def test_a_recipient_that_is_busy_is_tried_again_without_the_others(
    mailbox: Mailbox, mail_server: Any, client: httpx.AsyncClient
) -> None:
    to = ["a@example.com", "busy@example.com", "gone@example.com"]
    channel = a_mail_channel(client, f"smtp://mail.example.com:{mail_server()}", to=to)
    mailbox.refuse = {"busy@example.com": "451 later", "gone@example.com": "550 no such mailbox"}
    attempt = await channel.send(a_notification())
    assert (attempt.outcome, attempt.status_code) == ("retry", 451)
    mailbox.refuse.pop("busy@example.com")
    attempt = await channel.send(a_notification())
    assert attempt.outcome == "delivered"
    assert [recipients for recipients, _ in mailbox.got] == [["a@example.com"], ["busy@example.com"]]


@pytest.mark.parametrize(
    ("answer", "outcome", "code"), [("451 try later", "retry", 451), ("554 no such thing", "dead", 554)]
)
async def test_what_the_mail_server_answers_decides(
    mailbox: Mailbox, mail_server: Any, client: httpx.AsyncClient, answer: str, outcome: str, code: int
) -> None:
    mailbox.answer = answer
    channel = a_mail_channel(client, f"smtp://mail.example.com:{mail_server()}")
    attempt = await channel.send(a_notification())
    assert (attempt.outcome, attempt.status_code) == (outcome, code)
    mailbox.answer, mailbox.refuse = "250 taken", {"oncall@example.com": f"{code} not you"}
    attempt = await channel.send(a_notification())
    assert (attempt.outcome, attempt.status_code) == (outcome, code)
    assert mailbox.got == []

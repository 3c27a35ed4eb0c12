"""E-mail over SMTP (RFC 5321, STARTTLS after RFC 3207): one message a notification, plain text and HTML."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from hashlib import blake2b
from ipaddress import ip_address

import aiosmtplib
import msgspec

from services.alerting.channels.posting import problem_of
from services.alerting.channels.progress import Progress
from services.alerting.channels.protocol import Attempt, Notification
from services.alerting.destinations import Address, Destinations, Refused
from services.alerting.rendering import headline, html_page, one_line, plain_text

__all__ = ["Account", "Email", "composed"]

_MOST_REFERENCES = 20
_QUIT_S = 1.0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes, to whom, and as whom it logs in.

    Attributes:
        sender: address the mail comes from.
        to: addresses it goes to.
        username: account at the mail server; empty sends without a login.
        password: its password.
    """

    sender: str
    to: tuple[str, ...]
    username: str = ""
    password: str = ""


class Email:
    """Sends e-mail. ``Message-ID`` is made of the notification_id, so a message that comes twice is known as one."""

    name = "email"

    def __init__(
        self,
        address: Address,
        account: Account,
        destinations: Destinations,
        tls: ssl.SSLContext,
        timeout_s: float,
        runbook_base_url: str = "",
    ) -> None:
        """Create the channel.

        Args:
            address: the mail server: ``smtps`` begins with TLS; ``smtp`` turns to it where the server offers
                STARTTLS, and must where there is a password to send.
            account: sender, recipients, login.
            destinations: what the server's name may lead to.
            tls: whom to trust.
            timeout_s: longest time of one try.
            runbook_base_url: put before the runbooks' paths.
        """
        self.destination = address.label
        self._address = address
        self._account = account
        self._destinations = destinations
        self._tls = tls
        self._timeout_s = timeout_s
        self._base = runbook_base_url
        self._progress = Progress()

    async def send(self, notification: Notification) -> Attempt:
        """Send to every recipient that has not taken or refused it for good in an earlier try.

        A reply of 4xx is tried again, 5xx is final; where the server takes it for some recipients only, those that may
        take it later are tried again, and it counts as delivered when the others refuse it for good.
        """
        identity = notification.notification_id
        done = self._progress.taken(identity)
        left = [each for each in self._account.to if each not in done and _refused(each) not in done]
        ends = asyncio.get_running_loop().time() + self._timeout_s
        client: aiosmtplib.SMTP | None = None
        try:
            async with asyncio.timeout_at(ends):
                client = await self._connected(ends)
                message = composed(notification, self._account.sender, self._account.to, self._base).as_bytes()
                replies = await _sent(client, self._account.sender, left, message)
            await _leave(client, ends)
        except TimeoutError:
            return Attempt(outcome="retry", reason=f"no answer within {self._timeout_s:g} s")
        except aiosmtplib.SMTPResponseException as error:
            return self._answered(error.code, error.message)
        except (aiosmtplib.SMTPException, OSError, Refused, ValueError) as error:
            return Attempt(outcome="retry", reason=_problem(error))
        finally:
            if client is not None:
                client.close()
        return self._concluded(identity, left, replies)

    async def aclose(self) -> None:
        """Nothing is kept open between messages."""

    async def _connected(self, ends: float) -> aiosmtplib.SMTP:
        address = self._address
        taken = await _socket(await self._destinations.addresses(address.host, address.port), address.port, ends)
        client = aiosmtplib.SMTP(
            hostname=address.host,  # whom the certificate must name; the connection is the checked one
            port=None,
            sock=taken,
            local_hostname=_literal(taken),
            use_tls=address.tls,
            start_tls=False if address.tls else (True if self._account.username else None),
            tls_context=self._tls,
            timeout=self._timeout_s,
        )
        try:
            await client.connect()
            if self._account.username:
                await client.login(self._account.username, self._account.password)
        except BaseException:
            client.close()
            taken.close()
            raise
        return client

    def _answered(self, code: int, message: str) -> Attempt:
        said = self._clean(message)
        if 400 <= code < 500 or code < 0:
            return Attempt(outcome="retry", status_code=code if code > 0 else None, reason=f"SMTP {code}: {said}")
        return Attempt(
            outcome="dead", status_code=code, reason=f"refused with SMTP {code}: {said}; it will not be tried again"
        )

    def _concluded(self, identity: str, left: Sequence[str], replies: dict[str, tuple[int, str]]) -> Attempt:
        for each in left:
            if each not in replies:
                self._progress.note(identity, each)
            elif replies[each][0] >= 500:
                self._progress.note(identity, _refused(each))
        done = self._progress.taken(identity)
        words = "; ".join(f"{each}: {code} {self._clean(said)}" for each, (code, said) in sorted(replies.items()))
        reason = f"{len(replies)} of {len(self._account.to)} recipients refused: {words}" if replies else None
        waiting = [each for each in replies if _refused(each) not in done]
        if waiting:
            return Attempt(outcome="retry", status_code=replies[waiting[0]][0], reason=reason)
        self._progress.forget(identity)
        if any(each in done for each in self._account.to):
            return Attempt(outcome="delivered", status_code=250, reason=reason)
        return Attempt(
            outcome="dead",
            status_code=next(iter(replies.values()))[0] if replies else None,
            reason=f"{reason}; it will not be tried again",
        )

    def _clean(self, message: str) -> str:
        password = self._account.password
        return one_line(message.replace(password, "***") if password else message, 200)


def composed(notification: Notification, sender: str, to: Sequence[str], runbook_base_url: str) -> EmailMessage:
    """Return the message. Every value of a header is on one line of printable characters: text of producers can add no
    header.

    ``References`` names the incident of each alert, by its fingerprint: mail programs show what is told of an incident
    as one thread.
    """
    domain = sender.rpartition("@")[2]
    threads = list(dict.fromkeys(_thread(alert.fingerprint, domain) for alert in notification.alerts))
    message = EmailMessage(policy=SMTP_POLICY)
    message["Message-ID"] = f"<{_token(notification.notification_id)}@{domain}>"
    message["Date"] = format_datetime(notification.created_at)
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Subject"] = headline(notification)
    message["In-Reply-To"] = threads[0]
    message["References"] = " ".join(threads[:_MOST_REFERENCES])
    # RFC 3834: no automatic answer is wanted.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(plain_text(notification, runbook_base_url))
    message.add_alternative(html_page(notification, runbook_base_url), subtype="html")
    return message


async def _sent(client: aiosmtplib.SMTP, sender: str, to: Sequence[str], message: bytes) -> dict[str, tuple[int, str]]:
    """Send, and return the replies of the recipients that refused it."""
    try:
        replies, _ = await client.sendmail(sender, list(to), message)
    except aiosmtplib.SMTPRecipientsRefused as error:
        return {each.recipient: (each.code, each.message) for each in error.recipients}
    return {each: (reply.code, reply.message) for each, reply in replies.items()}


async def _leave(client: aiosmtplib.SMTP, ends: float) -> None:
    """Take leave; whatever comes of that changes nothing about what was taken."""
    with suppress(aiosmtplib.SMTPException, OSError):
        async with asyncio.timeout_at(min(ends, asyncio.get_running_loop().time() + _QUIT_S)):
            await client.quit()


async def _socket(addresses: Sequence[str], port: int, ends: float) -> socket.socket:
    """Connect to the first address that can be reached."""
    loop = asyncio.get_running_loop()
    problem: OSError | None = None
    for left, each in zip(range(len(addresses), 0, -1), addresses, strict=True):
        family = socket.AF_INET6 if ip_address(each).version == 6 else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setblocking(False)
        try:
            # An address that does not even refuse must leave time for the others.
            async with asyncio.timeout((ends - loop.time()) / left):
                await loop.sock_connect(opened, (each, port))
        except OSError as error:
            opened.close()
            problem = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise problem or OSError("the name has no address")


def _literal(connected: socket.socket) -> str:
    """What EHLO calls this host: its address (RFC 5321 section 4.1.3), since it need not have a name."""
    address = ip_address(str(connected.getsockname()[0]).partition("%")[0])
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


def _problem(error: BaseException) -> str:
    if isinstance(error, aiosmtplib.SMTPException) and "STARTTLS" in str(error):
        return "the mail server offers no STARTTLS, and a password is not sent in the clear; use smtps://"
    return problem_of(error)


def _refused(recipient: str) -> str:
    return f"refused {recipient}"


def _token(text: str) -> str:
    """Text as the left side of a Message-ID; of other characters their digest."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", text) else blake2b(text.encode(), digest_size=16).hexdigest()


def _thread(fingerprint: str, domain: str) -> str:
    return f"<incident-{_token(fingerprint)}@{domain}>"

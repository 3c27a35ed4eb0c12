"""One POST to a receiver: to a checked address, once, without redirects, and what the answer means."""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import certifi
import httpx
import msgspec
from penstock.clock import Clock

from services.alerting.channels.protocol import Attempt
from services.alerting.destinations import Address, Destinations, Refused

__all__ = [
    "Answer",
    "Poster",
    "attempt_of",
    "meaning_of",
    "open_http_client",
    "problem_of",
    "retry_after",
    "tls_context",
]

_MOST_ADDRESSES = 4
"""Of a name, in one try."""
_MOST_BODY = 4096
"""Bytes of an answer that are looked at; the rest is not read."""
_LONGEST_PAUSE_S = 86_400.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one POST.

    Attributes:
        status_code: ``None`` where no answer came.
        problem: what went wrong, for people; without credentials.
        retry_after_s: pause that the receiver asked for.
        body: its first bytes, where they were asked for.
    """

    status_code: int | None = None
    problem: str = ""
    retry_after_s: float | None = None
    body: bytes = b""


class Poster:
    """Posts to one address."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        address: Address,
        destinations: Destinations,
        clock: Clock,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """Create it.

        Args:
            client: of :func:`open_http_client`; must not take proxies from the environment.
            address: where to.
            destinations: what its host may lead to.
            clock: reads ``Retry-After`` where that is a date.
            timeout_s: longest time of one POST, from the name's resolution on, however slowly the answer drips.
            headers: sent with each; for credentials.
            secrets: blotted out of what the receiver answers, which may quote them.
        """
        self.destination = address.label
        self._client = client
        self._address = address
        self._destinations = destinations
        self._clock = clock
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._secrets = sorted({each.encode() for each in secrets if each}, key=len, reverse=True)

    async def post(
        self,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        read: bool = False,
        deadline: float | None = None,
    ) -> Answer:
        """Post JSON once. Raises nothing.

        Args:
            body: the JSON.
            headers: of this one.
            read: look at the beginning of the answer's body as well.
            deadline: end of the try on the event loop's clock, where that is before ``timeout_s`` from now.
        """
        return await self._ask("POST", self._address.url, body, headers or {}, _MOST_BODY if read else 0, deadline)

    async def get(self, parameters: Mapping[str, str], most: int, deadline: float | None = None) -> Answer:
        """Get the same address once, with a query; at most ``most`` bytes of the answer's body. Raises nothing."""
        return await self._ask("GET", self._address.url.copy_merge_params(parameters), b"", {}, most, deadline)

    async def _ask(
        self, method: str, url: httpx.URL, body: bytes, headers: Mapping[str, str], most: int, deadline: float | None
    ) -> Answer:
        now = asyncio.get_running_loop().time()
        ends = now + self._timeout_s if deadline is None else min(deadline, now + self._timeout_s)
        try:
            async with asyncio.timeout_at(ends):
                response = await self._response(method, url, body, headers, ends)
        except TimeoutError:
            return Answer(problem=f"no answer within {max(ends - now, 0.0):.3g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, Refused) as error:
            return Answer(problem=problem_of(error))
        # What was answered counts, whether or not the body comes in time.
        try:
            return Answer(
                status_code=response.status_code,
                problem=f"HTTP {response.status_code}",
                retry_after_s=retry_after(response.headers.get("Retry-After"), self._clock.now()),
                body=self._blotted(await _beginning(response, most, ends)) if most else b"",
            )
        finally:
            await response.aclose()

    async def _response(
        self, method: str, url: httpx.URL, body: bytes, headers: Mapping[str, str], ends: float
    ) -> httpx.Response:
        """The head of the answer, from the first address that can be reached."""
        addresses = (await self._destinations.addresses(self._address.host, self._address.port))[:_MOST_ADDRESSES]
        for left, each in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # An address that does not even refuse must leave time for the others.
            connect_s = (ends - asyncio.get_running_loop().time()) / left
            request = self._request(method, url.copy_with(host=each), body, headers, connect_s)
            try:
                return await self._client.send(request, stream=True, follow_redirects=False)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if left == 1:
                    raise
        raise OSError(errno.EADDRNOTAVAIL, "the name has no address")

    def _request(
        self, method: str, url: httpx.URL, body: bytes, headers: Mapping[str, str], connect_s: float
    ) -> httpx.Request:
        # The address that was checked is the one that is connected to; the name stays in Host and in TLS. A request of
        # its own, not the client's: no cookies of other answers. Closed after use: a connection that was verified for
        # one name must not serve another that shares the address.
        return httpx.Request(
            method,
            url,
            headers={
                "Host": self._address.url.netloc.decode("ascii"),
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "penstock-alerting",
                "Connection": "close",
                **self._headers,
                **headers,
            },
            content=body,
            extensions={"sni_hostname": self._address.host, "timeout": {"connect": connect_s}},
        )

    def _blotted(self, body: bytes) -> bytes:
        for each in self._secrets:
            body = body.replace(each, b"***")
        return body


async def _beginning(response: httpx.Response, most: int, ends: float) -> bytes:
    """The first bytes of a body; what came before it broke off or time was up."""
    body = b""
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout_at(ends):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) >= most:
                    break
    return body[:most]


def open_http_client(tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """Return the client of all channels that speak HTTP. Close it after them.

    It takes no proxy from the environment (a proxy would resolve the name again, past the check), follows no redirect,
    keeps no connection, and opens as many as it is asked for: receivers that hang must not use up those of the others.

    Args:
        tls: whom to trust; :func:`tls_context` where none is given.
    """
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        timeout=None,
        verify=tls or tls_context(),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )


def tls_context() -> ssl.SSLContext:
    """Return whom TLS trusts: the machine's authorities (``SSL_CERT_FILE`` adds one's own) and Mozilla's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def meaning_of(status_code: int | None) -> Literal["delivered", "retry", "dead"]:
    """Return what a receiver's answer means. A redirect is not followed: it could lead anywhere."""
    if status_code is None or status_code >= 500 or status_code in {408, 425, 429}:
        return "retry"
    return "delivered" if 200 <= status_code < 300 else "dead"


def attempt_of(answer: Answer, detail: str = "") -> Attempt:
    """Return how a try ended with this answer.

    Args:
        answer: the answer.
        detail: what the receiver says about it; must hold no credentials.
    """
    meaning = meaning_of(answer.status_code)
    reason = None
    if meaning != "delivered":
        reason = f"{answer.problem}: {detail}" if detail else answer.problem
    if meaning == "dead":
        hint = "; redirects are not followed, give the final address" if 300 <= (answer.status_code or 0) < 400 else ""
        reason = f"refused with {reason}{hint}; it will not be tried again"
    return Attempt(
        outcome=meaning,
        status_code=answer.status_code,
        reason=reason,
        retry_after_s=answer.retry_after_s if meaning == "retry" else None,
    )


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that ``Retry-After`` (RFC 9110 section 10.2.3: seconds or a date) asks for, a day at most;
    ``None`` where it asks for nothing that can be read."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,15}", value, re.ASCII):
        return min(float(value), _LONGEST_PAUSE_S)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), _LONGEST_PAUSE_S)


def problem_of(error: BaseException) -> str:
    """Return what went wrong in words that hold no address, header or secret: libraries quote what they choked on."""
    if isinstance(error, Refused):
        return str(error)
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"the receiver's certificate is not trusted: {each.verify_message}"
        if isinstance(each, OSError) and each.strerror and not isinstance(each, ssl.SSLError):
            return f"{type(error).__name__}: {each.strerror}"
    return type(error).__name__

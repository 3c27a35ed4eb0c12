"""From a receiver of the configuration to the channel that reaches it."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TextIO

import httpx
from penstock.clock import Clock
from penstock.config.alerting import Receiver

from services.alerting.channels.alertmanager import HOLD, AlertmanagerV2
from services.alerting.channels.console import Console
from services.alerting.channels.email import Account, Email
from services.alerting.channels.pagerduty import DEFAULT_URL, PagerDuty
from services.alerting.channels.posting import Poster, tls_context
from services.alerting.channels.protocol import Channel, Misconfigured
from services.alerting.channels.slack import Slack
from services.alerting.channels.webhook import Webhook, signing_keys
from services.alerting.destinations import Address, Destinations, Refused

__all__ = ["open_channel"]

_PAGERDUTY_HOST = "events.pagerduty.com:443"
_SHORTEST_SECRET = 8
_ALERTS_PATH = "/api/v2/alerts"


def open_channel(
    receiver: Receiver,
    environ: Mapping[str, str],
    destinations: Destinations,
    clock: Clock,
    http_client: httpx.AsyncClient,
    runbook_base_url: str,
    *,
    longest_repeat_s: float = 0.0,
    tls: ssl.SSLContext | None = None,
    stream: TextIO | None = None,
) -> Channel:
    """Return the channel to a receiver.

    Args:
        receiver: the receiver.
        environ: alerting's environment, which holds what ``url_env`` and ``secret_env`` name. An address from it may
            lead anywhere: it is the operator's.
        destinations: where addresses from the configuration may lead.
        clock: dates signatures and the ends of alerts.
        http_client: of :func:`services.alerting.channels.posting.open_http_client`; ``ValueError`` otherwise, since a
            proxy from the environment would go past the check of addresses.
        runbook_base_url: put before the runbooks' paths.
        longest_repeat_s: longest interval of repetitions of the routes that lead here; Alertmanager keeps an alert at
            least twice as long.
        tls: whom mail servers must be vouched for by; :func:`tls_context` where none is given.
        stream: where the console prints; stdout where none is given.

    Raises:
        Misconfigured: a variable is not set, or an address is none or not allowed.
    """
    if receiver.type == "console":
        return Console(runbook_base_url, stream)
    try:
        return _opened(receiver, environ, destinations, clock, http_client, runbook_base_url, longest_repeat_s, tls)
    except Misconfigured as error:
        raise Misconfigured(f"receiver {receiver.name}: {error}") from None


def _opened(
    receiver: Receiver,
    environ: Mapping[str, str],
    destinations: Destinations,
    clock: Clock,
    client: httpx.AsyncClient,
    base: str,
    longest_repeat_s: float,
    tls: ssl.SSLContext | None,
) -> Channel:
    secret = _secret(receiver, environ)
    if receiver.type == "email":
        address, allowed = _address(receiver, environ, destinations, ("smtp", "smtps"))
        return Email(
            address, _account(receiver, address, secret), allowed, tls or tls_context(), receiver.timeout_s, base
        )
    address, allowed = _address(receiver, environ, destinations, ("https", "http"))
    if client.trust_env:
        raise ValueError("open the client with open_http_client: a proxy of the environment resolves names unchecked")
    headers = _authorization(receiver, address, secret)
    poster = Poster(client, address, allowed, clock, receiver.timeout_s, headers, _blots(receiver, address, secret))
    match receiver.type:
        case "slack":
            return Slack(poster, base)
        case "pagerduty":
            return PagerDuty(poster, secret or "", receiver.timeout_s, base)
        case "alertmanager":
            return AlertmanagerV2(
                poster, clock, receiver.timeout_s, base, max(HOLD, timedelta(seconds=2 * longest_repeat_s))
            )
        case _:
            return Webhook(poster, _keys(receiver, secret), clock, base)


def _address(
    receiver: Receiver, environ: Mapping[str, str], destinations: Destinations, schemes: Sequence[str]
) -> tuple[Address, Destinations]:
    """Where to, and what that may lead to."""
    if receiver.url_env is not None:
        text, named = (
            _variable(receiver.url_env, environ, "the receiver's address"),
            f"the address in {receiver.url_env}",
        )
        allowed = destinations.anywhere()
    else:
        text, named = receiver.url or DEFAULT_URL, "url"
        allowed = destinations.joined(_PAGERDUTY_HOST) if receiver.url is None else destinations
    try:
        address = Address.parse(_completed(receiver, text), schemes)
        if receiver.url_env is None and (address.username or address.password):
            raise Refused("holds credentials; put the whole address into a variable and name it in url_env")
        allowed.check(address.host, address.port)
    except Refused as error:
        raise Misconfigured(f"{named} {error}") from None
    return address, allowed


def _completed(receiver: Receiver, text: str) -> str:
    """The address with the path that the receiver's API has."""
    if receiver.type == "alertmanager":
        return text.rstrip("/").removesuffix(_ALERTS_PATH) + _ALERTS_PATH
    if receiver.type == "pagerduty" and re.fullmatch(r"https?://[^/?#]+/?", text):
        return text.rstrip("/") + "/v2/enqueue"
    return text


def _secret(receiver: Receiver, environ: Mapping[str, str]) -> str | None:
    if receiver.secret_env is None:
        return None
    what = {"webhook": "the signing secret", "pagerduty": "the integration's routing key", "email": "the password"}
    secret = _variable(receiver.secret_env, environ, what.get(receiver.type, "the bearer token"))
    if receiver.type in {"pagerduty", "alertmanager"} and not re.fullmatch(r"[!-~]+", secret):
        raise Misconfigured(
            f"{receiver.secret_env} holds blanks or characters that are not ASCII; set it to the key alone"
        )
    return secret


def _variable(name: str, environ: Mapping[str, str], what: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise Misconfigured(f"the variable {name} is not set; set it to {what} in the environment of alerting")
    return value


def _keys(receiver: Receiver, secret: str | None) -> tuple[bytes, ...]:
    try:
        return signing_keys(secret) if secret else ()
    except ValueError as error:
        raise Misconfigured(f"{receiver.secret_env} {error}; write whsec_ and base64, or any text without it") from None


def _authorization(receiver: Receiver, address: Address, secret: str | None) -> dict[str, str]:
    bearer = secret if receiver.type == "alertmanager" else None
    if address.username or address.password:
        if bearer:
            raise Misconfigured(f"{receiver.url_env} and {receiver.secret_env} both hold credentials; keep one of them")
        joined = base64.b64encode(f"{address.username}:{address.password}".encode()).decode("ascii")
        return {"Authorization": f"Basic {joined}"}
    return {"Authorization": f"Bearer {bearer}"} if bearer else {}


def _blots(receiver: Receiver, address: Address, secret: str | None) -> list[str]:
    """What no record may hold: the secret, and of a secret address the parts that can be one."""
    if receiver.url_env is None:
        return [secret or ""]
    parts = re.split(r"[/?&=]", address.url.raw_path.decode("ascii"))
    return [secret or "", address.password, *(part for part in parts if len(part) >= _SHORTEST_SECRET)]


def _account(receiver: Receiver, address: Address, secret: str | None) -> Account:
    sender = receiver.sender or ""
    for each in (sender, *receiver.to):
        if not re.fullmatch(r"[!-~]+", each):
            raise Misconfigured(f"{each!r} is no ASCII address; write its domain in punycode (xn--...)")
    username, password = receiver.username or address.username, secret or address.password
    if bool(username) != bool(password):
        missing = "secret_env, the password's variable" if username else "username"
        raise Misconfigured(f"a login needs both name and password; add {missing}, or leave both out")
    return Account(sender=sender, to=tuple(dict.fromkeys(receiver.to)), username=username, password=password)

"""Names, certificates, proxies and cookies: a delivery goes to the address that was checked, under its name, and nowhere
else."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import trustme

from services.alerting.channels.posting import open_http_client
from services.alerting.destinations import Destinations
from tests.integration.raw_receivers import (
    a_channel,
    answering,
    mailing,
    serving,
    silent,
    whole_request,
)
from tests.unit.alerting_notifications import a_notification


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_http_client() as opened:
        yield opened


async def test_a_name_is_asked_for_once_a_try_and_the_checked_address_is_the_one_connected_to() -> None:
    authority = trustme.CA()
    server_tls, client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("hooks.example.com").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    heads: list[bytes] = []
    names: list[str] = []
    server_tls.sni_callback = lambda _, name, __: names.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await whole_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    rounds = iter([["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "10.1.2.3"], ["::ffff:169.254.169.254"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(rounds)

    async with serving(serve, server_tls) as port, open_http_client(tls=client_tls) as client:
        channel = a_channel(client, "webhook", 0, url_env=None, url=f"https://hooks.example.com:{port}/in?token=x",
                            destinations=Destinations([f"hooks.example.com:{port}=127.0.0.1"], rebinding))  # fmt: skip
        attempts = [await channel.send(a_notification()) for _ in range(4)]
    assert [attempt.outcome for attempt in attempts] == ["delivered", "retry", "retry", "retry"]
    assert "hooks.example.com leads to 169.254.169.254, which is not listed" in (attempts[1].reason or "")
    assert "10.1.2.3" in (attempts[2].reason or "")
    assert names == ["hooks.example.com"]
    assert len(heads) == 1
    assert heads[0].startswith(b"POST /in?token=x HTTP/1.1\r\n")
    assert f"Host: hooks.example.com:{port}\r\n".encode() in heads[0]


async def test_a_certificate_of_another_name_is_refused() -> None:
    authority = trustme.CA()
    server_tls, client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("elsewhere.example.com", "127.0.0.1").configure_cert(server_tls)
    authority.configure_trust(client_tls)

    async def here(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with serving(silent, server_tls) as port, open_http_client(tls=client_tls) as client:
        channel = a_channel(client, "webhook", 0, url_env=None, url=f"https://hooks.example.com:{port}/",
                            destinations=Destinations(["hooks.example.com=127.0.0.1"], here))  # fmt: skip
        attempt = await channel.send(a_notification())
    assert attempt.outcome == "retry"
    assert "certificate is not trusted" in (attempt.reason or "")


async def test_the_next_address_of_a_name_is_tried(client: httpx.AsyncClient) -> None:
    async def two(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    for kind, serve in (("webhook", answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), ("email", mailing)):
        async with serving(serve) as port:
            scheme = "smtp" if kind == "email" else "http"
            channel = a_channel(client, kind, port, url_env=None, url=f"{scheme}://both.example.com:{port}",
                                destinations=Destinations(["both.example.com=127.0.0.0/8"], two), timeout_s=5.0)  # fmt: skip
            assert (await channel.send(a_notification())).outcome == "delivered"


async def test_proxies_of_the_environment_and_cookies_of_other_receivers_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await whole_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=first; Path=/\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(serve) as port, open_http_client() as client:
        for kind in ("webhook", "slack"):
            assert (await a_channel(client, kind, port).send(a_notification())).outcome == "delivered"
    assert len(heads) == 2
    assert not any(b"cookie" in head.lower() for head in heads)


@contextmanager
def swallowing() -> Iterator[int]:
    """A port of 127.0.0.2 that neither takes connections nor refuses them, as behind a firewall that drops packets."""
    with ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        while True:
            filler = open_sockets.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(("127.0.0.2", port))
            except TimeoutError:
                break
        yield port


@pytest.mark.parametrize("kind", ["webhook", "email"])
async def test_an_address_that_does_not_even_refuse_leaves_time_for_the_next(
    client: httpx.AsyncClient, kind: str
) -> None:
    async def two(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    serve = mailing if kind == "email" else answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with swallowing() as port:
        async with serving(serve, port=port):
            scheme = "smtp" if kind == "email" else "http"
            channel = a_channel(client, kind, port, url_env=None, url=f"{scheme}://both.example.com:{port}",
                                destinations=Destinations(["both.example.com=127.0.0.0/8"], two), timeout_s=2.0)  # fmt: skip
            assert (await channel.send(a_notification())).outcome == "delivered"

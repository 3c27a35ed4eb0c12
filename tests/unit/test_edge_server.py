"""The server of the edge: where it listens, HTTPS, and how it stops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from penstock.settings import SettingsError

from services.edge.server import ApiServer
from services.edge.settings import Settings
from tests.unit.edge_desk import AUTHORIZATION, MemoryDesk, app_of, front_of

CHAT = {"model": "default", "messages": [{"role": "user", "content": "a"}]}


@asynccontextmanager
async def serving(server: ApiServer) -> AsyncGenerator[asyncio.Event, None]:
    stopping, listening = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(server.serve(stopping, listening.set))
    async with asyncio.timeout(10):
        await listening.wait()
        yield stopping
        stopping.set()
        await task


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_it_speaks_https_and_nothing_older_than_tls_1_2(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = tmp_path / "edge.pem", tmp_path / "edge.key"
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(key)
    for blob in made.cert_chain_pems:
        blob.write_to_path(certificate, append=True)
    settings = Settings(edge_port=0, edge_ssl_certfile=str(certificate), edge_ssl_keyfile=str(key))
    server = ApiServer(app_of(front_of(MemoryDesk())), settings)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving(server), httpx.AsyncClient(verify=trusting, headers=AUTHORIZATION) as client:
        answer = await client.get(f"https://127.0.0.1:{server.port}/v1/models")
        assert answer.status_code == 200
        assert answer.extensions["network_stream"].get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
        trusting.minimum_version = ssl.TLSVersion.TLSv1
        trusting.maximum_version = ssl.TLSVersion.TLSv1_1
        trusting.set_ciphers("ALL:@SECLEVEL=0")
        async with httpx.AsyncClient(verify=trusting) as old:
            with pytest.raises(httpx.ConnectError):
                await old.get(f"https://127.0.0.1:{server.port}/healthz")


def test_a_certificate_that_is_none_is_told_with_its_variables(tmp_path: Path) -> None:
    (tmp_path / "edge.pem").write_text("no certificate")
    for name in ("edge.pem", "missing.pem"):
        with pytest.raises(SettingsError, match=r"EDGE_SSL_CERTFILE and EDGE_SSL_KEYFILE"):
            ApiServer(lambda: None, Settings(edge_port=0, edge_ssl_certfile=str(tmp_path / name)))


async def test_an_address_that_is_taken_is_told_with_its_variable() -> None:
    server = ApiServer(app_of(front_of(MemoryDesk())), Settings(edge_port=0))
    async with serving(server):
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{server.port} \(EDGE_HOST, EDGE_PORT\)"):
            ApiServer(app_of(front_of(MemoryDesk())), Settings(edge_port=server.port))


async def test_a_stop_takes_nobody_on_and_waits_for_those_who_are_answered() -> None:
    desk = MemoryDesk(lambda request: [])
    front = front_of(desk)
    server = ApiServer(app_of(front), Settings(edge_port=0, drain_s=5))
    url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(headers=AUTHORIZATION, timeout=10) as client, serving(server) as stopping:
        waiting = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=CHAT))
        while not desk.requests:
            await asyncio.sleep(0.005)
        stopping.set()
        while True:
            try:
                async with httpx.AsyncClient() as late:
                    await late.get(f"{url}/healthz")
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                break  # refused, or taken by the kernel in the moment the server closed its socket
        assert not waiting.done()
        front.leaving.set_result(None)
        answer = await waiting
    assert (answer.status_code, answer.headers["connection"]) == (503, "close")
    assert answer.json()["error"]["code"] == "still_under_way"

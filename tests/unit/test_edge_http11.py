"""What reaches the edge over a socket: requests that two servers could read differently, too much, and too slow."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from services.edge.http11 import EdgeProtocol, WireLimits
from services.edge.server import ApiServer
from services.edge.settings import Settings
from tests.unit.edge_desk import AUTHORIZATION, KEY, MemoryDesk, app_of, front_of

_H = b"Host: x\r\nAuthorization: Bearer " + KEY.text.encode() + b"\r\nContent-Type: application/json\r\n"
_CHAT = b'{"model": "default", "messages": [{"role": "user", "content": "a"}]}'
_LENGTH = b"Content-Length: %d\r\n" % len(_CHAT)
_NEXT = b"GET /v1/models HTTP/1.1\r\n" + _H + b"\r\n"
_HEADER_BYTES = 8_192


class Running:
    """A server, its desk, and a way to send it bytes."""

    def __init__(self, desk: MemoryDesk, server: ApiServer, stopping: asyncio.Event) -> None:
        self.desk = desk
        self.port = server.port
        self.stopping = stopping

    async def send(self, *parts: bytes, half_closed: bool = False) -> tuple[list[int], bytes, bool]:
        """Send ``parts``; return the statuses answered, all bytes, and whether the server closed within half a second."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received, closed = bytearray(), False
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            while True:
                data = await asyncio.wait_for(reader.read(65_536), 0.5)
                if not data:
                    closed = True
                    break
                received += data
        except TimeoutError:
            pass
        except ConnectionError:
            closed = True
        finally:
            writer.close()
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)], bytes(received), closed


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    desk = MemoryDesk()
    settings = Settings(
        edge_port=0, max_header_bytes=_HEADER_BYTES, receive_timeout_s=0.3, max_connections=20, drain_s=0.2
    )
    server = ApiServer(app_of(front_of(desk)), settings)
    stopping, listening = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(server.serve(stopping, listening.set))
    async with asyncio.timeout(10):
        await listening.wait()
    yield Running(desk, server, stopping)
    stopping.set()
    async with asyncio.timeout(10):
        await serving


def post(*headers: bytes, body: bytes = _CHAT, version: bytes = b"HTTP/1.1", head: bytes = _H) -> bytes:
    return b"POST /v1/requests " + version + b"\r\n" + head + b"".join(headers) + b"\r\n" + body


def chunked(body: bytes = _CHAT) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


_TE = b"Transfer-Encoding: chunked\r\n"
AMBIGUOUS = {
    "length and encoding": (post(_LENGTH, _TE, body=chunked()), 400),
    "a request hidden behind the two": (post(b"Content-Length: 200\r\n", _TE, body=b"0\r\n\r\n" + _NEXT), 400),
    "two lengths": (post(_LENGTH, b"Content-Length: 3\r\n"), 400),
    "the same length twice": (post(_LENGTH, _LENGTH), 400),
    "a list of lengths": (post(b"Content-Length: 3, 3\r\n", body=b"abc"), 400),
    "a length with a sign": (post(b"Content-Length: +3\r\n", body=b"abc"), 400),
    "a negative length": (post(b"Content-Length: -1\r\n", body=b"abc"), 400),
    "a length in hexadecimal": (post(b"Content-Length: 0x3\r\n", body=b"abc"), 400),
    "a length beyond all numbers": (post(b"Content-Length: 99999999999999999999999\r\n", body=b"abc"), 400),
    "an encoding that looks like chunked": (post(b"Transfer-Encoding: xchunked\r\n", body=chunked()), 501),
    "two encodings": (post(b"Transfer-Encoding: gzip, chunked\r\n", body=chunked()), 501),
    "an encoding twice": (post(_TE, b"Transfer-Encoding: identity\r\n", body=chunked()), 400),
    "a space before the colon": (post(b"Transfer-Encoding : chunked\r\n", body=chunked()), 400),
    "a tab that is none": (post(b"Transfer-Encoding: \x0bchunked\r\n", body=chunked()), 400),
    "an encoding in HTTP/1.0": (post(_TE, body=chunked(), version=b"HTTP/1.0"), 400),
    "a chunk's size in another notation": (post(_TE, body=b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk's size beyond all numbers": (post(_TE, body=b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"), 400),
    "a bare line feed in a chunk's extension": (post(_TE, body=b"3;a\nabc\r\n0\r\n\r\n"), 400),
    "a chunk longer than it says": (post(_TE, body=b"3\r\nabcXX0\r\n\r\n"), 400),
    "a trailer": (post(_TE, body=chunked()[:-2] + b"Authorization: Bearer x\r\n\r\n"), 400),
    "bare line feeds": (post(_LENGTH).replace(b"\r\n", b"\n"), 400),
    "a bare carriage return": (post(b"X: a\rContent-Length: 0\r\n", _LENGTH), 400),
    "a zero byte": (post(b"X: a\x00b\r\n", _LENGTH), 400),
    "a folded header": (post(b"X: a\r\n b\r\n", _LENGTH), 400),
    "a folded encoding": (post(b"Transfer-Encoding:\r\n chunked\r\n", body=chunked()), 400),
    "no host": (post(_LENGTH, head=_H.removeprefix(b"Host: x\r\n")), 400),
    "two hosts": (post(b"Host: y\r\n", _LENGTH), 400),
    "HTTP/0.9": (b"GET /v1/models\r\n\r\n", 505),
    "HTTP/2.0 by name": (post(_LENGTH, version=b"HTTP/2.0"), 505),
    "an upgrade with a body": (post(b"Connection: Upgrade\r\nUpgrade: h2c\r\n", _LENGTH), 400),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 20 + b"\r\n\r\n", 400),
    "a large header": (post(b"X: " + b"a" * _HEADER_BYTES + b"\r\n", _LENGTH), 431),
    "many headers": (post(b"".join(b"X%d: a\r\n" % n for n in range(101)), _LENGTH), 431),
    "a long address": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n" + _H + b"\r\n", 414),
}


async def test_what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(running: Running) -> None:
    wrong: dict[str, object] = {}
    for name, (sent, status) in AMBIGUOUS.items():
        statuses, received, closed = await running.send(sent, _NEXT)
        if statuses != [status] or not closed or running.desk.requests:
            wrong[name] = (statuses, closed, len(running.desk.requests))
        else:
            assert set(json.loads(received.partition(b"\r\n\r\n")[2])["error"]) == {"message", "type", "param", "code"}
    assert wrong == {}


class Wire(asyncio.Transport):
    """A connection of which only what is written is of interest."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing


@pytest.mark.parametrize(
    "begun",
    [
        b"GET / HTTP/1.1\r\nX: ",
        post(_TE, body=chunked()[:-2] + b"X: "),
        post(_TE, body=b"3;"),
    ],
    ids=["header", "trailer", "chunk's extension"],
)
async def test_what_has_no_end_is_not_gathered_up_to_the_deadline(begun: bytes) -> None:
    config = uvicorn.Config(app_of(front_of(MemoryDesk())), lifespan="off", log_config=None)
    limits = WireLimits(header_bytes=_HEADER_BYTES, target_bytes=1_000)
    protocol, wire = EdgeProtocol(config, ServerState(), {}, limits=limits), Wire()
    protocol.connection_made(wire)
    protocol.data_received(begun)
    gathered = 0
    while not wire.is_closing() and gathered < 1_000_000:
        protocol.data_received(b"a" * 1_000)
        gathered += 1_000
    protocol.connection_lost(None)
    assert wire.written.startswith(b"HTTP/1.1 431 ")
    assert gathered <= _HEADER_BYTES + 3_000


async def test_what_can_be_read_in_one_way_is_read(running: Running) -> None:
    sends = [
        post(_LENGTH),
        post(_TE, body=chunked()),
        post(_LENGTH, b"Expect: 100-continue\r\n"),
        post(b"Content_Length: 9\r\n", _LENGTH),
    ]
    for sent in sends:
        statuses, _, _ = await running.send(sent, _NEXT)
        assert [status for status in statuses if status != 100] == [202, 200]
    assert len(running.desk.requests) == len(sends)


@pytest.mark.parametrize(
    "parts",
    [(b"POST /v1/requests HTTP/1.1\r\nHost:",), (post(_LENGTH, body=b"{"),), (post(_TE, body=b"5\r\n{"),)],
    ids=["head", "body", "chunk"],
)
async def test_a_request_that_does_not_come_in_time_is_ended(running: Running, parts: tuple[bytes, ...]) -> None:
    statuses, _, closed = await running.send(*parts)
    assert (statuses, closed) == ([408], True)


async def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(running: Running) -> None:
    assert await running.send() == ([], b"", True)


async def test_line_breaks_between_requests_do_not_keep_a_connection(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(post(_LENGTH))
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        writer.write(b"\r\n")
        assert await reader.read() == b""
    writer.close()


async def test_a_wait_is_not_cut_by_the_time_to_send(running: Running) -> None:
    """The deadline is for what the client sends, not for the answer, and not for what stands behind it."""
    running.desk.answer = lambda request: []
    waiting = asyncio.create_task(running.send(post(_LENGTH).replace(b"/v1/requests", b"/v1/chat/completions"), _NEXT))
    statuses, _, closed = await waiting
    assert (statuses, closed) == ([], False)


async def test_no_more_connections_than_allowed(running: Running) -> None:
    held = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(20)]
    statuses, received, closed = await running.send()
    assert (statuses, closed) == ([503], True)
    assert b"retry-after-ms: 1000\r\n" in received
    for _, writer in held:
        writer.close()


async def test_a_body_that_is_too_large_gets_its_answer_though_it_is_still_sent(running: Running) -> None:
    url = f"http://127.0.0.1:{running.port}/v1/requests"
    async with httpx.AsyncClient(headers=AUTHORIZATION) as client:
        for headers in (AUTHORIZATION, {"authorization": "Bearer psk_x"}):
            answer = await client.post(url, json={"model": "a" * 3_000_000}, headers=headers)
            assert answer.status_code == (413 if headers is AUTHORIZATION else 401)
            assert answer.headers["connection"] == "close"


async def test_a_client_that_goes_ends_its_wait_and_not_its_request(running: Running) -> None:
    running.desk.answer = lambda request: []
    chat = post(_LENGTH).replace(b"/v1/requests", b"/v1/chat/completions")
    await running.send(chat)
    async with asyncio.timeout(5):
        while running.desk.left == 0:
            await asyncio.sleep(0.005)
    assert len(running.desk.requests) == 1

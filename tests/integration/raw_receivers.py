"""Servers on loopback that answer as told, byte by byte, and channels that lead to them with secrets to keep."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from penstock.clock import SystemClock
from penstock.config.alerting import Receiver

from services.alerting.channels.opening import open_channel
from services.alerting.channels.protocol import Channel
from services.alerting.destinations import Destinations

__all__ = [
    "TIMEOUT_S",
    "Serve",
    "a_channel",
    "answering",
    "dripping",
    "endless",
    "mailing",
    "mailing_forever",
    "resetting",
    "serving",
    "silent",
    "whole_request",
]

TIMEOUT_S = 0.6
SECRETS = {
    "ADDRESS": "http://127.0.0.1:{port}/services/T0/B0/hunter2hunter2",
    "KEY": "key-of-hunter2",
}
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[int]:
    """A raw TCP server on loopback; its port."""

    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in writers:
            each.transport.abort()


async def whole_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    length = int(lengths[0].split(b":")[1]) if lengths else 0
    return head + await reader.readexactly(length)


def answering(raw: bytes, then: str = "close") -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await whole_request(reader)
        writer.write(raw)
        await writer.drain()
        if then == "hang":
            await reader.read()

    return serve


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" * 100:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await whole_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()


def a_channel(
    client: httpx.AsyncClient, kind: str, port: int, *, destinations: Destinations | None = None, **fields: Any
) -> Channel:
    """A channel of a kind, with secrets wherever it takes any."""
    environ = {name: value.format(port=port) for name, value in SECRETS.items()}
    mine: dict[str, Any] = {"name": "oncall", "type": kind, "timeout_s": TIMEOUT_S}
    if kind == "email":
        environ["ADDRESS"] = f"smtp://127.0.0.1:{port}"
        mine |= {"sender": "a@example.com", "to": ["b@example.com"]}
    else:
        mine |= {"secret_env": "KEY"}
    receiver = Receiver.model_validate(mine | {"url_env": "ADDRESS"} | fields)
    return open_channel(
        receiver, environ, destinations or Destinations(), SystemClock(), client, "https://books.example"
    )


async def mailing_forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A mail server that takes everything and then says nothing more, without hanging up."""
    await mailing(reader, writer)
    await reader.read()


async def mailing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A mail server that takes everything and then hangs up without a word."""
    writer.write(b"220 here\r\n")
    while line := await reader.readline():
        if line.startswith(b"DATA"):
            writer.write(b"354 go on\r\n")
            await reader.readuntil(b"\r\n.\r\n")
            writer.write(b"250 taken\r\n")
        elif line.startswith(b"QUIT"):
            return
        else:
            writer.write(b"250 OK\r\n")

"""An OpenAI-compatible endpoint that answers at once, or as a model server does: after a while, so many at a time.

    python -m tests.bench.mock_endpoint PORT [--latency-ms 100:200] [--concurrency 8]

What is beyond its concurrency waits, first come first served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import deque
from collections.abc import Callable
from typing import cast

import uvloop

_BODY = json.dumps(
    {
        "id": "bench", "object": "chat.completion", "created": 1, "model": "bench-model",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Here you are."}}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24},
    }
).encode()  # fmt: skip
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY


class _Desk:
    """Says when a reply may go: after a time between ``least_s`` and ``most_s``, ``concurrency`` at once."""

    def __init__(self, least_s: float, most_s: float, concurrency: int) -> None:
        self._times = random.Random(20)
        self._range = (least_s, most_s)
        self._free = concurrency
        self._queue: deque[Callable[[], None]] = deque()

    def ask(self, reply: Callable[[], None]) -> None:
        if self._range[1] == 0.0:
            reply()
            return
        self._queue.append(reply)
        self._start()

    def _start(self) -> None:
        while self._free and self._queue:
            self._free -= 1
            asyncio.get_running_loop().call_later(self._times.uniform(*self._range), self._done, self._queue.popleft())

    def _done(self, reply: Callable[[], None]) -> None:
        self._free += 1
        reply()
        self._start()


class _Endpoint(asyncio.Protocol):
    """Enough of HTTP/1.1 for a client with keep-alive: a reply for each whole request."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in all but their class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            place = head.find(b"content-length:")
            length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._desk.ask(self._reply)

    def _reply(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_REPLY)


async def _serve(port: int, desk: _Desk) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Endpoint(desk), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--latency-ms", default="0:0", help="least and most, milliseconds")
    parser.add_argument("--concurrency", type=int, default=1, help="replies under way at once, where they take time")
    given = parser.parse_args()
    least, most = (float(each) / 1000 for each in given.latency_ms.split(":"))
    uvloop.run(_serve(given.port, _Desk(least, most, given.concurrency)))

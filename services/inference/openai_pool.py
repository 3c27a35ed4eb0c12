"""Clients of the openai package over one pool of connections, and how what they get is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import httpx2
import openai
from openai import AsyncOpenAI

from services.inference.adapters import BackendError
from services.inference.openai_reply import LARGEST_ANSWER

__all__ = ["ClientPool", "drain", "events", "whole"]

_CONNECT_S = 5.0
"""Longest wait for a connection: an endpoint that does not even answer this is not worth the whole time-out."""
_LARGEST_ERROR = 64 * 1024
_ERROR_S = 2.0
"""What is read of an error's body, and for how long: it is quoted, no more."""
_DRAIN_S = 0.05
"""Longest wait for the end of a stream behind its last event: a connection is worth that."""
# What is sent on. The package adds what it finds about this machine and in the environment (OPENAI_ORG_ID,
# OPENAI_CUSTOM_HEADERS, ...) to the calls of every endpoint, whoever runs it.
_SENT_HEADERS = frozenset({"authorization", "content-length", "content-type", "user-agent"})


class ClientPool:
    """One client for each address and key; all of them share the connections of ``session``, which its owner closes.

    What a client raises is the package's where an endpoint answered, else aiohttp's.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        # httpx with its own transport takes twice the CPU for a call: 0.75 ms against 0.37 ms.
        self._http = httpx2.AsyncClient(transport=_AiohttpTransport(session), trust_env=False, timeout=None)
        self._clients: dict[tuple[str, str | None], AsyncOpenAI] = {}

    def client(self, base_url: str, key: str | None) -> AsyncOpenAI:
        """Return the client of an endpoint, which tries nothing twice and waits for ever: its user knows for how long.

        Args:
            base_url: address of the endpoint, with its /v1.
            key: what it asks for; None where it asks for nothing, and gets no Authorization header.
        """
        client = self._clients.get((base_url, key))
        if client is None:
            client = AsyncOpenAI(
                # It insists on a key, and looks for one in the environment; the header is what is sent.
                api_key=key or "none",
                base_url=base_url,
                max_retries=0,
                timeout=None,
                http_client=self._http,
            )
            self._clients[base_url, key] = client
        return client

    async def post(self, base_url: str, key: str | None, body: AsyncIterator[bytes], size: int) -> httpx2.Response:
        """Ask for a chat completion; return the response, whose body is still to be read and which must be closed.

        The body goes out as it is, and what comes back is not read by the package: it would cost twice the CPU again, and
        put the parameters it does not know behind the others.

        Args:
            base_url: address of the endpoint, with its /v1.
            key: what it asks for, if anything.
            body: of the request, JSON. It is taken once there is a connection: nothing was sent before that.
            size: bytes of it.

        Raises:
            openai.APIStatusError: the status says that there is no answer; the body is read, as far as it is to be quoted.
            openai.APIConnectionError: TLS failed.
            aiohttp.ClientError: there is no connection, or it broke.
        """
        headers: dict[str, str | openai.Omit] = {
            "Content-Type": "application/json",
            "Content-Length": str(size),
            "Authorization": f"Bearer {key}" if key else openai.Omit(),
        }
        unread: bool = True
        response = await self.client(base_url, key).post(
            "/chat/completions",
            cast_to=httpx2.Response,
            content=body,
            options={"headers": headers},
            stream=unread,
            stream_cls=openai.AsyncStream[object],
        )
        assert isinstance(response, httpx2.Response), "the openai package hands out the response that it is asked for"
        return response


class _AiohttpTransport(httpx2.AsyncBaseTransport):
    """HTTP by aiohttp. Its errors are aiohttp's: they say whether there was a connection, which httpx's do not."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = [(name, value) for name, value in request.headers.multi_items() if name in _SENT_HEADERS]
        response = await self._session.request(
            request.method,
            str(request.url),
            data=request.stream,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            # A key is for the endpoint that the route names.
            allow_redirects=False,
        )
        # aiohttp has undone the compression.
        answered = [(name, value) for name, value in response.raw_headers if name.lower() != b"content-encoding"]
        return httpx2.Response(response.status, headers=answered, stream=_Body(response), request=request)


class _Body(httpx2.AsyncByteStream):
    """A response's body; of an error, what is quoted. One that is closed before its end takes the connection with it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._response.status != 200:
            yield await self._excerpt()
            return
        async for chunk in self._response.content.iter_any():
            yield chunk

    async def _excerpt(self) -> bytes:
        read = bytearray()
        try:
            async with asyncio.timeout(_ERROR_S):
                while len(read) < _LARGEST_ERROR and (chunk := await self._response.content.read(_LARGEST_ERROR)):
                    read += chunk
        except (TimeoutError, aiohttp.ClientError):
            pass  # The status has been said.
        return bytes(read)

    async def aclose(self) -> None:
        self._response.close()


async def events(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield the data of every server-sent event of a response
    (https://html.spec.whatwg.org/multipage/server-sent-events.html), each a line here.

    Raises:
        BackendError: one of them is longer than any answer.
        aiohttp.ClientError: the connection broke.
    """
    waiting = bytearray()
    async for chunk in response.aiter_raw():
        waiting += chunk
        if b"\n" in chunk:
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    yield bytes(line[5:].strip())
        if len(waiting) > LARGEST_ANSWER:
            raise BackendError(f"an event of the stream is over {LARGEST_ANSWER:,} bytes", charged=True)
    if waiting.startswith(b"data:"):
        yield bytes(waiting[5:].strip())


async def drain(events: AsyncIterator[bytes]) -> None:
    """Read a stream to its end, so that its connection can be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in events:
                pass
    except (TimeoutError, BackendError, aiohttp.ClientError):
        pass  # The answer is there; the connection is closed.


async def whole(response: httpx2.Response) -> bytes:
    """Return the body of a response.

    Raises:
        BackendError: it is longer than any answer.
        aiohttp.ClientError: the connection broke.
    """
    payload = bytearray()
    async for chunk in response.aiter_raw():
        payload += chunk
        if len(payload) > LARGEST_ANSWER:
            raise BackendError(f"the answer is over {LARGEST_ANSWER:,} bytes", charged=True)
    return bytes(payload)

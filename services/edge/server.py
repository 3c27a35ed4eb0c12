"""Runs the API inside the service's own loop: a socket of its own, no signal handlers, and a stop with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
from penstock.settings import SettingsError
from penstock.telemetry import get_logger

from services.edge.http11 import EdgeProtocol, WireLimits
from services.edge.settings import Settings

__all__ = ["ApiServer"]

log = get_logger(__name__)
# It tells of every request that is not HTTP, which anybody can send by the thousand; the figures count what matters.
logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the service's shell has them


class ApiServer:
    """The server of one application.

    Args:
        app: the ASGI application.
        settings: where it listens, and its bounds.

    Raises:
        OSError: the address is taken, or none of this machine's.
        SettingsError: the certificate cannot be used.
    """

    def __init__(self, app: Callable[..., Any], settings: Settings) -> None:
        self._settings = settings
        self._socket = _listening(settings.edge_host, settings.edge_port)
        limits = WireLimits(
            header_bytes=settings.max_header_bytes,
            receive_s=settings.receive_timeout_s,
            connections=settings.max_connections,
        )
        self._server = _Server(
            uvicorn.Config(
                app,
                http=partial(EdgeProtocol, limits=limits),  # type: ignore[arg-type]  # makes one a connection, as a class does
                ws="none",
                lifespan="off",
                loop="none",
                log_config=None,
                access_log=False,
                server_header=False,
                # What a proxy says of its client is believed nowhere here.
                proxy_headers=False,
                timeout_keep_alive=int(settings.idle_timeout_s),
                # The application ends its answers by itself before; this is for clients that do not read theirs.
                timeout_graceful_shutdown=int(settings.answers_within_s) + 2,
            )
        )
        if settings.edge_ssl_certfile is not None:
            self._server.config.load()
            self._server.config.ssl = _tls(settings.edge_ssl_certfile, settings.edge_ssl_keyfile)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1])

    async def serve(self, stopping: asyncio.Event, on_listening: Callable[[], None]) -> None:
        """Serve until ``stopping``; then take no more connections, and wait for the answers under way until the deadline."""
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="uvicorn")
        try:
            await self._until(self._server.listening, serving)
            log.info(
                "listening",
                host=self._settings.edge_host,
                port=self.port,
                tls=self._settings.edge_ssl_certfile is not None,
            )
            on_listening()
            await self._until(stopping, serving)
            self._server.should_exit = True
            await serving
        finally:
            serving.cancel()

    @staticmethod
    async def _until(event: asyncio.Event, serving: asyncio.Task[None]) -> None:
        """Wait for ``event``, or for the end of the server, whose error is raised."""
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if serving.done():
            await serving


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port} (EDGE_HOST, EDGE_PORT): {error.strerror}") from None
    return opened


def _tls(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"EDGE_SSL_CERTFILE and EDGE_SSL_KEYFILE give no certificate: {error}; name PEM files of one key pair"
        ) from None
    return context

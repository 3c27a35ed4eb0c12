"""/metrics, /healthz and /readyz on a thread of their own, so that a busy event loop still answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

__all__ = ["StatusServer"]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        return


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class StatusServer:
    """Serves metrics, liveness and readiness until :meth:`close`.

    ``reasons`` gives what readiness waits for; empty means ready.
    """

    def __init__(self, host: str, port: int, reasons: Callable[[], Iterable[str]]) -> None:
        metrics = make_wsgi_app()

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                return list(metrics(environ, start_response))
            if path == "/healthz":
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"ok\n"]
            if path == "/readyz":
                waiting = list(reasons())
                status = "503 Service Unavailable" if waiting else "200 OK"
                start_response(status, [("Content-Type", "text/plain")])
                return [("waiting for: " + ", ".join(waiting) if waiting else "ready").encode() + b"\n"]
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics, /healthz and /readyz are served here\n"]

        self._server = make_server(host, port, app, server_class=_Threaded, handler_class=_Quiet)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="status-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

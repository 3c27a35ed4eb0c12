"""A receiver of alerts on the loopback interface: a real HTTP server that checks each delivery's signature."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["Receiver", "signature_is_right"]

_LARGEST_BODY = 1024 * 1024
_SIGNATURE_HEADER = "Penstock-Signature"
# A delivery that was recorded and is sent again later is no news.
_OLDEST_S = 300.0


def signature_is_right(secret: str, header: str, body: bytes, now_s: float) -> bool:
    """Return whether ``header`` (``t=<seconds>,v1=<hex>``) signs ``body`` with ``secret`` and is not old.

    The signature is the HMAC-SHA-256 of ``<seconds>.<body>``, as the README of alerting says.
    """
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    timestamp = parts.get("t", "")
    if not timestamp.isdecimal() or abs(now_s - int(timestamp)) > _OLDEST_S:
        return False
    wanted = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted, parts.get("v1", ""))


class Receiver:
    """Takes what alerting delivers, with a secret of its own. Use as a context manager."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._received: dict[str, bool] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _LARGEST_BODY))
                right = receiver._take(self.headers.get(_SIGNATURE_HEADER, ""), body)
                self.send_response(204 if right else 401)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return  # the terminal belongs to the progress

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where alerts are to be sent."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/alerts"

    def environment(self) -> dict[str, str]:
        """Return the variables that lead alerting here."""
        return {"ALERT_WEBHOOK_URL": self.url, "ALERT_WEBHOOK_SECRET": self._secret}

    def received(self) -> dict[str, bool]:
        """Return the fingerprint of every alert that came, and whether its delivery was signed rightly."""
        with self._lock:
            return dict(self._received)

    def _take(self, signature: str, body: bytes) -> bool:
        right = signature_is_right(self._secret, signature, body, time.time())
        try:
            payload = json.loads(body)
        except ValueError:
            payload = {}
        with self._lock:
            for fingerprint in _fingerprints(payload):
                self._received[fingerprint] = right
        return right


def _fingerprints(payload: Any) -> list[str]:
    """The fingerprint of each alert of a delivery."""
    alerts = payload.get("alerts") if isinstance(payload, dict) else None
    return [str(alert["fingerprint"]) for alert in alerts or () if isinstance(alert, dict) and "fingerprint" in alert]

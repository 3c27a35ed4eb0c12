"""A receiver of alerts on the loopback interface: a real HTTP server that checks each delivery's signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["Receiver", "signature_is_right"]

_LARGEST_BODY = 1024 * 1024
_PREFIX = "whsec_"
# A delivery that was recorded and is sent again later is no news.
_OLDEST_S = 300.0


def signature_is_right(secret: str, headers: Mapping[str, str], body: bytes, now_s: float) -> bool:
    """Return whether the headers sign ``body`` with ``secret`` and are not old.

    The signature is that of the Standard Webhooks specification (standardwebhooks.com): ``v1,`` and the base64 of the
    HMAC-SHA-256 of ``<webhook-id>.<webhook-timestamp>.<body>``; one of several, apart by blanks, is enough.

    Args:
        secret: ``whsec_`` and the key in base64.
        headers: ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``.
        body: as it came.
        now_s: the present, seconds since 1970.
    """
    identity, timestamp = headers.get("webhook-id") or "", headers.get("webhook-timestamp") or ""
    if not (timestamp.isascii() and timestamp.isdecimal()) or abs(now_s - int(timestamp)) > _OLDEST_S:
        return False
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    digest = hmac.new(key, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    wanted = b"v1," + base64.b64encode(digest)
    given = (headers.get("webhook-signature") or "").encode().split()
    return any(hmac.compare_digest(wanted, each) for each in given)


class Receiver:
    """Takes what alerting delivers, with a secret of its own. Use as a context manager."""

    def __init__(self) -> None:
        self._secret = _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode("ascii")
        self._lock = threading.Lock()
        self._received: dict[str, bool] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _LARGEST_BODY))
                right = receiver._take(dict(self.headers.items()), body)
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

    def _take(self, headers: Mapping[str, str], body: bytes) -> bool:
        lowered = {name.lower(): value for name, value in headers.items()}
        right = signature_is_right(self._secret, lowered, body, time.time())
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

"""The generic webhook: a signed JSON body after the Standard Webhooks specification (standardwebhooks.com), version 1,
so that receivers can verify it with a library."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

import msgspec
from penstock.clock import Clock

from services.alerting.channels.posting import Poster, attempt_of
from services.alerting.channels.protocol import Attempt, Notification
from services.alerting.rendering import runbook_of

__all__ = ["Webhook", "payload", "signature", "signing_keys"]

_PREFIX = "whsec_"


class Webhook:
    """Posts a notification as JSON with every field of its alerts."""

    name = "webhook"

    def __init__(self, poster: Poster, keys: Sequence[bytes], clock: Clock, runbook_base_url: str = "") -> None:
        """Create the channel.

        Args:
            poster: leads to the receiver.
            keys: sign, the newest first; none leaves the body unsigned.
            clock: dates the signature.
            runbook_base_url: put before the runbooks' paths.
        """
        self.destination = poster.destination
        self._poster = poster
        self._keys = tuple(keys)
        self._clock = clock
        self._base = runbook_base_url

    async def send(self, notification: Notification) -> Attempt:
        """Post once. ``webhook-id`` is equal for every try, so that the receiver can drop a repetition."""
        body = payload(notification, self._base)
        timestamp = int(self._clock.now().timestamp())
        identity = notification.notification_id
        headers = {"webhook-id": identity, "webhook-timestamp": str(timestamp)}
        if self._keys:
            headers["webhook-signature"] = " ".join(signature(key, identity, timestamp, body) for key in self._keys)
        return attempt_of(await self._poster.post(body, headers))

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def payload(notification: Notification, runbook_base_url: str) -> bytes:
    """Return the JSON body: why, which group, and every field of the alerts."""
    body = {
        "version": 2,
        "notification_id": notification.notification_id,
        "purpose": notification.purpose,
        "receiver": notification.receiver,
        "created_at": notification.created_at,
        "group": notification.group,
        "left_out": notification.left_out,
        "alerts": [
            {**msgspec.to_builtins(alert), "runbook": runbook_of(alert, runbook_base_url)}
            for alert in notification.alerts
        ],
    }
    return msgspec.json.encode(body)


def signature(key: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """Return ``v1,`` and the HMAC-SHA-256 of ``<identity>.<timestamp>.<body>``, base64.

    The moment is signed as well, so that a receiver can refuse what was recorded and sent again later.
    """
    digest = hmac.new(key, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode('ascii')}"


def signing_keys(text: str) -> tuple[bytes, ...]:
    """Return the keys of a secret: ``whsec_`` and base64, as the specification has it, or any other text, which is taken
    as it stands. Several, separated by blanks, all sign: a receiver may change from one to the next at its leisure.

    Raises:
        ValueError: what follows ``whsec_`` is no base64, or nothing.
    """
    return tuple(_key(each) for each in text.split())


def _key(text: str) -> bytes:
    if not text.startswith(_PREFIX):
        return text.encode()
    encoded = text.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:  # binascii.Error, or characters that are not ASCII
        key = b""
    if not key:
        raise ValueError(f"begins with {_PREFIX}, but what follows is no base64")
    return key

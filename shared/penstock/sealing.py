"""What must not be readable at rest, sealed with AES-256-GCM under a key that all replicas of a service share."""

from __future__ import annotations

import secrets
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.bus import Transient

__all__ = ["Seal", "Unsealable", "derived_key", "shared_secret"]

_NONCE_BYTES = 12
# Whatever Redis answers but a value (read-only while it fails over, out of memory, loading): nothing was decided by it.
_AWAY = (RedisError, OSError)


class Unsealable(Exception):
    """The data was sealed under another key or for another purpose, or was changed since."""


def derived_key(secret: bytes, purpose: str) -> bytes:
    """Return a key of 32 bytes for one purpose only (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)


class Seal:
    """Seals bytes for a place, under a key that is derived from the secret of a service.

    Args:
        secret: what all its replicas share.
        service: whose it is; another service opens nothing of it.
        variable: environment variable that the secret may be set by, for the remedy in errors.
    """

    def __init__(self, secret: bytes, service: str, variable: str) -> None:
        self._variable = variable
        self._cipher = AESGCM(derived_key(secret, f"penstock {service} seal v1"))

    def seal(self, place: str, data: bytes) -> bytes:
        """Return ``data`` sealed for ``place``: it opens nowhere else."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, place.encode("utf-8", "surrogatepass"))

    def open(self, place: str, sealed: bytes) -> bytes:
        """Return what was sealed for ``place``.

        Raises:
            Unsealable: it was not sealed so.
        """
        try:
            return self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode("utf-8", "surrogatepass")
            )
        except (InvalidTag, ValueError) as error:
            raise Unsealable(
                f"what stands in Redis for {place} was not sealed with this key: give all replicas one {self._variable}"
            ) from error


async def shared_secret(redis: Redis, place: str, configured: str | None) -> bytes:
    """Return the configured secret, else the one that stands at ``place``, made by the first replica that asks.

    Raises:
        Transient: Redis is away.
    """
    if configured is not None:
        return configured.encode()
    client: Any = redis
    try:
        await client.set(place, secrets.token_hex(32), nx=True)
        stored: bytes = await client.get(place)
    except _AWAY as error:
        raise Transient(f"Redis cannot be used: {error}; start it, mend it, or set REDIS_URL") from error
    return stored

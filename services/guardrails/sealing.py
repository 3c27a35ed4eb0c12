"""What must not be readable at rest: sealed with AES-256-GCM under a key of the service."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["Seal", "Unsealable"]

_NONCE_BYTES = 12


class Unsealable(Exception):
    """The data was sealed under another key or for another purpose, or was changed since."""


class Seal:
    """Seals bytes for a place. The key is derived from the service's secret (HKDF-SHA256, RFC 5869)."""

    def __init__(self, secret: bytes) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"penstock guardrails seal v1").derive(secret)
        self._cipher = AESGCM(key)

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
                f"what stands in Redis for {place} was not sealed with this key: give all replicas one "
                "GUARDRAILS_FINGERPRINT_KEY"
            ) from error

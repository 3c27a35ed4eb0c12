"""Which key a shown text is: looked up by its id, compared in constant time, and refused once it has ended."""

from __future__ import annotations

import hmac
from typing import Protocol

from penstock.clock import Clock
from penstock.config.keys import ApiKey
from penstock.identity.secret import digest_of, parse_key

__all__ = ["KeyDirectory", "KeyUnknown", "Keys"]

_NO_DIGEST = "0" * 64
"""Compared with where the id is unknown, so that this takes as long as a wrong secret does."""


class KeyUnknown(Exception):
    """No key in force is this one; the message says why, in words that may be told to whoever showed it."""


class Keys(Protocol):
    """The part of the config plane that knows the API keys."""

    def api_key(self, key_id: str) -> ApiKey | None: ...


class KeyDirectory:
    """Knows keys by what is published of them: one that is made or revoked counts as soon as the plane has read it.

    Args:
        keys: what is published.
        installation: secret that the digests are keyed with.
        clock: by which keys expire.
    """

    def __init__(self, keys: Keys, installation: bytes, clock: Clock) -> None:
        self._keys = keys
        self._installation = installation
        self._clock = clock

    def key(self, text: str) -> ApiKey:
        """Return the key that ``text`` is.

        Whether an id exists cannot be told without its secret: neither by the message nor by the time it takes.

        Raises:
            KeyUnknown: it is no key, is unknown, or is not in force any more.
        """
        parts = parse_key(text)
        if parts is None:
            raise KeyUnknown(
                "this is no API key: one begins with psk_ and is used just as `penstock keys create` printed it"
            )
        key_id, secret = parts
        key = self._keys.api_key(key_id)
        kept = key.digest if key is not None else _NO_DIGEST
        fits = hmac.compare_digest(digest_of(secret, self._installation), kept)
        if key is None or not fits:
            raise KeyUnknown("the API key is unknown: use another, or have one made with `penstock keys create`")
        if (why := key.ended(self._clock.now())) is not None:
            raise KeyUnknown(f"the API key {why}: use another, or have one made with `penstock keys create`")
        return key

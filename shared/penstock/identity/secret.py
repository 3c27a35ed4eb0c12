"""The text of an API key: ``psk_<id>_<secret>``, how it is made, and what is kept of it. Pure but for the randomness.

The id is no secret: events, tables and logs name a key by it, and it is how a key is looked up. The secret is 43 characters
drawn from 62, which are 256 bits: nothing can be guessed, so a keyed hash proves it, and none that is slow on purpose is
needed. The hash is keyed with a secret of the installation that stands nowhere beside it: who reads the topic can neither
use what it holds as a key nor test a key that was found elsewhere against it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

__all__ = ["KEY_PATTERN", "MintedKey", "digest_of", "mint", "parse_key"]

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter that is read as another, so that an id can be told over the telephone."""
_ID_LENGTH = 12
_SECRET_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 43

KEY_PATTERN = rf"psk_[0-9a-z]{{1,40}}_[0-9A-Za-z]{{{_SECRET_LENGTH}}}"
"""Regular expression of a key anywhere in a text: for what searches texts for credentials."""
_KEY = re.compile(rf"psk_([0-9a-z]{{1,40}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. Whoever it is for is told ``text`` once; nothing else keeps it.

    Attributes:
        id: its identity, which events carry.
        text: the key itself, as it is sent.
        digest: what is kept of it, hexadecimal.
    """

    id: str
    text: str = field(repr=False)
    digest: str = field(repr=False)


def mint(installation: bytes) -> MintedKey:
    """Make a key whose id and secret are drawn anew.

    Args:
        installation: secret of the installation, which the digest is keyed with.
    """
    identity = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(_SECRET_LENGTH))
    return MintedKey(identity, f"psk_{identity}_{secret}", digest_of(secret, installation))


def parse_key(text: str) -> tuple[str, str] | None:
    """Return id and secret of a key; None where ``text`` is none."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found is not None else None


def digest_of(secret: str, installation: bytes) -> str:
    """Return the HMAC-SHA256 (RFC 2104, FIPS 198-1) of a key's secret under the installation's, hexadecimal."""
    return hmac.new(installation, secret.encode(), hashlib.sha256).hexdigest()

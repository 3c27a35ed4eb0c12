"""What becomes of keys: one is made, replaced by another, revoked; and the history of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.config.kinds import ApiKey, Entry
from penstock.config.plane import parse_entry
from penstock.contracts.records import ConfigEntry
from penstock.identity.secret import MintedKey

__all__ = ["KeyChangeInvalid", "KeyVersion", "issued", "key_versions", "revoked", "rotated", "successor"]


class KeyChangeInvalid(Exception):
    """A key cannot be changed so; the message says why and what can be done."""


def issued(
    minted: MintedKey,
    team: str,
    now: datetime,
    *,
    description: str = "",
    expires_at: datetime | None = None,
    routes: tuple[str, ...] = ("*",),
) -> ApiKey:
    """Return what is published of a new key of ``team``.

    Raises:
        KeyChangeInvalid: it would have expired before it was made.
        pydantic.ValidationError: a name is none, or the description too long.
    """
    if expires_at is not None and expires_at <= now:
        raise KeyChangeInvalid(f"the key would expire at {expires_at:%Y-%m-%dT%H:%M:%SZ}, which has passed")
    return ApiKey(
        id=minted.id, team=team, digest=minted.digest, description=description, created_at=now, expires_at=expires_at,
        routes=routes,
    )  # fmt: skip


def rotated(
    old: ApiKey, minted: MintedKey, keys: Mapping[str, Entry], now: datetime, *, overlap: timedelta,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, ApiKey]:  # fmt: skip
    """Return the key that takes the place of ``old``, and ``old`` as it ends: both are in force for ``overlap``.

    Args:
        keys: all that are published, by id.
        expires_at: of the new key; None gives it the lifetime that the old one was made with.

    Raises:
        KeyChangeInvalid: the old one is not in force, or has been replaced already by one that is.
    """
    if (why := old.ended(now)) is not None:
        raise KeyChangeInvalid(f"the key {old.id} {why}: make another with `penstock keys create {old.team}`")
    if (other := successor(old.id, keys)) is not None and other.in_force(now):
        raise KeyChangeInvalid(
            f"the key {old.id} has been replaced by {other.id} already: rotate that, or revoke it first"
        )
    made = _never_rotated(old, keys)
    if expires_at is None and made.expires_at is not None:
        expires_at = now + (made.expires_at - made.created_at)
    new = issued(minted, old.team, now, description=old.description, expires_at=expires_at, routes=old.routes)
    end = now + overlap
    if old.expires_at is not None:
        end = min(end, old.expires_at)
    return _changed(new, replaces=old.id), _changed(old, expires_at=end)


def revoked(key: ApiKey, now: datetime) -> ApiKey:
    """Return ``key`` revoked; one that was stays as it is."""
    return key if key.revoked_at is not None else _changed(key, revoked_at=now)


def _changed(key: ApiKey, **changes: object) -> ApiKey:
    return ApiKey.model_validate({**key.model_dump(), **changes})


def successor(key_id: str, keys: Mapping[str, Entry]) -> ApiKey | None:
    """Return the newest key that replaces ``key_id``, or None."""
    found = [key for key in keys.values() if isinstance(key, ApiKey) and key.replaces == key_id]
    return max(found, key=lambda key: key.created_at, default=None)


def _never_rotated(key: ApiKey, keys: Mapping[str, Entry]) -> ApiKey:
    """Return the last of those that replaced one another from ``key`` on: it ends when it was made to, and was given the
    lifetime of those before it."""
    while (other := successor(key.id, keys)) is not None:
        key = other
    return key


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """What one publication made of a key, by whom and why."""

    key: ApiKey
    published_at: datetime
    author: str = ""
    reason: str = ""


def key_versions(records: Iterable[ConfigEntry], key_id: str) -> list[KeyVersion]:
    """Return what was published of a key, oldest first. What repeats the version before is left out.

    Args:
        records: of the topic config-keys, oldest first. An invalid one is left out, as every reader leaves it out.
    """
    versions: list[KeyVersion] = []
    for record in records:
        if record.name != key_id or record.deleted:
            continue
        try:
            entry = parse_entry(record)
        except ValueError:
            continue
        if isinstance(entry, ApiKey) and not (versions and versions[-1].key.version == entry.version):
            versions.append(KeyVersion(entry, record.occurred_at, record.author, record.reason))
    return versions

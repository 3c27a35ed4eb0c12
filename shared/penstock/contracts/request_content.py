"""What makes two sends one request: intake and the edge must agree on it."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import msgspec

from penstock.contracts.records import LlmRequest

__all__ = ["content_hash"]

_NOT_CONTENT = frozenset({"event_id", "causation_id", "occurred_at", "deadline_at", "key_id"})


def content_hash(request: LlmRequest) -> str:
    """Return a hash of what the producer asked: two sends of one request have one hash.

    The envelope is no part of it, nor are the deadline, which is reckoned anew by whoever sends again, and the credential,
    which may have been rotated meanwhile. A field at its default counts as one that is not there, so that a field that is
    new to the schema changes the hash of no request that leaves it out.
    """
    asked = {name: value for name, value in _set_fields(request).items() if name not in _NOT_CONTENT}
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()[:16]


def _set_fields(part: msgspec.Struct) -> dict[str, Any]:
    return {name: _told(value) for name, default in _defaults(type(part)) if (value := getattr(part, name)) != default}


def _told(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _set_fields(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)  # Python's 0 is 0.0 by the time intake reads it
    return [_told(each) for each in value] if isinstance(value, list) else value


@cache
def _defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """Return the fields of ``kind`` with their defaults; of one without, a value that equals no other."""
    return tuple(
        (each.name, each.default_factory() if each.default_factory is not msgspec.NODEFAULT else each.default)
        for each in msgspec.structs.fields(kind)
    )

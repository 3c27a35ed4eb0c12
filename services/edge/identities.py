"""What makes two sends one request, and which event a send is. Pure."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import msgspec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import LlmRequest, LlmResult

__all__ = ["content_hash", "may_come_again", "sent_event_id"]

_NOT_CONTENT = frozenset({"event_id", "causation_id", "occurred_at", "deadline_at", "key_id"})


def content_hash(request: LlmRequest) -> str:
    """Return a hash of what is asked: two sends of one request have one hash, whenever and with whichever key they came.

    Fields that have their default are left out: a field that is added to the record changes no hash.
    """
    told = {name: value for name, value in _told(request).items() if name not in _NOT_CONTENT}
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:32]


def sent_event_id(key: tuple[str, str], number: int) -> str:
    """Return the event_id of a request in its ``number``-th try: a send that is repeated is the same event."""
    return event_id(f"{key[0]}/{key[1]}", "edge.request", number)


def may_come_again(result: LlmResult) -> bool:
    """Return whether ``result`` ends one try alone: the same request may be admitted after its Retry-After."""
    return result.retry_after_ms is not None


def _told(value: Any) -> Any:
    """Return ``value`` as plain data without what has its default."""
    if isinstance(value, msgspec.Struct):
        return {
            name: _told(one) for name, default in _defaults(type(value)) if (one := getattr(value, name)) != default
        }
    return [_told(one) for one in value] if isinstance(value, list) else value


@cache
def _defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """Return the fields of ``kind`` with their defaults; that of a field without one equals no value."""
    return tuple(
        (field.name, field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
        for field in msgspec.structs.fields(kind)
    )

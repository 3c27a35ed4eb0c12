"""Identities that a replay gives again."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import TypedDict

from penstock.contracts.records import Context, Record

__all__ = ["Envelope", "derive", "event_id", "new_id", "request_key"]

# Identities that producers chose need not be UUIDs; those are folded into this namespace first.
_NAMESPACE = uuid.UUID("8f3d6d52-3d0e-5a3c-9c5e-6a1f6a4b9f10")
_HASHED = hashlib.sha1(_NAMESPACE.bytes, usedforsecurity=False)


class Envelope(TypedDict):
    """The first fields of every record."""

    event_id: str
    request_id: str
    tenant_id: str
    occurred_at: datetime
    causation_id: str


def new_id() -> str:
    """Return a random identity: for the first event of a chain only."""
    return str(uuid.uuid4())


def event_id(causation_id: str, stage: str, ordinal: int = 0) -> str:
    """Return the identity of the ``ordinal``-th event that ``stage`` makes of the event ``causation_id``.

    uuid5 over the cause, the stage and the ordinal: the same step on the same cause gives the same identity, so that a
    replay adds nothing to a sink that upserts by it.
    """
    hashed = _HASHED.copy()
    hashed.update(f"{causation_id}/{stage}/{ordinal}".encode())
    digest = bytearray(hashed.digest()[:16])
    # Version 5 of the RFC 9562 variant. Every event has one: uuid.uuid5 and its text take three times as long.
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def derive(cause: Record, stage: str, ordinal: int, now: datetime) -> Envelope:
    """Return the envelope of an event that ``stage`` makes of ``cause`` at ``now``."""
    return {
        "event_id": event_id(cause.event_id, stage, ordinal),
        "request_id": cause.request_id,
        "tenant_id": cause.tenant_id,
        "occurred_at": now,
        "causation_id": cause.event_id,
    }


def request_key(context: Context, request_id: str) -> str:
    """Return the key of a request's records on every topic of the flow: a conversation's events keep their order."""
    return context.conversation_id or request_id

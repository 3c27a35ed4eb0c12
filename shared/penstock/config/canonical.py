"""Canonical JSON and content hashes: equal content has one text and one version, whoever writes it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

__all__ = ["canonical_json", "content_hash"]


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys, no spaces, UTF-8 as it is, and decimals as plain strings.

    ``Decimal("1.50E-7")`` becomes ``"0.00000015"``: exact for any reader, and equal for equal amounts.

    Raises:
        TypeError: ``value`` holds something other than JSON data, decimals and instants.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(text: str) -> str:
    """First 16 hex digits of SHA-256 over the UTF-8 of ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

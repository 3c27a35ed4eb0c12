"""API keys: who may speak for a team. What is kept of a key proves it and cannot be used as one."""

from __future__ import annotations

import re
from datetime import datetime
from typing import ClassVar

from pydantic import Field, field_validator

from penstock.config.entry import Entry, Instant, Name

__all__ = ["ApiKey"]


class ApiKey(Entry):
    """A key of a team. It is written by `penstock keys`; there is no file of it."""

    KIND: ClassVar[str] = "keys"

    id: Name = Field(
        description="Identity of the key: the key_id of events. It begins the key itself and is no secret."
    )
    team: Name = Field(description="Team that it speaks for.")
    digest: str = Field(description="HMAC-SHA256 of the key's secret under the installation's secret, hexadecimal.")
    description: str = Field(default="", max_length=200, description="Who has it, in words.")
    created_at: Instant = Field(description="When it was made.")
    expires_at: Instant | None = Field(default=None, description="It is refused from then on; null for never.")
    revoked_at: Instant | None = Field(default=None, description="When it was revoked, for ever; null while it is not.")
    replaces: Name | None = Field(default=None, description="The key that it was rotated from.")
    routes: tuple[str, ...] = Field(
        default=("*",), description='Routes it may ask for, of those that its team may; ["*"] for all of them.'
    )

    @property
    def key(self) -> str:
        return self.id

    def ended(self, now: datetime) -> str | None:
        """Return why it is refused at ``now``, with the instant, as in ``was revoked at ...``; None while it is in force.

        A key with ``revoked_at`` is refused wherever that is known: a clock that is slow brings no revoked key back.
        """
        if self.revoked_at is not None:
            return f"was revoked at {self.revoked_at:%Y-%m-%dT%H:%M:%SZ}"
        if self.expires_at is not None and self.expires_at <= now:
            return f"expired at {self.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        return None

    def in_force(self, now: datetime) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.ended(now) is None

    def allows(self, route: str) -> bool:
        """Return whether it may ask for ``route``; its team's own limits stand beside it."""
        return "*" in self.routes or route in self.routes

    @field_validator("digest")
    @classmethod
    def _is_digest(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ValueError("must be 64 hexadecimal digits; keys are made with `penstock keys create`")
        return value

    @field_validator("routes")
    @classmethod
    def _names_routes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError('is empty: the key could ask for nothing; name routes or write ["*"]')
        if "*" in value and len(value) > 1:
            raise ValueError('holds "*" beside other names: write ["*"] alone, or the names alone')
        return value

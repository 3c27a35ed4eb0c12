"""What the kinds of configuration share: the entry with its version, and the types of their fields."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from penstock.config.canonical import canonical_json, content_hash

__all__ = ["Entry", "FieldError", "Instant", "ModelName", "Money", "Name", "Part", "Share"]

MONEY_PLACES = 12
"""Decimal places of money in the Avro records; a finer price could not be carried exactly."""


def _money(value: Decimal) -> Decimal:
    exponent = value.normalize().as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError("must be a finite amount in USD")
    if value < 0:
        raise ValueError("must be 0 or more USD")
    if -exponent > MONEY_PLACES:
        raise ValueError(
            f"has {-exponent} decimal places; money is exact to {MONEY_PLACES} (amounts per token, not per million)"
        )
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(
            "must start with a letter or digit and hold letters, digits, '.', '_' and '-' only, 100 at most"
        )
    return value


def _model(value: str) -> str:
    if not value or value != value.strip() or any(c.isspace() for c in value):
        raise ValueError("must be a model's name as its backend knows it: not empty, no spaces")
    return value


def _instant(value: Any) -> Any:
    """A plain date means its first instant in UTC; a time without a zone is refused by AwareDatetime."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        value = date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


Money = Annotated[Decimal, AfterValidator(_money)]
Name = Annotated[str, AfterValidator(_name)]
ModelName = Annotated[str, AfterValidator(_model)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Instant = Annotated[AwareDatetime, BeforeValidator(_instant), AfterValidator(_utc)]


class FieldError(ValueError):
    """A rule over several fields was broken; ``path`` leads from the entry to the field to blame."""

    def __init__(self, path: tuple[str | int, ...], cause: str) -> None:
        super().__init__(f"{'.'.join(map(str, path))}: {cause}")
        self.path = path
        self.cause = cause


class Part(BaseModel):
    """Base of the mappings inside an entry: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())


class Entry(Part):
    """Base of the five kinds.

    ``key`` is the entry's key on its topic; ``version`` its content hash.
    """

    KIND: ClassVar[str]

    @property
    def key(self) -> str:
        raise NotImplementedError

    @cached_property
    def canonical(self) -> str:
        """Canonical JSON without fields at their default: a field added later leaves old versions as they are."""
        return canonical_json(self.model_dump(mode="python", exclude_defaults=True))

    @cached_property
    def version(self) -> str:
        """Content hash: the first 16 hex digits of SHA-256 over :attr:`canonical`."""
        return content_hash(self.canonical)

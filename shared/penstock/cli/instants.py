"""Instants and spans as people type them.

``2026-01-05T09:00:00Z``, or how long ago, ``90m``; for how long, ``4h``; until when, ``2027-01-01`` or ``90d`` from now.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

__all__ = ["INSTANT", "SPAN", "UNTIL", "Instant", "Span", "Until"]

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Instant(click.ParamType):
    """An option's value: ISO 8601 (UTC where no zone is given), or a length of time before now."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant in UTC."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        if match := _AGO.fullmatch(text):
            try:
                return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: float(match[1])})
            except OverflowError:
                self.fail(f"{text!r} is before the first year", param, ctx)
        try:
            instant = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{text!r} is no instant: write 2026-01-05T09:00:00Z, or how long ago, e.g. 90m, 24h, 7d", param, ctx
            )
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


class Span(click.ParamType):
    """An option's value: a length of time above 0."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the length."""
        if isinstance(value, timedelta):
            return value
        text = str(value).strip()
        match = _AGO.fullmatch(text)
        try:
            span = timedelta(**{_UNITS[match[2]]: float(match[1])}) if match else timedelta()
        except OverflowError:
            self.fail(f"{text!r} is too long", param, ctx)
        if span <= timedelta():
            self.fail(f"{text!r} is no length of time: write 30s, 90m, 4h, 7d or 2w", param, ctx)
        return span


class Until(click.ParamType):
    """An option's value: an instant to come, as ISO 8601 (UTC where no zone is given), or a length of time from now."""

    name = "until"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant in UTC."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        now = datetime.now(UTC)
        if _AGO.fullmatch(text):
            span = SPAN.convert(text, param, ctx)
            try:
                return now + span
            except OverflowError:
                self.fail(f"{text!r} is after the last year", param, ctx)
        try:
            instant = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{text!r} is no instant: write 2027-01-05T09:00:00Z, or how long from now, e.g. 12h, 90d", param, ctx
            )
        instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
        if instant <= now:
            self.fail(f"{text!r} has passed", param, ctx)
        return instant


INSTANT = Instant()
SPAN = Span()
UNTIL = Until()

"""How ``penstock keys`` shows keys: what is known of them, which is never the key itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from penstock.cli.cluster import table_console
from penstock.cli.printable import printable
from penstock.config.kinds import ApiKey
from penstock.identity.issuing import KeyVersion

__all__ = ["key_data", "show_key", "show_keys", "version_data"]


def key_data(key: ApiKey, now: datetime, replaced_by: ApiKey | None = None) -> dict[str, Any]:
    """Return what is told of a key as JSON-able values. The digest is left out: it is of use to nobody who reads."""
    data = key.model_dump(mode="json", exclude={"digest"})
    return {**data, "state": _state(key, now), "replaced_by": replaced_by.id if replaced_by is not None else None}


def version_data(version: KeyVersion) -> dict[str, Any]:
    """Return one version of a key as JSON-able values."""
    return {
        "published_at": version.published_at.isoformat().replace("+00:00", "Z"),
        "author": version.author,
        "reason": version.reason,
        "expires_at": version.key.model_dump(mode="json")["expires_at"],
        "revoked": version.key.revoked_at is not None,
    }


def show_keys(keys: Sequence[ApiKey], now: datetime) -> None:
    """Show keys, one a line."""
    table = Table("id", "team", "state", "made", "expires", "routes", "description", box=None)
    for key in keys:
        table.add_row(
            key.id, _cell(key.team), _state(key, now), _minute(key.created_at),
            _minute(key.expires_at) if key.expires_at is not None else "never", _cell(", ".join(key.routes)),
            _cell(key.description or "-"),
        )  # fmt: skip
    table_console().print(table)


def show_key(key: ApiKey, versions: Sequence[KeyVersion], now: datetime, replaced_by: ApiKey | None) -> None:
    """Show one key and what has become of it.

    Args:
        versions: what was published of it, oldest first.
        replaced_by: the key that was made in its place.
    """
    click.echo(f"{key.id}  of team {printable(key.team)}, {key.ended(now) or 'in force'}")
    if key.description:
        click.echo(printable(key.description))
    ends = f"expires {_minute(key.expires_at)}" if key.expires_at is not None else "expires never"
    click.echo(f"routes {printable(', '.join(key.routes))}; made {_minute(key.created_at)}; {ends}")
    if key.replaces is not None:
        click.echo(f"made in place of {key.replaces}")
    if replaced_by is not None:
        click.echo(f"replaced by {replaced_by.id}")
    table = Table("at", "what", "by", "reason", box=None)
    before: ApiKey | None = None
    for version in versions:
        table.add_row(
            _minute(version.published_at), _change(before, version.key), _cell(version.author or "-"),
            _cell(version.reason or "-"),
        )  # fmt: skip
        before = version.key
    table_console().print(table)


def _change(before: ApiKey | None, after: ApiKey) -> str:
    if before is None:
        return "made"
    if after.revoked_at is not None and before.revoked_at is None:
        return "revoked"
    if after.expires_at is not None and after.expires_at != before.expires_at:
        return f"expires {_minute(after.expires_at)}"
    return "changed"


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "in force" if key.in_force(now) else "expired"


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _cell(text: str) -> str:
    return escape(printable(text))

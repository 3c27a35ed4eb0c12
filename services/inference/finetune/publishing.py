"""Entries of the configuration that a command changes one by one, as `penstock config apply` publishes those of files."""

from __future__ import annotations

import getpass
from collections.abc import Callable

from penstock.bus.producer import Producer
from penstock.cli.connection import connect
from penstock.clock import SystemClock
from penstock.config.entry import Entry
from penstock.config.plane import ConfigPlane
from penstock.config.publish import Change, publish_changes

__all__ = ["publish", "user"]


async def publish(
    made: Callable[[ConfigPlane], Entry], *, author: str, reason: str, dry_run: bool = False
) -> tuple[Change | None, ConfigPlane]:
    """Publish an entry that is made with what is in force in sight.

    Returns:
        What changed, None where the topic holds the same, and the configuration as it was before.
    """
    clock = SystemClock()
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        try:
            entry = made(plane)
            before = plane.entries(entry.KIND).get(entry.key)
            if before is not None and before.version == entry.version:
                return None, plane
            change = Change(entry.KIND, entry.key, "changed" if before else "new", before, entry)
            if not dry_run:
                producer = Producer(connection.bus.producer(), connection.codec, "config", clock)
                await publish_changes([change], producer, clock.now(), author=author, reason=reason)
        finally:
            await plane.close()
    return change, plane


def user() -> str:
    """Return who runs this; empty where the system does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""

"""One entry of the configuration that a command changes, checked before it is published as those of files are."""

from __future__ import annotations

import getpass
from collections.abc import Callable

import click

from penstock.bus.producer import Producer
from penstock.bus.types import Transport
from penstock.cli.connection import connect
from penstock.clock import SystemClock
from penstock.config.canaries import read_rollback
from penstock.config.entry import Entry
from penstock.config.kinds import KINDS, Route
from penstock.config.plane import ConfigPlane
from penstock.config.publish import Change, publish_changes
from penstock.config.references import new_problems
from penstock.contracts.codec import Codec

__all__ = ["EntryRefused", "publish_entry", "refuse_problems", "taken_back", "user"]


class EntryRefused(Exception):
    """What an entry names does not exist, or what names it would be broken; the message says how."""


def refuse_problems(plane: ConfigPlane, entry: Entry, key: str | None = None) -> None:
    """Say what would be wrong with the configuration with ``entry`` published; warnings go to standard error.

    Args:
        key: under which it would be published, where that is not its own.

    Raises:
        EntryRefused: it must not be published.
    """
    refused = []
    for place, broken in new_problems({kind: plane.entries(kind) for kind in KINDS}, entry, key):
        field = ".".join(map(str, broken.path))
        text = f"{place}: {field}: {broken.cause}; {broken.remedy}"
        if broken.warning:
            click.echo(f"warning: {text}", err=True)
        else:
            refused.append(text)
    if refused:
        raise EntryRefused("nothing was published:\n" + "\n".join(refused))


async def taken_back(transport: Transport, codec: Codec, route: Route) -> str | None:
    """Return what to say where the canary of ``route``, just as it is, has been taken back; None where it has not.

    Raises:
        penstock.bus.KafkaUnavailable: Kafka is away, or a topic is missing (run `penstock topics apply`).
    """
    decision = await read_rollback(transport, codec, route)
    if decision is None or route.canary is None:
        return None
    return (
        f"routes/{route.name}: canary: {route.canary.target.label} was taken back at {decision.occurred_at:%Y-%m-%d %H:%M} "
        f"UTC ({decision.metric}) and gets no traffic as it is; give it another salt to put it on trial again"
    )


async def publish_entry(
    made: Callable[[ConfigPlane], Entry], *, author: str, reason: str, dry_run: bool = False
) -> Change | None:
    """Publish an entry that is made with what is in force in sight, and return what changed; None where it is that already.

    Raises:
        EntryRefused: it must not be published, or is a route with a canary that has been taken back.
    """
    clock = SystemClock()
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        entry = made(plane)
        if isinstance(entry, Route) and (said := await taken_back(connection.bus, connection.codec, entry)):
            raise EntryRefused(said)
        before = plane.entries(entry.KIND).get(entry.key)
        if before is not None and before.version == entry.version:
            return None
        refuse_problems(plane, entry)
        change = Change(entry.KIND, entry.key, "changed" if before else "new", before, entry)
        if not dry_run:
            producer = Producer(connection.bus.producer(), connection.codec, "config", clock)
            await publish_changes([change], producer, clock.now(), author=author, reason=reason)
    return change


def user() -> str:
    """Return who runs this; empty where the system does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""

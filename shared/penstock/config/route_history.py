"""The routes there are and were: each version with when it was in force, who published it and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstock.config.kinds import Route
from penstock.config.published import published
from penstock.contracts.records import ConfigEntry

__all__ = ["RouteVersion", "VersionUnknown", "called", "histories", "version_before"]


class VersionUnknown(Exception):
    """There is no such version of a route; the message names what there is."""


@dataclass(frozen=True, slots=True)
class RouteVersion:
    """What one publication made of a route.

    Attributes:
        route: None where it was withdrawn.
        published_at: when it came into force.
        closed_at: when the next publication took its place; None while it is in force.
    """

    name: str
    route: Route | None
    published_at: datetime
    author: str = ""
    reason: str = ""
    closed_at: datetime | None = None

    @property
    def version(self) -> str:
        """Content hash of the route; empty where it was withdrawn."""
        return self.route.version if self.route is not None else ""


def histories(records: Iterable[ConfigEntry]) -> dict[str, list[RouteVersion]]:
    """Return what was published of each route, oldest first. What repeats the version in force is left out.

    Args:
        records: of the topic config-routes, oldest first. An invalid one is left out, as every reader leaves it out.
    """
    found: dict[str, list[RouteVersion]] = {}
    for record, route in published(records, Route):
        versions = found.setdefault(record.name, [])
        version = RouteVersion(record.name, route, record.occurred_at, record.author, record.reason)
        if versions and versions[-1].version == version.version:
            continue
        if not versions and route is None:
            continue
        if versions:
            versions[-1] = replace(versions[-1], closed_at=record.occurred_at)
        versions.append(version)
    return {name: versions for name, versions in found.items() if versions}


def version_before(versions: Sequence[RouteVersion]) -> Route:
    """Return the route as it was before the last publication of it: rolling back twice ends where it began.

    Args:
        versions: of one route, oldest first; not empty.

    Raises:
        VersionUnknown: there was none before.
    """
    earlier = [each.route for each in versions[:-1] if each.route is not None]
    if not earlier:
        raise VersionUnknown(f"the route {versions[-1].name} has been published once: there is no version before")
    return earlier[-1]


def called(versions: Sequence[RouteVersion], prefix: str) -> Route:
    """Return the newest version whose hash begins with ``prefix``.

    Raises:
        VersionUnknown: there is none, or several.
    """
    known = {each.version: each.route for each in versions if each.route is not None}
    fitting = [route for version, route in known.items() if version.startswith(prefix)]
    if len(fitting) == 1 and prefix:
        return fitting[0]
    what = "several versions begin so" if fitting else "there is no such version"
    raise VersionUnknown(f"{prefix!r}: {what}; the route {versions[-1].name} has had {', '.join(known)}")

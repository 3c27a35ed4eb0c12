"""The catalogue: every topic with its record, read from ``schemas/``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from penstock.contracts import records
from penstock.contracts.records import Record

__all__ = ["Catalogue", "CatalogueError", "Topic", "project_file"]

_VERSION = re.compile(r"^(?P<stem>.+)\.v(?P<version>\d+)\.avsc$")


class CatalogueError(Exception):
    """A file under ``schemas/`` is missing or malformed; the message names it."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as its file declares it."""

    name: str
    doc: str
    record: type[Record]
    schema: str
    owner: str
    public: bool
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    key: str
    partitions: int
    cleanup: str
    retention_ms: int | None
    compatibility: str
    config: Mapping[str, str]
    versions: Mapping[int, Mapping[str, Any]]
    """Avro schema of every version of the record, oldest first."""

    @property
    def subject(self) -> str:
        """Subject in the schema registry (Confluent's TopicNameStrategy)."""
        return f"{self.name}-value"

    @property
    def newest(self) -> int:
        """Number of the newest version."""
        return max(self.versions)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every topic by name."""

    topics: Mapping[str, Topic]
    root: Path

    @classmethod
    def load(cls, root: Path | None = None) -> Catalogue:
        """Read ``root`` (default: the project's ``schemas``).

        Raises:
            CatalogueError: a file is missing, malformed, or names a record that does not exist.
        """
        root = root or project_file("schemas")
        versions = _versions(root / "avro")
        topics = {}
        for path in sorted((root / "topics").glob("*.yaml")):
            topic = _topic(path, versions)
            topics[topic.name] = topic
        if not topics:
            raise CatalogueError(f"no topic files under {root / 'topics'}")
        return cls(topics=topics, root=root)

    def topic(self, name: str) -> Topic:
        """Return the topic ``name``.

        Raises:
            CatalogueError: there is none; the message lists those that exist.
        """
        try:
            return self.topics[name]
        except KeyError:
            raise CatalogueError(f"no topic {name!r} in the catalogue; there are: {', '.join(self.topics)}") from None


def project_file(name: str) -> Path:
    """Return a folder that belongs to the project: from PENSTOCK_HOME, the checkout, or the installed package.

    Raises:
        CatalogueError: it is in none of them.
    """
    package = Path(__file__).resolve().parents[1]
    packaged = {"schemas": package / "_schemas", "infra/config": package / "_config"}
    places = [package.parents[1] / name]
    if home := os.environ.get("PENSTOCK_HOME"):
        places.insert(0, Path(home) / name)
    if name in packaged:
        places.append(packaged[name])
    for place in places:
        if place.exists():
            return place
    raise CatalogueError(f"{name} is in none of {', '.join(map(str, places))}; set PENSTOCK_HOME to the project's root")


def _versions(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in folder.glob("*.avsc"):
        match = _VERSION.match(path.name)
        if match is None:
            raise CatalogueError(f"{path}: a schema's file is named <record>.v<N>.avsc")
        try:
            schema = json.loads(path.read_text("utf-8"))
        except json.JSONDecodeError as error:
            raise CatalogueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
        found.setdefault(match["stem"], {})[int(match["version"])] = schema
    return {stem: dict(sorted(by_number.items())) for stem, by_number in found.items()}


def _topic(path: Path, versions: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> Topic:
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
        record = getattr(records, raw["record"])
        return Topic(
            name=raw["topic"],
            doc=raw["doc"],
            record=record,
            schema=raw["schema"],
            owner=raw["owner"],
            public=raw["public"],
            writers=tuple(raw["writers"]),
            readers=tuple(raw["readers"]),
            key=raw["key"],
            partitions=raw["partitions"],
            cleanup=raw["cleanup"],
            retention_ms=raw.get("retention_ms"),
            compatibility=raw["compatibility"],
            config={key: str(value) for key, value in raw.get("config", {}).items()},
            versions=versions[raw["schema"]],
        )
    except (KeyError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise CatalogueError(f"{path}: {type(error).__name__}: {error}") from error

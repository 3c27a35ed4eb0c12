"""From files to topics: what differs, and how it is published."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from penstock.bus.producer import Producer
from penstock.config.files import ConfigFiles
from penstock.config.kinds import Entry, Prompt, Team
from penstock.config.plane import ConfigPlane
from penstock.config.prompt_text import breaking_changes
from penstock.contracts.envelope import new_id
from penstock.contracts.records import ConfigEntry

__all__ = ["OPERATIONS", "Change", "plan_changes", "price_warnings", "prompt_warnings", "publish_changes"]

OPERATIONS = "operations"
"""tenant_id of what belongs to no team."""


@dataclass(frozen=True, slots=True)
class Change:
    """What applying would do to one key of one kind."""

    kind: str
    key: str
    action: Literal["new", "changed", "withdrawn"]
    before: Entry | None
    after: Entry | None

    def differences(self) -> list[tuple[str, str | None, str | None]]:
        """Fields that differ: path, value before and value after as JSON, None where the field was or is not there."""
        before = dict(_leaves(json.loads(self.before.canonical))) if self.before else {}
        after = dict(_leaves(json.loads(self.after.canonical))) if self.after else {}
        return [
            (path, before.get(path), after.get(path))
            for path in dict.fromkeys([*before, *after])
            if before.get(path) != after.get(path)
        ]


def plan_changes(files: ConfigFiles, published: ConfigPlane) -> list[Change]:
    """Compare ``files`` with what the topics hold.

    Kinds without files of their own are left alone; in the others, what the files no longer hold is withdrawn. Versions of
    prompts are never withdrawn, only their labels: results keep naming the version that made them.
    """
    changes = []
    for kind, wanted in files.kinds.items():
        present = published.entries(kind)
        for key, located in wanted.items():
            before = present.get(key)
            if before is None:
                changes.append(Change(kind, key, "new", None, located.entry))
            elif before.version != located.entry.version:
                changes.append(Change(kind, key, "changed", before, located.entry))
        for key, entry in present.items():
            if key not in wanted and not (isinstance(entry, Prompt) and key == entry.key):
                changes.append(Change(kind, key, "withdrawn", entry, None))
    return changes


def price_warnings(changes: Sequence[Change]) -> list[str]:
    """Return what publishing ``changes`` means for calls that were made before, where that is easily overlooked."""
    warnings = []
    for change in changes:
        if change.kind != "prices" or (change.action == "changed" and not _costs_differ(change)):
            continue
        if change.action == "changed":
            warnings.append(
                f"prices/{change.key} changes in place: it applies to every call priced from now on, whenever it was made; "
                "add an entry with effective_from instead, and the older price stays for what came before"
            )
        elif change.action == "withdrawn":
            warnings.append(
                f"prices/{change.key} is withdrawn: calls that it was in force for are unpriced, or have the price before "
                "it; an entry with a later effective_from ends a price"
            )
    return warnings


def prompt_warnings(changes: Sequence[Change]) -> list[str]:
    """Return which requests are refused once ``changes`` move labels of prompts to other versions."""
    return [
        f"prompts/{change.key}: {breaking}"
        for change in changes
        if isinstance(change.before, Prompt) and isinstance(change.after, Prompt)
        for breaking in breaking_changes(change.before, change.after)
    ]


def _costs_differ(change: Change) -> bool:
    return any("cost" in field for field, _, _ in change.differences())


async def publish_changes(
    changes: Sequence[Change], producer: Producer, now: datetime, *, author: str = "", reason: str = ""
) -> None:
    """Publish ``changes`` and wait until the broker has all of them.

    Policies, prompts, prices and routes go before teams, and withdrawals last, so that nobody reads a team whose policy
    has not been published yet.
    """
    order = {
        "policies": 0, "prompts": 1, "prices": 2, "routes": 3, "teams": 4, "alerting": 5, "evaluators": 6, "rubrics": 7,
        "experiments": 8, "energy": 2, "adapters": 2, "keys": 9,
    }  # fmt: skip
    for step in sorted({_step(change, order) for change in changes}):
        sent = [
            await producer.send(f"config-{change.kind}", change.key, _record(change, now, author, reason))
            for change in changes
            if _step(change, order) == step
        ]
        await asyncio.gather(*sent)


def _step(change: Change, order: Mapping[str, int]) -> int:
    position = order[change.kind]
    return position if change.action != "withdrawn" else 2 * len(order) - position


def _record(change: Change, now: datetime, author: str, reason: str) -> ConfigEntry:
    entry = change.after or change.before
    assert entry is not None
    return ConfigEntry(
        event_id=new_id(),
        request_id="",
        tenant_id=entry.name if isinstance(entry, Team) else OPERATIONS,
        occurred_at=now,
        causation_id="",
        kind=change.kind,
        name=change.key,
        version=entry.version,
        content=change.after.canonical if change.after else "",
        deleted=change.after is None,
        author=author,
        reason=reason,
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}.{index}")
    else:
        yield path, json.dumps(value, ensure_ascii=False)

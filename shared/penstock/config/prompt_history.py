"""The prompts there are and were: every version, and every move of a label with who made it and why. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from penstock.config.prompts import Prompt
from penstock.config.published import published
from penstock.contracts.records import ConfigEntry

__all__ = ["LabelMove", "PromptHistory", "PromptUnknown", "Publication", "histories", "named"]

_VERSION = re.compile(r"[0-9a-f]{16}")
_PREFIX = re.compile(r"[0-9a-f]{4,16}")


class PromptUnknown(Exception):
    """There is no such prompt, label or version; the message names what there is."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A version of a prompt, and its first publication."""

    prompt: Prompt
    published_at: datetime
    author: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LabelMove:
    """A label that was pointed at a version.

    Attributes:
        prompt: None where the label was withdrawn.
        moved_at: when it came into force.
        closed_at: when the next move of the label took its place; None while it is in force.
    """

    label: str
    prompt: Prompt | None
    moved_at: datetime
    author: str = ""
    reason: str = ""
    closed_at: datetime | None = None

    @property
    def version(self) -> str:
        """Content hash that the label points at; empty where it was withdrawn."""
        return self.prompt.version if self.prompt is not None else ""


@dataclass(slots=True)
class PromptHistory:
    """What was published of one prompt.

    Attributes:
        versions: by content hash, in the order of their first publication.
        moves: of each label, oldest first.
    """

    name: str
    versions: dict[str, Publication] = field(default_factory=dict)
    moves: dict[str, list[LabelMove]] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, LabelMove]:
        """The labels in force, by name."""
        return {label: moves[-1] for label, moves in sorted(self.moves.items()) if moves[-1].prompt is not None}

    def labels_of(self, version: str) -> list[str]:
        """Return the labels that point at ``version``."""
        return [label for label, move in self.labels.items() if move.version == version]

    def find(self, reference: str) -> Prompt:
        """Return what a label, a version, or the first four or more digits of one points at.

        Raises:
            PromptUnknown: nothing, or several versions.
        """
        if (move := self.labels.get(reference)) is not None and move.prompt is not None:
            return move.prompt
        if _PREFIX.fullmatch(reference):
            fitting = [each.prompt for version, each in self.versions.items() if version.startswith(reference)]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                raise PromptUnknown(
                    f"{reference!r}: several versions of the prompt {self.name} begin so: "
                    + ", ".join(each.version for each in fitting)
                )
        raise PromptUnknown(
            f"the prompt {self.name} has no label or version {reference!r}; its labels are "
            f"{', '.join(self.labels) or 'none'}, its versions {', '.join(self.versions)}"
        )

    def before(self, label: str) -> Prompt:
        """Return the last version before this one that ``label`` pointed at: rolling back twice ends where it began.

        Of a label that is withdrawn it is the version it pointed at; one that came back from that goes back beyond it.

        Raises:
            PromptUnknown: the label was never moved, or once only.
        """
        moves = self.moves.get(label)
        if not moves:
            raise PromptUnknown(
                f"the prompt {self.name} has had no label {label!r}; it has had {', '.join(sorted(self.moves)) or 'none'}"
            )
        now = moves[-1].version
        earlier = [move.prompt for move in moves[:-1] if move.prompt is not None and move.version != now]
        if not earlier:
            raise PromptUnknown(
                f"{self.name}@{label} has pointed at one version only: there is none before; name one with --to"
            )
        return earlier[-1]

    def timeline(self) -> list[tuple[LabelMove, Prompt | None]]:
        """Return every move of every label, oldest first, with what the label pointed at before."""
        moves = [
            (move, series[position - 1].prompt if position else None)
            for series in self.moves.values()
            for position, move in enumerate(series)
        ]
        return sorted(moves, key=lambda each: each[0].moved_at)


def histories(records: Iterable[ConfigEntry]) -> dict[str, PromptHistory]:
    """Return what was published of each prompt, by its name.

    Args:
        records: of the topic config-prompts, oldest first. An invalid one is left out, as every reader leaves it out; so
            is what repeats the version that a label points at.
    """
    found: dict[str, PromptHistory] = {}
    for record, prompt in published(records, Prompt):
        name, _, suffix = record.name.partition("@")
        if prompt is None and name not in found:
            continue
        history = found.setdefault(name, PromptHistory(name))
        if prompt is not None:
            publication = Publication(prompt, record.occurred_at, record.author, record.reason)
            history.versions.setdefault(prompt.version, publication)
        if not _VERSION.fullmatch(suffix):
            _move(history, LabelMove(suffix, prompt, record.occurred_at, record.author, record.reason))
    return found


def named(found: Mapping[str, PromptHistory], name: str) -> PromptHistory:
    """Return the history of the prompt ``name``.

    Raises:
        PromptUnknown: there is none.
    """
    if name in found:
        return found[name]
    close: Sequence[str] = difflib.get_close_matches(name, found, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(found)) or 'none'}"
    raise PromptUnknown(f"there is no prompt {name}; {hint}")


def _move(history: PromptHistory, move: LabelMove) -> None:
    moves = history.moves.setdefault(move.label, [])
    if moves and moves[-1].version == move.version:
        return
    if moves:
        moves[-1] = replace(moves[-1], closed_at=move.moved_at)
    moves.append(move)

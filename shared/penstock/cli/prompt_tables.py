"""How ``penstock prompts`` shows prompts: their labels and versions, their text, and who moved what when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from penstock.cli.cluster import table_console
from penstock.cli.printable import printable
from penstock.config.prompt_history import LabelMove, PromptHistory
from penstock.config.prompt_text import readable
from penstock.config.prompts import Prompt

__all__ = ["history_data", "move_data", "show_diff", "show_history", "show_list", "show_prompt"]

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def show_list(found: Mapping[str, PromptHistory]) -> None:
    """Show the prompts that labels point at, one label a line."""
    table = Table("prompt", "label", "version", "versions", "variables", "since", "by", box=None)
    for name, history in sorted(found.items()):
        for label, move in history.labels.items():
            if move.prompt is None:
                continue
            table.add_row(
                *(_cell(text) for text in (name, label)), move.version, str(len(history.versions)),
                _cell(", ".join(move.prompt.variables) or "-"), _minute(move.moved_at), _cell(move.author or "-"),
            )  # fmt: skip
    table_console().print(table)


def show_prompt(prompt: Prompt, history: PromptHistory) -> None:
    """Show one version of a prompt: what points at it, who published it, and its text."""
    publication = history.versions[prompt.version]
    labels = history.labels_of(prompt.version)
    click.echo(
        f"{prompt.name}  version {prompt.version}, published {_minute(publication.published_at)}"
        + _by(publication.author, publication.reason)
    )
    click.echo(f"labels: {', '.join(labels) or 'none points at it'}")
    for line in readable(prompt):
        click.echo(printable(line))


def show_history(history: PromptHistory, label: str | None) -> None:
    """Show every move of the labels (or of ``label``), and the versions that none points at, the newest first."""
    table = Table("at", "label", "version", "before", "by", "reason", box=None)
    rows: list[tuple[datetime, str, str, str, str, str]] = [
        (
            move.moved_at,
            move.label,
            move.version or "withdrawn",
            before.version if before else "-",
            move.author,
            move.reason,
        )
        for move, before in history.timeline()
        if label in (None, move.label)
    ]
    if label is None:
        labelled = {move.version for moves in history.moves.values() for move in moves}
        rows += [
            (each.published_at, "-", version, "-", each.author, each.reason)
            for version, each in history.versions.items()
            if version not in labelled
        ]
    for at, of, version, before, author, reason in sorted(rows, reverse=True):
        table.add_row(_minute(at), _cell(of), version, before, _cell(author or "-"), _cell(reason or "-"))
    table_console().print(table)


def show_diff(lines: Iterable[str], *, err: bool = False) -> None:
    """Print a unified diff, in colours on a terminal."""
    for line in lines:
        click.echo(click.style(printable(line), fg=_COLOURS.get(line[:1])), err=err)


def move_data(moves: Sequence[LabelMove]) -> list[dict[str, Any]]:
    """Return the moves of a label as JSON data, oldest first."""
    return [
        {
            "version": move.version or None,
            "moved_at": move.moved_at.isoformat(),
            "closed_at": move.closed_at.isoformat() if move.closed_at else None,
            "author": move.author,
            "reason": move.reason,
        }
        for move in moves
    ]


def history_data(history: PromptHistory) -> dict[str, Any]:
    """Return a prompt as JSON data: its labels with their moves, and every version of it, oldest first."""
    return {
        "name": history.name,
        "labels": {label: move.version for label, move in history.labels.items()},
        "history": {label: move_data(moves) for label, moves in sorted(history.moves.items())},
        "versions": [
            {
                "version": version,
                "published_at": each.published_at.isoformat(),
                "author": each.author,
                "reason": each.reason,
                "prompt": json.loads(each.prompt.canonical),
            }
            for version, each in history.versions.items()
        ],
    }


def _by(author: str, reason: str) -> str:
    said = f", by {printable(author)}" if author else ""
    return said + (f": {printable(reason)}" if reason else "")


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def _cell(text: str) -> str:
    return escape(printable(text))

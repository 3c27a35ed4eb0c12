"""Policies from files, for commands that work without the cluster."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from penstock.config.files import ConfigInvalid, load_entries
from penstock.config.policies import Policy
from penstock.contracts.catalogue import CatalogueError, project_file

from services.guardrails.policy import CompiledPolicy, Scanners, compile_policy
from services.guardrails.registry import shipped_scanners

__all__ = ["compiled", "find_policy"]


def find_policy(name: str, config: Path | None = None) -> Policy:
    """The policy ``name`` of the configuration in ``config`` (default: the project's), or of the file of that name.

    Raises:
        click.ClickException: there is none, or its file is invalid.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or (path.parent != Path() and path.exists()):
        return _of_file(path)
    try:
        root = config or project_file("infra/config")
    except CatalogueError as error:
        raise click.ClickException(str(error)) from error
    shelf = _read(root)
    if name in shelf.policies:
        return shelf.policies[name]
    if shelf.problems:
        raise click.ClickException("\n".join([f"no policy {name!r} among the files that are valid", *shelf.problems]))
    close = difflib.get_close_matches(name, shelf.policies, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    there = ", ".join(sorted(shelf.policies)) or "none"
    raise click.ClickException(
        f"no policy {name!r} in {shelf.folder}: {hint}there are {there}; "
        "give one of them, the path of a policy's file, or another folder with --config"
    )


def compiled(policy: Policy) -> CompiledPolicy:
    """``policy`` with the scanners of this installation.

    Raises:
        click.ClickException: it asks for what is not installed.
    """
    try:
        return compile_policy(policy, _scanners())
    except ValueError as error:
        raise click.ClickException(str(error)) from error


@functools.cache
def _scanners() -> Scanners:
    return shipped_scanners()


@dataclass(frozen=True, slots=True)
class _Shelf:
    folder: Path
    policies: dict[str, Policy] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _read(root: Path) -> _Shelf:
    """The policies in the folder ``policies`` of ``root``, or in ``root`` where there is no such folder."""
    folder = root / "policies" if (root / "policies").is_dir() else root
    if not folder.is_dir():
        raise click.ClickException(f"{root} is no folder: give the configuration's, which holds policies/")
    shelf = _Shelf(folder)
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml")):
        try:
            shelf.policies.update((policy.name, policy) for policy in _entries(file))
        except ConfigInvalid as error:
            shelf.problems.extend(map(str, error.problems))
    return shelf


def _of_file(path: Path) -> Policy:
    try:
        policies = list(_entries(path))
    except ConfigInvalid as error:
        raise click.ClickException(str(error)) from error
    if len(policies) != 1:
        names = ", ".join(policy.name for policy in policies) or "none"
        raise click.ClickException(f"{path} holds {len(policies)} policies ({names}): give a file that holds one")
    return policies[0]


def _entries(file: Path) -> Iterator[Policy]:
    for located in load_entries("policies", file):
        assert isinstance(located.entry, Policy)
        yield located.entry

"""``penstock config``: prompts, policies, prices, routes and teams, from files to topics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from penstock.bus.kafka import KafkaBus
from penstock.bus.producer import Producer
from penstock.cli import change_options
from penstock.cli.cluster import cluster_settings, one_line_errors, table_console
from penstock.cli.publishing import user
from penstock.clock import SystemClock
from penstock.config.files import ConfigFiles, ConfigInvalid, load_files
from penstock.config.kinds import KINDS
from penstock.config.plane import ConfigPlane
from penstock.config.publish import Change, plan_changes, price_warnings, prompt_warnings, publish_changes
from penstock.contracts.catalogue import Catalogue, project_file
from penstock.contracts.codec import Codec
from penstock.settings import KafkaSettings

__all__ = ["config"]

_INVALID_EXIT_CODE = 2
_MARKS = {"new": "+", "changed": "~", "withdrawn": "-"}

_wait = click.option(
    "--wait", "wait_s", type=float, default=30.0, show_default=True, help="Seconds to wait for Kafka and the registry."
)
_path = click.argument("path", required=False, type=click.Path(path_type=Path))


@click.group()
def config() -> None:
    """The configuration: files under infra/config, topics on the cluster."""


@config.command()
@_path
@change_options.reason
@change_options.author
@change_options.dry_run
@_wait
def apply(path: Path | None, reason: str, author: str | None, dry_run: bool, wait_s: float) -> None:
    """Validate PATH (default: infra/config), show what differs from the topics, and publish that.

    A kind without files in PATH is left alone; within the others, what PATH no longer holds is withdrawn. Exits 2, having
    published nothing, when a file is invalid.
    """
    with one_line_errors():
        root = path or project_file("infra/config")
        changes, files = asyncio.run(_apply(root, cluster_settings(), reason, author or user(), dry_run, wait_s))
    _warn(files)
    _show_changes(changes)
    for warning in (*price_warnings(changes), *prompt_warnings(changes)):
        click.echo(f"warning: {warning}", err=True)
    done = "to publish" if dry_run else "published"
    click.echo(f"{len(changes)} {done}" if changes else "nothing to publish: the topics hold the same")


@config.command()
@_path
def validate(path: Path | None) -> None:
    """Check the files of PATH (default: infra/config) without a cluster. Exits 2 when one is invalid."""
    with one_line_errors():
        files = _load(path or project_file("infra/config"), None)
    _warn(files)
    click.echo(", ".join(f"{len(entries)} {kind}" for kind, entries in files.kinds.items()) + ": valid")


@config.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("name", required=False)
@_wait
def show(kind: str, name: str | None, wait_s: float) -> None:
    """Show what the topics hold of a KIND: a list, or the entry NAME as JSON."""
    with one_line_errors():
        plane = asyncio.run(_read(cluster_settings(), wait_s))
    entries = plane.entries(kind)
    if name is None:
        table = Table("name", "version", "content", box=None)
        for key, entry in sorted(entries.items()):
            text = entry.canonical
            table.add_row(key, entry.version, text if len(text) <= 100 else text[:97] + "...")
        table_console().print(table)
        return
    found = entries.get(name) or entries.get(f"{name}@production")
    if found is None:
        raise click.ClickException(f"{kind} hold no {name!r}; there are {', '.join(sorted(entries)) or 'none'}")
    click.echo(json.dumps(json.loads(found.canonical), indent=2, ensure_ascii=False))


async def _apply(
    root: Path, settings: KafkaSettings, reason: str, author: str, dry_run: bool, wait_s: float
) -> tuple[list[Change], ConfigFiles]:
    _load(root, None)  # what needs no cluster to be refused is refused before one is asked
    clock = SystemClock()
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url, timeout_s=wait_s)
    async with KafkaBus(settings, client_id="penstock-config", start_timeout_s=wait_s) as bus:
        plane = await ConfigPlane.open(bus, codec)
        try:
            files = _load(root, plane)
            changes = plan_changes(files, plane)
            if not dry_run:
                producer = Producer(bus.producer(), codec, "config", clock)
                await publish_changes(changes, producer, clock.now(), author=author, reason=reason)
        finally:
            await plane.close()
    return changes, files


async def _read(settings: KafkaSettings, wait_s: float) -> ConfigPlane:
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url, timeout_s=wait_s)
    async with KafkaBus(settings, client_id="penstock-config", start_timeout_s=wait_s) as bus:
        plane = await ConfigPlane.open(bus, codec)
        await plane.close()
    return plane


def _load(root: Path, plane: ConfigPlane | None) -> ConfigFiles:
    try:
        return load_files(root, None if plane is None else {kind: plane.entries(kind) for kind in KINDS})
    except ConfigInvalid as error:
        problem = click.ClickException(f"the configuration is invalid, nothing was published:\n{error}")
        problem.exit_code = _INVALID_EXIT_CODE
        raise problem from error


def _warn(files: ConfigFiles) -> None:
    for warning in files.warnings:
        click.echo(f"warning: {warning}", err=True)


def _show_changes(changes: Sequence[Change]) -> None:
    for change in changes:
        version = change.after.version if change.after else "withdrawn"
        click.echo(f"{_MARKS[change.action]} {change.kind}/{change.key}  {version}")
        if change.action == "changed":
            for field, before, after in change.differences():
                click.echo(f"    {field}: {before or 'default'} -> {after or 'default'}")

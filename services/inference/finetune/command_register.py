"""``penstock finetune register``: an adapter as a model version that routes can name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import yaml
from penstock.cli.cluster import one_line_errors
from penstock.cli.publishing import EntryRefused, publish_entry
from penstock.config.adapters import Adapter

from services.inference.finetune.options import FOLDER, publishing_options
from services.inference.finetune.registering import NotRegistered, adapter_of, kept_apart

__all__ = ["register", "registered"]


@click.command()
@click.argument("adapter", type=FOLDER)
@click.option("--name", required=True, help="What targets ask for as their model; a name keeps its weights.")
@click.option("--base-model", help="Its base, as the engine serves it.  [default: as it was trained]")
@click.option("--path", help="The folder as inference sees it.  [default: where it is here]")
@click.option("--note", default="", help="Who made it, and why.")
@click.option("--force", is_flag=True, help="Although it was not evaluated, or is worse than its base.")
@click.option("--yaml", "file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the entry there, for infra/config/adapters, and publish nothing.")  # fmt: skip
@publishing_options
def register(
    adapter: Path, name: str, base_model: str | None, path: str | None, note: str, force: bool, file: Path | None,
    author: str, reason: str, dry_run: bool,
) -> None:  # fmt: skip
    """Publish ADAPTER, the folder that was trained and evaluated, on config-adapters."""
    with one_line_errors(EntryRefused, NotRegistered):
        entry = adapter_of(adapter, name=name, base_model=base_model, path=path, note=note, force=force)
        if file is not None:
            file.write_text(
                yaml.safe_dump(entry.model_dump(mode="json", exclude_defaults=True), sort_keys=False), "utf-8"
            )
            click.echo(f"{file}: publish it with `penstock config apply`")
            return
        registered(entry, author=author, reason=reason, dry_run=dry_run)


def registered(entry: Adapter, *, author: str, reason: str, dry_run: bool) -> None:
    """Publish an adapter and print what it became.

    Raises:
        NotRegistered: its name is that of other weights.
        EntryRefused: something would be broken.
    """
    change = asyncio.run(
        publish_entry(lambda plane: kept_apart(entry, plane), author=author, reason=reason, dry_run=dry_run)
    )
    done = "is registered already" if change is None else "would be registered" if dry_run else "registered"
    click.echo(f"adapters/{entry.name} {entry.version} {done}: {entry.base_model}, sha256 {entry.sha256[:16]}")

"""``penstock retrieval status``, ``switch`` and ``drop``: the collections of an installation, one for each embedder."""

from __future__ import annotations

import asyncio
import sys

import click
import msgspec
from penstock.cli.cluster import one_line_errors, table_console
from penstock.embedding import EmbedderError
from penstock.embedding.settings import embedder_of
from penstock.settings import load_settings
from rich.markup import escape
from rich.table import Table

from services.retrieval.adapters import StoreMisfit, StoreUnavailable, collection_name
from services.retrieval.command.store import existing_store, open_existing
from services.retrieval.reembedding import CollectionStatus, statuses, switched
from services.retrieval.settings import Settings

__all__ = ["drop", "status", "switch"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def status(as_json: bool) -> None:
    """Show the collections, how many chunks each holds, and which one requests are answered from."""
    with one_line_errors(EmbedderError, StoreMisfit, StoreUnavailable):
        found = asyncio.run(_status())
    if as_json:
        for one in found:
            click.echo(msgspec.json.encode({"name": one.name, "chunks": one.chunks, "answering": one.answering}))
        return
    table = Table("collection", "chunks", "")
    for one in found:
        table.add_row(escape(one.name), f"{one.chunks:,}", "answers" if one.answering else "")
    table_console().print(table)


async def _status() -> list[CollectionStatus]:
    async with open_existing(load_settings(Settings)) as collections:
        return await statuses(collections)


@click.command()
def switch() -> None:
    """Let the next model answer (EMBEDDING_NEXT_*), once its collection holds all that the present one does.

    The service copies the chunks while both models are set, and switches by itself unless RETRIEVAL_SWITCH is manual.
    Every chunk is compared; nothing is switched where one is missing.
    """
    with one_line_errors(EmbedderError, StoreMisfit, StoreUnavailable):
        problem, name = asyncio.run(_switch())
    if problem:
        click.echo(f"not switched: {problem}", err=True)
        sys.exit(1)
    click.echo(f"requests are answered from {name}")


async def _switch() -> tuple[str, str]:
    settings = load_settings(Settings)
    following = settings.embedding_next_choice()
    if following is None:
        raise StoreMisfit("no model is to follow: set EMBEDDING_NEXT_MODEL, as the service has it")
    own, other = embedder_of(settings.embedding_choice()), embedder_of(following)
    names = [collection_name(one, settings.qdrant_namespace) for one in (own, other)]
    async with open_existing(settings) as collections:
        source = await existing_store(collections, names[0], own.dimension)
        target = await existing_store(collections, names[1], other.dimension)
        found = await switched(collections, source, target, names[1])
    if found is None:
        return "", names[1]
    return (
        f"the next collection lacks at least {len(found.lacking)} of the chunks, and has {len(found.stale)} that are "
        "gone: let the service copy them"
    ), names[1]


@click.command()
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def drop(name: str, yes: bool) -> None:
    """Remove the collection NAME, which no request is answered from, and all it holds."""
    if not yes:
        click.confirm(f"Remove {name} and all its chunks for good?", abort=True)
    with one_line_errors(StoreMisfit, StoreUnavailable):
        asyncio.run(_drop(name))
    click.echo(f"{name} is removed")


async def _drop(name: str) -> None:
    async with open_existing(load_settings(Settings)) as collections:
        await collections.drop(name)

"""penstock ingest: documents in, to be indexed for retrieval."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.bus.types import RawReader
from penstock.cli.cluster import cluster_settings
from penstock.cli.connection import connect, run_command
from penstock.cli.documents import (
    CONTENT_TYPES,
    OUTCOME_TOPICS,
    FileDocument,
    Outcome,
    Unreadable,
    find_documents,
    outcome_of,
)
from penstock.client import Client, RequestNotSent
from penstock.contracts.codec import Codec, Undecodable

__all__ = ["Ingestion", "ingest"]

_SENDS_AT_ONCE = 16


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--team", required=True, help="Team that owns the documents; it must be configured.")
@click.option("--collection", default="default", show_default=True, help="Collection that routes name to search them.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Label of every document; may be repeated.")
@click.option("--delete", is_flag=True, help="Remove the documents of these files from the index instead.")
@click.option("--no-wait", is_flag=True, help="Return once the log has them, without waiting for the index.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds without any progress before giving up.")
def ingest(
    paths: Sequence[Path], team: str, collection: str, tags: Sequence[str], delete: bool, no_wait: bool, timeout: float
) -> None:
    """Send the documents in PATHS, files or folders, and wait until each is indexed.

    A document is named by its path below the folder, that folder included: sent again it replaces what it was. Exits 1
    unless every document was indexed.
    """
    documents: list[FileDocument] = []
    others: list[Path] = []
    for path in paths:
        found, rest = find_documents(path)
        documents += found
        others += rest
    if not documents:
        raise click.ClickException(f"nothing to ingest: there is no {', '.join(CONTENT_TYPES)} file in what was given")
    if others:
        click.echo(f"{len(others)} files of other types are left out", err=True)
    run_command(_ingest(documents, team, _labels(tags, collection), delete, None if no_wait else timeout))


def _labels(tags: Sequence[str], collection: str) -> dict[str, str]:
    labels = {} if collection == "default" else {"collection": collection}
    for tag in tags:
        key, equals, value = tag.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--tag {tag!r} is not KEY=VALUE")
        labels[key] = value
    return labels


class Ingestion:
    """The documents of one command: those sent and not heard of yet, and what became of the others."""

    def __init__(self, advance: Callable[[], None] = lambda: None) -> None:
        self.pending: dict[str, str] = {}
        """document_id by upload, of those sent and not heard of."""
        self.outcomes: dict[str, Outcome] = {}
        """By document_id."""
        self._advance = advance

    def unsent(self, document_id: str, reason: str) -> None:
        """Note a document that could not be sent."""
        self.outcomes[document_id] = Outcome("failed", document_id=document_id, reason=reason)
        self._advance()

    def heard(self, outcome: Outcome) -> bool:
        """Note what became of a document; False where it is none that waits."""
        upload = outcome.upload
        if not upload:
            upload = next((key for key, name in self.pending.items() if name == outcome.document_id), "")
        document_id = self.pending.pop(upload, None)
        if document_id is None:
            return False
        self.outcomes[document_id] = outcome
        self._advance()
        return True

    async def send(
        self, client: Client, documents: Sequence[FileDocument], tags: Mapping[str, str], delete: bool
    ) -> None:
        """Send every document, a few at once; one that cannot be read or sent fails alone."""
        slots = asyncio.Semaphore(_SENDS_AT_ONCE)

        async def one(document: FileDocument) -> None:
            async with slots:
                try:
                    upload = await client.document(
                        document.document_id,
                        "" if delete else await asyncio.to_thread(document.read),
                        source=document.document_id,
                        content_type=document.content_type,
                        tags=tags,
                        deleted=delete,
                    )
                except (Unreadable, RequestNotSent) as error:
                    self.unsent(document.document_id, str(error))
                else:
                    self.pending[upload] = document.document_id

        async with asyncio.TaskGroup() as group:
            for document in documents:
                group.create_task(one(document))

    async def wait(self, reader: RawReader, codec: Codec, timeout_s: float) -> None:
        """Read outcomes until every document has one.

        Raises:
            TimeoutError: none came for ``timeout_s``.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.pending:
            for message in await reader.poll(0.25):
                try:
                    outcome = outcome_of(codec.decode(message.topic, message.value))
                except Undecodable:
                    continue
                if outcome is not None and self.heard(outcome):
                    deadline = loop.time() + timeout_s
            if loop.time() > deadline:
                raise TimeoutError(
                    f"{len(self.pending)} documents were sent and not indexed, e.g. {next(iter(self.pending.values()))}: "
                    "do guardrails and retrieval run? What was sent will be indexed once they do"
                )


async def _ingest(
    documents: Sequence[FileDocument], team: str, tags: Mapping[str, str], delete: bool, timeout_s: float | None
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with connect() as connection:
        # Opened before anything is sent: an outcome may follow within milliseconds.
        reader = await connection.bus.read(OUTCOME_TOPICS, from_end=True)
        try:
            async with Client(
                cluster_settings(), tenant=team, transport=connection.bus, codec=connection.codec
            ) as client:
                with Progress(*columns, console=Console(stderr=True)) as progress:
                    task = progress.add_task("documents", total=len(documents))
                    ingestion = Ingestion(lambda: progress.advance(task))
                    await ingestion.send(client, documents, tags, delete)
                    if timeout_s is not None:
                        await ingestion.wait(reader, connection.codec, timeout_s)
        finally:
            await reader.close()
    _report(ingestion)


def _report(ingestion: Ingestion) -> None:
    console = Console(highlight=False)
    for document_id, outcome in sorted(ingestion.outcomes.items()):
        if not outcome.good:
            console.print(f"[red]{outcome.status}[/red] {escape(document_id)}: {escape(outcome.reason)}")
    counts = Counter(outcome.status for outcome in ingestion.outcomes.values())
    counts["sent"] = len(ingestion.pending)
    chunks = sum(outcome.chunks for outcome in ingestion.outcomes.values())
    parts = [f"{count} {status}" for status, count in sorted(counts.items()) if count]
    console.print(f"{', '.join(parts)}; {chunks} chunks")
    if not all(outcome.good for outcome in ingestion.outcomes.values()):
        sys.exit(1)

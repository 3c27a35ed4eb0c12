"""penstock ingest: documents in, to be indexed for retrieval."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
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
    Part,
    Unreadable,
    find_documents,
    outcome_of,
    part_id,
)
from penstock.cli.instants import INSTANT, UNTIL
from penstock.cli.teams import require_team
from penstock.client import Client, RequestNotSent
from penstock.config.plane import ConfigPlane
from penstock.contracts.codec import Codec, Undecodable

__all__ = ["Ingestion", "Labels", "ingest"]

_SENDS_AT_ONCE = 16
_LEFTOVERS_AT_ONCE = 32
_LANGUAGE = re.compile(r"[a-z]{2,3}")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--team", required=True, help="Team that owns the documents; it must be configured.")
@click.option("--collection", default="default", show_default=True, help="Collection that routes name to search them.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Label of every document; may be repeated.")
@click.option("--language", metavar="CODE", help="Language of every document, ISO 639-1; found out where not given.")
@click.option("--valid-from", type=INSTANT, help="Requests are grounded in the documents from then on.")
@click.option("--valid-to", type=UNTIL, help="... and until then: 2027-01-01, or 90d from now.")
@click.option(
    "--split", is_flag=True, help="Send texts and Markdown above 200,000 characters in parts, cut at headings."
)
@click.option("--delete", is_flag=True, help="Remove the documents of these files from the index instead.")
@click.option("--no-wait", is_flag=True, help="Return once the log has them, without waiting for the index.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds without any progress before giving up.")
def ingest(
    paths: Sequence[Path],
    team: str,
    collection: str,
    tags: Sequence[str],
    language: str | None,
    valid_from: datetime | None,
    valid_to: datetime | None,
    split: bool,
    delete: bool,
    no_wait: bool,
    timeout: float,
) -> None:
    """Send the documents in PATHS, files or folders, and wait until each is indexed.

    Text, Markdown and HTML of any encoding, and PDFs. A document is named by its path below the current folder; of one
    that lies elsewhere, by the path below the folder in PATHS (of a file: around it), that folder included. Sent again
    it replaces what it was, and so do its parts PATH#1, PATH#2, ... where --split is given again.

    --delete removes the parts, too, and what is in the index while the file is gone. Exits 1 unless every document was
    indexed, or removed.
    """
    if language is not None and not _LANGUAGE.fullmatch(language):
        raise click.UsageError(f"--language {language!r} is no code of ISO 639, e.g. en or de")
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        raise click.UsageError("--valid-to must be after --valid-from")
    if no_wait and split:
        raise click.UsageError("--split waits: whether a document had more parts before shows when they are removed")
    documents: list[FileDocument] = []
    others: list[Path] = []
    for path in paths:
        if not path.exists() and not (delete and path.suffix.lower() in CONTENT_TYPES):
            remedy = "; to remove what was indexed of a folder that is gone, name its files" if delete else ""
            raise click.UsageError(f"{path} does not exist{remedy}")
        found, rest = find_documents(path, Path.cwd())
        documents += found
        others += rest
    if not documents:
        raise click.ClickException(f"nothing to ingest: there is no {', '.join(CONTENT_TYPES)} file in what was given")
    if others:
        left = "1 file of another type is" if len(others) == 1 else f"{len(others)} files of other types are"
        click.echo(f"{left} left out", err=True)
    if no_wait and delete:
        click.echo("parts that --split made stay: without --no-wait they are removed, too", err=True)
    labels = Labels(_labels(tags, collection), language, valid_from, valid_to)
    run_command(_ingest(documents, team, labels, delete, split, None if no_wait else timeout))


def _labels(tags: Sequence[str], collection: str) -> dict[str, str]:
    labels = {} if collection == "default" else {"collection": collection}
    for tag in tags:
        key, equals, value = tag.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--tag {tag!r} is not KEY=VALUE")
        labels[key] = value
    return labels


@dataclass(frozen=True, slots=True)
class Labels:
    """What is said of every document of a command.

    Attributes:
        language: ISO 639-1; None: each document's is found out.
        valid_from: from then on requests are grounded in the documents; None: from now on.
        valid_to: until then; None: for good.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None


class Ingestion:
    """The documents of one command: those sent and not heard of yet, and what became of the others.

    Args:
        advance: called whenever the fate of an event is known.
        expect: called with the number of events that were found to be needed beside one for each document.
    """

    def __init__(self, advance: Callable[[], None] = lambda: None, expect: Callable[[int], None] = lambda more: None):
        self.pending: dict[str, str] = {}
        """document_id by upload, of those sent and not heard of."""
        self.outcomes: dict[str, Outcome] = {}
        """By document_id."""
        self.leftovers: dict[str, int] = {}
        """Documents that may have parts from a time when they were longer: the number of the first of these."""
        self.had_parts: set[str] = set()
        """Documents of which such parts were found, and removed."""
        self._removed: dict[str, Outcome] = {}
        self._advance = advance
        self._expect = expect

    @property
    def absent(self) -> set[str]:
        """Documents that were to be removed, and of which the index held nothing."""
        return {
            name
            for name, outcome in self.outcomes.items()
            if outcome.status == "deleted" and not outcome.removed and name not in self.had_parts
        }

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
        if document_id in self._removed:
            self._removed[document_id] = outcome
        else:
            self.outcomes[document_id] = outcome
            self._advance()
        return True

    async def send(
        self,
        client: Client,
        documents: Sequence[FileDocument],
        labels: Labels,
        *,
        delete: bool = False,
        split: bool = False,
    ) -> None:
        """Send every document, a few at once; one that cannot be read or sent fails alone.

        Args:
            delete: remove them instead.
            split: send those that are long in parts.
        """
        slots = asyncio.Semaphore(_SENDS_AT_ONCE)

        async def one(document: FileDocument) -> None:
            async with slots:
                try:
                    parts = [Part(document.document_id)] if delete else await asyncio.to_thread(document.read, split)
                except Unreadable as error:
                    self.unsent(document.document_id, str(error))
                    return
                whole = parts[0].document_id == document.document_id
                self._expect(len(parts) - 1)
                for part in parts:
                    await self._send(client, document, part, labels, delete)
                if not whole:
                    await self._remove(client, document.document_id)
                if document.splittable and (split or delete):
                    self.leftovers[document.document_id] = 1 if whole else len(parts) + 1

        async with asyncio.TaskGroup() as group:
            for document in documents:
                group.create_task(one(document))

    async def _send(self, client: Client, document: FileDocument, part: Part, labels: Labels, delete: bool) -> None:
        try:
            upload = await client.document(
                part.document_id,
                part.content,
                data=part.data,
                source=document.document_id,
                content_type=document.content_type,
                tags=labels.tags,
                language=labels.language,
                valid_from=labels.valid_from,
                valid_to=labels.valid_to,
                deleted=delete,
            )
        except RequestNotSent as error:
            self.unsent(part.document_id, str(error))
        else:
            self.pending[upload] = part.document_id

    async def _remove(self, client: Client, document_id: str) -> None:
        """Remove what may not even be there: it is no document of this command, and no news where it was not."""
        try:
            upload = await client.document(document_id, deleted=True)
        except RequestNotSent as error:
            self.unsent(document_id, str(error))
        else:
            self.pending[upload] = document_id
            self._removed[document_id] = Outcome("deleted")

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

    async def remove_leftovers(self, client: Client, reader: RawReader, codec: Codec, timeout_s: float) -> None:
        """Remove the parts that documents had when they were longer: one after the other, then many at once, until there is
        none any more.

        Raises:
            TimeoutError: nothing was heard of them for ``timeout_s``.
        """
        left, count = dict(self.leftovers), 1
        while left:
            tried = {name: [part_id(name, first + more) for more in range(count)] for name, first in left.items()}
            for part in (part for parts in tried.values() for part in parts):
                await self._remove(client, part)
            await self.wait(reader, codec, timeout_s)
            was_there = {name for name, parts in tried.items() if any(self._removed[part].removed for part in parts)}
            self.had_parts |= was_there
            left = {name: left[name] + count for name in was_there}
            count = _LEFTOVERS_AT_ONCE


async def _ingest(
    documents: Sequence[FileDocument], team: str, labels: Labels, delete: bool, split: bool, timeout_s: float | None
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        require_team(plane, team)
        # Opened before anything is sent: an outcome may follow within milliseconds.
        reader = await connection.bus.read(OUTCOME_TOPICS, from_end=True)
        try:
            async with Client(
                cluster_settings(), tenant=team, transport=connection.bus, codec=connection.codec
            ) as client:
                with Progress(*columns, console=Console(stderr=True)) as progress:
                    total = len(documents)
                    task = progress.add_task("documents", total=total)

                    def expect(more: int) -> None:
                        nonlocal total
                        total += more
                        progress.update(task, total=total)

                    ingestion = Ingestion(lambda: progress.advance(task), expect)
                    await ingestion.send(client, documents, labels, delete=delete, split=split)
                    if timeout_s is not None:
                        await ingestion.wait(reader, connection.codec, timeout_s)
                        await ingestion.remove_leftovers(client, reader, connection.codec, timeout_s)
        finally:
            await reader.close()
    _report(ingestion)


def _report(ingestion: Ingestion) -> None:
    console = Console(highlight=False, soft_wrap=True)
    absent = ingestion.absent
    for document_id, outcome in sorted(ingestion.outcomes.items()):
        if not outcome.good:
            console.print(f"[red]{outcome.status}[/red] {escape(document_id)}: {escape(outcome.reason)}")
        elif document_id in absent:
            console.print(f"[yellow]not there[/yellow] {escape(document_id)}: the team has no document of this name")
    counts = Counter("not there" if name in absent else outcome.status for name, outcome in ingestion.outcomes.items())
    counts["sent"] = len(ingestion.pending)
    chunks = sum(outcome.chunks for outcome in ingestion.outcomes.values())
    parts = [f"{count} {status}" for status, count in sorted(counts.items()) if count]
    console.print(f"{', '.join(parts)}; {chunks} chunks")
    if not all(outcome.good for outcome in ingestion.outcomes.values()):
        sys.exit(1)

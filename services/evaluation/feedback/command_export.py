"""``penstock feedback export``: datasets that can be made again from the log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.contracts.records import LogRange

from services.evaluation.feedback.conversations import parquet_of
from services.evaluation.feedback.dataset import FORMATS, Choices, Dataset, made
from services.evaluation.feedback.log import Log, cases, feedback_since

__all__ = ["Manifest", "Wanted", "bounds_of", "export", "exported"]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a dataset was made of: enough to make it again, and to tell that it is the same."""

    format: str
    label: str
    min_rating: float
    team: str | None
    since: datetime | None
    rows: int
    feedback: int
    """Feedback events that were read, of all teams that were asked for."""
    skipped: dict[str, int]
    """Requests with feedback but no row, by the reason."""
    sha256: str
    """Of the dataset's file."""
    parquet_sha256: str | None = None
    """Of the same rows as Parquet, where they were asked for."""
    log: list[LogRange]
    requests: list[tuple[str, str]]
    """Team and request_id of every row."""
    exported_at: datetime


@dataclass(frozen=True)
class Wanted:
    """What is exported."""

    name: str
    choices: Choices
    since: datetime | None
    team: str | None


@click.command()
@click.option(
    "--format", "name", type=click.Choice(list(FORMATS)), default="jsonl", show_default=True,
    help="; ".join(f"{name}: {one.help}" for name, one in FORMATS.items()) + ".",
)  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
@click.option("--since", type=INSTANT, help="Feedback of this instant on, or how long ago; default: all in the log.")
@click.option("--team", help="Only of this team.")
@click.option(
    "--min-rating",
    type=click.FloatRange(0, 1),
    default=0.75,
    show_default=True,
    help="Mean rating of an answer that is well rated (sft).",
)
@click.option(
    "--label",
    type=click.Choice(["toxicity", "groundedness"]),
    default="toxicity",
    show_default=True,
    help="What label rows are of (labels).",
)
@click.option(
    "--like", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Manifest of an earlier export: make that dataset again.",
)  # fmt: skip
@click.option(
    "--parquet", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows as Parquet, too (conversations)."
)
def export(
    name: str,
    out: Path,
    since: datetime | None,
    team: str | None,
    min_rating: float,
    label: str,
    like: Path | None,
    parquet: Path | None,
) -> None:
    """Write a dataset made of feedback, and beside it its manifest (OUT.manifest.json).

    With --like the other options are taken from the manifest, the log is read within its offsets, and the command exits 1
    where the outcome is not the same.
    """
    wanted, before = Wanted(name, Choices(min_rating, label), since, team), None
    if like is not None:
        try:
            before = msgspec.json.decode(like.read_bytes(), type=Manifest)
        except msgspec.MsgspecError as error:
            raise click.ClickException(f"{like} is no manifest of an export: {error}") from error
        wanted = Wanted(before.format, Choices(before.min_rating, before.label), before.since, before.team)
    if parquet is not None and wanted.name != "conversations":
        raise click.UsageError(f"--parquet writes conversations, and this is --format {wanted.name}: leave it out")
    run_command(_export(wanted, out, before, parquet))


async def _export(wanted: Wanted, out: Path, before: Manifest | None, parquet: Path | None) -> None:
    async with connect() as connection:
        log = Log(connection.bus, connection.codec, None if before is None else bounds_of(before))
        dataset, manifest = await exported(log, wanted)
    _write(out, dataset, manifest, parquet)
    if log.undecodable:
        click.echo(f"{log.undecodable} messages could not be decoded and are not in it", err=True)
    if before is not None and before.sha256 != manifest.sha256:
        raise click.ClickException(
            f"this is another dataset than the manifest's ({before.rows} rows, sha256 {before.sha256[:16]}): retention has "
            "passed over some of its events, or another version of this command wrote it"
        )


def _write(out: Path, dataset: Dataset, manifest: Manifest, parquet: Path | None) -> None:
    if parquet is not None:
        table = parquet_of(dataset.lines, manifest.log)
        parquet.write_bytes(table)
        manifest = msgspec.structs.replace(manifest, parquet_sha256=hashlib.sha256(table).hexdigest())
    out.write_bytes(dataset.content)
    Path(f"{out}.manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    click.echo(f"{manifest.rows} rows of {manifest.feedback} feedback events in {out}, sha256 {manifest.sha256[:16]}")
    for reason, count in manifest.skipped.items():
        click.echo(f"  {count} requests left out: {reason}")


async def exported(log: Log, wanted: Wanted) -> tuple[Dataset, Manifest]:
    """Return a dataset and its manifest."""
    given = await feedback_since(log, wanted.since, team=wanted.team)
    found = await cases(log, given, FORMATS[wanted.name].topics)
    dataset = made(found, wanted.name, wanted.choices)
    manifest = Manifest(
        format=wanted.name,
        label=wanted.choices.label,
        min_rating=wanted.choices.min_rating,
        team=wanted.team,
        since=wanted.since,
        rows=len(dataset.lines),
        feedback=sum(map(len, given.values())),
        skipped=dict(dataset.skipped),
        sha256=dataset.digest,
        log=log.ranges(),
        requests=dataset.requests,
        exported_at=datetime.now(UTC),
    )
    return dataset, manifest


def bounds_of(manifest: Manifest) -> Mapping[tuple[str, int], tuple[int, int]]:
    """Return the offsets that a dataset was made within, by topic and partition."""
    bounds: dict[tuple[str, int], tuple[int, int]] = {}
    for each in manifest.log:
        bounds[each.topic, each.partition] = each.first_offset, each.last_offset
    return bounds

"""``penstock evaluate promote``: a request of production becomes a case of a golden set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from penstock.bus import history
from penstock.cli.cluster import one_line_errors
from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable

from services.evaluation.golden.dataset import DatasetError
from services.evaluation.golden.promotion import TOPICS, Found, NotPromoted, append_case, case_of

__all__ = ["promote"]


@click.command()
@click.argument("request_id", metavar="REQUEST")
@click.option("--dataset", "file", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="Golden set that the case is appended to; made where it is not there.")  # fmt: skip
@click.option("--reference", metavar="answer|correction|TEXT",
              help="The right answer.  [default: a person's correction, else the answer]")  # fmt: skip
@click.option("--tag", "tags", multiple=True, help="Label of the case; repeatable.")
@click.option("--team", help="Team of the request, where several teams used the same id.")
@click.option("--since", type=INSTANT, help="Begin here instead of at the beginning of the log.")
def promote(
    request_id: str, file: Path, reference: str | None, tags: Sequence[str], team: str | None, since: datetime | None
) -> None:
    """Append REQUEST to a golden set: its question as guardrails left it, the right answer, and where it came from.

    Refuses a request or a question that the set has already.
    """
    with one_line_errors(NotPromoted, DatasetError):
        run_command(_promote(request_id, file, reference, tags, team, since))


async def _promote(
    request_id: str, file: Path, reference: str | None, tags: Sequence[str], team: str | None, since: datetime | None
) -> None:
    found = await _found(request_id, team, since)
    if len(found) > 1:
        raise NotPromoted(
            f"several teams used the id {request_id!r}: choose one with --team ({', '.join(sorted(found))})"
        )
    one = next(iter(found.values()), Found())
    case, notes = case_of(request_id, one, reference=reference, tags=tags, now=datetime.now(UTC))
    append_case(file, case)
    said = "no reference" if not case.references else f"reference: {printable(case.references[0])}"
    click.echo(f"{file}: case {case.id} ({case.status})\n  question: {printable(case.asked)}\n  {said}")
    for note in notes:
        click.echo(f"note: {note}", err=True)


async def _found(request_id: str, team: str | None, since: datetime | None) -> dict[str, Found]:
    """What the log holds of a request, by team."""
    wanted = request_id.encode()
    found: dict[str, Found] = {}
    async with connect() as connection:
        since_ms = None if since is None else int(since.timestamp() * 1000)
        async with history(connection.bus, TOPICS, since_ms=since_ms) as messages:
            async for message in messages:
                # Avro writes strings as they are, so what does not hold the id needs no decoding.
                if message.value is None or wanted not in message.value:
                    continue
                record = connection.codec.readable(message.topic, message.value)
                if record is not None and record.request_id == request_id and team in (None, record.tenant_id):
                    place = (message.topic, message.partition, message.offset)
                    found.setdefault(record.tenant_id, Found()).take(record, place)
    return found

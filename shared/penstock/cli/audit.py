"""penstock audit: the story of a request, and the proof that nothing was released unjudged."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import click
import msgspec

from penstock.audit import Chapter, Fault, Verification, concerns, story
from penstock.bus import Message, history
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import LlmResult, Record, ResultChunk, Verdict

__all__ = ["audit", "written_with"]

_RELEASED = ("llm-results", "result-chunks")
_NOT_OF_REQUESTS = ("config-", "documents", "team-spend")
_EARLIER_MS = 10 * 60 * 1000
"""A verdict stands before its result by milliseconds; those of a range are looked for from this much earlier."""


@click.group()
def audit() -> None:
    """Show what became of a request, and verify that nothing was released without its verdict."""


@audit.command()
@click.argument("request_id")
@click.option("--team", help="Team of the request, where several teams used the same id.")
@click.option("--since", type=INSTANT, help="Begin here instead of at the beginning of the log.")
@click.option(
    "--texts", is_flag=True, help="Also what people and models wrote, unmasked where it was not yet screened."
)
@click.option("--json", "as_json", is_flag=True, help="The events as JSON lines, with where they lie.")
def show(request_id: str, team: str | None, since: datetime | None, texts: bool, as_json: bool) -> None:
    """Tell the whole story of REQUEST_ID: every event about it on every topic, oldest first."""
    run_command(_show(request_id, team, since, texts, as_json))


@audit.command()
@click.option("--since", type=INSTANT, help="First instant of the range; default: the beginning of the log.")
@click.option("--until", type=INSTANT, help="End of the range; default: now.")
@click.option("--json", "as_json", is_flag=True, help="Summary and faults as one JSON object.")
def verify(since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Prove that every released result and streamed piece of a range stands on its verdict.

    An independent reader: it takes nothing from the services but the log. Exits 1 where a release is not covered, and
    names each with topic, partition and offset.
    """
    run_command(_verify(since, until, as_json))


async def _show(request_id: str, team: str | None, since: datetime | None, texts: bool, as_json: bool) -> None:
    wanted = request_id.encode()
    events: list[tuple[str, int, int, Record]] = []
    async with connect() as connection:
        topics = [name for name in connection.codec.catalogue.topics if not name.startswith(_NOT_OF_REQUESTS)]
        async for message in _messages(connection, topics, since):
            # Avro writes strings as they are, so what does not hold the id needs no decoding.
            if message.value is None or wanted not in message.value:
                continue
            try:
                record = connection.codec.decode(message.topic, message.value)
            except Undecodable as error:
                click.echo(f"{message.topic}/{message.partition}/{message.offset}: {error.reason}", err=True)
                continue
            # What carries no team, as a dead letter, may be about the request of any.
            if concerns(record, request_id) and (team is None or record.tenant_id in (team, "")):
                events.append((message.topic, message.partition, message.offset, record))
    teams = sorted(
        {record.tenant_id for _, _, _, record in events if record.request_id == request_id and record.tenant_id}
    )
    if not events:
        raise click.ClickException(
            f"nothing about request {request_id!r} is in the log: check the id, or retention has passed over it"
        )
    if len(teams) > 1:
        raise click.ClickException(
            f"several teams used the id {request_id!r}: choose one with --team ({', '.join(teams)})"
        )
    chapters = story(events, texts=texts)
    for chapter in chapters:
        if as_json:
            place = {"topic": chapter.topic, "partition": chapter.partition, "offset": chapter.offset}
            told = {"record": type(chapter.record).__name__, "headline": chapter.headline, "details": chapter.details}
            fields = msgspec.to_builtins(chapter.record)
            shown = fields if texts else {name: fields[name] for name in Record.__struct_fields__}
            line = place | told | {"repeats": chapter.repeats, "event": shown}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            _tell(chapter, chapters[0].at)


def _tell(chapter: Chapter, start: datetime) -> None:
    after = (chapter.at - start).total_seconds()
    again = f"  (stands here {chapter.repeats + 1} times)" if chapter.repeats else ""
    click.echo(
        click.style(f"{chapter.at:%Y-%m-%d %H:%M:%S.%f}Z {after:+9.3f} s  ", dim=True)
        + click.style(f"{chapter.topic}/{chapter.partition}/{chapter.offset}", fg="cyan")
        + again
    )
    click.echo(f"    {printable(chapter.headline)}")
    for detail in chapter.details:
        click.echo(click.style(f"      {printable(detail)}", dim=True))


async def _verify(since: datetime | None, until: datetime | None, as_json: bool) -> None:
    verification = Verification()
    async with connect() as connection:
        async for message in _messages(connection, _RELEASED, since, until):
            place = (message.topic, message.partition, message.offset)
            record = connection.codec.readable(message.topic, message.value)
            if isinstance(record, LlmResult):
                verification.result(record, place)
            elif isinstance(record, ResultChunk):
                verification.piece(record, place)
            else:
                verification.undecodable(place)
        earlier = None if since is None else since.timestamp() * 1000 - _EARLIER_MS
        await _take_verdicts(connection, verification, earlier)
        if verification.waiting and earlier is not None:
            # A person may have decided long after; then the verdict on the text itself lies far back.
            await _take_verdicts(connection, verification, None)
    faults = list(verification.faults())
    (_print_json if as_json else _print_report)(verification, faults)
    if faults:
        sys.exit(1)


async def _take_verdicts(connection: Connection, verification: Verification, since_ms: float | None) -> None:
    async for message in _messages(connection, ["verdicts"], since_ms):
        record = connection.codec.readable(message.topic, message.value)
        if isinstance(record, Verdict):
            current = connection.codec.schema_id(message.topic)
            verification.verdict(record, is_older=written_with(message) != current)
        else:
            verification.undecodable((message.topic, message.partition, message.offset))


def _print_json(verification: Verification, faults: Sequence[Fault]) -> None:
    click.echo(
        json.dumps(
            {
                "ok": not faults,
                **msgspec.to_builtins(verification.summary),
                "faults": [msgspec.to_builtins(fault) | {"description": fault.description} for fault in faults],
            }
        )
    )


def _print_report(verification: Verification, faults: Sequence[Fault]) -> None:
    summary = verification.summary
    statuses = ", ".join(f"{number} {status}" for status, number in summary.by_status.most_common())
    read = f"{summary.results} results ({statuses or 'none'}), {summary.pieces} streamed pieces"
    click.echo(f"{read}, {summary.verdicts} verdicts read")
    if summary.duplicates:
        click.echo(f"{summary.duplicates} results stand twice with the same identity: readers drop the second")
    if summary.undigested:
        click.echo(f"{summary.undigested} were judged before verdicts carried a digest: their text cannot be compared")
    for fault in faults:
        of = f"  request {fault.request_id} of {fault.tenant_id}" if fault.request_id else ""
        click.echo(click.style(f"{fault.kind}  {fault.topic}/{fault.partition}/{fault.offset}{of}", fg="red"))
        click.echo(f"    {fault.description}")
    released = summary.released + summary.pieces
    if faults:
        click.echo(click.style(f"NOT PROVEN: {len(faults)} faults", fg="red", bold=True))
    elif released:
        click.echo(click.style("proven: every released result and piece stands on its verdict", fg="green"))
    else:
        click.echo("nothing was released in this range")


def written_with(message: Message) -> int:
    """Return the id of the schema that a message was written with: the four bytes behind the magic one."""
    return int.from_bytes((message.value or b"")[1:5], "big")


async def _messages(
    connection: Connection, topics: Sequence[str], since: datetime | float | None, until: datetime | None = None
) -> AsyncIterator[Message]:
    """What stands in the topics now, within the range by the broker's time."""
    since_ms = since.timestamp() * 1000 if isinstance(since, datetime) else since
    # The broker's instants are whole milliseconds.
    until_ms = None if until is None else int(until.timestamp() * 1000)
    first = None if since_ms is None else max(0, int(since_ms))
    async with history(connection.bus, topics, since_ms=first) as messages:
        async for message in messages:
            if until_ms is None or message.timestamp_ms < until_ms:
                yield message

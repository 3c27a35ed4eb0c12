"""penstock dlq: what the services could not process, and how it gets another try."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator

import click
from rich.console import Console
from rich.table import Table

from penstock.bus import Message, Partition, history
from penstock.bus.producer import REPLAYED
from penstock.cli.connection import Connection, connect, run_command
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import DeadLetter

__all__ = ["dlq"]


@click.group()
def dlq() -> None:
    """List, show and replay dead letters."""


@dlq.command("list")
def list_() -> None:
    """Count the dead letters of every service by origin and cause."""
    run_command(_list())


@dlq.command()
@click.argument("service")
@click.option("-n", "--count", default=20, show_default=True, help="Most letters to show, the newest.")
def show(service: str, count: int) -> None:
    """Show the dead letters of SERVICE: origin, cause, remedy."""
    run_command(_show(service, count))


@dlq.command()
@click.argument("service")
@click.option("--code", help="Only letters of this cause.")
@click.option("--again", is_flag=True, help="Also letters that were replayed before.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent and send nothing.")
def replay(service: str, code: str | None, again: bool, dry_run: bool) -> None:
    """Send the dead letters of SERVICE again to the topic and partition they came from.

    What was replayed is remembered in the cluster, so a second call sends only newer letters. Services drop what they
    have processed already by its identity, so a replay never does harm.
    """
    run_command(_replay(service, code, again, dry_run))


async def _letters(connection: Connection, service: str) -> AsyncIterator[tuple[Message, DeadLetter]]:
    topic = f"dlq-{service}"
    connection.codec.catalogue.topic(topic)
    async with history(connection.bus, [topic]) as messages:
        async for message in messages:
            try:
                letter = connection.codec.decode(topic, message.value)
            except Undecodable as error:
                click.echo(f"{topic}/{message.partition}/{message.offset}: {error.reason}", err=True)
                continue
            assert isinstance(letter, DeadLetter)
            yield message, letter


async def _list() -> None:
    counts: Counter[tuple[str, str, str]] = Counter()
    async with connect() as connection:
        for topic in connection.codec.catalogue.topics:
            if topic.startswith("dlq-"):
                async for _, letter in _letters(connection, topic.removeprefix("dlq-")):
                    counts[letter.service, letter.origin_topic, letter.code] += 1
    if not counts:
        click.echo("no dead letters")
        return
    table = Table("service", "from", "cause", "letters")
    for (service, origin, code), number in sorted(counts.items()):
        table.add_row(service, origin, code, str(number))
    Console().print(table)


async def _show(service: str, count: int) -> None:
    async with connect() as connection:
        letters = [letter async for _, letter in _letters(connection, service)]
    for letter in letters[-count:]:
        origin = f"{letter.origin_topic}/{letter.origin_partition}/{letter.origin_offset}"
        size = len(letter.origin_value or b"")
        click.echo(
            f"{letter.occurred_at:%Y-%m-%d %H:%M:%S}Z  {origin}  {letter.code}  {size} bytes\n    {letter.reason}"
        )
    click.echo(f"{len(letters)} dead letters; send them again with `penstock dlq replay {service}`", err=True)


async def _replay(service: str, code: str | None, again: bool, dry_run: bool) -> None:
    async with connect() as connection:
        done = await connection.bus.committed(f"dlq-replay-{service}", [f"dlq-{service}"])
        producer = connection.bus.producer()
        sent, skipped, lost = 0, 0, 0
        ends: dict[Partition, int] = {}
        async for message, letter in _letters(connection, service):
            place = Partition(message.topic, message.partition)
            if not again and message.offset < done.get(place, 0):
                continue
            if code is not None and letter.code != code:
                skipped += 1
                continue
            origin = f"{letter.origin_topic}/{letter.origin_partition}/{letter.origin_offset}"
            value = letter.origin_value
            if letter.truncated or value is None:
                lost += 1
                click.echo(f"{origin}: kept only in part; take it from its origin while retention lasts", err=True)
                continue
            if dry_run:
                click.echo(f"would send {origin} ({letter.code})")
            else:
                headers = list((letter.origin_headers | {REPLAYED: b"1"}).items())
                await (
                    await producer.send(letter.origin_topic, letter.origin_key, value, headers, letter.origin_partition)
                )
            sent += 1
            ends[place] = message.offset + 1
        # A selection by cause leaves letters behind: then the mark must not pass them.
        if not dry_run and code is None and ends:
            await connection.bus.commit(f"dlq-replay-{service}", ends)
    verb = "would be sent" if dry_run else "sent again"
    click.echo(f"{sent} {verb}, {skipped} of other causes left, {lost} not whole")
    if lost:
        sys.exit(1)

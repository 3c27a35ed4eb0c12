"""penstock tail: a topic, decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from penstock.bus import Message
from penstock.cli.connection import connect, run_command
from penstock.contracts.codec import Undecodable

__all__ = ["tail"]

_NATIVE_BYTES_SHOWN = 16


@click.command()
@click.argument("topics", nargs=-1, required=True)
@click.option("--from-start", is_flag=True, help="Begin with the oldest message instead of the next one.")
@click.option("-n", "--count", type=click.IntRange(1), help="Stop after so many messages.")
@click.option("--no-follow", is_flag=True, help="Stop at the end of the topics instead of waiting for more.")
@click.option("--request", help="Only the events of this request_id.")
@click.option("--where", is_flag=True, help="Add the message's topic, partition, offset and key.")
def tail(
    topics: Sequence[str], from_start: bool, count: int | None, no_follow: bool, request: str | None, where: bool
) -> None:
    """Print the records of TOPICS, one line of JSON each. What cannot be decoded is printed with the reason."""
    run_command(_tail(topics, from_start or no_follow, count, no_follow, request, where))


async def _tail(
    topics: Sequence[str], from_start: bool, count: int | None, no_follow: bool, request: str | None, where: bool
) -> None:
    async with connect() as connection:
        for topic in topics:
            connection.codec.catalogue.topic(topic)
        reader = await connection.bus.read(topics, from_end=not from_start)
        shown = 0
        try:
            while True:
                for message in await reader.poll(0.5):
                    try:
                        record: Any = connection.codec.decode(message.topic, message.value)
                        if request is not None and record.request_id != request:
                            continue
                        line = _plain(msgspec.to_builtins(record, builtin_types=(bytes,)))
                    except Undecodable as error:
                        if request is not None:
                            continue
                        line = {"undecodable": error.code, "reason": error.reason, **_place(message)}
                    click.echo(msgspec.json.encode(_place(message) | line if where else line).decode())
                    shown += 1
                    if shown == count:
                        return
                if no_follow and await reader.at_end():
                    return
        finally:
            await reader.close()


def _place(message: Message) -> dict[str, Any]:
    key = message.key.decode("utf-8", "replace") if message.key is not None else None
    return {"topic": message.topic, "partition": message.partition, "offset": message.offset, "key": key}


def _plain(value: Any) -> Any:
    """Vectors and payloads are shown by their length: a terminal is no place for kilobytes of base64."""
    if isinstance(value, bytes):
        return value.decode() if len(value) <= _NATIVE_BYTES_SHOWN and value.isascii() else f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value

"""``penstock drift pin``, ``unpin`` and ``rebase``: what people tell the detectors, as events."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from datetime import UTC, datetime

import click
from penstock.bus import Producer, history
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.instants import INSTANT
from penstock.contracts.envelope import new_id
from penstock.contracts.records import DriftCommand, Signal

from services.drift.commands import InvalidCommand, pinned_reference
from services.drift.families import matches
from services.drift.lookback.command_log import COMMANDS, SIGNALS, milliseconds, service_rules, within
from services.drift.projection import InvalidEmbedding, family_of
from services.drift.segments import Observed

__all__ = ["pin", "rebase", "unpin"]

_Decorator = Callable[[Callable[..., None]], Callable[..., None]]
_SIGNAL: _Decorator = click.option("--signal", help="Only this signal.  [default: all of the segment]")
_REASON: _Decorator = click.option("--reason", default="", help="Why: it stands with the command for whoever wonders.")
_AUTHOR: _Decorator = click.option("--author", default=getpass.getuser, show_default="your user name", help="Who.")
_JSON: _Decorator = click.option("--json", "as_json", is_flag=True, help="Print the command as JSON.")


class _Segment(click.ParamType):
    """A segment's name; ``*`` stands for any model or prompt version."""

    name = "segment"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it is."""
        parts = value.split("|")
        if len(parts) != 4 or not all(parts):
            self.fail(
                f"{value!r} is no segment: write 'team|model|prompt version|route' in quotes, with * for any model or "
                "prompt version; `penstock drift list` shows them",
                param,
                ctx,
            )
        return value


_SEGMENT: _Decorator = click.argument("segment", type=_Segment())


@click.command()
@_SEGMENT
@click.option(
    "--from", "since", type=INSTANT, required=True, help="Begin of the period: an instant, or 7d for a week ago."
)
@click.option("--to", "until", type=INSTANT, required=True, help="End of the period.")
@_SIGNAL
@_REASON
@_AUTHOR
@_JSON
def pin(
    segment: str, since: datetime, until: datetime, signal: str | None, reason: str, author: str, as_json: bool
) -> None:
    """Make a past period the reference of SEGMENT (team|model|prompt version|route; * is any model or prompt version).

    What comes is compared with that period from now on, however long the segment stays away from it, until it is unpinned.
    """
    if until <= since:
        raise click.UsageError("the period ends before it begins: --to must be later than --from")
    run_command(_pin(segment, since, until, signal, reason, author, as_json))


@click.command()
@_SEGMENT
@_SIGNAL
@_REASON
@_AUTHOR
@_JSON
def unpin(segment: str, signal: str | None, reason: str, author: str, as_json: bool) -> None:
    """Let the reference of SEGMENT follow it again, as it does without a pin."""
    run_command(_tell(_command("unpin", segment, signal, reason, author), as_json))


@click.command()
@_SEGMENT
@_SIGNAL
@_REASON
@_AUTHOR
@_JSON
def rebase(segment: str, signal: str | None, reason: str, author: str, as_json: bool) -> None:
    """Accept what SEGMENT is like now: it is the reference from now on, and what was told of it is resolved."""
    run_command(_tell(_command("rebase", segment, signal, reason, author), as_json))


def _command(action: str, segment: str, signal: str | None, reason: str, author: str) -> DriftCommand:
    identity = new_id()
    return DriftCommand(
        event_id=identity,
        request_id="",
        tenant_id=segment.partition("|")[0],
        occurred_at=datetime.now(UTC),
        causation_id=identity,
        action=action,
        segment=segment,
        signal=signal,
        author=author,
        reason=reason,
    )


async def _pin(
    segment: str, since: datetime, until: datetime, signal: str | None, reason: str, author: str, as_json: bool
) -> None:
    async with connect() as connection:
        found = await _period(connection, segment, since, until)
        if not found:
            raise click.ClickException(
                f"no signals of {segment} from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC: the log keeps seven "
                "days; see `penstock drift list --all` for the names of segments"
            )
        watched = [each for each in found if signal is None or _has(each.record, signal)]
        if not watched:
            raise click.ClickException(f"{segment} has no signal {signal} in that period")
        rules = await service_rules()
        try:
            reference = pinned_reference(watched, rules.detectors)
        except (InvalidCommand, InvalidEmbedding) as error:
            raise click.ClickException(f"{error} ({len(watched)} events in this one)") from error
        await _send(connection, _pinned(segment, signal, reason, author, since, until, reference), as_json)


def _pinned(
    segment: str, signal: str | None, reason: str, author: str, since: datetime, until: datetime, reference: bytes
) -> DriftCommand:
    plain = _command("pin", segment, signal, reason, author)
    fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
    return DriftCommand(**fields | {"since": since, "until": until, "reference": reference})


async def _period(connection: Connection, segment: str, since: datetime, until: datetime) -> list[Observed]:
    """Return the records of the segments that are meant, in the order of their partition."""
    found = []
    async with history(connection.bus, [SIGNALS], since_ms=milliseconds(since)) as messages:
        async for message in within(messages, since, until):
            record = connection.codec.readable(message.topic, message.value)
            if isinstance(record, Signal) and matches(segment, record.segment):
                found.append(Observed(record, message.partition, message.offset))
    return found


def _has(record: Signal, signal: str) -> bool:
    return signal in record.values or signal in record.categories or signal in record.vectors


async def _tell(command: DriftCommand, as_json: bool) -> None:
    async with connect() as connection:
        await _send(connection, command, as_json)


async def _send(connection: Connection, command: DriftCommand, as_json: bool) -> None:
    producer = Producer(connection.bus.producer(), connection.codec, "operations")
    await (await producer.send(COMMANDS, family_of(command.segment), command))
    if as_json:
        fields = ("event_id", "action", "segment", "signal", "author", "reason")
        shown = {name: getattr(command, name) for name in fields}
        period = {name: getattr(command, name) for name in ("since", "until")}
        instants = {name: None if at is None else at.isoformat() for name, at in period.items()}
        size = 0 if command.reference is None else len(command.reference)
        click.echo(json.dumps({**shown, **instants, "reference_bytes": size}))
        return
    what = f"signal {command.signal} of {command.segment}" if command.signal else f"all signals of {command.segment}"
    done = {"pin": "pinned the reference of", "unpin": "unpinned", "rebase": "accepted the present of"}[command.action]
    click.echo(f"{done} {what}; the detectors take it with the next events of the partition")

"""``penstock alerts ack``, ``unack``, ``resolve``, ``silence`` and ``unsilence``: what people do, as events."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from penstock.bus import Producer
from penstock.cli.alerts.board import Silence
from penstock.cli.alerts.reading import chosen, chosen_silence, read_board
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.instants import INSTANT, SPAN
from penstock.cli.printable import printable
from penstock.contracts.envelope import event_id, new_id
from penstock.contracts.records import Alert, AlertAction, DriftCommand

__all__ = ["ack", "matches", "rebase_of", "resolve", "silence", "unack", "unsilence"]

_FIELDS = ("kind", "name", "severity", "team", "fingerprint")

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
_AUTHOR: Decorator = click.option("--author", default=getpass.getuser, show_default="your user name", help="Who.")
_SINCE: Decorator = click.option(
    "--since", type=INSTANT, default="7d", show_default=True, help="How far back the alert is looked for."
)


@click.command(short_help="Acknowledge an alert: neither repeated nor escalated.")
@click.argument("alert")
@click.option(
    "--for", "span", type=SPAN, help="Until then it is in hand, e.g. 4h; default: until it ends or gets worse."
)
@click.option("--comment", default="", help="Why, or what is being done.")
@click.option(
    "--keep-reference", is_flag=True, help="Of drift: do not take what is now as the reference; it may alert again."
)
@_AUTHOR
@_SINCE
def ack(alert: str, span: timedelta | None, comment: str, keep_reference: bool, author: str, since: datetime) -> None:
    """Acknowledge ALERT (the beginning of a fingerprint or event_id): it is neither repeated nor escalated.

    A drift alert that is acknowledged is an accepted change: the present becomes the reference of its signal. Of guardrail
    spikes it does not: what is in hand is not what is usual.
    """
    run_command(_ack(alert, span, comment, keep_reference, author, since))


@click.command(short_help="Withdraw an acknowledgement.")
@click.argument("alert")
@click.option("--comment", default="", help="Why.")
@_AUTHOR
@_SINCE
def unack(alert: str, comment: str, author: str, since: datetime) -> None:
    """Withdraw the acknowledgement of ALERT: it is repeated and escalated again."""
    run_command(_unack(alert, comment, author, since))


@click.command(short_help="End an alert by hand.")
@click.argument("alert")
@click.option("--comment", default="", help="Why.")
@_AUTHOR
@_SINCE
def resolve(alert: str, comment: str, author: str, since: datetime) -> None:
    """End ALERT by hand: for alerts that say of themselves that nothing is sent when they are over.

    If its condition still holds, it is raised and delivered again.
    """
    run_command(_resolve(alert, comment, author, since))


@click.command(short_help="Deliver no alerts that match, for a while.")
@click.option(
    "--match", "-m", "pairs", multiple=True, required=True, metavar="FIELD=PATTERN",
    help="What alerts must fit, all of them: kind, name, severity, team, fingerprint or a label; * and ? stand for "
    "anything. May be repeated.",
)  # fmt: skip
@click.option("--for", "span", type=SPAN, required=True, help="How long, e.g. 2h.")
@click.option(
    "--from", "begin", type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]), help="Begin, UTC; default: now."
)
@click.option("--comment", required=True, help="Why: whoever wonders about the silence reads this.")
@_AUTHOR
def silence(pairs: Sequence[str], span: timedelta, begin: datetime | None, comment: str, author: str) -> None:
    """Deliver no alerts that match for a while. They stay on record, and what still fires then is delivered."""
    run_command(_silence(matches(pairs), span, begin, comment, author))


@click.command(short_help="End a silence now.")
@click.argument("silence_id")
@click.option("--comment", default="", help="Why.")
@_AUTHOR
def unsilence(silence_id: str, comment: str, author: str) -> None:
    """End the silence SILENCE_ID (or a beginning of it) now."""
    run_command(_unsilence(silence_id, comment, author))


def matches(pairs: Sequence[str]) -> dict[str, str]:
    """Return ``field=pattern`` pairs as a mapping.

    Raises:
        click.BadParameter: one is no pair, or a field is named twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, sign, pattern = pair.partition("=")
        name = name.strip()
        if not sign or not name or not pattern:
            raise click.BadParameter(f"{pair!r} is no FIELD=PATTERN, such as team=support or name=*_shift")
        if name in found:
            raise click.BadParameter(f"{name} stands twice; a silence needs one pattern for each field")
        found[name] = pattern
    return found


def rebase_of(alert: Alert, action: AlertAction) -> DriftCommand | None:
    """Return the command that makes the present the reference of what a drift alert is about; ``None`` for an alert that
    does not say which segment and signal."""
    labels = alert.labels
    segment, signal = labels.get("segment", ""), labels.get("signal")
    # Drift of what guardrails find is told as kind guardrail.
    if alert.kind not in {"drift", "guardrail"} or segment.count("|") != 3 or not signal:
        return None
    return DriftCommand(
        event_id=event_id(action.event_id, "alerts.rebase"),
        request_id="",
        tenant_id=alert.tenant_id,
        occurred_at=action.occurred_at,
        causation_id=action.event_id,
        action="rebase",
        segment=segment,
        signal=signal,
        author=action.author,
        reason=action.comment or f"alert {alert.fingerprint} was acknowledged",
    )


async def _ack(
    prefix: str, span: timedelta | None, comment: str, keep_reference: bool, author: str, since: datetime
) -> None:
    async with connect() as connection:
        incident = chosen(await read_board(connection, since), prefix, since)
        if not incident.firing:
            raise click.ClickException(
                f"{_named(incident.alert)} does not fire any more: there is nothing to acknowledge"
            )
        now = datetime.now(UTC)
        ends_at = now + span if span is not None else None
        action = _action(
            "acknowledge", now, author, comment, alert=incident.alert, fingerprint=incident.fingerprint, ends_at=ends_at
        )
        await _send(connection, action)
        until = f"until {ends_at:%Y-%m-%d %H:%M} UTC" if ends_at else "until it ends or gets worse"
        click.echo(f"acknowledged {until}: {_named(incident.alert)}")
        if incident.alert.kind != "drift" or keep_reference:
            return
        command = rebase_of(incident.alert, action)
        if command is None:
            click.echo("the alert names no segment and signal, so no reference was changed", err=True)
            return
        team, _, _, route = command.segment.split("|")
        producer = Producer(connection.bus.producer(), connection.codec, "operations")
        await (await producer.send("drift-commands", f"{team}|{route}", command))
        click.echo(printable(f"the present is the reference of {command.signal} in {command.segment} from now on"))


async def _unack(prefix: str, comment: str, author: str, since: datetime) -> None:
    async with connect() as connection:
        incident = chosen(await read_board(connection, since), prefix, since)
        if incident.acknowledged is None:
            raise click.ClickException(f"{_named(incident.alert)} is not acknowledged")
        action = _action(
            "unacknowledge", datetime.now(UTC), author, comment, alert=incident.alert, fingerprint=incident.fingerprint
        )
        await _send(connection, action)
    click.echo(f"no longer acknowledged: {_named(incident.alert)}")


async def _resolve(prefix: str, comment: str, author: str, since: datetime) -> None:
    async with connect() as connection:
        incident = chosen(await read_board(connection, since), prefix, since)
        if not incident.firing:
            raise click.ClickException(f"{_named(incident.alert)} is over already")
        action = _action(
            "resolve", datetime.now(UTC), author, comment, alert=incident.alert, fingerprint=incident.fingerprint
        )
        await _send(connection, action)
    click.echo(f"resolved: {_named(incident.alert)}")


async def _silence(match: dict[str, str], span: timedelta, begin: datetime | None, comment: str, author: str) -> None:
    now = datetime.now(UTC)
    starts_at = begin.replace(tzinfo=UTC) if begin is not None else now
    ends_at = starts_at + span
    if ends_at <= now:
        raise click.ClickException(f"the silence would end at {ends_at:%Y-%m-%d %H:%M} UTC, which is over")
    async with connect() as connection:
        board = await read_board(connection, now - timedelta(days=7))
        wanted = Silence(new_id(), match, starts_at, ends_at, author, comment)
        action = _action(
            "silence", now, author, comment, silence_id=wanted.silence_id, match=match, ends_at=ends_at,
            starts_at=starts_at if begin is not None else None, team=match.get("team", ""),
        )  # fmt: skip
        await _send(connection, action)
    covered = [each for each in board.firing() if wanted.matches(each.alert)]
    click.echo(
        f"silence {wanted.silence_id} until {ends_at:%Y-%m-%d %H:%M} UTC; of what fires now it covers {len(covered)}"
    )
    for each in covered[:10]:
        click.echo(f"  {_named(each.alert)}")
    labels = {name for each in board.incidents for name in each.alert.labels}
    for name in sorted(set(match) - labels - set(_FIELDS)):
        click.echo(f"no alert of the last 7 days has a label {printable(name)!r}: is it spelt right?", err=True)


async def _unsilence(prefix: str, comment: str, author: str) -> None:
    async with connect() as connection:
        now = datetime.now(UTC)
        held = chosen_silence(await read_board(connection, now - timedelta(days=7)), prefix)
        await _send(connection, _action("unsilence", now, author, comment, silence_id=held.silence_id))
    click.echo(f"silence {printable(held.silence_id)} is over")


def _action(
    verb: str, now: datetime, author: str, comment: str, *, alert: Alert | None = None, team: str = "", **fields: Any
) -> AlertAction:
    return AlertAction(
        event_id=new_id(),
        request_id="",
        tenant_id=alert.tenant_id if alert is not None else team,
        occurred_at=now,
        causation_id=alert.event_id if alert is not None else "",
        action=verb,
        author=author,
        comment=comment,
        **fields,
    )


async def _send(connection: Connection, action: AlertAction) -> None:
    producer = Producer(connection.bus.producer(), connection.codec, "operations")
    key = action.fingerprint or action.silence_id or ""
    await (await producer.send("alert-actions", key, action))


def _named(alert: Alert) -> str:
    return printable(f"{alert.fingerprint[:10]} {alert.kind}/{alert.name} of {alert.tenant_id}: {alert.title}")

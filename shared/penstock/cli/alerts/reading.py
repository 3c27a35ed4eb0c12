"""The board as the log has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from penstock.cli.alerts.board import Board, Incident, Silence, fields_of, fold
from penstock.cli.connection import Connection
from penstock.config.alerting import AlertRoute
from penstock.config.plane import ConfigPlane
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import Alert, AlertAction, AlertDelivery

__all__ = ["chosen", "chosen_silence", "read_board", "route_of"]

_TOPICS = ("alerts", "alert-deliveries", "alert-actions")
_LONGEST_SILENCE = timedelta(days=90)


async def read_board(connection: Connection, since: datetime, plane: ConfigPlane | None = None) -> Board:
    """Return the board of what was raised since ``since``, as of now.

    Actions are read from further back: a silence may have begun long ago.
    """
    now = datetime.now(UTC)
    alerts: list[Alert] = []
    deliveries: list[AlertDelivery] = []
    actions: list[AlertAction] = []
    spans = {_TOPICS[:2]: since, _TOPICS[2:]: min(since, now - _LONGEST_SILENCE)}
    for topics, begin in spans.items():
        reader = await connection.bus.read(topics, since_ms=int(begin.timestamp() * 1000))
        try:
            while not await reader.at_end():
                for message in await reader.poll(0.5):
                    try:
                        record = connection.codec.decode(message.topic, message.value)
                    except Undecodable as error:
                        place = f"{message.topic}/{message.partition}/{message.offset}"
                        click.echo(f"{place}: {error.reason}", err=True)
                        continue
                    if isinstance(record, Alert):
                        alerts.append(record)
                    elif isinstance(record, AlertDelivery):
                        deliveries.append(record)
                    elif isinstance(record, AlertAction):
                        actions.append(record)
        finally:
            await reader.close()

    def resolve_after(alert: Alert) -> timedelta | None:
        route = route_of(alert, plane)
        return timedelta(seconds=route.resolve_after_s) if route is not None and route.resolve_after_s else None

    return fold(alerts, deliveries, actions, now, resolve_after)


def route_of(alert: Alert, plane: ConfigPlane | None) -> AlertRoute | None:
    """Return the route that the published configuration gives an alert; ``None`` where nothing is published for it."""
    entry = plane.alerting(alert.tenant_id) if plane is not None else None
    if entry is None:
        return None
    fields = fields_of(alert)
    return next((route for route in entry.routes if route.covers(fields)), None)


def chosen(board: Board, prefix: str, since: datetime) -> Incident:
    """Return the incident whose fingerprint, or one of whose alerts' ids, begins with ``prefix``.

    Raises:
        click.ClickException: none or several do; the message lists them.
    """
    fits = [
        each
        for each in board.incidents
        if each.fingerprint.startswith(prefix) or any(alert.event_id.startswith(prefix) for alert in each.alerts)
    ]
    firing = [each for each in fits if each.firing]
    fits = firing if len(firing) == 1 else fits
    if len(fits) == 1:
        return fits[0]
    if fits:
        listed = "; ".join(f"{each.fingerprint[:12]} {each.alert.kind}/{each.alert.name}" for each in fits[:8])
        raise click.ClickException(f"{len(fits)} alerts begin with {prefix!r}: give more of the id: {listed}")
    raise click.ClickException(
        f"no alert {prefix!r} since {since:%Y-%m-%d %H:%M} UTC; `penstock alerts list --all` shows them, --since reads "
        "further back"
    )


def chosen_silence(board: Board, prefix: str) -> Silence:
    """Return the silence whose id begins with ``prefix``.

    Raises:
        click.ClickException: none or several do.
    """
    fits = [each for each in board.silences if each.silence_id.startswith(prefix)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise click.ClickException(f"{len(fits)} silences begin with {prefix!r}: give more of the id")
    raise click.ClickException(f"no silence {prefix!r} holds or is to come; `penstock alerts silences` lists them")

"""``penstock alerts test``: an alert that goes the way that all alerts go, and what became of it."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click
import msgspec

from penstock.alerts import alert_emit, fingerprint
from penstock.bus import Producer
from penstock.bus.types import RawReader
from penstock.cli.alerts.acting import matches
from penstock.cli.alerts.drawing import outcome
from penstock.cli.alerts.reading import route_of
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.printable import printable
from penstock.clock import SystemClock
from penstock.config.plane import ConfigPlane
from penstock.contracts.envelope import event_id, new_id
from penstock.contracts.records import Alert, AlertDelivery

__all__ = ["ended", "test", "trial_alert"]

_STYLES = {"delivered": "green", "failed": "yellow", "dead": "red", "suppressed": "yellow"}
_GRACE_S = 3.0


@click.command(short_help="Send a test alert the way of all alerts, and say whom it reached.")
@click.option("--team", default="platform", show_default=True, help="Whose routes it takes.")
@click.option(
    "--severity",
    type=click.Choice(["info", "warning", "critical"]),
    default="info",
    show_default=True,
    help="How severe.",
)
@click.option(
    "--label", "pairs", multiple=True, metavar="NAME=VALUE", help="A label, for routes that go by it. May be repeated."
)
@click.option("--receiver", help="Only what becomes of it at this receiver counts.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1), default=90.0, show_default=True, help="Seconds to wait."
)
def test(team: str, severity: str, pairs: Sequence[str], receiver: str | None, timeout_s: float) -> None:
    """Raise an alert of kind test, wait until it is delivered, and take it back.

    It takes the way of every alert: alerting's routes, groups, silences and receivers. Exit status 1 if it reached nobody.
    """
    run_command(_test(team, severity, matches(pairs), receiver, timeout_s))


def trial_alert(team: str, severity: str, labels: dict[str, str], author: str, now: datetime, unique: str) -> Alert:
    """Return the alert that is sent."""
    return Alert(
        event_id=event_id(unique, "alerts.test"),
        request_id="",
        tenant_id=team,
        occurred_at=now,
        causation_id="",
        kind="test",
        name="test",
        severity=severity,
        title=f"Test alert of {author}",
        description=f"{author} tests the way of alerts of team {team} with severity {severity}. Nothing is wrong.",
        suggested_action="None: it is taken back by itself. Whoever reads this is reached.",
        fingerprint=fingerprint("test", unique),
        labels={**labels, "team": team, "author": author},
        runbook="services/alerting/runbooks/test.md",
        starts_at=now,
    )


def ended(records: Iterable[AlertDelivery], expected: Sequence[str] | None) -> bool:
    """Tell whether nothing more is to be awaited: every expected receiver has a final outcome; where none are known, any
    has.

    A record without a receiver stands for all of them.
    """
    final = {each.receiver for each in records if each.outcome != "failed"}
    if "" in final:
        return True
    return bool(final) if expected is None else set(expected) <= final


async def _test(team: str, severity: str, labels: dict[str, str], receiver: str | None, timeout_s: float) -> None:
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
        unique, author = new_id(), getpass.getuser()
        alert = trial_alert(team, severity, labels, author, datetime.now(UTC), unique)
        expected = _expected(plane, alert, receiver)
        reader = await connection.bus.read(["alert-deliveries"], from_end=True)
        try:
            await _send(connection, alert)
            whom = ", ".join(expected) if expected is not None else "whom alerting's environment names"
            click.echo(
                printable(f"raised {alert.fingerprint[:10]} for {team} ({severity}); it goes to {whom}"), err=True
            )
            records = await _await(connection, reader, alert, expected, receiver, timeout_s)
        finally:
            await reader.close()
            await _send(connection, _taken_back(alert))
    if not any(each.outcome == "delivered" for each in records):
        raise click.ClickException(_hint(records, receiver, timeout_s))


def _expected(plane: ConfigPlane, alert: Alert, receiver: str | None) -> list[str] | None:
    """Return who is to get it; ``None`` where no configuration is published, so that only alerting knows."""
    route = route_of(alert, plane)
    if route is None:
        if plane.alerting(alert.tenant_id) is not None:
            raise click.ClickException(
                f"no route of the alerting configuration of {alert.tenant_id} takes an alert of kind test: its last route "
                "should match everything; see infra/config/alerting"
            )
        return [receiver] if receiver is not None else None
    if receiver is not None and receiver not in route.receivers:
        raise click.ClickException(
            f"such an alert does not go to {receiver!r} but to {', '.join(route.receivers) or 'nobody'}: give the "
            "--severity, --team and --label of alerts that do"
        )
    if not route.receivers:
        raise click.ClickException("the route of such an alert has no receivers: it would only be recorded")
    return [receiver] if receiver is not None else list(route.receivers)


async def _await(
    connection: Connection,
    reader: RawReader,
    alert: Alert,
    expected: list[str] | None,
    receiver: str | None,
    timeout_s: float,
) -> list[AlertDelivery]:
    clock = SystemClock()
    give_up = clock.monotonic() + timeout_s
    found: list[AlertDelivery] = []
    last_at: float | None = None
    while clock.monotonic() < give_up:
        for message in await reader.poll(0.2):
            record = connection.codec.readable(message.topic, message.value)
            if not isinstance(record, AlertDelivery) or record.fingerprint != alert.fingerprint:
                continue
            if receiver is not None and record.receiver not in ("", receiver):
                continue
            found.append(record)
            last_at = clock.monotonic()
            _print(record)
        # Where only alerting knows the receivers, others may follow.
        grace = 0.0 if expected is not None else _GRACE_S
        if ended(found, expected) and last_at is not None and clock.monotonic() - last_at >= grace:
            break
    return found


def _print(record: AlertDelivery) -> None:
    name = record.receiver or record.channel or "everyone"
    where = f" ({record.destination})" if record.destination else ""
    took = f", {record.attempts} tries" if record.outcome == "delivered" and record.attempts > 1 else ""
    text = printable(f"{name}{where}: {outcome(record)}{took}")
    click.echo(click.style(text, fg=_STYLES.get(record.outcome)))


async def _send(connection: Connection, alert: Alert) -> None:
    emit = alert_emit(alert)
    producer = Producer(connection.bus.producer(), connection.codec, "operations")
    await (await producer.send(emit.topic, emit.key, emit.record))


def _taken_back(alert: Alert) -> Alert:
    return msgspec.structs.replace(
        alert,
        event_id=event_id(alert.event_id, "alerts.test.resolved"),
        causation_id=alert.event_id,
        occurred_at=datetime.now(UTC),
        status="resolved",
        title=f"Over: {alert.title}",
    )


def _hint(records: Sequence[AlertDelivery], receiver: str | None, timeout_s: float) -> str:
    if not records:
        at = f" at {receiver}" if receiver else ""
        also = " Is there a receiver of that name? `penstock config show alerting`" if receiver else ""
        return (
            f"nothing became of it{at} within {timeout_s:g} s: does alerting run (`penstock run alerting`, its /readyz)? Is "
            f"its route's group_wait_s longer than --timeout?{also}"
        )
    if all(each.outcome == "suppressed" for each in records):
        return "it was held back: `penstock alerts silences` lists silences; the reason stands above"
    if any(each.outcome == "failed" for each in records):
        return (
            "it has not arrived, and is tried again: see the receiver's address and secret in infra/config/alerting and the "
            "environment of alerting; services/alerting/runbooks/test.md has the causes"
        )
    return (
        "the receiver refused it: see its address and secret in infra/config/alerting and the environment of alerting; "
        "services/alerting/runbooks/test.md has the causes"
    )

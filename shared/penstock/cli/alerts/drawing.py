"""How alerts look on a terminal, and as data. What others wrote is shown as it is, never obeyed: neither markup nor control
characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from penstock.cli.alerts.board import Incident, Silence, Told
from penstock.cli.alerts.runbook import first_steps
from penstock.cli.printable import printable
from penstock.contracts.records import Alert, AlertAction, AlertDelivery

__all__ = ["ago", "as_data", "as_page", "as_table", "outcome", "silences_table"]

_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan", "over": "green"}
_SHOWN_ID = 10
_HISTORY = 30


def as_table(found: Iterable[Incident], now: datetime) -> Table:
    """Return one entry for each incident: what it is and where it stands, with its title beneath."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("severity", no_wrap=True)
    table.add_column("alert", overflow="fold", ratio=1)
    table.add_column("team", overflow="fold", max_width=24)
    table.add_column("since", no_wrap=True)
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    for each in found:
        word = each.severity if each.firing else "over"
        name = Text(_line(f"{each.alert.kind}/{each.alert.name}"), style="bold")
        what = Text("\n").join([name, Text(_line(each.alert.title)), _standing(each, now)])
        table.add_row(
            Text(_line(word.upper()), style=_STYLES.get(word, "yellow")),
            what,
            Text(_line(each.alert.tenant_id)),
            Text(ago(each.began_at, now)),
            Text(str(each.count) if each.count else "-"),
            Text(each.fingerprint[:_SHOWN_ID], style="dim"),
        )
    return table


def as_page(incident: Incident, now: datetime) -> RenderableType:
    """Return everything about one incident."""
    alert = incident.alert
    word = incident.severity if incident.firing else "over"
    parts: list[RenderableType] = [
        Text.assemble(
            (_line(word.upper()), _STYLES.get(word, "yellow")), "  ", (_line(f"{alert.kind}/{alert.name}"), "bold"),
            "  ", _line(alert.title),
        ),
        Padding(_standing(incident, now), (0, 0, 1, 0)),
        Padding(Text(printable(alert.description)), (0, 0, 1, 2)),
    ]  # fmt: skip
    if alert.suggested_action:
        parts.append(Padding(Text.assemble(("First: ", "bold"), _line(alert.suggested_action)), (0, 0, 1, 2)))
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(incident, now):
        facts.add_row(Text(_line(name)), Text(_line(value)))
    parts.append(Padding(facts, (0, 0, 0, 2)))
    for title, lines in (
        ("Deliveries", [_delivery(each) for each in incident.deliveries[-_HISTORY:]]),
        ("History", _history(incident)),
        ("Runbook", first_steps(alert)),
    ):
        if lines:
            parts.append(Text(f"\n{title}", style="bold"))
            parts.append(Padding(Text("\n".join(printable(line.replace("\n", " ")) for line in lines)), (0, 0, 0, 2)))
    return Group(*parts)


def silences_table(found: Sequence[Silence], firing: Sequence[Incident], now: datetime) -> Table:
    """Return one row for each silence."""
    table = Table("silence", "matches", "from", "until", "covers", "by", "why", box=None, header_style="dim")
    for each in found:
        covered = sum(each.covers(one.alert, now) for one in firing)
        until = f"{each.ends_at:%m-%d %H:%M}" + (
            " (ended)" if each.ends_at <= now else f" ({_span(each.ends_at, now)})"
        )
        cells = (
            each.silence_id[:_SHOWN_ID], _match(each), f"{each.starts_at:%m-%d %H:%M}", until, f"{covered} firing",
            each.author, each.comment,
        )  # fmt: skip
        table.add_row(*(Text(_line(cell)) for cell in cells))
    return table


def as_data(incident: Incident, *, whole: bool = False) -> dict[str, Any]:
    """Return an incident for machines; ``whole`` with all its records."""
    data: dict[str, Any] = {
        "fingerprint": incident.fingerprint,
        "status": "firing" if incident.firing else "resolved",
        "severity": incident.severity,
        "team": incident.alert.tenant_id,
        "kind": incident.alert.kind,
        "name": incident.alert.name,
        "title": incident.alert.title,
        "began_at": incident.began_at,
        "newest_at": incident.newest_at,
        "ended_at": incident.ended_at,
        "count": incident.count,
        "acknowledged": incident.acknowledged,
        "silence": incident.silence,
        "told": [
            {
                "receiver": one.receiver,
                "outcome": one.last.outcome,
                "purpose": one.last.purpose,
                "at": one.last.occurred_at,
            }
            for one in incident.told()
        ],
        "held_back": incident.held_back(),
        "labels": incident.alert.labels,
    }
    if whole:
        data |= {"alerts": incident.alerts, "deliveries": incident.deliveries, "actions": incident.actions}
    built: dict[str, Any] = msgspec.to_builtins(data)
    return built


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago, in the unit that fits."""
    return f"{_span(now, moment)} ago"


def outcome(record: AlertDelivery) -> str:
    """Return how a delivery stands, in words."""
    answer = f" ({record.status_code})" if record.status_code is not None else ""
    if record.outcome == "delivered":
        return f"delivered{answer}"
    if record.outcome == "failed":
        again = f", again at {record.next_try_at:%H:%M:%S} UTC" if record.next_try_at else ""
        return f"failed after {_tries(record)}{answer}: {record.reason or 'no reason given'}{again}"
    if record.outcome == "dead":
        return f"given up after {_tries(record)}{answer}: {record.reason or 'no reason given'}"
    return f"held back: {record.reason or 'no reason given'}"


def _times(incident: Incident) -> str:
    return {0: "before what was read", 1: "once"}.get(incident.count, f"{incident.count} times")


def _tries(record: AlertDelivery) -> str:
    return "1 try" if record.attempts == 1 else f"{record.attempts} tries"


def _standing(incident: Incident, now: datetime) -> Text:
    """Who has it in hand, whether it is silenced, who was told: one dim line, what fails in red."""
    parts: list[Text] = []
    if incident.ended_at is not None:
        parts.append(Text(f"ended {ago(incident.ended_at, now)}", style="green"))
    if (held := incident.acknowledged) is not None:
        until = f" until {held.until:%m-%d %H:%M} UTC" if held.until else ""
        comment = f" ({held.comment})" if held.comment else ""
        parts.append(Text(_line(f"acknowledged by {held.author or 'someone'}{until}{comment}"), style="green"))
    if (silence := incident.silence) is not None:
        by = silence.author or "someone"
        why = f": {silence.comment}" if silence.comment else ""
        parts.append(Text(_line(f"silenced until {silence.ends_at:%m-%d %H:%M} UTC by {by}{why}"), style="magenta"))
    told = incident.told()
    parts += [_told(one) for one in told]
    if not told:
        reason = incident.held_back() if incident.acknowledged is None and incident.silence is None else None
        parts.append(Text(_line(f"nobody told: {reason}" if reason else "nobody told"), style="dim"))
    return Text(" · ", style="dim").join(parts)


def _told(one: Told) -> Text:
    if not one.fails:
        return Text(_line(f"told {one.receiver}"), style="dim")
    word = "is tried again" if one.last.outcome == "failed" else "was given up"
    return Text(_line(f"{one.receiver} {word}: {one.last.reason or 'no reason given'}"), style="red")


def _facts(incident: Incident, now: datetime) -> list[tuple[str, str]]:
    alert = incident.alert
    facts = [
        ("fingerprint", incident.fingerprint),
        ("event", alert.event_id),
        ("team", alert.tenant_id),
        ("since", f"{incident.began_at:%Y-%m-%d %H:%M:%S} UTC, {ago(incident.began_at, now)}"),
        (
            "raised",
            f"{_times(incident)}, last {ago(incident.newest_at, now)}",
        ),
    ]
    facts += [(name, value) for name, value in sorted(alert.labels.items()) if value and name != "team"]
    facts += [(name, f"{value:,.6g}") for name, value in alert.figures.items()]
    for each in alert.evidence:
        count = each.last_offset - each.first_offset + 1
        offsets = f"offsets {each.first_offset} to {each.last_offset} ({count:,})"
        facts.append(("evidence", f"{each.topic}, partition {each.partition}, {offsets}"))
    facts += [("request", f"{request}: penstock audit show {request}") for request in alert.sample_requests[:8]]
    return facts


def _delivery(record: AlertDelivery) -> str:
    where = f"{record.receiver or record.channel or 'nobody'}"
    to = f" at {record.destination}" if record.destination else ""
    return f"{record.occurred_at:%m-%d %H:%M:%S}  {where}{to}, {record.purpose}: {outcome(record)}"


def _history(incident: Incident) -> list[str]:
    """Return what happened, in order; an alert that says the same again is counted."""
    events: list[Alert | AlertAction] = sorted([*incident.alerts, *incident.actions], key=lambda each: each.occurred_at)
    lines: list[tuple[datetime, str, int]] = []
    for each in events:
        text = _raised(each) if isinstance(each, Alert) else _acted(each)
        if lines and lines[-1][1] == text:
            lines[-1] = (lines[-1][0], text, lines[-1][2] + 1)
        else:
            lines.append((each.occurred_at, text, 1))
    return [
        f"{at:%m-%d %H:%M:%S}  {text}{f'  ({count} times)' if count > 1 else ''}"
        for at, text, count in lines[-_HISTORY:]
    ]


def _raised(alert: Alert) -> str:
    return "resolved" if alert.status == "resolved" else f"raised as {alert.severity}"


def _acted(action: AlertAction) -> str:
    verb = {"acknowledge": "acknowledged", "unacknowledge": "acknowledgement withdrawn", "resolve": "resolved"}
    until = f" until {action.ends_at:%m-%d %H:%M}" if action.ends_at else ""
    why = f": {action.comment}" if action.comment else ""
    return f"{verb.get(action.action, action.action)} by {action.author or 'someone'}{until}{why}"


def _match(silence: Silence) -> str:
    return " ".join(f"{name}={pattern}" for name, pattern in sorted(silence.match.items()))


def _span(later: datetime, earlier: datetime) -> str:
    seconds = max(0.0, (later - earlier).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 60):
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def _line(text: str) -> str:
    """Return a text of others as one line."""
    return printable(" ".join(text.split()))

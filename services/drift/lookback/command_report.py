"""``penstock drift report``: a segment's signals, and what changed in them, as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import click
from penstock.bus import history
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.instants import INSTANT
from penstock.contracts.records import DriftEvent, Signal

from services.drift.families import matches
from services.drift.lookback.command_list import changes_since
from services.drift.lookback.command_log import SIGNALS, milliseconds, service_rules, within
from services.drift.lookback.replay import Detection, Filter, Replay, chosen
from services.drift.lookback.replay_detectors import DEFAULT, FALSE_ALARMS, factory
from services.drift.lookback.replay_finding import UnknownParameter
from services.drift.lookback.replay_lines import BadLine, Event, read_events
from services.drift.lookback.replay_log import events_of
from services.drift.lookback.report_data import Gathered, SegmentReport, of_detection, of_drift_event
from services.drift.lookback.report_page import Allowed, page

__all__ = ["report"]

_PER = 10_000
_DAY_S = 86_400
_MOST = 50
"""Segments on one page."""


@click.command()
@click.option("--segment", help="team|model|prompt version|route; * stands for any model or prompt version.")
@click.option("--team", help="All segments of a team.")
@click.option(
    "--from", "since", type=INSTANT, default="7d", show_default=True, help="Begin: an instant, or 7d for a week ago."
)
@click.option("--to", "until", type=INSTANT, help="End of the period.  [default: now]")
@click.option(
    "--file", "source", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="JSON lines in place of the log, as for `penstock drift replay`; - is standard input.",
)  # fmt: skip
@click.option("--field", help="Field of the file's objects that holds the value.")
@click.option("--detector", "spec", default=DEFAULT, show_default=True, help="Detector that is run over a file.")
@click.option("--false-alarms", default=FALSE_ALARMS, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Expected false alarms in 10,000 values of a file.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("report.html"), show_default=True,
              help="Where the page is written.")  # fmt: skip
@click.pass_context
def report(
    context: click.Context,
    segment: str | None,
    team: str | None,
    since: datetime,
    until: datetime | None,
    source: Path | None,
    field: str | None,
    spec: str,
    false_alarms: float,
    out: Path,
) -> None:
    """Draw a segment's signals with the changes that were detected, as one HTML page that opens offline.

    From the log: the segments of --segment or --team, with the service's drift-events. From a file (--file): every
    segment in it, with what a detector finds.
    """
    if source is not None:
        given = context.get_parameter_source("since") is not click.core.ParameterSource.DEFAULT or until is not None
        period = Filter(segment, None, since if given else None, until)
        made, allowed = _of_file(source, field, spec, false_alarms, period)
        _write(out, made, f"Drift of {source.name if str(source) != '-' else 'standard input'}", "From a file", allowed)
        return
    if segment is None and team is None:
        raise click.UsageError("say whose signals are drawn: --segment, --team or --file")
    if segment is not None and segment.count("|") != 3:
        raise click.UsageError(f"{segment!r} is no segment: write 'team|model|prompt version|route' in quotes")
    run_command(_of_log(segment, team, since, until, out))


def _write(out: Path, reports: Sequence[SegmentReport], title: str, source: str, allowed: Allowed) -> None:
    text = page(reports, title=title, source=source, made_at=datetime.now(UTC), allowed=allowed)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from error
    changes = sum(len(each.marks) for each in reports)
    click.echo(f"{out}: {len(reports)} segments, {changes} changes, {len(text) / 1e6:.1f} MB")


# -- from a file -------------------------------------------------------------------------------------------------------


def _of_file(
    source: Path, field: str | None, spec: str, false_alarms: float, only: Filter
) -> tuple[list[SegmentReport], Allowed]:
    try:
        running = Replay([factory(spec, false_alarms)])
    except UnknownParameter as error:
        raise click.UsageError(str(error)) from error
    name = str(source)
    with click.open_file(name, "rb") as file:
        try:
            lines = read_events(
                cast("BinaryIO", file), "standard input" if name == "-" else name, field=field,
                timed=only.since is not None or only.until is not None,
            )  # fmt: skip
            gathered, detections = _gathered(chosen(lines, only), running)
        except BadLine as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(2) from None
    if not gathered:
        raise click.ClickException("the file has no values of that segment and period")
    values = sum(running.counts().values())
    marks = {key: [of_detection(each, one) for each in detections.get(key, ())] for key, one in gathered.items()}
    reports = [one.report(marks[key]) for key, one in gathered.items()]
    allowed = Allowed(f"{false_alarms:g} in 10,000 values", values * false_alarms / _PER)
    return _first(reports), allowed


def _gathered(events: Iterable[Event], running: Replay) -> tuple[dict[str, Gathered], dict[str, list[Detection]]]:
    """Run the detector, and gather what is drawn on the way."""
    gathered: dict[str, Gathered] = {}
    detections: dict[str, list[Detection]] = {}
    for event in events:
        key = event.segment or "all events"
        if key not in gathered:
            # The first event decides: a stream has instants or it has none.
            gathered[key] = Gathered(key, timed=event.at is not None)
        gathered[key].add(event)
        detections.setdefault(key, []).extend(running.observe(event))
    return gathered, detections


def _first(reports: Sequence[SegmentReport]) -> list[SegmentReport]:
    """Return the segments with the most changes, as many as fit on a page."""
    ordered = sorted(reports, key=lambda one: (-len(one.marks), -one.events, one.segment))
    if len(ordered) > _MOST:
        click.echo(
            f"{len(ordered)} segments: the {_MOST} with the most changes are drawn; choose with --segment", err=True
        )
    return ordered[:_MOST]


# -- from the log ------------------------------------------------------------------------------------------------------


async def _of_log(segment: str | None, team: str | None, since: datetime, until: datetime | None, out: Path) -> None:
    end = until or datetime.now(UTC)
    async with connect() as connection:
        gathered = await _signals(connection, segment, team, since, end)
        if not gathered:
            who = segment if segment is not None else f"team {team}"
            raise click.ClickException(
                f"no signals of {who} from {since:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC: the log keeps seven days"
            )
        changes = await changes_since(connection, since, end)
        rules = await service_rules()
        partitions = connection.codec.catalogue.topic(SIGNALS).partitions
    reports = [_with_changes(one, changes) for one in gathered.values()]
    days = (end - since).total_seconds() / _DAY_S
    per_day = rules.budget.per_day * partitions
    allowed = Allowed(f"{per_day:g} a day over all segments and signals", per_day * days)
    _write(out, _first(reports), f"Drift of {segment or f'team {team}'}", "From the topic signals", allowed)


async def _signals(
    connection: Connection, segment: str | None, team: str | None, since: datetime, until: datetime
) -> dict[str, Gathered]:
    gathered: dict[str, Gathered] = {}
    index = 0
    async with history(connection.bus, [SIGNALS], since_ms=milliseconds(since)) as messages:
        async for message in within(messages, since, until):
            record = connection.codec.readable(message.topic, message.value)
            if not isinstance(record, Signal) or not _concerns(record.segment, segment, team):
                continue
            one = gathered.setdefault(record.segment, Gathered(record.segment, timed=True))
            for event in events_of(record, message, index):
                one.add(event)
            one.saw(record.versions, record.occurred_at.timestamp())
            index += 1
    return gathered


def _concerns(name: str, segment: str | None, team: str | None) -> bool:
    return team in (None, name.partition("|")[0]) and (segment is None or matches(segment, name))


def _with_changes(gathered: Gathered, changes: Sequence[DriftEvent]) -> SegmentReport:
    mine = {event.event_id: event for event in changes if event.segment == gathered.segment}
    told = [of_drift_event(event, gathered) for event in mine.values()]
    releases = [release for _, those in told for release in those]
    return gathered.report([mark for mark, _ in told], releases)

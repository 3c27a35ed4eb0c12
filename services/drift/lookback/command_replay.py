"""``penstock drift replay``: any detector over history."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import click
import msgspec
from penstock.cli.connection import run_command
from penstock.cli.instants import INSTANT
from rich.console import Console
from rich.table import Table

from services.drift.lookback.command_log import replay_log
from services.drift.lookback.replay import Filter, Replay, as_line, chosen
from services.drift.lookback.replay_detectors import DEFAULT, DETECTORS, FALSE_ALARMS, factory
from services.drift.lookback.replay_finding import Detector, UnknownParameter
from services.drift.lookback.replay_lines import BadLine, Event, read_events
from services.drift.lookback.replay_scores import BadTruth, KnownChange, Scores, read_truth

__all__ = ["replay"]

_Factories = Sequence[tuple[str, Callable[[str], Detector]]]


@click.command(epilog=f"Detectors: {', '.join(DETECTORS)}.")
@click.argument(
    "source", metavar="[FILE]", required=False,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)  # fmt: skip
@click.option("--from", "since", type=INSTANT, help="First instant: 2026-01-05T09:00:00Z, or 7d for a week ago.")
@click.option("--to", "until", type=INSTANT, help="Instant at which the period ends.")
@click.option(
    "--detector", "specs", multiple=True, default=(DEFAULT,), show_default=True, metavar="NAME[:KEY=VALUE,...]",
    help="Detector, with its parameters; repeat it to compare several.",
)  # fmt: skip
@click.option("--segment", help="Only this segment (team|model|prompt version|route in the log).")
@click.option("--signal", help="Only this signal.")
@click.option("--field", help="Field of the file's objects that holds the value.  [default: found by itself]")
@click.option(
    "--false-alarms", type=click.FloatRange(0, min_open=True),
    help="Expected false alarms in 10,000 values, at most; of the detector that keeps to such a bound, which is penstock."
    f"  [default: {FALSE_ALARMS}; over the log the service's budget of a day]",
)  # fmt: skip
@click.option("--changes", help="Indices, or instants, at which changes are known to begin, e.g. 1000,2000.")
@click.option(
    "--truth", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of known changes: indices, or objects with index, segment and signal, as JSON lines or one list.",
)  # fmt: skip
@click.option(
    "--within", type=click.IntRange(1), help="Values in which a change must be found.  [default: up to the next]"
)
@click.option("--summary", is_flag=True, help="Print the figures of the run as one JSON object after the detections.")
def replay(
    source: Path | None,
    since: datetime | None,
    until: datetime | None,
    specs: Sequence[str],
    segment: str | None,
    signal: str | None,
    field: str | None,
    false_alarms: float | None,
    changes: str | None,
    truth: Path | None,
    within: int | None,
    summary: bool,
) -> None:
    """Run a detector over FILE (JSON lines; - is standard input), or over the log where --from is given without one.

    A line of FILE is a number, a list of numbers, or an object with one of them (under value, vector, embedding, number
    or x, or in the only such field) or with a category, and with segment, signal and timestamp as far as there are any.

    Every detection is one line of JSON, printed as it is found: `index` (of the line at which it was raised, from 0 over
    the whole file, blank lines not counted), `kind` (abrupt, gradual, recurring or outlier; null from detectors that do
    not tell), `segment`, `signal`, `detector`, `change_index` (where the change is believed to have begun), `what`,
    `size`, `statistic`, `threshold`, `before`, `after` and `evidence`. Figures go to standard error, as a table, or with
    --summary to standard output as the last line. A line that cannot be used ends the run with exit status 2.

    Over the log `penstock` is the whole service: it gives the drift-events that the service gives when it starts there.
    """
    try:
        factories = _factories(specs, FALSE_ALARMS if false_alarms is None else false_alarms)
        known = _known(changes, truth)
    except (UnknownParameter, BadTruth) as error:
        raise click.UsageError(str(error)) from error
    only = Filter(segment, signal, since, until)
    printed = Printed(known, within, summary)
    if source is None and since is not None:
        if field is not None:
            raise click.UsageError("--field is for files; choose a signal of the log with --signal")
        run_command(replay_log(only, factories, false_alarms, printed))
        return
    if source is None and sys.stdin.isatty():
        raise click.UsageError("name a file (- is standard input), or say with --from since when the log is to be read")
    name = str(source or "-")
    with click.open_file(name, "rb") as file:
        events = read_events(
            cast("BinaryIO", file), "standard input" if name == "-" else name, field=field,
            timed=since is not None or until is not None,
        )  # fmt: skip
        _replay_lines(chosen(events, only), Replay(factories), printed)


class Printed:
    """Prints detections as they come, and the figures at the end."""

    def __init__(self, known: Sequence[KnownChange] | None, within: int | None, summary: bool) -> None:
        self._known = known
        self._within = within
        self._summary = summary
        self._scores: dict[str, Scores] = {}

    def passed(self, detector: str, event: Event) -> None:
        """Take note of a value that a detector is about to see."""
        if detector not in self._scores:
            self._scores[detector] = Scores(self._known, self._within)
        self._scores[detector].passed(event)

    def detected(
        self, detector: str, segment: str | None, signal: str, index: int, kind: str | None, line: Mapping[str, Any]
    ) -> None:
        """Print a detection."""
        self._scores[detector].detected(segment, signal, index, kind)
        _print(line)

    def close(self, seconds: Mapping[str, float]) -> None:
        """Print the figures; ``seconds`` is the time spent in each detector."""
        for name in seconds:
            self._scores.setdefault(name, Scores(self._known, self._within))
        figures = {name: scores.summary(seconds[name]) for name, scores in self._scores.items()}
        if self._summary:
            _print({"summary": figures})
        else:
            _table(figures, self._known is not None)


def _factories(specs: Sequence[str], false_alarms: float) -> _Factories:
    factories = [factory(spec, false_alarms) for spec in specs]
    names = [name for name, _ in factories]
    if len(set(names)) == len(names):
        return factories
    # The name alone would not say which of them found something.
    return [(spec, make) for spec, (_, make) in zip(specs, factories, strict=True)]


def _replay_lines(events: Iterable[Event], running: Replay, printed: Printed) -> None:
    bad: BadLine | None = None
    try:
        for event in events:
            for name in running.seconds:
                printed.passed(name, event)
            for found in running.observe(event):
                printed.detected(
                    found.detector, event.segment, event.signal, event.index, found.finding.kind, as_line(found)
                )
    except BadLine as error:
        bad = error
    printed.close(running.seconds)
    if bad is not None:
        click.echo(f"Error: {bad}", err=True)
        raise SystemExit(2)


def _known(changes: str | None, truth: Path | None) -> list[KnownChange] | None:
    """Return the known changes; ``None`` where nobody says anything about them, empty where it is known that none are."""
    if changes is None and truth is None:
        return None
    listed = [part.strip() for part in (changes or "").split(",") if part.strip()]
    # Indices as they are, instants as texts.
    entries = [int(part) if part.isdecimal() else part for part in listed]
    found = read_truth(msgspec.json.encode(entries).decode())
    return [*found, *([] if truth is None else read_truth(truth.read_text(encoding="utf-8")))]


def _print(line: Mapping[str, Any]) -> None:
    # Flushed by click: who reads the pipe gets it now.
    click.echo(msgspec.json.encode(line))


def _table(figures: Mapping[str, Mapping[str, Any]], judged: bool) -> None:
    columns = {"values": "values", "streams": "streams", "detections": "detections", "updates_per_second": "updates/s"}
    if judged:
        columns |= {
            "changes": "changes", "detected": "found", "missed": "missed", "delay_median": "median delay",
            "delay_max": "longest", "false_alarms": "false alarms", "false_alarms_per_10000": "in 10,000",
            "repeated": "repeated",
        }  # fmt: skip
    table = Table("detector", box=None, pad_edge=False, header_style="dim")
    for title in columns.values():
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in figures.items():
        table.add_row(name, *(_cell(row.get(column)) for column in columns))
    Console(stderr=True, width=None if sys.stderr.isatty() else 200).print(table, markup=False)


def _cell(value: float | None) -> str:
    return (
        "-" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:,}"
    )

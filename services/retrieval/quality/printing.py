"""A report on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.cli.cluster import table_console
from penstock.cli.printable import printable
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.retrieval.quality.report import Comparison, Mean, Report, System

__all__ = ["print_report"]

_COLOURS: Mapping[str, str] = {"worse": "yellow", "better": "green", "same": "dim", "unclear": "dim", "untested": "dim"}


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the systems, each comparison, what floors would do, and what is not as required."""
    console = console or table_console()
    said = report.question_set
    parts = [f"{said.questions} questions, {said.documents} documents"]
    parts += [f"{said.strays} questions that none answers"] * bool(said.strays)
    parts += [f"{said.unjudged} questions without judgements left out"] * bool(said.unjudged)
    parts += [f"{said.missing} relevant documents are not in the corpus"] * bool(said.missing)
    console.print("; ".join(parts), highlight=False)
    _print_systems(console, report.systems)
    for comparison in report.comparisons:
        _print_comparison(console, comparison)
    _print_floors(console, report.systems[0])
    for problem in report.problems:
        console.print(f"[red]✗[/red] {_safe(problem)}", highlight=False)


def _print_systems(console: Console, systems: list[System]) -> None:
    # Two tables, the intervals in rows of their own: five measures fit a terminal of 80 columns.
    found = Table("")
    for measure in systems[0].means:
        found.add_column(measure, no_wrap=True)
    given = Table("", "p50, ms", "p99, ms", "chunks", "attached: relevant", "empty", "documents", "strays")
    for system in systems:
        means = system.means.values()
        found.add_row(_safe(system.name), *(f"{mean.value:.4f}" for mean in means))
        if any(mean.low is not None for mean in means):
            found.add_row("95 %", *(_interval(mean) for mean in means), style="dim")
        attached = system.attached
        given.add_row(
            _safe(system.name),
            f"{system.latency_ms.p50:.2f}",
            f"{system.latency_ms.p99:.2f}",
            "-" if system.indexed is None else str(system.indexed.chunks),
            *(["-"] * 4 if attached is None else [
                f"{attached.relevant:.1%}", f"{attached.empty:.1%}", f"{attached.documents:.2f}", _share(attached.strays),
            ]),
        )  # fmt: skip
    console.print(found)
    console.print(given)


def _print_comparison(console: Console, comparison: Comparison) -> None:
    names = _safe(comparison.baseline), _safe(comparison.candidate)
    asked = max((row.questions for row in comparison.differences), default=0)
    table = Table(title=f"{names[1]} against {names[0]}, {asked} questions")
    for heading in ("measure", *names, "difference", "95 % interval", "p (Holm)", ""):
        table.add_column(heading, no_wrap=heading in ("measure", "difference", "p (Holm)", ""))
    for row in comparison.differences:
        low, high = row.difference.low, row.difference.high
        table.add_row(
            row.measure,
            f"{row.baseline:.4f}",
            f"{row.candidate:.4f}",
            f"{row.difference.value:+.4f}",
            "-" if low is None or high is None else f"{low:+.4f} to {high:+.4f}",
            "-" if row.p_adjusted is None else f"{row.p_adjusted:.3g}",
            f"[{_COLOURS[row.verdict]}]{row.verdict}[/]",
        )
    console.print(table)


def _print_floors(console: Console, system: System) -> None:
    if not system.floors:
        return
    table = Table("score_floor", "relevant", "empty", "strays", title=f"{_safe(system.name)}: other floors")
    for one in system.floors:
        table.add_row(f"{one.floor:.2f}", f"{one.relevant:.1%}", f"{one.empty:.1%}", _share(one.strays))
    console.print(table)


def _interval(mean: Mean) -> str:
    return "-" if mean.low is None or mean.high is None else f"{mean.low:.3f}-{mean.high:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _safe(text: str) -> str:
    return escape(printable(text))

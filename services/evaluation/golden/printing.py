"""A run's outcome as files, and on the terminal."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from penstock.cli.cluster import table_console
from penstock.cli.printable import printable
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.evaluation.golden.answers import RunError
from services.evaluation.golden.comparison import Comparison
from services.evaluation.golden.report import Report, number
from services.evaluation.golden.report_junit import junit
from services.evaluation.golden.report_markdown import markdown
from services.evaluation.golden.report_page import page

__all__ = ["print_report", "write_report"]

_COLOURS = {"regression": "bold red", "worse": "yellow", "better": "green", "same": "dim", "untested": "dim"}


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json``, ``report.md``, ``report.html`` and ``junit.xml``, each whole or not at all.

    Raises:
        RunError: the folder cannot be written.
    """
    texts = {
        "report.json": msgspec.json.format(msgspec.json.encode(report)).decode() + "\n",
        "report.md": markdown(report),
        "report.html": page(report),
        "junit.xml": junit(report),
    }
    for name, text in texts.items():
        target, part = folder / name, folder / f".{name}.part"
        try:
            # What a model answered may hold lone surrogates, which UTF-8 does not.
            part.write_text(text, encoding="utf-8", errors="replace")
            os.replace(part, target)
        except OSError as error:
            raise RunError(
                f"cannot write {target}: {error.strerror}; the answers are kept, go on with --resume"
            ) from error


def print_report(report: Report, folder: Path) -> None:
    """Print the variants, each comparison, what is wrong and where the reports are."""
    console = table_console()
    table = Table("variant", "answers", "demands met", "cost, USD", "latency p50, ms", title=_safe(report.run.dataset))
    for one in report.variants:
        table.add_row(
            _safe(one.variant.name),
            ", ".join(f"{count} {status}" for status, count in one.statuses.items()) or "none",
            f"{one.passed} of {one.answers}",
            f"{one.cost.normalize():f}" + (f" ({one.unpriced} unknown)" if one.unpriced else ""),
            f"{one.latency_ms[0]:.0f}" if one.latency_ms else "-",
        )
    console.print(table)
    for comparison in report.comparisons:
        _print_comparison(console, comparison)
    for pair in report.consistency:
        console.print(
            f"{_safe(pair.candidate)}: {pair.same:.0%} of the answers are the same as of {_safe(pair.baseline)}, "
            f"{pair.alike:.2f} alike in meaning; {pair.flip_rate:.1%} of the demands flipped, {pair.lost} are not met any "
            "more",
            highlight=False,
        )
    for note in report.notes:
        console.print(f"[dim]note: {_safe(note)}[/dim]", highlight=False)
    for problem in report.problems:
        console.print(f"[red]✗[/red] {_safe(problem)}", highlight=False)
    if report.ok:
        console.print("[green]✓[/green] no regression", highlight=False)
    console.print(f"reports in {_safe(str(folder))}: report.html, report.md, report.json, junit.xml", highlight=False)


def _print_comparison(console: Console, comparison: Comparison) -> None:
    table = Table(
        "metric", "baseline", "candidate", "difference", "95 % interval", "p (Holm)", "cases", "regression if", "",
        title=f"{_safe(comparison.candidate)} against {_safe(comparison.baseline)}",
    )  # fmt: skip
    for row in comparison.metrics:
        low, high = row.difference.low, row.difference.high
        colour = _COLOURS[row.verdict]
        table.add_row(
            _safe(row.metric),
            number(row.baseline),
            number(row.candidate),
            number(row.difference.value, True),
            "-" if low is None or high is None else f"{number(low, True)} to {number(high, True)}",
            "-" if row.p_adjusted is None else f"{row.p_adjusted:.3g}",
            str(row.cases),
            _safe(row.rule),
            f"[{colour}]{row.verdict}[/{colour}]",
        )
    console.print(table)


def _safe(text: str) -> str:
    return escape(printable(text))

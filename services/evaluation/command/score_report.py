"""What `penstock evaluate score` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.evaluation.command.score_figures import Figures
from services.evaluation.command.score_tally import Gap, Group

__all__ = ["Grouped", "Report", "Scorer", "show"]

_MOST_GROUPS = 40


@dataclass(frozen=True, slots=True)
class Scorer:
    """An evaluator or a baseline: lines a second on one thread, and how good it is; None without labels."""

    name: str
    lines_per_s: float
    figures: Figures | None


@dataclass(frozen=True, slots=True)
class Grouped:
    """Figures by the values of one field, and the largest gap in false-positive rates."""

    field: str
    groups: Sequence[Group]
    gap: Gap | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is printed; the evaluator is the first scorer. Times in seconds."""

    evaluator: str
    version: str
    subject: str
    threshold: float | None
    lines: int
    labelled: int
    nothing_to_judge: int
    failed: int
    invalid: int
    load_s: float
    scorers: Sequence[Scorer]
    skipped: Mapping[str, str]
    groups: Sequence[Grouped]


def show(console: Console, report: Report) -> None:
    """Print the report as tables."""
    console.print(f"[bold]{escape(report.evaluator)}[/] {escape(report.version)} of the {report.subject}")
    counted = [f"{report.lines:,} lines", f"{report.labelled:,} with a label"]
    counted += [f"{report.nothing_to_judge:,} with nothing to judge"] if report.nothing_to_judge else []
    counted += [f"{report.invalid:,} left out"] if report.invalid else []
    counted += [f"{report.failed:,} failed"] if report.failed else []
    console.print(", ".join(counted))
    console.print(f"throughput {report.scorers[0].lines_per_s:,.0f} lines/s, after {report.load_s:.2f} s to load\n")
    if report.lines and report.nothing_to_judge == report.lines:
        console.print(
            f"{escape(report.evaluator)} found nothing to judge in any line: does it need passages (field context), a "
            "reference, a question or a request for a format, and are the fields named so?"
        )
    main = report.scorers[0].figures
    if main is None:
        console.print("no line has a label: there is nothing to measure the scores by")
        return
    if main.auc is None:
        console.print("all labels are the same: AUC, average precision and calibration need both kinds")
    console.print(_scorers(report))
    for name, reason in report.skipped.items():
        console.print(f"{escape(name)} was not run: {escape(reason)}", style="dim")
    console.print(_thresholds(main))
    for grouped in report.groups:
        console.print(_groups(grouped))
        if len(grouped.groups) > _MOST_GROUPS:
            console.print(f"and {len(grouped.groups) - _MOST_GROUPS} smaller groups: see --json", style="dim")
        if grouped.gap is not None:
            gap = grouped.gap
            console.print(
                f"largest gap in false positives: {gap.high - gap.low:.2%}, "
                f"from {gap.low:.2%} ({escape(gap.lowest)}) to {gap.high:.2%} ({escape(gap.highest)})"
            )


def _scorers(report: Report) -> Table:
    table = _table("scorer", "AUC", "95 % interval", "average precision", "calibration error", "Brier", "lines/s")
    for number, one in enumerate(report.scorers):
        found = one.figures
        assert found is not None  # there are labels
        interval = found.auc_interval
        table.add_row(
            escape(one.name), _figure(found.auc, 4), "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
            _figure(found.average_precision, 4), _figure(found.calibration_error, 4), _figure(found.brier, 4),
            f"{one.lines_per_s:,.0f}", style="bold" if number == 0 else None,
        )  # fmt: skip
    return table


def _thresholds(found: Figures) -> Table:
    table = _table("\nthreshold", "", "precision", "recall", "false positives", "F1")
    named = (
        (found.at_threshold, "as it is used"),
        (found.best, "best F1 on these lines"),
        (found.at_bound, "1 % false positives on these lines"),
    )
    for at, what in named:
        if at is not None:
            table.add_row(
                f"{at.threshold:.4f}", what, _figure(at.precision), _figure(at.recall),
                "-" if at.false_positive_rate is None else f"{at.false_positive_rate:.2%}", _figure(at.f1),
            )  # fmt: skip
    return table


def _groups(grouped: Grouped) -> Table:
    table = _table(
        f"\n{escape(grouped.field)}", "lines", "positive", "AUC", "average precision", "false positives", "recall"
    )
    for group in grouped.groups[:_MOST_GROUPS]:
        found = group.figures
        at = found.at_threshold
        rate = None if at is None else at.false_positive_rate
        table.add_row(
            escape(group.name), f"{found.rows:,}", f"{found.positives:,}", _figure(found.auc, 4),
            _figure(found.average_precision, 4), "-" if rate is None else f"{rate:.2%}",
            _figure(at.recall if at is not None else None),
        )  # fmt: skip
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _figure(value: float | None, places: int = 3) -> str:
    return "-" if value is None else f"{value:.{places}f}"

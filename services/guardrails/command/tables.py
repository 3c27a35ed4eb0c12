"""An evaluation as tables for a reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from penstock.measures import Counts
from rich.console import Console
from rich.table import Table

from services.guardrails.command.entities import MIN_OVERLAP
from services.guardrails.command.evaluation import Measured, Section, SourceFigures
from services.guardrails.command.labelled import TASKS

__all__ = ["show"]

_LEFT = {"rule", "policy", "source", "action", "type in the data", "kinds of finds", ""}


def show(console: Console, section: Section, bound: float, *, with_sweep: bool) -> None:
    """Print everything about one section."""
    task = TASKS[section.task]
    negatives = section.rows - section.positives
    console.print(f"[bold]== {section.task}, {section.stage} stage ==[/]")
    console.print(f"{section.rows:,} rows: {section.positives:,} {task.positive}, {negatives:,} not\n")
    console.print(_policy_table(section, bound))
    console.print(_rule_table(section, bound))
    if any(one.intervals for one in (*section.policy, *section.rules)):
        console.print(_interval_table(section, bound))
    if section.entities:
        console.print(_entity_table(section))
        console.print(f"masked and restored without loss: {section.lossless:,} of {section.rows:,} texts\n")
    if len(section.sources) > 1:
        console.print(_source_table(section, bound))
    if with_sweep:
        console.print(_sweep_table(section))


def _table(title: str, columns: Sequence[str], caption: str | None = None) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", caption=caption, caption_justify="left", box=None,
        pad_edge=False, header_style="dim",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=column in _LEFT)
    return table


def _quality(one: Measured) -> Iterator[str]:
    yield from (_share(one.counts.precision), _share(one.counts.recall))
    yield from (_percent(one.counts.false_positive_rate), _share(one.counts.f1), _share(one.auc, 4))


def _at_fpr(one: Measured) -> tuple[str, str]:
    if one.at_fpr is None:
        return "-", "-"
    threshold = one.at_fpr.threshold
    return _share(one.at_fpr.recall), f"{threshold:.4f}" if threshold <= 1 else "none"


def _costs(one: Measured) -> tuple[str, ...]:
    cost = one.latency
    return tuple(f"{value:.2f}" for value in (cost.cpu_p50, cost.cpu_p95, cost.wall_p50, cost.wall_p95))


_COSTS = ("CPU p50", "p95", "wall p50", "p95 ms")
_QUALITY = ("precision", "recall", "FP rate", "F1", "AUC")


def _policy_table(section: Section, bound: float) -> Table:
    table = _table("The policy", ("policy", *_QUALITY, f"recall at {bound:.1%} FP", *_COSTS, "errors", ""))
    for one in section.policy:
        note = one.note or f"{one.action} by {one.scanner}"
        table.add_row(one.name, *_quality(one), _at_fpr(one)[0], *_costs(one), _count(one.errors), note)
    return table


def _rule_table(section: Section, bound: float) -> Table:
    at = f"recall at {bound:.1%} FP"
    table = _table(
        "\nIts rules", ("rule", "threshold", *_QUALITY, at, "from", *_COSTS, "errors", "action", ""),
        "Rules that judge something else are there for their cost and their false positives.",
    )  # fmt: skip
    judging = set(TASKS[section.task].scanners) | {section.main}
    for one in section.rules:
        style = None if one.scanner in judging or one.name in judging else "dim"
        table.add_row(
            one.name, f"{one.threshold:.2f}", *_quality(one), *_at_fpr(one), *_costs(one), _count(one.errors),
            one.action, one.note, style=style,
        )  # fmt: skip
    return table


def _interval_table(section: Section, bound: float) -> Table:
    names = ("precision", "recall", "false_positive_rate", "f1", "auc", "recall_at_fpr")
    table = _table(
        "\n95 % intervals (bootstrap)", ("", "precision", "recall", "FP rate", "F1", "AUC", f"recall at {bound:.1%} FP")
    )
    for one in (*section.policy, *section.rules):
        if one.intervals:
            label = one.name if one.threshold is not None else f"policy: {one.name}"
            table.add_row(label, *(_interval(one.intervals.get(name)) for name in names))
    return table


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _source_table(section: Section, bound: float) -> Table:
    positive = TASKS[section.task].positive
    table = _table(
        "\nBy source",
        (
            "source", "rows", positive, "recall", f"{section.main}: recall", f"at {bound:.1%} FP", "FP rate",
            f"{section.main}: FP rate", f"at {bound:.1%} FP",
        ),
        f"Recall and FP rate: {section.decided_by}; then {section.main} at its own threshold, and at the one that "
        f"{bound:.1%} of all rows here that are not {positive} reach.",
    )  # fmt: skip
    for one in section.sources:
        table.add_row(one.source, *_source_row(one))
    with_positives = [one for one in section.sources if one.policy.recall is not None]
    if with_positives:
        totals = [sum((getattr(one, name) for one in section.sources), Counts(0, 0, 0)) for name in ("policy", "rule")]
        pooled = [one.at_fpr for one in section.sources if one.at_fpr is not None]
        pool = SourceFigures("all rows (micro)", totals[0], totals[1], sum(pooled, Counts(0, 0, 0)) if pooled else None)
        table.add_section()
        table.add_row(pool.source, *_source_row(pool), style="bold")
        table.add_row("mean of sources (macro)", "", "", *_macro(with_positives), style="bold")
    return table


def _source_row(one: SourceFigures) -> tuple[str, ...]:
    positives = one.policy.tp + one.policy.fn
    rows = positives + one.policy.fp + one.policy.tn
    three = (one.policy, one.rule, one.at_fpr)
    return (
        f"{rows:,}", f"{positives:,}",
        *(_share(None if counts is None else counts.recall) for counts in three),
        *(_percent(None if counts is None else counts.false_positive_rate) for counts in three),
    )  # fmt: skip


def _macro(sources: Sequence[SourceFigures]) -> Iterator[str]:
    for name in ("policy", "rule", "at_fpr"):
        recalls = [counts.recall for one in sources if (counts := getattr(one, name)) is not None]
        yield _share(fmean(recalls)) if recalls else "-"


def _entity_table(section: Section) -> Table:
    table = _table(
        "\nPersonal data, entity by entity",
        ("type in the data", "kinds of finds", "entities", "found", "missed", "in excess", "precision", "recall", "F1"),
        f"Found: a find of one of these kinds overlaps it by {MIN_OVERLAP:.0%} or more (intersection over union).",
    )
    for type_, counts in section.entities.items():
        kinds = section.entity_kinds.get(type_)
        if kinds is None and type_ == "structured types":
            table.add_section()
        table.add_row(
            type_, ", ".join(kinds or ()), f"{counts.tp + counts.fn:,}", f"{counts.tp:,}", f"{counts.fn:,}",
            f"{counts.fp:,}", _share(counts.precision), _share(counts.recall), _share(counts.f1),
            style="bold" if kinds is None else None,
        )  # fmt: skip
    return table


def _sweep_table(section: Section) -> Table:
    table = _table(
        f"\nThresholds of {section.main}",
        ("threshold", "precision", "recall", "FP rate", "F1", "found", "in excess", "missed"),
    )
    for threshold, counts in section.sweep:
        table.add_row(
            f"{threshold:.2f}", _share(counts.precision), _share(counts.recall),
            _percent(counts.false_positive_rate), _share(counts.f1), f"{counts.tp:,}", f"{counts.fp:,}", f"{counts.fn:,}",
        )  # fmt: skip
    return table


def _share(value: float | None, places: int = 3) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _count(number: int) -> str:
    return f"{number:,}" if number else ""

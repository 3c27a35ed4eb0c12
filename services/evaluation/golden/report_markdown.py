"""A run's outcome as Markdown, for a pull request or a job's summary."""

from __future__ import annotations

from collections.abc import Iterable

from services.evaluation.golden.comparison import Comparison, MetricRow
from services.evaluation.golden.consistency import Consistency
from services.evaluation.golden.report import Report, Summary, number

__all__ = ["markdown"]

_WORST = 10
_SIGNS = {
    "regression": "❌ regression",
    "worse": "worse",
    "better": "better",
    "same": "no difference",
    "untested": "too few",
}


def markdown(report: Report) -> str:
    """Return the report: the verdict, the variants, every metric with its interval, and the least consistent cases."""
    run = report.run
    lines = [
        f"# {_text(run.dataset)}: {'no regression' if report.ok else f'{len(report.problems)} problems'}",
        "",
        f"{len(report.cases)} cases (version `{run.dataset_version}`), {run.repeats} "
        f"{'answer' if run.repeats == 1 else 'answers'} each, team `{_text(run.team)}`, run `{run.run}`, "
        f"{report.made_at:%Y-%m-%d %H:%M} UTC.",
        "",
    ]
    lines += [f"- ❌ {_text(problem)}" for problem in report.problems]
    lines += [""] if report.problems else []
    lines += ["## Variants", "", *_variants(report.variants), ""]
    for comparison in report.comparisons:
        title = f"## {_text(comparison.candidate)} against {_text(comparison.baseline)}"
        lines += [title, "", *_metrics(comparison), ""]
    if report.demands:
        rows = (
            (d.variant, d.requirement, "-" if d.mean is None else number(d.mean), "yes" if d.met else "❌ no")
            for d in report.demands
        )
        lines += ["## Required", "", *_table(("variant", "requirement", "mean", "met"), rows), ""]
    for one in report.consistency:
        lines += [f"## Consistency of {_text(one.candidate)} with {_text(one.baseline)}", "", *_consistency(one), ""]
    if report.steadiness:
        again = (
            (one.baseline, f"{one.same:.0%}", f"{one.alike:.2f}", f"{one.flip_rate:.1%}") for one in report.steadiness
        )
        header = ("variant", "same answers", "alike in meaning", "demands that flipped")
        lines += ["## Asked again", "", *_table(header, again), ""]
    missed = [
        (row.answer.variant, row.answer.case, f"{check.name}: {check.message}")
        for row in report.rows
        for check in row.checks
        if not check.passed
    ]
    if missed:
        lines += ["## Demands that are not met", "", *_table(("variant", "case", "demand"), missed[:50])]
        lines += [f"\n... and {len(missed) - 50} more, see report.json", ""] if len(missed) > 50 else [""]
    if report.notes:
        lines += ["## Notes", "", *(f"- {_text(note)}" for note in report.notes), ""]
    return "\n".join(lines)


def _variants(summaries: Iterable[Summary]) -> list[str]:
    header = ("variant", "answers", "demands met", "cost, USD", "latency p50 / p95, ms", "model", "prompt", "policy")
    rows = (
        (
            one.variant.name + (f" (run {one.earlier_run})" if one.earlier_run else ""),
            ", ".join(f"{count} {status}" for status, count in one.statuses.items()) or "none",
            f"{one.passed} of {one.answers}",
            f"{one.cost.normalize():f}" + (f" ({one.unpriced} unknown)" if one.unpriced else ""),
            " / ".join(f"{value:.0f}" for value in one.latency_ms) or "-",
            ", ".join(one.models) or "-",
            ", ".join(one.prompts) or "-",
            ", ".join(one.policies) or "-",
        )
        for one in summaries
    )
    return _table(header, rows)


def _metrics(comparison: Comparison) -> list[str]:
    header = ("metric", "baseline", "candidate", "difference", "95 % interval", "p (Holm)", "cases", "rule", "verdict")
    rows = (
        (
            row.metric,
            number(row.baseline),
            number(row.candidate),
            number(row.difference.value, True),
            _interval(row),
            "-" if row.p_adjusted is None else f"{row.p_adjusted:.3g}",
            str(row.cases),
            row.rule or "-",
            _SIGNS[row.verdict],
        )
        for row in comparison.metrics
    )
    return _table(header, rows)


def _interval(row: MetricRow) -> str:
    low, high = row.difference.low, row.difference.high
    if low is None or high is None:
        return "-"
    text = f"{number(low, True)} to {number(high, True)}"
    if row.share is not None and row.share.low is not None and row.share.high is not None:
        text += f" ({row.share.low * 100:+.1f} % to {row.share.high * 100:+.1f} %)"
    return text


def _consistency(one: Consistency) -> list[str]:
    lines = [
        f"{one.same:.0%} of the answers are the same, {one.alike:.2f} alike in meaning on average; {one.flip_rate:.1%} of "
        f"the demands flipped: {one.lost} are not met any more, {one.gained} are met now.",
        "",
    ]
    worst = [case for case in one.cases if case.flips or case.same < 1][:_WORST]
    if worst:
        rows = ((case.case, f"{case.alike:.2f}", "; ".join(case.flips) or "-") for case in worst)
        lines += _table(("case", "alike", "flips"), rows)
    return lines


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(header)
    return [
        f"| {' | '.join(names)} |",
        f"|{' --- |' * len(names)}",
        *(f"| {' | '.join(_text(cell) for cell in row)} |" for row in rows),
    ]


def _text(text: str) -> str:
    """Text of others inside a line: no markup, no table cells, no line ends of its own."""
    flat = " ".join(text.split())
    for char in "\\`*_[]<>|#":
        flat = flat.replace(char, f"\\{char}")
    return flat if len(flat) <= 400 else flat[:399] + "…"

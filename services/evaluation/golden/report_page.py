"""A run's outcome as one HTML page that needs nothing else: it opens offline, in light and dark, on a desk and a phone."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from penstock.paired_bootstrap import Estimate

from services.evaluation.golden.comparison import Comparison, MetricRow
from services.evaluation.golden.consistency import CaseConsistency, Consistency
from services.evaluation.golden.report import CaseText, Report, Summary, number
from services.evaluation.golden.report_style import STYLE
from services.evaluation.golden.scoring import Scored

__all__ = ["page"]

# Whatever an answer might hold, the browser runs and fetches nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MOST_CASES = 30
_MOST_MISSED = 100
_LONGEST = 6_000
_WORDS = {
    "regression": "regression", "worse": "worse", "better": "better", "same": "no difference", "untested": "too few cases",
}  # fmt: skip


def page(report: Report) -> str:
    """Return the report as HTML. Every text of a case or an answer is escaped; there is no script in the page."""
    run = report.run
    verdict = "no regression" if report.comparisons else "all that is required is met"
    pill = f'<span class="pill ok">{verdict}</span>' if report.ok else '<span class="pill bad">regression</span>'
    if not report.ok and not any(comparison.regressions for comparison in report.comparisons):
        pill = '<span class="pill bad">requirements not met</span>'
    parts = [
        f"<h1>{_text(run.dataset)} {pill}</h1>",
        f'<p class="soft">{len(report.cases)} cases, version <code>{_text(run.dataset_version)}</code>, '
        f"{run.repeats} {'answer' if run.repeats == 1 else 'answers'} each, team {_text(run.team)}, run "
        f"<code>{_text(run.run)}</code>, {report.made_at:%Y-%m-%d %H:%M} UTC</p>",
    ]
    if report.problems:
        parts.append(
            f'<ul class="problems">{"".join(f"<li>{_text(problem)}</li>" for problem in report.problems)}</ul>'
        )
    parts += ["<h2>Variants</h2>", _variants(report.variants)]
    for comparison in report.comparisons:
        parts += [
            f"<h2>{_text(comparison.candidate)} against {_text(comparison.baseline)}</h2>",
            '<p class="soft">Difference of the means over the same cases, with its 95 % interval; the line is no '
            "difference, the shaded side beyond the margin is a regression.</p>",
            _metrics(comparison),
        ]
    if report.demands:
        rows = [
            [
                _text(demand.variant),
                f"<code>{_text(demand.requirement)}</code>",
                "-" if demand.mean is None else number(demand.mean),
                _tag("better", "met") if demand.met else _tag("regression", "not met"),
            ]
            for demand in report.demands
        ]
        parts += ["<h2>Required</h2>", _table(["variant", "requirement", "mean", ""], rows, {2})]
    texts = {case.id: case for case in report.cases}
    for one in report.consistency:
        parts += [f"<h2>Consistency of {_text(one.candidate)} with {_text(one.baseline)}</h2>"]
        parts += [_consistency(one, texts, report.rows)]
    if report.steadiness:
        parts += ["<h2>Asked again</h2>", _steadiness(report.steadiness)]
    parts.append(_missed(report, texts))
    if report.notes:
        parts.append(f"<h2>Notes</h2><ul>{''.join(f'<li>{_text(note)}</li>' for note in report.notes)}</ul>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="color-scheme" content="light dark"><title>{_text(run.dataset)}: evaluation</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _variants(summaries: Sequence[Summary]) -> str:
    rows = [
        [
            f"<b>{_text(one.variant.name)}</b>"
            + ('<br><span class="soft">baseline</span>' if index == 0 and len(summaries) > 1 else "")
            + (f'<br><span class="soft">of run {_text(one.earlier_run)}</span>' if one.earlier_run else ""),
            "<br>".join(f"{count} {_text(status)}" for status, count in one.statuses.items()) or "none",
            f"{one.passed} of {one.answers}",
            f"{one.cost.normalize():f}"
            + (f'<br><span class="soft">{one.unpriced} unknown</span>' if one.unpriced else ""),
            " / ".join(f"{value:,.0f}" for value in one.latency_ms) or "-",
            _lines(
                [*one.models, *(f"prompt {name}" for name in one.prompts), *(f"policy {name}" for name in one.policies)]
            ),
        ]
        for index, one in enumerate(summaries)
    ]
    header = ["variant", "answers", "demands met", "cost, USD", "latency p50 / p95, ms", "answered by"]
    return _table(header, rows, {2, 3, 4})


def _lines(texts: Iterable[str]) -> str:
    return "<br>".join(f"<code>{_text(text)}</code>" for text in texts) or "-"


def _metrics(comparison: Comparison) -> str:
    rows = [
        [
            f"<b>{_text(row.metric)}</b><br><span class='soft'>{row.better} is better, {row.cases} cases</span>",
            number(row.baseline),
            number(row.candidate),
            f"{number(row.difference.value, True)}{_range(row.difference)}",
            _drawn(row),
            "-" if row.p_adjusted is None else f"{row.p_adjusted:.3g}",
            f"<code>{_text(row.rule)}</code>" if row.rule else '<span class="soft">none</span>',
            _tag(row.verdict, _WORDS[row.verdict]),
        ]
        for row in comparison.metrics
    ]
    header = ["metric", "baseline", "candidate", "difference", "interval", "p (Holm)", "regression if", ""]
    return _table(header, rows, {1, 2, 3, 5})


def _range(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f'<br><span class="soft">{number(estimate.low, True)} to {number(estimate.high, True)}</span>'


def _drawn(row: MetricRow) -> str:
    """The interval as a line over 0, in units of its own: the widest of interval and margin fills the drawing."""
    judged = row.share or row.difference
    if judged.low is None or judged.high is None:
        return '<span class="soft">-</span>'
    sign, bound = row.rule.partition(" ")[::2] if row.rule else ("", "")
    margin = (float(bound.rstrip("%")) / (100 if bound.endswith("%") else 1)) if bound else 0.0
    width, height, middle = 200.0, 26.0, 100.0
    reach = max(abs(judged.low), abs(judged.high), abs(margin)) * 1.15 or 1.0

    def x(value: float) -> float:
        return middle + value / reach * middle

    shade = ""
    if sign:
        left, right = (0.0, x(margin)) if sign == "<" else (x(margin), width)
        shade = (
            f'<rect class="margin" x="{left:.1f}" y="0" width="{max(0.0, right - left):.1f}" height="{height:.0f}"/>'
        )
    low, high = x(judged.low), x(judged.high)
    said = f"{number(judged.value, True)}, 95 % interval {number(judged.low, True)} to {number(judged.high, True)}"
    return (
        f'<svg class="interval {row.verdict}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{_text(said)}">{shade}<line class="zero" x1="{middle}" y1="0" x2="{middle}" y2="{height:.0f}"/>'
        f'<line class="bar" x1="{low:.1f}" y1="13" x2="{max(high, low + 0.5):.1f}" y2="13"/>'
        f'<line class="end" x1="{low:.1f}" y1="8" x2="{low:.1f}" y2="18"/>'
        f'<line class="end" x1="{high:.1f}" y1="8" x2="{high:.1f}" y2="18"/>'
        f'<circle cx="{x(judged.value):.1f}" cy="13" r="4"/></svg>'
    )


def _consistency(one: Consistency, texts: Mapping[str, CaseText], rows: Sequence[Scored]) -> str:
    cards = [
        (f"{one.same:.0%}", "answers that are the same"),
        (f"{one.alike:.2f}", "alike in meaning, 0 to 1"),
        (f"{one.flip_rate:.1%}", "demands that flipped"),
        (f"{one.lost}", "not met any more"),
        (f"{one.gained}", "met now"),
    ]
    shown = "".join(f'<div class="card"><b>{value}</b><span>{name}</span></div>' for value, name in cards)
    differing = [case for case in one.cases if case.flips or case.same < 1]
    worst = "".join(
        _side_by_side(one, case, texts, rows, index < 5) for index, case in enumerate(differing[:_MOST_CASES])
    )
    more = len(differing) - _MOST_CASES
    rest = f'<p class="soft">... and {more} more cases, in report.json.</p>' if more > 0 else ""
    title = "<h3>Least consistent cases first</h3>" if worst else '<p class="soft">Every answer is the same.</p>'
    return f'<div class="cards">{shown}</div>{title}{worst}{rest}'


def _steadiness(found: Sequence[Consistency]) -> str:
    rows = [
        [
            f"<b>{_text(one.baseline)}</b>",
            f"{one.same:.0%}",
            f"{one.alike:.2f}",
            f"{one.flip_rate:.1%}",
            _lines(f"{case.case} ({case.alike:.2f})" for case in one.cases[:5] if case.same < 1 or case.flips),
        ]
        for one in found
    ]
    header = ["variant", "same answers", "alike in meaning", "demands that flipped", "least steady cases"]
    return _table(header, rows, {1, 2, 3})


def _side_by_side(
    one: Consistency, case: CaseConsistency, texts: Mapping[str, CaseText], rows: Sequence[Scored], opened: bool
) -> str:
    text = texts.get(case.case, CaseText(id=case.case, question=""))
    own = {row.answer.variant: row for row in reversed(rows) if row.answer.case == case.case}
    flips = "".join(f"<li>{_text(flip)}</li>" for flip in case.flips)
    sides = "".join(_answer(name, own.get(name)) for name in (one.baseline, one.candidate))
    references = "".join(
        f'<p class="reference"><span class="soft">reference</span> {_text(r)}</p>' for r in text.references
    )
    return (
        f'<details class="case"{" open" if opened else ""}><summary><code>{_text(case.case)}</code> '
        f'<span class="soft">{case.alike:.2f} alike{f", {len(case.flips)} flipped" if case.flips else ""}</span></summary>'
        f'<p class="question">{_text(text.question)}</p>{references}'
        f'{f"<ul class=flips>{flips}</ul>" if flips else ""}<div class="sides">{sides}</div></details>'
    )


def _answer(name: str, row: Scored | None) -> str:
    if row is None:
        return f'<div class="side"><h4>{_text(name)}</h4><p class="soft">not asked</p></div>'
    answer = row.answer
    status = "" if answer.status == "completed" else f" {_tag('regression', answer.status)}"
    body = _cut(answer.content) if answer.content else ": ".join(part for part in (answer.code, answer.reason) if part)
    checks = "".join(
        f'<li class="{"met" if check.passed else "unmet"}">{_text(check.name)}'
        f"{f': {_text(check.message)}' if check.message else ''}</li>"
        for check in row.checks
    )
    figures = ", ".join(f"{_text(metric)} {number(value)}" for metric, value in sorted(row.metrics.items()))
    return (
        f'<div class="side"><h4>{_text(name)}{status}</h4><pre>{_text(body)}</pre><ul class="checks">{checks}</ul>'
        f'<p class="soft figures">{figures}</p><p class="soft">request <code>{_text(answer.request_id)}</code></p></div>'
    )


def _missed(report: Report, texts: Mapping[str, CaseText]) -> str:
    order = {case.id: index for index, case in enumerate(report.cases)}
    rows_by_case = sorted(report.rows, key=lambda row: (order.get(row.answer.case, len(order)), row.answer.variant))
    missed = [(row, check) for row in rows_by_case for check in row.checks if not check.passed]
    if not missed:
        return ""
    rows = [
        [
            _text(row.answer.variant) + (f" #{row.answer.repeat + 1}" if report.run.repeats > 1 else ""),
            f"<code>{_text(row.answer.case)}</code><br><span class='soft'>"
            f"{_text(_cut(texts[row.answer.case].question, 160) if row.answer.case in texts else '')}</span>",
            _text(check.name),
            _text(_cut(check.message, 300)),
        ]
        for row, check in missed[:_MOST_MISSED]
    ]
    more = (
        f'<p class="soft">... and {len(missed) - _MOST_MISSED} more, in report.json.</p>'
        if len(missed) > len(rows)
        else ""
    )
    return f"<h2>Demands that are not met</h2>{_table(['variant', 'case', 'demand', 'found'], rows)}{more}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table whose rows become cards where the screen is narrow: each cell carries the name of its column."""
    right = set(numbers)
    head = "".join(f"<th{' class=n' if index in right else ''}>{_text(name)}</th>" for index, name in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(
            f'<td{" class=n" if index in right else ""} data-label="{_text(header[index])}"><div>{cell}</div></td>'
            for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _tag(kind: str, text: str) -> str:
    return f'<span class="tag {kind}">{_text(text)}</span>'


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def _text(text: str) -> str:
    return html.escape(_CONTROL.sub("\ufffd", text), quote=True)

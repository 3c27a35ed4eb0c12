"""A run's outcome as one document: what every form of the report is written from, and what a later run compares with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np

from services.evaluation.golden.answers import Answer, Run
from services.evaluation.golden.comparison import FEW, Comparison, Demand
from services.evaluation.golden.consistency import Consistency
from services.evaluation.golden.dataset import Case
from services.evaluation.golden.scoring import Scored, total_cost
from services.evaluation.golden.variants import Variant

__all__ = ["CaseText", "Report", "ReportError", "Summary", "make_report", "number", "read_report", "stored_answers"]


class ReportError(Exception):
    """An earlier report cannot be used; the message names the cause and the remedy."""


class CaseText(msgspec.Struct, frozen=True, kw_only=True):
    """A case as reports show it."""

    id: str
    question: str
    references: list[str] = []
    tags: list[str] = []
    weight: float = 1.0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What one variant did.

    Attributes:
        statuses: answers by status.
        passed: answers that meet all demands of their case.
        cost: of all its answers whose cost is known, USD, exact.
        unpriced: answers whose cost is not known.
        latency_ms: median and 95th percentile of the time to a result; empty without answers.
        models: answers by model.
        prompts: versions of prompts that were rendered, ``name@hash``.
        policies: versions of policies that applied, ``name@hash``.
    """

    variant: Variant
    answers: int
    statuses: dict[str, int]
    passed: int
    cost: Decimal
    unpriced: int
    latency_ms: list[float]
    models: dict[str, int]
    prompts: list[str]
    policies: list[str]
    earlier_run: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a run.

    Attributes:
        problems: regressions and requirements that are not met, in words; the run is ok without any.
        notes: what to know before the figures are relied on.
        comparisons: each candidate against the baseline.
        consistency: how alike the answers of each candidate and of the baseline are.
        steadiness: how alike the answers of each variant are when it is asked again.
        rows: every answer with its metrics and checks.
    """

    run: Run
    made_at: datetime
    problems: list[str]
    notes: list[str]
    variants: list[Summary]
    comparisons: list[Comparison]
    demands: list[Demand]
    consistency: list[Consistency]
    cases: list[CaseText]
    rows: list[Scored]
    steadiness: list[Consistency] = []

    @property
    def ok(self) -> bool:
        """Whether nothing became worse and all that is required is met."""
        return not self.problems


def make_report(
    run: Run,
    cases: Sequence[Case],
    variants: Sequence[Variant],
    rows: Sequence[Scored],
    comparisons: Sequence[Comparison],
    demanded: Sequence[Demand],
    consistencies: Sequence[Consistency],
    steady: Sequence[Consistency],
    *,
    made_at: datetime,
    earlier: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Put a run's outcome together.

    Args:
        earlier: run that a variant's answers were taken from, by variant, where it is not this one.
    """
    summaries = [_summary(variant, rows, (earlier or {}).get(variant.name, "")) for variant in variants]
    return Report(
        run=run,
        made_at=made_at,
        problems=_problems(comparisons, demanded),
        notes=[*notes, *_notes(len(cases), summaries, comparisons)],
        variants=summaries,
        comparisons=list(comparisons),
        demands=list(demanded),
        consistency=list(consistencies),
        steadiness=list(steady),
        cases=[
            CaseText(
                id=case.id,
                question=case.asked,
                references=list(case.references),
                tags=list(case.tags),
                weight=case.weight,
            )
            for case in cases
        ],
        rows=list(rows),
    )


def _summary(variant: Variant, rows: Sequence[Scored], earlier_run: str) -> Summary:
    own = [row for row in rows if row.answer.variant == variant.name]
    answers = [row.answer for row in own]
    cost, unpriced = total_cost(own)
    latencies = [answer.latency_ms for answer in answers]
    return Summary(
        variant=variant,
        answers=len(own),
        statuses=dict(sorted(Counter(answer.status for answer in answers).items())),
        passed=sum(row.passed for row in own),
        cost=cost,
        unpriced=unpriced,
        latency_ms=[float(value) for value in np.quantile(latencies, [0.5, 0.95])] if latencies else [],
        models=dict(sorted(Counter(answer.model for answer in answers if answer.model).items())),
        prompts=sorted({f"{answer.prompt}@{answer.prompt_version}" for answer in answers if answer.prompt}),
        policies=sorted({f"{answer.policy}@{answer.policy_version or '-'}" for answer in answers if answer.policy}),
        earlier_run=earlier_run,
    )


def _problems(comparisons: Sequence[Comparison], demanded: Sequence[Demand]) -> list[str]:
    found = []
    for comparison in comparisons:
        for row in comparison.regressions:
            judged = row.share or row.difference
            scale, unit = (100, " %") if row.share else (1, "")
            interval = (
                ""
                if judged.low is None or judged.high is None
                else f", 95 % interval {number(judged.low * scale, True)} to {number(judged.high * scale, True)}{unit}"
            )
            found.append(
                f"{row.metric} of {comparison.candidate} is worse than of {comparison.baseline}: "
                f"{number(row.baseline)} to {number(row.candidate)}, difference {number(judged.value * scale, True)}{unit}"
                f"{interval}; the rule is {row.metric} {row.rule}"
            )
    for demand in demanded:
        if not demand.met:
            mean = "no answer has it" if demand.mean is None else f"the mean is {number(demand.mean)}"
            found.append(f"{demand.variant} does not meet {demand.requirement}: {mean}")
    return found


def _notes(cases: int, summaries: Sequence[Summary], comparisons: Sequence[Comparison]) -> list[str]:
    notes = []
    if comparisons and cases < FEW:
        notes.append(f"{cases} cases are few: intervals from fewer than {FEW} are rough")
    for comparison in comparisons:
        if untested := [row.metric for row in comparison.metrics if row.verdict == "untested"]:
            notes.append(f"{comparison.candidate}: too few cases for an interval of {', '.join(untested)}")
        if parted := [f"{row.metric} ({row.left_out})" for row in comparison.metrics if row.left_out]:
            notes.append(
                f"{comparison.candidate}: cases that have the metric on one side only are left out: {', '.join(parted)}"
            )
        shown = [row for row in comparison.metrics if row.p_adjusted is not None]
        lone = [
            row.metric
            for row in shown
            if row.verdict in ("regression", "worse", "better") and (row.p_adjusted or 0) >= 0.05
        ]
        if shown:
            said = f"; not significant after it: {', '.join(lone)}" if lone else ""
            notes.append(
                f"{comparison.candidate}: {len(shown)} metrics are tested at once, so some differ by chance; p is adjusted "
                f"by Holm's method{said}"
            )
    notes += [
        f"{summary.variant.name}: the cost of {summary.unpriced} answers is not known: a model without a price "
        "(`penstock prices check`), or evaluation does not run"
        for summary in summaries
        if summary.unpriced
    ]
    return notes


def read_report(path: Path) -> Report:
    """Read a report that an earlier run wrote as JSON.

    Raises:
        ReportError: the file cannot be read, or is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}; give the report.json of an earlier run") from error
    except msgspec.MsgspecError as error:
        raise ReportError(f"{path} is no report of `penstock evaluate run`: {error}; give its report.json") from error


def stored_answers(report: Report, variant: str | None, as_variant: str) -> tuple[Variant, list[Answer]]:
    """Return a variant of an earlier run and its answers, under the name ``as_variant``.

    Raises:
        ReportError: the report has several variants and none is named, or not the one that is.
    """
    own = {summary.variant.name: summary.variant for summary in report.variants if not summary.earlier_run}
    if variant is None and len(own) > 1:
        raise ReportError(f"the earlier run has the variants {', '.join(own)}: choose one with --baseline-variant")
    name = variant if variant is not None else next(iter(own), "")
    if name not in own:
        raise ReportError(f"the earlier run has no variant {name!r}; it has {', '.join(own) or 'none'}")
    answers = [row.answer for row in report.rows if row.answer.variant == name]
    return (
        msgspec.structs.replace(own[name], name=as_variant),
        [msgspec.structs.replace(answer, variant=as_variant) for answer in answers],
    )


def number(value: float, signed: bool = False) -> str:
    """Return a figure for people: three to four digits, no exponent where it can be helped.

    Example:
        >>> number(0.123456), number(1234.5), number(0.00042, True), number(0.0)
        ('0.123', '1,234', '+0.00042', '0')
    """
    sign = "+" if signed else ""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1000:
        return f"{value:{sign},.0f}"
    if size >= 10:
        return f"{value:{sign}.1f}"
    if size >= 0.01:
        return f"{value:{sign}.3f}"
    return (
        f"{value:{sign}.2g}"
        if size < 1e-6
        else f"{value:{sign}.8f}".rstrip("0")
        if size < 1e-4
        else f"{value:{sign}.5f}"
    )

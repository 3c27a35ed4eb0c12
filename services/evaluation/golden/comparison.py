"""Two variants over the same cases: metric by metric, and whether any became worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from penstock.paired_bootstrap import RESAMPLES, Estimate, adjusted, paired

from services.evaluation.golden.metrics import Better, Bound, Requirement, better
from services.evaluation.golden.scoring import Table

__all__ = ["FEW", "Comparison", "Demand", "MetricRow", "Verdict", "compare", "demands"]

Verdict = Literal["regression", "worse", "better", "same", "untested"]
"""regression: beyond its margin. worse, better: beyond 0. same: the interval holds 0. untested: too few cases."""

FEW = 20
"""Cases below which an interval is to be read with care: the bootstrap covers less than it says."""


class MetricRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of a candidate against the baseline.

    Attributes:
        cases: cases that have the metric on both sides: those that are compared.
        left_out: cases that have it on one side only.
        baseline: weighted mean over the cases that are compared.
        candidate: the same of the candidate.
        difference: of the means.
        share: the difference as a share of the baseline, where the rule is about that.
        p_adjusted: the difference's p-value after Holm's adjustment over the metrics of this comparison.
        rule: what counts as a regression, in words; empty where nothing does.
    """

    metric: str
    better: Better
    cases: int
    left_out: int
    baseline: float
    candidate: float
    difference: Estimate
    share: Estimate | None = None
    p_adjusted: float | None = None
    rule: str = ""
    verdict: Verdict


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate against the baseline."""

    baseline: str
    candidate: str
    metrics: list[MetricRow]

    @property
    def regressions(self) -> list[MetricRow]:
        """Metrics that are regressions."""
        return [row for row in self.metrics if row.verdict == "regression"]


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a required mean was reached by a variant; ``mean`` is None where nothing has the metric."""

    variant: str
    requirement: str
    mean: float | None
    met: bool


def compare(
    baseline: tuple[str, Table],
    candidate: tuple[str, Table],
    weights: Mapping[str, float],
    rules: Mapping[str, Bound],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    strict: bool = False,
) -> Comparison:
    """Compare two variants by every metric that both have.

    Args:
        baseline: name and values of the baseline.
        candidate: name and values of the candidate.
        weights: weight of each case.
        rules: what counts as a regression, by metric.
        seed: of the resampling.
        resamples: number of resamples.
        strict: whether a regression must also stay significant after Holm's adjustment, which keeps the chance of any
            false one in a run below 5 % and finds fewer true ones.
    """
    made: list[tuple[MetricRow, Estimate | None, Bound | None]] = []
    for metric in sorted(set(baseline[1]) & set(candidate[1]), key=_order):
        a, b = baseline[1][metric], candidate[1][metric]
        cases = sorted(a.keys() & b.keys())
        if not cases:
            continue
        first, second, weight = [a[case] for case in cases], [b[case] for case in cases], [weights[c] for c in cases]
        difference = paired(first, second, weight, seed=seed, resamples=resamples)
        assert difference is not None
        rule = rules.get(metric)
        share = None
        if rule is not None and rule.relative:
            share = paired(first, second, weight, relative=True, seed=seed, resamples=resamples)
        judged = share if rule is not None and rule.relative else difference
        row = MetricRow(
            metric=metric,
            better=better(metric),
            cases=len(cases),
            left_out=len(a.keys() ^ b.keys()),
            baseline=_mean(first, weight),
            candidate=_mean(second, weight),
            difference=difference,
            share=share,
            rule="" if rule is None else str(rule),
            verdict="untested",
        )
        made.append((row, judged, rule))
    adjusted_p = adjusted([row.difference.p for row, _, _ in made])
    rows = [
        msgspec.structs.replace(row, p_adjusted=p, verdict=_verdict(row, judged, rule, p if strict else 0.0))
        for (row, judged, rule), p in zip(made, adjusted_p, strict=True)
    ]
    return Comparison(baseline=baseline[0], candidate=candidate[0], metrics=rows)


def demands(
    tables: Mapping[str, Table], weights: Mapping[str, float], requirements: Sequence[Requirement]
) -> list[Demand]:
    """Return whether each variant's mean is as required. A metric that no answer has is not."""
    found = []
    for variant, table in tables.items():
        for requirement in requirements:
            values = table.get(requirement.metric, {})
            mean = _mean(list(values.values()), [weights[case] for case in values]) if values else None
            met = mean is not None and requirement.holds(mean)
            found.append(Demand(variant=variant, requirement=str(requirement), mean=mean, met=met))
    return found


def _verdict(row: MetricRow, judged: Estimate | None, rule: Bound | None, p: float | None) -> Verdict:
    significant = p is not None and p < 0.05
    if rule is not None and judged is not None and judged.low is not None and judged.high is not None:
        if rule.broken(judged.low, judged.high) and significant:
            return "regression"
    elif rule is not None and rule.relative and row.difference.low is not None and row.difference.low > 0:
        # From nothing to something: beyond any share of it.
        return "regression" if rule.op == ">" and significant else "worse"
    low, high = row.difference.low, row.difference.high
    if low is None or high is None:
        return "untested"
    if low <= 0 <= high:
        return "same"
    return "better" if (low > 0) == (row.better == "higher") else "worse"


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights)


def _order(metric: str) -> tuple[int, str]:
    """Demands first, then judges, scores, and last what is not about quality."""
    groups = {"passed": 0, "status": 1, "cost": 5, "latency_ms": 6, "input_tokens": 7, "output_tokens": 8}
    return groups.get(metric, 2 if metric.startswith("judge.") else 4 if metric.startswith("prompt.") else 3), metric

"""Answers to metrics: evaluators, the case's demands, cost, latency and tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec
from penstock.contracts.records import Score

from services.evaluation.evaluators.protocol import Evaluator, Exchange
from services.evaluation.evaluators.runner import evaluate
from services.evaluation.golden.answers import Answer
from services.evaluation.golden.checks import Check, checks_of
from services.evaluation.golden.dataset import Case

__all__ = [
    "BASE_METRICS",
    "Metrics",
    "Scored",
    "Table",
    "exchanges_of",
    "metric_names",
    "scored",
    "table_of",
    "total_cost",
]

BASE_METRICS = ("passed", "status", "cost", "latency_ms", "input_tokens", "output_tokens")
"""Metrics of every run. passed: 1 where all demands of the case are met; status: 1 where it ended as expected; cost: USD."""

Metrics = Mapping[str, float]
Table = Mapping[str, Mapping[str, float]]
"""Value of each case by metric: the mean over its repeats that have one."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with what was found about it.

    Attributes:
        metrics: by name: ``subject.evaluator``, ``judge.<rubric>`` or one of :data:`BASE_METRICS`. What cannot be said of
            the answer (of a blocked one, how well it is grounded) is not there.
        reasons: why, where an evaluator says so, by metric.
        versions: version of each evaluator, by metric.
    """

    answer: Answer
    metrics: dict[str, float]
    checks: list[Check]
    reasons: dict[str, str] = {}
    versions: dict[str, str] = {}

    @property
    def passed(self) -> bool:
        """Whether all demands of the case are met."""
        return all(check.passed for check in self.checks)


def metric_names(evaluators: Sequence[Evaluator], rubrics: Sequence[str] = ()) -> list[str]:
    """Return the metrics that a run with these evaluators and rubrics can have."""
    judged = [f"judge.{rubric}" for rubric in rubrics]
    return [*BASE_METRICS, *(f"{one.subject}.{one.name}" for one in evaluators), *judged]


def scored(
    cases: Mapping[str, Case],
    answers: Sequence[Answer],
    evaluators: Sequence[Evaluator],
    judged: Mapping[str, Metrics] | None = None,
) -> list[Scored]:
    """Return the answers with their metrics and checks.

    Where a case has several references, an answer has the best of what evaluators say with each of them.

    Args:
        cases: by id; an answer without its case is left out.
        judged: what judges said, by request_id, e.g. ``{"judge.helpfulness": 0.75}``.
    """
    known = [answer for answer in answers if answer.case in cases]
    pairs = [(index, one) for index, answer in enumerate(known) for one in exchanges_of(cases[answer.case], answer)]
    said: list[dict[str, Score]] = [{} for _ in known]
    for (index, _), scores in zip(pairs, evaluate(evaluators, [one for _, one in pairs]), strict=True):
        for score in scores:
            name = f"{score.subject}.{score.name}"
            if name not in said[index] or score.score > said[index][name].score:
                said[index][name] = score
    return [
        _scored(cases[answer.case], answer, said[index], (judged or {}).get(answer.request_id, {}))
        for index, answer in enumerate(known)
    ]


def exchanges_of(case: Case, answer: Answer) -> list[Exchange]:
    """Return an answer as evaluators see it, once for each reference; an answer that was not given is none."""
    references: list[str | None] = [*case.references] or [None]
    completed = answer.status == "completed"
    return [
        Exchange(
            request_id=answer.request_id,
            question=answer.question or case.asked,
            answer=answer.content if completed else "",
            messages=tuple(case.conversation),
            passages=tuple(answer.passages),
            citations=tuple(answer.cited),
            grounding=answer.grounding,
            reference=reference,
            response_format=case.request_sampling.response_format,
            finish_reason=answer.finish_reason,
        )
        for reference in (references if completed else references[:1])
    ]


def _scored(case: Case, answer: Answer, said: Mapping[str, Score], judged: Metrics) -> Scored:
    checks = checks_of(case, answer)
    metrics: dict[str, float] = {
        "passed": float(all(check.passed for check in checks)),
        "status": float(checks[0].passed),
        "latency_ms": answer.latency_ms,
        **{name: score.score for name, score in said.items()},
        **judged,
    }
    if answer.cost is not None:
        # Statistics are in floats; amounts are reported from the decimals.
        metrics["cost"] = float(answer.cost)
    if answer.status == "completed":
        metrics["input_tokens"] = float(answer.usage.input_tokens)
        metrics["output_tokens"] = float(answer.usage.output_tokens)
    return Scored(
        answer=answer,
        metrics=metrics,
        checks=checks,
        reasons={name: score.reason for name, score in said.items() if score.reason},
        versions={name: score.version for name, score in said.items()},
    )


def table_of(rows: Sequence[Scored], variant: str) -> dict[str, dict[str, float]]:
    """Return the values of a variant by metric and case."""
    sums: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row.answer.variant == variant:
            for name, value in row.metrics.items():
                sums.setdefault(name, {}).setdefault(row.answer.case, []).append(value)
    return {
        name: {case: math.fsum(values) / len(values) for case, values in by_case.items()}
        for name, by_case in sums.items()
    }


def total_cost(rows: Sequence[Scored]) -> tuple[Decimal, int]:
    """Return what the answers cost together, USD, exact, and of how many it is not known."""
    amounts = [row.answer.cost for row in rows]
    return sum((amount for amount in amounts if amount is not None), Decimal(0)), amounts.count(None)

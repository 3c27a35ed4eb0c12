"""What an evaluation found: figures of each configuration, differences with their intervals, and what is not as required.

Pure, and JSON: a report is the baseline of a later one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from penstock.paired_bootstrap import Estimate, adjusted, paired

from services.retrieval.quality.measures import measured
from services.retrieval.quality.question_sets import Question
from services.retrieval.quality.ranking import Indexed, Ranked

__all__ = [
    "FLOORS", "Attached", "Comparison", "Difference", "Floor", "Latency", "Mean", "Report", "Requirement", "SetFigures",
    "System", "attached", "compared", "floors", "latency", "means", "regressions", "unmet", "values_of",
]  # fmt: skip

FLOORS = tuple(round(0.05 * step, 2) for step in range(1, 17))
"""Score floors that are tried on the rankings."""

Values = dict[str, dict[str, float]]
"""Value of each question by measure."""


class Mean(msgspec.Struct, frozen=True):
    """A measure's mean over questions, with its interval at 95 %; None where there are too few questions for one."""

    value: float
    low: float | None = None
    high: float | None = None


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds of one question: embedded, searched and ordered, one at a time."""

    p50: float
    p99: float
    mean: float


class Attached(msgspec.Struct, frozen=True):
    """What a route under these settings would attach.

    Attributes:
        relevant: share of the questions that get a relevant document.
        empty: share that gets nothing.
        documents: mean number of documents.
        strays: share of the questions that no document answers, and that get something; None where there are none.
    """

    relevant: float
    empty: float
    documents: float
    strays: float | None = None


class Floor(msgspec.Struct, frozen=True):
    """What a route would attach with another score floor; see :class:`Attached`."""

    floor: float
    relevant: float
    empty: float
    strays: float | None = None


class System(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration: what it is, what it reached, and the values of every question."""

    name: str
    configuration: dict[str, Any]
    embedder: str = ""
    indexed: Indexed | None = None
    means: dict[str, Mean]
    latency_ms: Latency
    attached: Attached | None = None
    floors: list[Floor] = []
    values: Values


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of a candidate less that of the baseline, over the questions that both have.

    Attributes:
        p_adjusted: p-value after Holm's adjustment over the measures of the comparison.
    """

    measure: str
    questions: int
    baseline: float
    candidate: float
    difference: Estimate
    p_adjusted: float | None = None

    @property
    def verdict(self) -> str:
        """better, worse, same (the interval holds 0), unclear (it does not, and the adjusted p-value is 0.05 or more), or
        untested: too few questions.
        """
        low, high = self.difference.low, self.difference.high
        if low is None or high is None:
            return "untested"
        if low <= 0 <= high:
            return "same"
        if self.p_adjusted is not None and self.p_adjusted >= 0.05:
            return "unclear"
        return "better" if low > 0 else "worse"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate beside a baseline."""

    baseline: str
    candidate: str
    differences: list[Difference]


class SetFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of what."""

    documents: int
    questions: int
    strays: int
    unjudged: int
    missing: int
    version: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation. ``problems`` says what is not as required; it is empty where all is."""

    made_at: datetime
    question_set: SetFigures
    systems: list[System]
    comparisons: list[Comparison] = []
    problems: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether all is as required."""
        return not self.problems


class Requirement(msgspec.Struct, frozen=True):
    """The least that the mean of a measure must be."""

    measure: str
    least: float

    def __str__(self) -> str:
        return f"{self.measure} {self.least:g}"


def values_of(questions: Sequence[Question], ranked: Sequence[Ranked], cutoffs: Sequence[int]) -> Values:
    """Return every measure of every question."""
    found: Values = {}
    for question, ranking in zip(questions, ranked, strict=True):
        for measure, value in measured(ranking.documents, question.relevant, cutoffs).items():
            found.setdefault(measure, {})[question.id] = value
    return found


def means(values: Values, seed: int) -> dict[str, Mean]:
    """Return the mean of each measure, with the interval of the bootstrap over questions."""
    found = {}
    for measure, by_question in values.items():
        each = list(by_question.values())
        estimate = paired([0.0] * len(each), each, seed=seed)
        assert estimate is not None
        found[measure] = Mean(estimate.value, estimate.low, estimate.high)
    return found


def latency(took_ms: Sequence[float]) -> Latency:
    """Return the figures of what the questions took."""
    p50, p99 = np.percentile(took_ms, [50, 99])
    return Latency(float(p50), float(p99), math.fsum(took_ms) / len(took_ms))


def attached(questions: Sequence[Question], found: Sequence[Ranked], strays: Sequence[Ranked]) -> Attached:
    """Return what was attached to questions that documents answer, and to those that none does."""
    return Attached(
        relevant=_share(
            any(document in question.relevant for document in one.documents)
            for question, one in zip(questions, found, strict=True)
        ),
        empty=_share(not one.documents for one in found),
        documents=math.fsum(len(one.documents) for one in found) / len(found),
        strays=_share(bool(one.documents) for one in strays) if strays else None,
    )


def floors(
    questions: Sequence[Question], ranked: Sequence[Ranked], strays: Sequence[Ranked], top_k: int
) -> list[Floor]:
    """Return what other score floors would attach, by what the rankings score; token budgets are left aside."""
    return [
        Floor(
            floor,
            relevant=_share(
                any(
                    document in question.relevant and score >= floor
                    for document, score in zip(one.documents[:top_k], one.scores[:top_k], strict=True)
                )
                for question, one in zip(questions, ranked, strict=True)
            ),
            empty=_share(max(one.scores, default=0.0) < floor for one in ranked),
            strays=_share(max(one.scores, default=0.0) >= floor for one in strays) if strays else None,
        )
        for floor in FLOORS
    ]


def _share(found: Iterable[bool]) -> float:
    each = list(found)
    return sum(each) / len(each)


def _mean(values: Mapping[str, float], of: Sequence[str]) -> float:
    return math.fsum(values[name] for name in of) / len(of)


def compared(
    baseline: tuple[str, Mapping[str, Mapping[str, float]]],
    candidate: tuple[str, Mapping[str, Mapping[str, float]]],
    seed: int,
) -> Comparison:
    """Compare two systems question by question, by every measure that both have, with the paired bootstrap."""
    rows = []
    for measure in (name for name in candidate[1] if name in baseline[1]):
        first, second = baseline[1][measure], candidate[1][measure]
        common = sorted(first.keys() & second.keys())
        difference = paired([first[name] for name in common], [second[name] for name in common], seed=seed)
        if difference is None:
            continue
        row = Difference(
            measure=measure,
            questions=len(common),
            baseline=_mean(first, common),
            candidate=_mean(second, common),
            difference=difference,
        )
        rows.append(row)
    p_values = adjusted([row.difference.p for row in rows])
    return Comparison(
        baseline=baseline[0],
        candidate=candidate[0],
        differences=[msgspec.structs.replace(row, p_adjusted=p) for row, p in zip(rows, p_values, strict=True)],
    )


def regressions(comparison: Comparison, margin: float) -> list[str]:
    """Return what became worse: measures whose whole interval lies more than ``margin`` below the baseline."""
    return [
        f"{comparison.candidate}: {row.measure} fell from {row.baseline:.4f} to {row.candidate:.4f} "
        f"({row.difference.low:+.4f} to {row.difference.high:+.4f})"
        for row in comparison.differences
        if row.difference.high is not None and row.difference.low is not None and row.difference.high < -margin
    ]


def unmet(system: System, requirements: Sequence[Requirement]) -> list[str]:
    """Return which requirements the means of ``system`` do not meet."""
    return [
        f"{system.name}: {one.measure} is {system.means[one.measure].value:.4f}, below {one.least:g}"
        for one in requirements
        if system.means[one.measure].value < one.least
    ]

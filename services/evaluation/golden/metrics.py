"""What the metrics of a run are called, which way is good, and when a difference is a regression."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

__all__ = ["DEFAULT_RULES", "LOWER", "Bound", "Requirement", "RuleError", "better", "rule_of", "rules_of"]

Better = Literal["higher", "lower"]

LOWER = frozenset(
    {
        "answer.toxicity",
        "answer.hallucination",
        "answer.refusal",
        "prompt.toxicity",
        "cost",
        "latency_ms",
        "input_tokens",
        "output_tokens",
    }
)
"""Metrics of which less is better; of every other metric more is."""

_RULE = re.compile(
    r"\s*(?P<metric>[A-Za-z_][\w.\-]*)\s*(?P<op><=|>=|<|>)\s*(?P<value>[-+]?(?:\d+\.?\d*|\.\d+))(?P<share>%?)\s*"
)
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class RuleError(ValueError):
    """A rule cannot be read; the message shows one that can."""


class Bound(msgspec.Struct, frozen=True):
    """When a difference is a regression: the whole interval lies beyond ``value``.

    Attributes:
        op: ``<`` where less is worse, ``>`` where more is.
        value: margin: in the metric's unit, or as a share of the baseline's mean.
        relative: whether it is a share.
    """

    op: str
    value: float
    relative: bool = False

    def broken(self, low: float, high: float) -> bool:
        """Whether an interval lies beyond the margin as a whole."""
        return high < self.value if self.op == "<" else low > self.value

    def __str__(self) -> str:
        if not self.value:
            return f"{self.op} 0"
        return f"{self.op} {self.value * 100:+g}%" if self.relative else f"{self.op} {self.value:+g}"


class Requirement(msgspec.Struct, frozen=True):
    """What the mean of a metric must be, whatever the baseline's is."""

    metric: str
    op: str
    value: float

    def holds(self, mean: float) -> bool:
        """Whether a mean is as required."""
        return _COMPARISONS[self.op](mean, self.value)

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.value:g}"


DEFAULT_RULES: Mapping[str, Bound] = {
    "passed": Bound("<", 0.0),
    "status": Bound("<", 0.0),
    "cost": Bound(">", 0.1, relative=True),
    **{
        name: Bound("<", -0.02)
        for name in (
            "answer.groundedness",
            "answer.citation_correctness",
            "answer.answer_relevance",
            "answer.completeness",
            "answer.coherence",
            "answer.language_match",
            "answer.format_validity",
            "answer.exact_match",
            "answer.token_f1",
            "answer.rouge",
            "answer.semantic_similarity",
        )
    },
    "answer.toxicity": Bound(">", 0.02),
    "answer.refusal": Bound(">", 0.02),
}
"""Regressions where nothing else is asked for. Rubrics of a judge have ``judge.<rubric>``: see :func:`rules_of`."""

_JUDGED = Bound("<", -0.05)


def better(metric: str) -> Better:
    """Return which way a metric is good."""
    return "lower" if metric in LOWER else "higher"


def rules_of(specs: Sequence[str], metrics: Sequence[str], *, only_given: bool = False) -> dict[str, Bound]:
    """Return the regression rules of a run by metric: the defaults, and ``specs`` in their place.

    Args:
        specs: such as ``answer.groundedness<-0.05`` or ``cost>+20%``.
        metrics: metrics that the run has.
        only_given: leaves the defaults out.

    Raises:
        RuleError: a rule cannot be read, or names a metric that the run does not have.
    """
    rules = {} if only_given else {name: rule for name, rule in DEFAULT_RULES.items() if name in metrics}
    if not only_given:
        rules |= {name: _JUDGED for name in metrics if name.startswith("judge.")}
    for spec in specs:
        found = _match(spec)
        if found["op"] not in ("<", ">"):
            raise RuleError(f"--fail-if {spec!r}: write < or >, as in 'answer.groundedness<-0.02' or 'cost>+10%'")
        share = bool(found["share"])
        value = float(found["value"]) / (100 if share else 1)
        rules[_known(found["metric"], metrics, "--fail-if")] = Bound(found["op"], value, share)
    return rules


def rule_of(spec: str, metrics: Sequence[str]) -> Requirement:
    """Read a requirement such as ``passed>=0.9``.

    Raises:
        RuleError: it cannot be read, or names a metric that the run does not have.
    """
    found = _match(spec)
    if found["share"]:
        raise RuleError(f"--require {spec!r} is about the mean itself: write it without %, as in 'passed>=0.9'")
    return Requirement(_known(found["metric"], metrics, "--require"), found["op"], float(found["value"]))


def _match(spec: str) -> re.Match[str]:
    found = _RULE.fullmatch(spec)
    if found is None:
        raise RuleError(f"{spec!r} is no rule: write METRIC<NUMBER or METRIC>NUMBER%, e.g. 'answer.groundedness<-0.02'")
    return found


def _known(metric: str, metrics: Sequence[str], option: str) -> str:
    if metric not in metrics:
        raise RuleError(f"{option}: the run has no metric {metric!r}; it has {', '.join(sorted(metrics))}")
    return metric

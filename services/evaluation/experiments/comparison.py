"""What the state of an experiment says of each arm against the control, now. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from penstock.config.kinds import Experiment, Metric

from services.evaluation.experiments.clusters import difference, estimate
from services.evaluation.experiments.sequential import Bound
from services.evaluation.experiments.state import Standing, is_bet_on

__all__ = ["Comparison", "Levels", "compare", "levels"]

# Part of alpha that the ratio of arms is tested at: 0.001 of 0.05. A mismatch ends an experiment, so it should be certain;
# where there is one it is far beyond any level.
_RATIO_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Levels:
    """How an experiment's alpha is spent. Added up it is alpha, so the chance that anything at all is told wrongly, at any
    time, is at most that (Bonferroni).

    Attributes:
        ratio: of the test of the arms' ratio.
        comparison: of each comparison of an arm's metric, goals and guards alike, with the control's. Where there are two
            tests of it, each has half.
    """

    ratio: float
    comparison: float

    def of(self, metric: Metric) -> float:
        """Return the level of each test of ``metric``."""
        return self.comparison / 2 if is_bet_on(metric) else self.comparison


def levels(experiment: Experiment) -> Levels:
    """Return how the alpha of ``experiment`` is spent."""
    ratio = experiment.alpha * _RATIO_SHARE if experiment.tests_ratio else 0.0
    return Levels(ratio, (experiment.alpha - ratio) / max(1, len(experiment.metrics) * (len(experiment.arms) - 1)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of an arm and of the control, in the metric's unit.

    Attributes:
        mean: of the arm; None without a request. ``control`` likewise.
        low: lower end of the confidence sequence of ``difference``; ``high`` the upper one. None while there is too little.
        cautious: half the width of the interval if the furthest value that the bounds allow were among those not seen yet:
            what it takes to say that there is no difference.
        p_value: always valid; see :attr:`Standing.p_values`.
        decision: better, worse, no_difference, or None.
    """

    arm: str
    metric: Metric
    mean: float | None
    control: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    cautious: float | None = None
    p_value: float = 1.0
    decision: str | None = None


def compare(standing: Standing, experiment: Experiment, arm: int, metric: int, spent: Levels) -> Comparison:
    """Compare the metric at index ``metric`` of the arm at index ``arm`` with the control's."""
    of = experiment.metrics[metric]
    bound = Bound(spent.of(of))
    found = _by_interval(standing, experiment, arm, metric, bound)
    if not is_bet_on(of):
        return found
    log_wealth = standing.matched[arm - 1].wager.log_wealth
    decision = "worse" if log_wealth >= -math.log(bound.alpha) else found.decision
    # Twice the smaller one of two tests.
    p_value = min(1.0, 2 * min(found.p_value, math.exp(-max(log_wealth, 0.0))))
    if found.mean is not None and found.control is not None:
        found = replace(found, difference=found.mean - found.control)
    return replace(found, p_value=p_value, decision=decision)


def _by_interval(standing: Standing, experiment: Experiment, arm: int, metric: int, bound: Bound) -> Comparison:
    of = experiment.metrics[metric]
    width = of.upper_bound - of.lower_bound
    reach = (standing.high[metric] - standing.low[metric]) / 2**40
    mine, control = (estimate(standing.blocks[index], metric, reach) for index in (arm, 0))
    seen = Comparison(
        experiment.arms[arm].name,
        of,
        mean=None if mine is None else of.lower_bound + mine.mean * width,
        control=None if control is None else of.lower_bound + control.mean * width,
    )
    if mine is None or control is None or (of.name == "cost" and (standing.unpriced[arm] or standing.unpriced[0])):
        return seen
    found = difference(mine, control)
    if found is None:
        return seen
    reached = bound.width(found.size, found.freedom)
    half = reached * found.error * width
    # As estimate() does with reach, for the whole range.
    more = (1 - reach * reach) * (mine.requests**-2 + control.requests**-2)
    cautious = reached * (found.error**2 + more) ** 0.5 * width
    apart = found.mean * width
    statistic = abs(found.mean) / found.error if found.error > 0 else 0.0
    return Comparison(
        seen.arm,
        of,
        seen.mean,
        seen.control,
        difference=apart,
        low=apart - half,
        high=apart + half,
        cautious=cautious,
        p_value=bound.p_value(statistic, found.size, found.freedom),
        decision=_decision(of, apart, half, cautious),
    )


def _decision(metric: Metric, apart: float, half: float, cautious: float) -> str | None:
    """Return what an interval decides. What it holds is certain at all times together, so is each of these."""
    gain = apart if metric.better == "higher" else -apart
    if metric.role == "guard":
        return "worse" if gain + half < -metric.margin else None
    if abs(apart) + cautious < metric.margin:
        return "no_difference"
    if gain - half > 0:
        return "better"
    return "worse" if gain + half < 0 else None

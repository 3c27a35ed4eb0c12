"""How far raters agree beyond chance: Krippendorff's alpha over all of them, Cohen's kappa by pair and by rater. Pure.

Intervals are percentile bootstraps over units (the labelled texts), which keep their nominal coverage for both coefficients
(Zapf et al. 2016, BMC Medical Research Methodology 16:93). Units with equal labels are drawn together, so that the work
grows with the number of different outcomes, not of units.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agreement", "Estimate", "agreement", "cohen_kappa", "krippendorff_alpha"]

Scale = Literal["nominal", "interval"]
Ratings = Mapping[str, Mapping[str, Any]]
"""Values by unit, then by rater."""

_RESAMPLES = 2_000
_SEED = 20
_COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A coefficient with its bootstrap interval.

    Attributes:
        value: 1 is perfect, 0 what chance gives; ``None`` where it is not defined: nobody overlaps, or all labels are equal.
        low, high: 95 % interval; ``None`` with fewer than two units.
        units: texts that at least two raters labelled.
    """

    value: float | None
    low: float | None
    high: float | None
    units: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement about one label.

    Attributes:
        alpha: over all raters.
        pairs: Cohen's kappa by two raters, in the order of their names; nominal labels only.
        raters: by rater, their kappa against all others: every unit counts once, shared among the others who labelled it.
        given: labels by rater.
    """

    alpha: Estimate
    pairs: dict[tuple[str, str], Estimate]
    raters: dict[str, Estimate]
    given: dict[str, int]


def agreement(ratings: Ratings, scale: Scale = "nominal") -> Agreement:
    """Return how far raters agree; ``ratings`` are values by unit and rater, numbers where the scale is interval."""
    names = sorted({rater for by_rater in ratings.values() for rater in by_rater})
    given = {name: sum(name in by_rater for by_rater in ratings.values()) for name in names}
    pairs: dict[tuple[str, str], Estimate] = {}
    raters: dict[str, Estimate] = {}
    if scale == "nominal":
        for one, other in itertools.combinations(names, 2):
            estimate = cohen_kappa(ratings, one, [other])
            if estimate.units:
                pairs[one, other] = estimate
        raters = {name: cohen_kappa(ratings, name, [each for each in names if each != name]) for name in names}
    return Agreement(krippendorff_alpha(ratings, scale), pairs, raters, given)


def krippendorff_alpha(ratings: Ratings, scale: Scale = "nominal") -> Estimate:
    """Return Krippendorff's alpha: 1 less the observed disagreement over that of chance (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability"). Any number of raters, who need not all have labelled everything."""
    units = [list(by_rater.values()) for by_rater in ratings.values() if len(by_rater) > 1]
    values = sorted({value for unit in units for value in unit})
    if not units:
        return Estimate(None, None, None, 0)
    place = {value: index for index, value in enumerate(values)}
    counts = np.zeros((len(units), len(values)))
    for row, unit in enumerate(units):
        for value in unit:
            counts[row, place[value]] += 1
    distance = _distance(values, scale)
    raters = counts.sum(axis=1)
    observed = np.einsum("uc,ck,uk->u", counts, distance, counts) / (raters - 1)

    def alpha(weights: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """``weights`` says how often each row of counts, observed disagreement and number of raters is drawn."""
        totals = weights @ rows[:, : len(values)]
        n = weights @ rows[:, -1]
        expected = np.einsum("bc,ck,bk->b", totals, distance, totals) / (n - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(expected > 0, 1 - (weights @ rows[:, -2]) / expected, np.nan)

    return _estimate(np.column_stack((counts, observed, raters)), alpha)


def cohen_kappa(ratings: Ratings, one: str, others: Sequence[str]) -> Estimate:
    """Return Cohen's kappa between a rater and one other, or the pairs with several others pooled (Cohen 1960)."""
    units = []
    for by_rater in ratings.values():
        against = [by_rater[other] for other in others if other in by_rater]
        if one in by_rater and against:
            units.append((by_rater[one], against))
    if not units:
        return Estimate(None, None, None, 0)
    values = sorted({value for mine, against in units for value in (mine, *against)})
    place = {value: index for index, value in enumerate(values)}
    size = len(values)
    tables = np.zeros((len(units), size, size))
    for row, (mine, against) in enumerate(units):
        for value in against:
            tables[row, place[mine], place[value]] += 1 / len(against)

    def kappa(weights: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        table = (weights @ rows).reshape(-1, size, size)
        n = table.sum(axis=(1, 2))
        same = np.trace(table, axis1=1, axis2=2) / n
        chance = (table.sum(axis=2) * table.sum(axis=1)).sum(axis=1) / n**2
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(chance < 1, (same - chance) / (1 - chance), np.nan)

    return _estimate(tables.reshape(len(units), -1), kappa)


def _distance(values: Sequence[Any], scale: Scale) -> NDArray[np.float64]:
    if scale == "nominal":
        return 1.0 - np.eye(len(values))
    numbers = np.asarray(values, dtype=np.float64)
    squared: NDArray[np.float64] = (numbers[:, None] - numbers[None, :]) ** 2
    return squared


def _estimate(
    units: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
) -> Estimate:
    rows, frequencies = np.unique(units, axis=0, return_counts=True)
    count = len(units)
    value = float(statistic(frequencies[None, :].astype(np.float64), rows)[0])
    low = high = None
    if count > 1:
        drawn = np.random.default_rng(_SEED).multinomial(count, frequencies / count, size=_RESAMPLES)
        resampled = statistic(drawn.astype(np.float64), rows)
        # A resample with one label only says nothing of chance.
        resampled = resampled[~np.isnan(resampled)]
        if len(resampled):
            tail = (1 - _COVERAGE) / 2
            low, high = (round(float(each), 6) for each in np.quantile(resampled, [tail, 1 - tail]))
    return Estimate(None if np.isnan(value) else round(value, 6), low, high, count)

"""Confidence intervals of paired differences by the bootstrap, and p-values adjusted for many metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["CONFIDENCE", "RESAMPLES", "Estimate", "adjusted", "paired"]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_LEAST = 3
_BATCH_CELLS = 2_000_000
"""Values drawn at once: bounds memory to some 50 MB however many cases there are."""

Array = NDArray[np.float64]


class Estimate(msgspec.Struct, frozen=True):
    """A difference between two variants over the same cases.

    Attributes:
        value: weighted mean of the candidate less that of the baseline; of a share, divided by the baseline's.
        low: lower end of the interval at :data:`CONFIDENCE`; None where too few cases allow no interval.
        high: upper end.
        p: two-sided p-value of no difference; None where there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None


def paired(
    baseline: Sequence[float],
    candidate: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    relative: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate | None:
    """Compare two variants case by case.

    Whole cases are drawn again, with both of their values, so that what makes a case hard bears on both sides alike. The
    interval is BCa (Efron 1987), which corrects for bias and skewness, taken at a wider level that makes up for how narrow
    the bootstrap is with few cases: sqrt(n / (n - 1)) times Student's quantile in place of the normal one (Hesterberg 2015,
    the expanded percentile interval). Where BCa is not defined, because a resampled statistic hardly varies, it is the
    percentile interval. The p-value inverts the plain percentile interval: twice the share of resamples on the other side
    of 0, at least 2 / (resamples + 1) (Davison and Hinkley 1997, section 4.4), and at least the smallest that flipping the
    signs of so many differences can give, 2 ** (1 - cases): three cases that agree may do so by chance.

    Args:
        baseline: value of each case, shape (cases,).
        candidate: value of the same cases.
        weights: how much each case counts; None for alike.
        relative: whether the difference is divided by the baseline's mean.
        seed: of the resampling: the same values give the same interval.
        resamples: number of resamples.
        confidence: coverage of the interval.

    Returns:
        The estimate; None without any case, or where it is to be divided by a baseline of 0. Below three cases, it has no
        interval: there is no telling how others would vary.
    """
    a, b = np.asarray(baseline, float), np.asarray(candidate, float)
    w = np.ones_like(a) if weights is None else np.asarray(weights, float)
    if not len(a) or (relative and not np.average(a, weights=w) > 0):
        return None
    statistic = _share if relative else _difference
    value = float(statistic(a, b, w, axis=-1))
    if len(a) < _LEAST:
        return Estimate(value, None, None, None)
    if np.ptp(b - a) == 0 and (not relative or value == 0):
        # Every case says the same: there is nothing to draw.
        return Estimate(value, value, value, 1.0 if value == 0 else max(2 / (resamples + 1), 2.0 ** (1 - len(a))))
    low, high, drawn = _interval(statistic, (a, b, w), seed, resamples, _expanded(confidence, len(a)))
    beyond = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p = min(1.0, 2 * (int(beyond) + 1) / (len(drawn) + 1))
    return Estimate(value, low, high, max(p, 2.0 ** (1 - len(a))))


def _interval(
    statistic: Callable[..., Any], data: tuple[Array, Array, Array], seed: int, resamples: int, confidence: float
) -> tuple[float, float, Array]:
    with warnings.catch_warnings():
        # A degenerate distribution is told by NaN, and handled.
        warnings.simplefilter("ignore")
        made = stats.bootstrap(
            data,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, _BATCH_CELLS // len(data[0])),
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    drawn = np.asarray(made.bootstrap_distribution, float)
    drawn = drawn[np.isfinite(drawn)]
    low, high = made.confidence_interval.low, made.confidence_interval.high
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high), drawn


def _expanded(confidence: float, cases: int) -> float:
    """The level at which the bootstrap covers about ``confidence`` with so few cases."""
    quantile = np.sqrt(cases / (cases - 1)) * stats.t.ppf((1 + confidence) / 2, cases - 1)
    return float(1 - 2 * stats.norm.cdf(-quantile))


def _difference(a: Array, b: Array, w: Array, axis: int = -1) -> Any:
    return np.sum(w * (b - a), axis=axis) / np.sum(w, axis=axis)


def _share(a: Array, b: Array, w: Array, axis: int = -1) -> Any:
    more, of = np.sum(w * (b - a), axis=axis), np.sum(w * a, axis=axis)
    # Nothing on both sides is no difference: without such draws one case that costs something would decide for certain.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((more == 0) & (of == 0), 0.0, more / of)


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number by Holm's method (Holm 1979); those that are None stay so.

    An adjusted value below 0.05 says: were none of the metrics changed, one as small as this among them would be seen in
    less than one run of twenty.
    """
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    result: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(ranked):
        largest = max(largest, min(1.0, p * (len(ranked) - rank)))
        result[index] = largest
    return result

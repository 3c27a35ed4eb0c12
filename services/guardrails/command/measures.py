"""Figures of scanners: what resampling and thresholds say. Pure; every function takes arrays over the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from penstock.measures import Booleans, Counts, Floats, area_under_roc, counts, operating_point

__all__ = ["FEW_ROWS", "intervals", "percentile", "sweep"]

FEW_ROWS = 2000
"""Up to so many rows an interval is told: with more it is narrower than the differences between data sets."""
_RESAMPLES = 500


def percentile(values: Sequence[float] | Floats, share: float) -> float:
    """The value that ``share`` (0 to 1) of ``values`` do not exceed, interpolated; 0 without values."""
    return float(np.quantile(np.asarray(values), share)) if len(values) else 0.0


def intervals(
    labels: Booleans, found: Booleans, scores: Floats, bound: float, seed: int = 0
) -> Mapping[str, tuple[float, float]]:
    """95 % intervals by bootstrap: 500 resamples of the positives and of the negatives, percentiles 2.5 and 97.5."""
    rng = np.random.default_rng(seed)
    positives, negatives = np.flatnonzero(labels), np.flatnonzero(~labels)
    drawn: dict[str, list[float]] = {}
    for _ in range(_RESAMPLES):
        rows = np.concatenate([rng.choice(part, len(part)) for part in (positives, negatives) if len(part)])
        sample = counts(labels[rows], found[rows])
        point = operating_point(labels[rows], scores[rows], bound)
        values: dict[str, float | None] = {
            "precision": sample.precision,
            "recall": sample.recall,
            "false_positive_rate": sample.false_positive_rate,
            "f1": sample.f1,
            "auc": area_under_roc(labels[rows], scores[rows]),
            "recall_at_fpr": None if point is None else point.recall,
        }
        for name, value in values.items():
            if value is not None:
                drawn.setdefault(name, []).append(value)
    return {name: (percentile(values, 0.025), percentile(values, 0.975)) for name, values in drawn.items()}


def sweep(labels: Booleans, scores: Floats, thresholds: Sequence[float]) -> list[tuple[float, Counts]]:
    """The counts at each threshold."""
    found_at: Callable[[float], Booleans] = lambda threshold: scores >= threshold  # noqa: E731
    return [(threshold, counts(labels, found_at(threshold))) for threshold in thresholds]

"""Windows of categories against what was before them: how far each is from chance. Stage 1 of categories.py."""

from __future__ import annotations

import math
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.drift.detection.category_windows import Block, Counts, Suffixes, Windows, cell_of, deviances

__all__ = ["PRIOR", "Scatter", "evidence_of_window", "repeated", "scattered", "stability_index", "statistics"]

PRIOR = 0.5
"""Of each cell, in counts: Jeffreys' for a multinomial."""
_BURSTS = 8.0
"""Degrees of freedom's worth of belief that events are independent, before blocks say otherwise."""
_MOST_DISPERSED = 8.0
_MEMORY = 2000.0
"""Events that the share of repetitions remembers."""


def stability_index(before: Counts, after: Counts) -> float:
    """Return the population stability index of two sets of counts over the same cells, smoothed by half a count."""
    p = (before + PRIOR) / (before.sum() + PRIOR * len(before))
    # A small window's empty cells must not count as moved: it is smoothed towards the reference.
    q = (after + p * PRIOR * len(before)) / (after.sum() + PRIOR * len(before))
    return float(np.sum((q - p) * np.log(q / p)))


def statistics(newest: Suffixes, before: Counts, dispersion: float) -> tuple[Counts, NDArray[np.intp]]:
    """Return a standard normal statistic of each window under no change, and the cell that moved most."""
    weights = before.sum(1, keepdims=True)
    cells = before.shape[1]
    expected = newest.sizes[:, None] * (before + PRIOR) / (weights + PRIOR * cells)
    found = deviances(newest.counts, expected) / ((1 + newest.sizes[:, None] / weights) * dispersion)
    mean, variance = _moments(expected)
    logs_of_cells = 2 * math.log(cells)
    overall = _normal(found.sum(1), mean, variance)
    strongest = found.argmax(1)
    single = np.sqrt(np.maximum(found.max(1) - logs_of_cells, 0.0))
    return np.maximum(overall, single), strongest


def _normal(total: Counts, mean: Counts, variance: Counts) -> Counts:
    """Return the normal score of a gamma variable: the cube root of Wilson and Hilferty (1931)."""
    spread = variance / (9 * mean**2)
    score: Counts = (np.cbrt(total / mean) - (1 - spread)) / np.sqrt(spread)
    return score


def _moments(expected: Counts) -> tuple[Counts, Counts]:
    """Return mean and variance of the deviance summed over cells; one degree of freedom goes for the known total."""
    grid, means, variances = _table()
    logs = np.log(np.maximum(expected, 1e-6))
    mean, variance = np.interp(logs, grid, means).sum(-1), np.interp(logs, grid, variances).sum(-1)
    left = np.maximum(mean - 1, 0.3 * mean)
    return left, variance * left / mean


@cache
def _table() -> tuple[Counts, Counts, Counts]:
    """Return mean and variance of a Poisson count's deviance over the logarithm of its expectation."""
    rates = np.exp(np.linspace(math.log(1e-6), math.log(200.0), 160))
    counts = np.arange(420.0)
    factorials = np.cumsum(np.log(np.maximum(counts, 1.0)))
    chances = np.exp(counts * np.log(rates)[:, None] - rates[:, None] - factorials)
    found = deviances(np.broadcast_to(counts, chances.shape), rates[:, None])
    means = (chances * found).sum(1)
    return np.log(rates), means, (chances * found**2).sum(1) - means**2


class Scatter(msgspec.Struct, frozen=True, array_like=True):
    """How much more than independent events a signal's events scatter."""

    deviance: float = 0.0
    expected: float = 0.0
    """Sums over blocks of the G-test's statistic and of what it is for independent events."""
    last: str = ""
    """Newest category."""
    repeats: float = 0.0
    events: float = 0.0
    chances: float = 0.0
    """How many were the same as the one before, of how many, and how many of independent events would have been."""

    @property
    def dispersion(self) -> float:
        """Variance of counts over that of independent events (McCullagh and Nelder, 1989, chapter 4)."""
        return max(1.0, (self.deviance + _BURSTS) / (self.expected + _BURSTS))

    @property
    def repetition(self) -> float:
        """Chance that an event repeats the one before instead of being drawn anew."""
        free = self.events - self.chances
        error = math.sqrt(self.chances * free / self.events) if self.events else 0.0
        return min(0.95, (max(0.0, self.repeats - self.chances - error) + 1) / (free + 2))

    @property
    def remaining(self) -> float:
        """Dispersion that is left when repetitions are taken for what they are."""
        return max(1.0, self.dispersion * (1 - self.repetition) / (1 + self.repetition))


def repeated(scatter: Scatter, category: str, windows: Windows) -> Scatter:
    """Count whether an event repeats the one before; ``windows`` as they were before it."""
    keep = 1 - 1 / _MEMORY if scatter.events >= _MEMORY else 1.0
    if not scatter.last:
        return msgspec.structs.replace(scatter, last=category)
    total = windows.totals
    chance = (total[cell_of(windows, scatter.last)] + PRIOR) / (windows.weight + PRIOR * len(total))
    return Scatter(
        scatter.deviance,
        scatter.expected,
        category,
        keep * scatter.repeats + (category == scatter.last),
        keep * scatter.events + 1,
        keep * scatter.chances + float(chance),
    )


def scattered(scatter: Scatter, windows: Windows, block: Block) -> Scatter:
    """Take in what a block says."""
    counts = np.frombuffer(block.counts, "<u2").astype(np.float64)
    before = windows.totals - counts
    weight = float(before.sum())
    expected = block.size * (before + PRIOR) / (weight + PRIOR * len(before))
    mean = float(_moments(expected)[0])
    found = float(deviances(counts, expected).sum()) / (1 + block.size / max(weight, 1.0))
    # A block of changed events says nothing about bursts.
    return msgspec.structs.replace(
        scatter,
        deviance=scatter.deviance + min(found, _MOST_DISPERSED * mean),
        expected=scatter.expected + mean,
    )


def evidence_of_window(reference: Counts, window: Counts) -> float:
    """Return the log likelihood ratio of a window's counts: their own Dirichlet-multinomial against the reference's."""
    cells = len(reference)
    shares = (reference + PRIOR) / (reference.sum() + PRIOR * cells)
    own, usual = cells * PRIOR * shares, reference + PRIOR
    return _log_marginal(window, own) - _log_marginal(window, usual)


def _log_marginal(counts: Counts, prior: Counts) -> float:
    total = float(prior.sum())
    found = math.lgamma(total) - math.lgamma(total + float(counts.sum()))
    for count, alpha in zip(counts, prior, strict=True):
        if count:
            found += math.lgamma(alpha + count) - math.lgamma(alpha)
    return found

"""What a change of a mixture looks like: its shares, whether it was there before, and whether it came gradually."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from services.drift.detection.category_scan import PRIOR, evidence_of_window
from services.drift.detection.category_windows import Counts, Windows, cell_of

__all__ = ["Regime", "distance", "ramps", "recurring", "regime_of", "shares_by_name"]

_KEPT = 12
"""Categories of a past regime that are kept by name."""
_HEAVIEST = 400
"""Events' worth of certainty about a past regime."""
_SAME = 1.0
"""Nats by which its own mixture may fit a new state better than a past regime that it is taken for."""
_RAMP = 3.5
"""Times the variance of an event's score, by which the squares that a ramp leaves are fewer than a step's. When a change is
confirmed there is little to tell by: of steps one in ten is taken for a ramp, of ramps a third is recognised at once."""


class Regime(msgspec.Struct, frozen=True, array_like=True):
    """Shares of a state of things that is past."""

    shares: dict[str, float]
    weight: int


def shares_by_name(names: tuple[str, ...], counts: Counts, beside: Counts | None = None) -> dict[str, float]:
    """Return the shares of the names that have one, here or ``beside``, the largest first."""
    total = max(float(counts.sum()), 1.0)
    found = {
        name: float(counts[cell]) / total
        for cell, name in enumerate(names)
        if counts[cell] or (beside is not None and beside[cell])
    }
    found = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    other = float(counts[len(names) :].sum()) / total
    if other or (beside is not None and beside[len(names) :].any()):
        found["other"] = other
    return found


def regime_of(names: tuple[str, ...], counts: Counts) -> Regime:
    shares = shares_by_name(names, counts)
    kept = {name: shares[name] for name in [name for name in shares if name != "other"][:_KEPT]}
    return Regime(kept | {"other": max(0.0, 1 - sum(kept.values()))}, int(counts.sum()))


def recurring(windows: Windows, after: Counts, before: Counts, regimes: tuple[Regime, ...]) -> int | None:
    """Return which past regime the new state of things is: one that explains it as well as a mixture of its own would,
    and far better than the state before does."""
    best, nearest = None, _SAME
    for index, regime in enumerate(regimes):
        weight = min(regime.weight, _HEAVIEST)
        then, now = _aligned(windows, regime.shares, after)
        _, left = _aligned(windows, regime.shares, before)
        against = evidence_of_window(then * weight, now)
        moved = float(np.abs(then - left / left.sum()).sum()) / 2
        if against < nearest and float(np.abs(then - now / now.sum()).sum()) / 2 < 0.6 * moved:
            best, nearest = index, against
    return best


def distance(windows: Windows, counts: Counts, regime: Regime) -> float:
    """Return the share of the events in which a mixture differs from a past regime."""
    then, now = _aligned(windows, regime.shares, counts)
    return float(np.abs(then - now / max(float(now.sum()), 1.0)).sum()) / 2


def _aligned(windows: Windows, shares: Mapping[str, float], counts: Counts) -> tuple[Counts, Counts]:
    """Return shares then and counts now of the names of a regime and of all others."""
    cells = [(name, cell) for cell, name in enumerate(windows.names) if name in shares]
    then = [shares[name] for name, _ in cells]
    now = [float(counts[cell]) for _, cell in cells]
    others = max(0.0, 1 - sum(then)), float(counts.sum()) - sum(now)
    return np.array([*then, others[0]]), np.array([*now, max(0.0, others[1])])


def ramps(windows: Windows, before: Counts, after: Counts) -> bool:
    """Tell whether a ramp fits the way from before to after better than a step.

    Each event scores the log of its cell's share after over that before, so that one number follows the change.
    """
    cells = len(before)
    p = (before + PRIOR) / (before.sum() + PRIOR * cells)
    q = (after + PRIOR) / (after.sum() + PRIOR * cells)
    scores = np.clip(np.log(q / p), -3, 3)
    groups = [(block.size, float(np.frombuffer(block.counts, "<u2") @ scores)) for block in windows.blocks]
    recent = [float(scores[cell_of(windows, name)]) for name in windows.recent]
    groups += [(len(part), sum(part)) for part in (recent[start : start + 8] for start in range(0, len(recent), 8))]
    sizes = np.array([size for size, _ in groups], np.float64)
    # The change and as much again before it.
    reach = np.cumsum(sizes[::-1])[::-1] <= max(4.0 * float(after.sum()), 400.0)
    sizes = sizes[reach]
    if len(sizes) < 6:
        return False
    means = np.array([total for _, total in groups])[reach] / sizes
    middles = np.cumsum(sizes) - sizes / 2
    best_step = min(
        _squares(means, sizes, (np.arange(len(sizes)) >= cut).astype(float)) for cut in range(1, len(sizes))
    )
    best_ramp = min(
        _squares(means, sizes, np.maximum(middles - middles[start], 0.0)) for start in range(len(sizes) - 3)
    )
    noise = float(p @ (scores - p @ scores) ** 2)
    return best_ramp < best_step - _RAMP * noise


def _squares(means: Counts, sizes: Counts, shape: Counts) -> float:
    """Return the weighted squares that are left of ``means`` after a straight line in ``shape``."""
    weight = sizes.sum()
    x, y = shape - (shape @ sizes) / weight, means - (means @ sizes) / weight
    slope = (x * sizes) @ y / max((x * sizes) @ x, 1e-12)
    return float(((y - slope * x) ** 2) @ sizes)

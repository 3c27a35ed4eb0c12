"""Tests that may be looked at after every label: wealth that a bet against the hypothesis makes.

A bettor who stakes a share of the wealth on each outcome cannot expect to gain while the hypothesis holds, however the
outcomes depend on those before. By Ville's inequality the chance that the wealth ever reaches ``1 / alpha`` is then at most
``alpha``, whenever one stops. (Waudby-Smith and Ramdas, 2023, "Estimating means of bounded random variables by betting",
Journal of the Royal Statistical Society B 86; the stake is their aGRAPA.)
"""

from __future__ import annotations

import math

import msgspec

__all__ = ["Wager", "suspicion", "wagered"]

_MOST = 0.75
"""Largest share staked: an outcome of -1 leaves a quarter of the wealth."""
_DOUBT = 0.05
"""Second moment that the first outcomes are taken to have beside their own: early stakes stay small."""


class Wager(msgspec.Struct, frozen=True, array_like=True):
    """A bet that outcomes within [-1, 1] have a mean above 0: how many there were, their sum and sum of squares, and the
    natural logarithm of the wealth."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    log_wealth: float = 0.0

    @property
    def mean(self) -> float:
        """Mean outcome; 0 where there was none."""
        return self.total / self.count if self.count else 0.0


def wagered(wager: Wager, outcome: float) -> Wager:
    """Return the wager after ``outcome``, with the stake that the outcomes before it suggest.

    Raises:
        ValueError: the outcome is not within [-1, 1].
    """
    if not -1.0 <= outcome <= 1.0:
        raise ValueError(f"an outcome of {outcome} is not within [-1, 1]")
    stake = min(max(wager.total / (wager.squares + _DOUBT), 0.0), _MOST) if wager.count else 0.0
    return Wager(
        wager.count + 1,
        wager.total + outcome,
        wager.squares + outcome * outcome,
        wager.log_wealth + math.log1p(stake * outcome),
    )


def suspicion(before: float, contradicts: bool, expected: float) -> float:
    """Return the cumulative evidence that somebody contradicts more often than ``expected``, in nats, never below 0.

    A CUSUM of the log-likelihood ratio between a rate half-way from ``expected`` to 1 and ``expected``. While the rate is at
    most ``expected``, it takes ``exp(h)`` labels or more on average until it reaches ``h`` (Lorden, 1971).

    Args:
        before: evidence so far.
        contradicts: whether the label does.
        expected: rate that is nobody's fault, within (0, 1).
    """
    suspected = (1.0 + expected) / 2
    ratio = suspected / expected if contradicts else (1 - suspected) / (1 - expected)
    return max(0.0, before + math.log(ratio))

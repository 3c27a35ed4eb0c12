"""Tests that are valid at every look: confidence sequences of a difference of means, and of the ratio of arms. Pure.

A fixed-horizon test that is looked at again and again rejects sooner or later, whatever is true. These bounds hold at all
times together, so a decision may be taken the moment one is crossed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Bound", "ratio_evidence"]

# The mixture is tightest at about so many requests in the smaller half of the sample (n0 n1 / (n0 + n1)): 1,000 an arm.
# At ten times as many, or a tenth, intervals are some percent wider than the best for that size.
_TUNED_TO = 500.0
# Standard deviation of a share around its expected value that the ratio's alternative allows for: 1 / sqrt(4 * 101), 5
# percentage points of a half.
_CONCENTRATION = 100.0


class Bound:
    """The two-sided normal mixture bound at one level.

    For an estimate with standard error s, from which ``kappa`` times as much is known as the mixture's prior says, and in
    truth no difference, P(exists t: |estimate_t| >= z_t s_t) <= alpha with

        z_t^2 = (1 + 1 / kappa_t) (2 ln(1 / alpha) + ln(1 + kappa_t))

    (Robbins 1970; as an asymptotic confidence sequence Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021, theorem 2.2; as
    mixture SPRT Johari, Pekelis and Walsh 2017). ``kappa`` grows with the sample; how fast is tuned as equation 14 of the
    second says. The standard error comes from few clusters, so z is widened to the t quantile of the same tail by the
    approximation of Wallace (1959), z = (8v + 1) / (8v + 3) sqrt(v ln(1 + t^2 / v)).

    Args:
        alpha: chance that the truth is outside at any time.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        log_odds = -2 * math.log(alpha)
        self._rate = (log_odds + math.log(log_odds + 1)) / _TUNED_TO

    def width(self, size: float, freedom: float) -> float:
        """Return how many standard errors the interval reaches to either side.

        Args:
            size: requests in the smaller half of the sample, n0 n1 / (n0 + n1).
            freedom: degrees of freedom of the standard error.
        """
        kappa = self._rate * size
        squared = (1 + 1 / kappa) * (2 * math.log(1 / self.alpha) + math.log1p(kappa))
        correction = (8 * freedom + 3) / (8 * freedom + 1)
        return math.sqrt(freedom * math.expm1(min(correction * correction * squared / freedom, 700.0)))

    def p_value(self, statistic: float, size: float, freedom: float) -> float:
        """Return the least level at which an estimate of ``statistic`` standard errors would be outside, now.

        The smallest of all times is an always-valid p-value.
        """
        kappa = self._rate * size
        correction = (8 * freedom + 1) / (8 * freedom + 3)
        squared = correction * correction * freedom * math.log1p(statistic * statistic / freedom)
        return min(1.0, math.exp(0.5 * math.log1p(kappa) - 0.5 * squared * kappa / (1 + kappa)))


def ratio_evidence(counts: Sequence[int], weights: Sequence[int]) -> float:
    """Return the p-value, now, of units having been assigned by ``weights``; the smallest of all times is always valid.

    One over the Bayes factor of multinomial shares with a Dirichlet prior around the expected ones, against just those
    (Lindon and Malek 2022, "Anytime-valid inference for multinomial count data").

    Args:
        counts: units by arm; each counts once.
        weights: of the arms.
    """
    total = sum(weights)
    log_factor = math.lgamma(_CONCENTRATION) - math.lgamma(_CONCENTRATION + sum(counts))
    for count, weight in zip(counts, weights, strict=True):
        share = weight / total
        prior = _CONCENTRATION * share
        log_factor += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return min(1.0, math.exp(min(0.0, -log_factor)))

"""Evidence for a change, from values that came after a candidate only.

Each function returns the logarithm (nats) of a likelihood ratio of two predictive distributions of the fresh values:
"as the candidate's window says" over "as the reference says", both with the uncertainty of their own finite counts.
Under no change the ratio is a martingale that starts at 1, so by Ville's inequality it ever reaches ``1 / alpha`` with
a chance of at most ``alpha``: it may be looked at after every value (Ville 1939; Ramdas et al., "Game-theoretic
statistics and safe anytime-valid inference", 2023).

``inflation`` is the long-run variance over the variance: of values that depend on the ones before them, so many are
worth one. The logarithm is divided by it, which for normal values is the same as to widen both distributions.
"""

from __future__ import annotations

import math

__all__ = ["beta_binomial", "normal", "refund", "spend"]

# Jeffreys' prior of a rate.
_PRIOR = 0.5


def normal(
    before_mean: float,
    before_count: float,
    after_mean: float,
    after_count: float,
    deviation: float,
    fresh_mean: float,
    fresh_count: int,
    inflation: float = 1.0,
) -> float:
    """Return the evidence of a mean of fresh values, normal with a known standard deviation.

    The mean of ``k`` fresh values is ``N(m1, s^2 (1/k + 1/n1))`` after a change and ``N(m0, s^2 (1/k + 1/n0))``
    without one. Both predictive distributions are those under a flat prior on the mean.
    """
    if not fresh_count:
        return 0.0
    variance = deviation * deviation
    after = variance * (1 / fresh_count + 1 / after_count)
    before = variance * (1 / fresh_count + 1 / before_count)
    exponent = (fresh_mean - before_mean) ** 2 / before - (fresh_mean - after_mean) ** 2 / after
    return 0.5 * (exponent - math.log(after / before)) / inflation


def beta_binomial(
    before_ones: float,
    before_count: float,
    after_ones: float,
    after_count: float,
    fresh_ones: float,
    fresh_count: int,
    inflation: float = 1.0,
) -> float:
    """Return the evidence of fresh zeros and ones: exact for any counts, with Jeffreys' prior on both rates."""
    if not fresh_count:
        return 0.0
    after = _log_predictive(after_ones, after_count, fresh_ones, fresh_count)
    before = _log_predictive(before_ones, before_count, fresh_ones, fresh_count)
    return (after - before) / inflation


def spend(wealth: float, share: float) -> tuple[float, float]:
    """Take a candidate's ``alpha`` out of the wealth.

    Returns:
        ``alpha`` and what is left. The expected number of false alarms is at most the sum of all ``alpha``, and so at
        most what the wealth accrued (alpha spending; Foster & Stine, "alpha-investing", 2008, without the reward).
    """
    alpha = wealth * share
    return alpha, wealth - alpha


def refund(alpha: float, evidence: float) -> float:
    """Return what goes back to the wealth when a candidate with so much evidence (nats) is given up.

    Wherever it is stopped, the expectation of the likelihood ratio is 1 under no change, of which an alarm has at least
    ``1 / alpha``: ``1 >= P(alarm) / alpha + E[ratio; given up]``. So the chance of an alarm is at most
    ``alpha - E[alpha * ratio; given up]``, and the second part was not spent.
    """
    return alpha * math.exp(min(evidence, 0.0))


def _log_predictive(ones: float, count: float, fresh_ones: float, fresh_count: int) -> float:
    """Return the log-probability of one sequence with so many ones (the binomial factor cancels in the ratio)."""
    a, b = ones + _PRIOR, count - ones + _PRIOR
    return _log_beta(a + fresh_ones, b + fresh_count - fresh_ones) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

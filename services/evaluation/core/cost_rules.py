"""When costs are an alert: the parameters of the watches in this folder, calibrated by tests/bench/bench_cost_alerts.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

__all__ = ["CacheRateRules", "CostWatchRules", "PriceChangeRules", "SpendRateRules"]


@dataclass(frozen=True, slots=True)
class SpendRateRules:
    """When the rate of spending is an anomaly.

    Attributes:
        least_calls: calls with an amount before anything is learned of the key.
        least_hours: whole hours that must have been learned before the rate is judged.
        factor: the rate must be this many times the usual one of the hour of the week.
        cold_factor: the same where that hour of the week has not been seen yet; against the busiest hour so far.
        critical_factor: from this many times on the alert is critical.
        deviations: and lie so many standard deviations of the key's own residuals above it.
        least_excess: and by so much above it, USD an hour: less is not worth a person's time.
        confirm_minutes: distinct minutes of event time in which all of it must have held.
        resolve_factor: the rate is back below this many times the usual one.
        resolve_minutes: over so long, minutes of event time.
        repeat_after: an alert that goes on is not repeated before.
        accept_after: a rate that stayed up for so long is the usual one from then on.
        dearest_at: a call counts with at most the median cost times exp(this many deviations of its logarithm).
    """

    least_calls: int = 50
    least_hours: int = 24
    factor: float = 2.0
    cold_factor: float = 4.0
    critical_factor: float = 8.0
    deviations: float = 3.5
    least_excess: float = 0.25
    confirm_minutes: int = 3
    resolve_factor: float = 1.5
    resolve_minutes: int = 15
    repeat_after: timedelta = timedelta(hours=1)
    accept_after: timedelta = timedelta(hours=24)
    dearest_at: float = 1.5


@dataclass(frozen=True, slots=True)
class PriceChangeRules:
    """When a changed price is told.

    Attributes:
        least_calls: calls at the new price, for figures that mean something.
        longest_wait: after this it is told with fewer.
        warn_above: rise from which it is a warning, as a share of what the last day's usage cost.
        settle: an earlier version is back in force when the present one has not been seen for so long.
        flap: a version that was told, or first seen, less than this before is not told again.
    """

    least_calls: int = 20
    longest_wait: timedelta = timedelta(minutes=15)
    warn_above: float = 0.05
    settle: timedelta = timedelta(hours=1)
    flap: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class CacheRateRules:
    """When a cache's hit rate has fallen.

    Attributes:
        batch_calls: calls of one value: the detector sees the shares of batches.
        least_batches: values before a fall is looked for.
        least_fall: fall of the share, absolute.
        least_relative_fall: fall relative to the share before.
        least_cost: what the fall costs, USD a day.
        threshold: of the Page-Hinkley test, standard deviations of a value summed up.
        delta: of the Page-Hinkley test: what is no fall, standard deviations.
        confirm_batches: values after the finding that must lie low, on average, at the least.
        confirm_most: values after which a finding that was not confirmed is given up.
        resolve_batches: values over which the share must be back.
        repeat_after: an alert that goes on is not repeated before.
        accept_after: a share that stayed low for so long is the usual one from then on.
    """

    batch_calls: int = 25
    least_batches: int = 12
    least_fall: float = 0.1
    least_relative_fall: float = 0.25
    least_cost: float = 1.0
    threshold: float = 8.0
    delta: float = 0.5
    confirm_batches: int = 3
    confirm_most: int = 8
    resolve_batches: int = 4
    repeat_after: timedelta = timedelta(hours=6)
    accept_after: timedelta = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class CostWatchRules:
    """All parameters.

    Attributes:
        spend_rate: of the rate of spending.
        price_change: of changed prices.
        cache_rate: of the caches' hit rates.
        idle: a key without a cost for so long is forgotten.
    """

    spend_rate: SpendRateRules = field(default_factory=SpendRateRules)
    price_change: PriceChangeRules = field(default_factory=PriceChangeRules)
    cache_rate: CacheRateRules = field(default_factory=CacheRateRules)
    idle: timedelta = timedelta(days=15)

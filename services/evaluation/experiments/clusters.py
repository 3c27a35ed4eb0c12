"""Means of requests whose units (users) make several, in a state of a fixed size. Pure.

Requests of one user depend on each other, so their number says little of how sure a mean is. Users are independent. To
keep no user apart, units are spread over buckets by their hash, and each bucket keeps its sum and its count: buckets hold
different users, so they are independent too, whatever the users within do. The mean of an arm is the ratio of its sums;
its variance comes from how the buckets differ (the delta method for ratios over clusters: Deng, Knoblich and Lu 2018).

What is approximate: the variance is estimated from as many values as there are buckets, and from fewer where some users
make most of the requests. Degrees of freedom account for that (Carter, Schnepel and Steigerwald 2017).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock.config.kinds import Metric

__all__ = ["BUCKETS", "Difference", "Estimate", "added", "bucket_of", "difference", "empty", "estimate", "quantised"]

BUCKETS = 64
"""Buckets of an arm. More would narrow intervals by some percent and make the state larger by as much as they are."""
# Values are kept as integers, so that sums do not depend on the order of events: parts of the range between the bounds.
_QUANTA = 2**40
# Fewer say nothing of how they differ.
_LEAST_CLUSTERS = 12.0
_LEAST_REQUESTS = 30.0

_CELL = struct.Struct("<q")
_Block = NDArray[np.int64]


def empty(metrics: int) -> bytes:
    """Return an arm without a request: sums and counts by metric and bucket, 64-bit integers."""
    return bytes(metrics * 2 * BUCKETS * _CELL.size)


def bucket_of(unit: str) -> int:
    """Return the bucket of a unit (16 hex digits)."""
    return int(unit, 16) % BUCKETS


def quantised(value: float, metric: Metric) -> int:
    """Return ``value``, clipped to the metric's bounds, as an integer: 0 at the lower, 2 ** 40 at the upper one."""
    width = metric.upper_bound - metric.lower_bound
    clipped = min(max(value, metric.lower_bound), metric.upper_bound)
    return round((clipped - metric.lower_bound) / width * _QUANTA)


def added(block: bytes, metric: int, bucket: int, quanta: int, count: int) -> bytes:
    """Return ``block`` with ``quanta`` more in the sum and ``count`` more requests."""
    copy = bytearray(block)
    for place, more in ((metric * 2 * BUCKETS + bucket, quanta), ((metric * 2 + 1) * BUCKETS + bucket, count)):
        _CELL.pack_into(copy, place * _CELL.size, _CELL.unpack_from(copy, place * _CELL.size)[0] + more)
    return bytes(copy)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of an arm, as a share of the range between the metric's bounds.

    Attributes:
        variance: of the mean.
        freedom: degrees of freedom of the variance.
        requests: that it is the mean of.
    """

    mean: float
    variance: float
    freedom: float
    requests: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How far an arm is from the control, in the same unit.

    Attributes:
        error: standard error of ``mean``.
        freedom: its degrees of freedom (Welch and Satterthwaite).
        size: requests in the smaller half of the sample, n0 n1 / (n0 + n1).
    """

    mean: float
    error: float
    freedom: float
    size: float


def estimate(block: bytes, metric: int, reach: float) -> Estimate | None:
    """Return the mean of a metric in an arm, or None where there is no request.

    Args:
        reach: the furthest that values were seen apart, as a share of the range. One more request so far from the mean is
            counted in the variance: an arm that has not failed yet is not one that cannot.
    """
    of_arm: _Block = np.frombuffer(block, dtype="<i8").reshape(-1, 2, BUCKETS)
    sums = of_arm[metric, 0] / _QUANTA
    counts = of_arm[metric, 1].astype(np.float64)
    requests = float(counts.sum())
    if requests == 0:
        return None
    mean = float(sums.sum()) / requests
    clusters = requests * requests / float(counts @ counts)
    apart = sums - mean * counts
    scale = clusters / max(clusters - 1, 0.5)
    variance = (float(apart @ apart) * scale + reach * reach) / (requests * requests)
    return Estimate(mean, variance, clusters - 1, requests)


def difference(arm: Estimate, control: Estimate) -> Difference | None:
    """Return how far ``arm`` is from ``control``, or None while either is of too few units or requests to say."""
    fewest = min(arm.freedom, control.freedom) + 1
    if fewest < _LEAST_CLUSTERS or min(arm.requests, control.requests) < _LEAST_REQUESTS:
        return None
    variance = arm.variance + control.variance
    parts = arm.variance**2 / arm.freedom + control.variance**2 / control.freedom
    freedom = variance**2 / parts if parts > 0 else arm.freedom + control.freedom
    size = arm.requests * control.requests / (arm.requests + control.requests)
    return Difference(arm.mean - control.mean, variance**0.5, freedom, size)

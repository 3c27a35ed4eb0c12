"""Streams of an experiment's requests with a known truth, and the tests that look at them again and again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock.config.kinds import Metric
from scipy import stats

from services.evaluation.experiments.clusters import BUCKETS, difference, estimate
from services.evaluation.experiments.sequential import Bound

__all__ = ["METRICS", "Stream", "Truth", "first_rejections", "stream"]

METRICS = {
    "answer.groundedness": Metric(name="answer.groundedness"),
    "completed": Metric(name="completed"),
    "latency_ms": Metric(name="latency_ms", upper_bound=60_000, better="lower"),
    "cost": Metric(name="cost", upper_bound=0.05, better="lower"),
}


@dataclass(frozen=True)
class Truth:
    """How requests come about.

    Attributes:
        metric: which of METRICS.
        effect: what the arm changes: added to the score (or the share that completes), or a factor on latency and cost.
        users: there are; fewer make more requests each.
        activity: exponent of Zipf's law of who sends; 0 for users alike.
        spread: standard deviation of users' own level, in that of a request.
    """

    metric: str
    effect: float = 0.0
    users: int = 2_000
    activity: float = 0.6
    spread: float = 0.7


@dataclass(frozen=True)
class Stream:
    """Requests in order: the user, arm (0 or 1) and value of each."""

    user: NDArray[np.int64]
    arm: NDArray[np.int64]
    value: NDArray[np.float64]


def stream(truth: Truth, requests: int, rng: np.random.Generator) -> Stream:
    """Draw a stream of ``requests``."""
    weights = np.arange(1, truth.users + 1) ** -truth.activity
    user = rng.choice(truth.users, size=requests, p=weights / weights.sum())
    arm = rng.integers(0, 2, size=truth.users)[user]
    own = rng.normal(size=truth.users)[user] * truth.spread
    noise = rng.normal(size=requests)
    if truth.metric == "answer.groundedness":
        value = 1 / (1 + np.exp(-(1.0 + 0.8 * (own + noise)))) + truth.effect * arm
    elif truth.metric == "completed":
        odds = 1 / (1 + np.exp(-(4.0 + own)))
        value = (rng.random(requests) < np.clip(odds + truth.effect * arm, 0, 1)).astype(float)
    else:
        # Log-normal with a tail as of real latencies; one in a hundred requests is ten times as slow.
        slow = np.where(rng.random(requests) < 0.01, 10.0, 1.0)
        scale = 900.0 if truth.metric == "latency_ms" else 2e-4
        value = scale * np.exp(0.8 * (own + noise)) * slow * (1 + truth.effect * arm)
    return Stream(user, arm, value)


def first_rejections(data: Stream, metric: Metric, alpha: float, looks: int) -> dict[str, int | None]:
    """Return for each test after how many requests it first says that the arms differ, if ever, at ``looks`` looks.

    ``sequential`` is the experiment's own; ``t_users`` is Welch's t-test on the means of users at the level of a single
    look, ``t_requests`` the same on requests as if none depended on another; ``t_once`` is ``t_users`` at the last look
    only.
    """
    ends = np.unique(np.linspace(0, len(data.value), looks + 1, dtype=int)[1:])
    clipped = np.clip(data.value, metric.lower_bound, metric.upper_bound)
    found: dict[str, int | None] = dict.fromkeys(("sequential", "t_users", "t_requests", "t_once"))
    tests: dict[str, Iterator[bool]] = {
        "sequential": _sequential(data, clipped, metric, alpha, ends),
        "t_users": _welch(data.user, data.arm, clipped, alpha, ends),
        "t_requests": _welch(np.arange(len(clipped)), data.arm, clipped, alpha, ends),
    }
    for name, rejects in tests.items():
        for end, rejected in zip(ends, rejects, strict=True):
            if rejected and found[name] is None:
                found[name] = int(end)
            if name == "t_users" and rejected and end == ends[-1]:
                found["t_once"] = int(end)
    return found


def _sequential(
    data: Stream, value: NDArray[np.float64], metric: Metric, alpha: float, ends: NDArray[np.int64]
) -> Iterator[bool]:
    bound = Bound(alpha)
    width = metric.upper_bound - metric.lower_bound
    quanta = np.rint((value - metric.lower_bound) / width * 2**40).astype(np.int64)
    # Users' numbers are their hashes here: they were drawn at random, and so was each one's activity.
    cell = _scattered(data.user) % BUCKETS
    blocks = np.zeros((2, 1, 2, BUCKETS), dtype="<i8")
    begin, low, high = 0, quanta[0], quanta[0]
    for end in ends:
        part = slice(begin, end)
        np.add.at(blocks[:, 0, 0], (data.arm[part], cell[part]), quanta[part])
        np.add.at(blocks[:, 0, 1], (data.arm[part], cell[part]), 1)
        low, high, begin = min(low, quanta[part].min()), max(high, quanta[part].max()), end
        reach = float(high - low) / 2**40
        control, arm = (estimate(block.tobytes(), 0, reach) for block in blocks)
        apart = None if control is None or arm is None else difference(arm, control)
        yield apart is not None and abs(apart.mean) > bound.width(apart.size, apart.freedom) * apart.error


def _welch(
    unit: NDArray[np.int64], arm: NDArray[np.int64], value: NDArray[np.float64], alpha: float, ends: NDArray[np.int64]
) -> Iterator[bool]:
    units = int(unit.max()) + 1
    sums, counts, of_unit = np.zeros(units), np.zeros(units), np.zeros(units, dtype=np.int64)
    begin = 0
    for end in ends:
        part = slice(begin, end)
        np.add.at(sums, unit[part], value[part])
        np.add.at(counts, unit[part], 1)
        of_unit[unit[part]] = arm[part]
        begin = end
        seen = counts > 0
        means, arms = sums[seen] / counts[seen], of_unit[seen]
        one, other = means[arms == 0], means[arms == 1]
        if min(len(one), len(other)) < 15:
            yield False
            continue
        variances = one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)
        error = math.sqrt(sum(variances))
        if error == 0:
            yield False
            continue
        freedom = sum(variances) ** 2 / (variances[0] ** 2 / (len(one) - 1) + variances[1] ** 2 / (len(other) - 1))
        yield bool(abs(one.mean() - other.mean()) > stats.t.ppf(1 - alpha / 2, freedom) * error)


def _scattered(user: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return numbers that spread users over buckets as a hash does (SplitMix64's finaliser, Steele et al. 2014)."""
    mixed = user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    return (mixed >> np.uint64(1)).astype(np.int64)

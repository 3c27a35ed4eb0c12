"""Stage 2 for numbers: a candidate, judged by the values that come after it."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from services.drift import evidence
from services.drift.scan import Candidate

__all__ = ["JudgementParameters", "Pending", "Verdict", "evidence_of", "joined", "opened", "verdict_on"]

Verdict = Literal["undecided", "confirmed", "outlier", "abandoned"]


class JudgementParameters(msgspec.Struct, frozen=True):
    """How candidates are judged."""

    least: int = 3
    """Fresh values before a candidate can be confirmed."""
    abandon: float = -2.5
    """Evidence, nats, at which a candidate is given up."""
    patience: int = 400
    """Fresh values after which a candidate that is still undecided is given up."""
    burst_size: float = 2.5
    """Deviations from which a change may be a burst of outliers: it is waited until one would be over."""
    burst: int = 25
    """Longest burst of outliers, in values."""
    burst_end: float = 6.0
    """Nats by which the values after a burst must speak for the reference."""


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """A candidate that waits for its evidence; codes."""

    alpha: float
    rate: bool
    start: int
    """Index, since the reference began, of the first value after the change."""
    before_mean: float
    before_count: int
    deviation: float
    after_mean: float
    after_count: int
    inflation: float
    fresh_count: int = 0
    fresh_sum: float = 0.0
    highest: float = 0.0
    """The highest evidence so far, nats."""
    ended: float = 0.0
    """How much likelier the reference is than the change for the newest values, nats (a CUSUM)."""
    ended_count: int = 0

    @property
    def threshold(self) -> float:
        """The evidence that is needed, nats."""
        return -math.log(self.alpha)

    @property
    def count(self) -> int:
        """Values since the change."""
        return self.after_count + self.fresh_count

    @property
    def mean(self) -> float:
        """Mean code since the change."""
        return (self.after_mean * self.after_count + self.fresh_sum) / self.count

    @property
    def size(self) -> float:
        """The change in the reference's deviations, with its sign."""
        return (self.mean - self.before_mean) / self.deviation


def opened(candidate: Candidate, seen: int, rate: bool, inflation: float, alpha: float) -> Pending:
    """Return a candidate as nothing fresh has come yet."""
    return Pending(
        alpha=alpha,
        rate=rate,
        start=seen - candidate.after_count,
        before_mean=candidate.before_mean,
        before_count=candidate.before_count,
        deviation=candidate.deviation,
        after_mean=candidate.after_mean,
        after_count=candidate.after_count,
        inflation=inflation,
    )


def evidence_of(pending: Pending) -> float:
    """Return the evidence of the fresh values, nats."""
    if not pending.fresh_count:
        return 0.0
    if pending.rate:
        return evidence.beta_binomial(
            pending.before_mean * pending.before_count,
            pending.before_count,
            pending.after_mean * pending.after_count,
            pending.after_count,
            pending.fresh_sum,
            pending.fresh_count,
            pending.inflation,
        )
    return evidence.normal(
        pending.before_mean,
        pending.before_count,
        pending.after_mean,
        pending.after_count,
        pending.deviation,
        pending.fresh_sum / pending.fresh_count,
        pending.fresh_count,
        pending.inflation,
    )


def joined(pending: Pending, code: float) -> tuple[Pending, float]:
    """Add a fresh value; return the evidence with it."""
    against = max(pending.ended + _against(pending, code), 0.0)
    added = msgspec.structs.replace(
        pending,
        fresh_count=pending.fresh_count + 1,
        fresh_sum=pending.fresh_sum + code,
        ended=against,
        ended_count=pending.ended_count + 1 if against else 0,
    )
    found = evidence_of(added)
    return (msgspec.structs.replace(added, highest=found) if found > added.highest else added), found


def verdict_on(pending: Pending, found: float, parameters: JudgementParameters) -> Verdict:
    """Decide on a candidate with so much evidence."""
    crossed = pending.highest >= pending.threshold
    if abs(pending.size) >= parameters.burst_size or (crossed and pending.ended_count):
        # Too far off to be taken for a new state before a burst of outliers would be over.
        lasted = pending.count - pending.ended_count
        if crossed and pending.ended >= parameters.burst_end and 3 <= lasted <= parameters.burst:
            return "outlier"
        if pending.count < parameters.burst or (pending.ended_count >= 3 and pending.count < 2 * parameters.burst):
            return "undecided"
    if found >= pending.threshold and pending.fresh_count >= parameters.least:
        return "confirmed"
    if found <= parameters.abandon or pending.fresh_count >= parameters.patience:
        return "abandoned"
    return "undecided"


def _against(pending: Pending, code: float) -> float:
    """Return the log-likelihood ratio of one value, the reference over the change."""
    if pending.rate:
        before = (pending.before_mean * pending.before_count + 0.5) / (pending.before_count + 1)
        after = (pending.mean * pending.count + 0.5) / (pending.count + 1)
        return math.log(before / after) if code else math.log((1 - before) / (1 - after))
    after = pending.after_mean
    return ((code - after) ** 2 - (code - pending.before_mean) ** 2) / (2 * pending.deviation**2)

"""Stage 2 for numbers: a candidate, judged by the values that come after it."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from services.drift.detection import evidence
from services.drift.detection.scan import Candidate

__all__ = ["JudgementParameters", "Pending", "Verdict", "evidence_of", "joined", "opened", "verdict_on"]

# Parts of the change that a candidate's window shows: of the alternative's mixture, and still there as it has not ended.
_PARTS = {1.0: 0.35, 0.6: 0.35, 0.36: 0.2, 0.2: 0.1}
_REMNANT = 0.4
# Part of what the choice of the split may add to the evidence that is taken off, by measurement.
_SELECTED = 0.5
_SELECTED_RATE = 0.25

Verdict = Literal["undecided", "confirmed", "outlier", "abandoned"]


class JudgementParameters(msgspec.Struct, frozen=True):
    """How candidates are judged."""

    least: int = 3
    """Fresh values before a candidate can be confirmed."""
    abandon: float = -2.5
    """Evidence, nats, at which a candidate is given up."""
    hold: float = 1.5
    """Fresh values, as a multiple of the candidate's, after which its evidence must be positive; at least 24."""
    patience: float = 8.0
    """Fresh values, as a multiple of the candidate's, after which one that is undecided is given up; at least 200."""
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
    ended_sum: float = 0.0
    handicap: float = 0.0
    """Evidence, nats, that is not counted: the reference was chosen by the same scan."""
    river: str = ""
    """The detector of River's that raised it; empty for the scan."""

    @property
    def threshold(self) -> float:
        """The evidence that is needed, nats."""
        return -math.log(self.alpha) if self.alpha > 0 else math.inf

    @property
    def count(self) -> int:
        """Values since the change."""
        return self.after_count + self.fresh_count

    @property
    def mean(self) -> float:
        """Mean code since the change."""
        return (self.after_mean * self.after_count + self.fresh_sum) / self.count

    @property
    def lasted(self) -> int:
        """Values since the change without the newest ones that rather speak for the reference."""
        return self.count - self.ended_count

    @property
    def burst_size(self) -> float:
        """The size of the change over the values that it lasted."""
        total = self.after_mean * self.after_count + self.fresh_sum - self.ended_sum
        return abs(total / max(self.lasted, 1) - self.before_mean) / self.deviation

    @property
    def size(self) -> float:
        """The change in the reference's deviations, with its sign."""
        return (self.mean - self.before_mean) / self.deviation


def opened(candidate: Candidate, seen: int, rate: bool, inflation: float, alpha: float, river: str = "") -> Pending:
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
        handicap=_handicap(candidate, rate, inflation),
        river=river,
    )


def evidence_of(pending: Pending) -> float:
    """Return the evidence of the fresh values, nats.

    A candidate is the largest of many, so its window shows more of a change than there is. The alternative is a mixture
    of the whole, 60, 36 and 20 % of what the window shows: a mean of evidence is evidence.
    """
    if not pending.fresh_count:
        return 0.0
    parts = [_evidence(pending, part) for part in _PARTS]
    largest = max(parts)
    mixed = largest + math.log(
        math.fsum(weight * math.exp(each - largest) for weight, each in zip(_PARTS.values(), parts, strict=True))
    )
    return mixed - pending.handicap


def _handicap(candidate: Candidate, rate: bool, inflation: float) -> float:
    """Return what the choice of the split adds to the evidence, nats.

    Where the reference ends was chosen so that it differs most from what follows. Without a change all values up to the
    candidate are one population, from whose mean the reference's lies away by as much as this is worth.
    """
    whole = candidate.before_count + candidate.after_count
    if rate:
        ones = candidate.before_mean * candidate.before_count
        pooled = (ones + candidate.after_mean * candidate.after_count) / whole
        zeros = candidate.before_count - ones
        away = zeros * math.log((1 - candidate.before_mean) / (1 - pooled)) if zeros else 0.0
        away += ones * math.log(candidate.before_mean / pooled) if ones else 0.0
        return _SELECTED_RATE * away / inflation
    difference = (candidate.after_mean - candidate.before_mean) * candidate.after_count / whole / candidate.deviation
    return _SELECTED * 0.5 * difference * difference * candidate.before_count / inflation


def _evidence(pending: Pending, part: float) -> float:
    after_mean = pending.before_mean + part * (pending.after_mean - pending.before_mean)
    if pending.rate:
        return evidence.beta_binomial(
            pending.before_mean * pending.before_count,
            pending.before_count,
            after_mean * pending.after_count,
            pending.after_count,
            pending.fresh_sum,
            pending.fresh_count,
            pending.inflation,
        )
    return evidence.normal(
        pending.before_mean,
        pending.before_count,
        after_mean,
        pending.after_count,
        pending.deviation,
        pending.fresh_sum / pending.fresh_count,
        pending.fresh_count,
        pending.inflation,
    )


def joined(pending: Pending, code: float, allowance: float) -> tuple[Pending, float]:
    """Add a fresh value; return the evidence with it.

    ``alpha`` may grow with what is allowed meanwhile: the chance that the evidence ever reaches one of ever lower
    thresholds is at most that of the last.
    """
    against = max(pending.ended + _against(pending, code), 0.0)
    added = msgspec.structs.replace(
        pending,
        alpha=pending.alpha + allowance,
        fresh_count=pending.fresh_count + 1,
        fresh_sum=pending.fresh_sum + code,
        ended=against,
        ended_count=pending.ended_count + 1 if against else 0,
        ended_sum=pending.ended_sum + code if against else 0.0,
    )
    found = evidence_of(added)
    return (msgspec.structs.replace(added, highest=found) if found > added.highest else added), found


def verdict_on(pending: Pending, found: float, parameters: JudgementParameters) -> Verdict:
    """Decide on a candidate with so much evidence."""
    if pending.burst_size >= parameters.burst_size and pending.lasted <= parameters.burst:
        # Too far off to be taken for a new state before a burst of outliers would be over.
        if pending.ended >= parameters.burst_end and pending.ended_count >= 3:
            return "outlier" if pending.highest >= pending.threshold and pending.lasted >= 3 else "abandoned"
        if pending.count < parameters.burst or pending.ended_count >= 3:
            return "undecided"
    if found >= pending.threshold and pending.fresh_count >= parameters.least:
        return "confirmed"
    counted = found + pending.handicap
    if counted <= parameters.abandon:
        return "abandoned"
    if counted < 0 and pending.fresh_count >= max(24, parameters.hold * pending.after_count):
        return "abandoned"
    return "abandoned" if pending.fresh_count >= max(200, parameters.patience * pending.after_count) else "undecided"


def _against(pending: Pending, code: float) -> float:
    """Return the log-likelihood ratio of one value, the reference over a part of the change.

    A part, since a candidate's window shows more than there is: a change that is smaller than it seemed has not ended.
    """
    before = pending.before_mean
    after = before + _REMNANT * (pending.after_mean - before)
    if pending.rate:
        before = (before * pending.before_count + 0.5) / (pending.before_count + 1)
        after = min(max(after, 0.5 / (pending.count + 1)), 1 - 0.5 / (pending.count + 1))
        return math.log(before / after) if code else math.log((1 - before) / (1 - after))
    return ((code - after) ** 2 - (code - before) ** 2) / (2 * pending.deviation**2)

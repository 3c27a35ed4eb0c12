"""What is known of an experiment: one state of a fixed size, in which all that decides stands together. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec
from penstock.config.kinds import Experiment, Metric
from penstock.contracts.records import LogRange

from services.evaluation.experiments.clusters import empty
from services.evaluation.experiments.matching import NOTHING_MATCHED, Matched
from services.evaluation.experiments.units import none_seen

__all__ = ["Standing", "Told", "begin", "is_bet_on"]


class Told(msgspec.Struct, frozen=True):
    """A decision that was told; each is told once.

    Attributes:
        arm: empty where it is about all arms; so is ``metric``.
        at: when the observed event that decided occurred.
    """

    decision: str
    arm: str
    metric: str
    at: datetime


class Standing(msgspec.Struct, frozen=True):
    """What is known of one design of an experiment. About 1 kB for each arm and metric, and 8 kB.

    Attributes:
        blocks: sums and counts by metric and bucket of each arm, in the order of the experiment's.
        requests: results by arm.
        unpriced: calls without a price, by arm: where there are any, costs cannot be compared.
        low: smallest value of each metric, over all arms, as an integer of the metric's range; ``high`` the largest.
        p_values: always-valid p-value by comparison: metrics of the second arm, metrics of the third, ...
        seen: places of the units that were counted.
        units: units counted, by arm.
        ratio_p_value: always-valid p-value of the arms' ratio being as configured.
        told: decisions, oldest first.
        evidence: where the observations lie.
        newest: timestamp of the last one.
        matched: bet on the arm's failures, by arm after the control; empty where failures are no guard.
        tried: places of the units whose first outcome was bet on.
    """

    blocks: tuple[bytes, ...]
    requests: tuple[int, ...]
    unpriced: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    p_values: tuple[float, ...]
    seen: bytes
    units: tuple[int, ...]
    evidence: LogRange
    newest: datetime
    ratio_p_value: float = 1.0
    told: tuple[Told, ...] = ()
    matched: tuple[Matched, ...] = ()
    tried: bytes = b""

    def was_told(self, decision: str, arm: str = "", metric: str = "") -> bool:
        """Whether a decision was told before."""
        return any((one.decision, one.arm, one.metric) == (decision, arm, metric) for one in self.told)

    @property
    def mismatched(self) -> bool:
        """Whether the arms have not the units they should: no metric decides any more."""
        return self.was_told("sample_ratio_mismatch")


def begin(experiment: Experiment, origin: LogRange, now: datetime) -> Standing:
    """Return the state before the first observation, which stands at ``origin``."""
    arms, metrics = len(experiment.arms), len(experiment.metrics)
    bets = any(is_bet_on(metric) for metric in experiment.metrics)
    return Standing(
        blocks=(empty(metrics),) * arms,
        requests=(0,) * arms,
        unpriced=(0,) * arms,
        low=(-1,) * metrics,
        high=(-1,) * metrics,
        p_values=(1.0,) * ((arms - 1) * metrics),
        seen=none_seen(),
        units=(0,) * arms,
        evidence=origin,
        newest=now,
        matched=(NOTHING_MATCHED,) * (arms - 1) if bets else (),
        tried=none_seen() if bets else b"",
    )


def is_bet_on(metric: Metric) -> bool:
    """Whether a metric is tested by a bet on its outcomes, too: failures must not get more by a margin."""
    return metric.name == "failed" and metric.role == "guard"

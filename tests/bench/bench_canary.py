"""Canaries: how soon one that fails is taken back, and how often one that keeps within its bound is.

    python -m tests.bench.bench_canary [--streams 60]

Streams with a known truth go through the agent's own step, which looks after every call. Users differ in how much they ask
(Zipf) and, where that is said, in how often their requests fail, whichever target they get.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from penstock.config.canaries import CANARY, CanaryExperiment, canary_experiment
from penstock.config.kinds import Canary, Route, Target
from penstock.contracts.records import LogRange, Observation

from services.evaluation.experiments.core import Observed, step
from services.evaluation.experiments.state import Standing

_AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_ORIGIN = LogRange(topic="experiment-observations", partition=0, first_offset=0, last_offset=0)
_BOUND, _STABLE = 0.02, 0.01


@dataclass(frozen=True)
class Truth:
    """How calls come about.

    Attributes:
        canary: share of calls that fail in the canary; ``stable`` of the others.
        share: of the units that are the canary's.
        users: that there are; None: each request is a unit.
        unlucky: share of users all of whose requests fail, whichever target they get.
    """

    canary: float
    stable: float = _STABLE
    share: float = 0.1
    users: int | None = None
    unlucky: float = 0.0


def design(share: float) -> CanaryExperiment:
    """Return a canary that may fail 2 % of the calls more than the others."""
    canary = Canary(target=Target(backend="openai", model="tried"), share=share, max_error_rate=_BOUND)
    experiment = canary_experiment(
        Route(name="default", targets=(Target(backend="openai", model="stable"),), canary=canary)
    )
    assert experiment is not None
    return experiment


def calls(truth: Truth, experiment: CanaryExperiment, dice: np.random.Generator) -> Iterator[Observation]:
    """Yield what is observed of calls, without an end."""
    weights = np.arange(1, (truth.users or 1) + 1) ** -0.6
    cumulated = np.cumsum(weights / weights.sum())
    unlucky = dice.random(truth.users or 1) < truth.unlucky
    salt, number = dice.integers(2**62), 0
    while True:
        user = number if truth.users is None else int(np.searchsorted(cumulated, dice.random()))
        unit = experiment.unit_of(f"{salt}-{user}", None, "", "team")
        drawn = experiment.arm_of(unit)
        number += 1
        if drawn is None:
            continue
        arm = drawn.name
        fails = dice.random() < (truth.canary if arm == CANARY else truth.stable)
        failed = fails or (truth.users is not None and bool(unlucky[user]))
        yield Observation(
            event_id=str(number), request_id=str(number), tenant_id="team", occurred_at=_AT + timedelta(seconds=number),
            causation_id="", experiment=experiment.name, version=experiment.design, arm=arm, unit=unit,
            source="completions", values={"failed": float(failed)},
        )  # fmt: skip


def asked_until_taken_back(truth: Truth, most: int, seed: int) -> int | None:
    """Return the canary's calls until it was taken back; None where it was not within ``most``."""
    experiment = design(truth.share)
    standing: Standing | None = None
    asked = 0
    for observation in calls(truth, experiment, np.random.default_rng(seed)):
        asked += observation.arm == CANARY
        standing, _ = step(standing, Observed(observation, experiment, _ORIGIN), observation.occurred_at)
        if standing.told:
            return asked
        if asked >= most:
            return None
    raise AssertionError("there is no end")


def main() -> None:
    """Print delays, then how often canaries within the bound are taken back."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=60)
    streams: int = parser.parse_args().streams
    print(f"the canary's calls until it is taken back; {_STABLE:.0%} fail elsewhere, {_BOUND:.0%} more may, alpha 5 %")
    print(f"{'canary fails':>13} {'share':>6} {'users':>7} {'median':>7} {'90 %':>6} {'most':>6} {'taken back':>11}")
    for rate, most in ((1.0, 100), (0.3, 400), (0.1, 1_500)):
        for share, users in ((0.05, None), (0.5, None), (0.1, 500)):
            truth = Truth(rate, share=share, users=users)
            found = [asked_until_taken_back(truth, most, seed) for seed in range(min(streams, 20))]
            known = sorted(each for each in found if each is not None)
            median, late = np.quantile(known, (0.5, 0.9)) if known else (np.nan, np.nan)
            who = "-" if users is None else str(users)
            print(
                f"{rate:>13.0%} {share:>6.0%} {who:>7} {median:>7.0f} {late:>6.0f} {max(known, default=0):>6} "
                f"{len(known)} of {len(found)}".rjust(11)
            )
    print(f"within the bound, looked at after every call until 400 of the canary's: taken back, of {streams} streams")
    for truth in (
        Truth(0.01, share=0.2),
        Truth(0.03, share=0.2),
        Truth(0.22, stable=0.2, share=0.2),
        Truth(0.01, share=0.2, users=300),
        Truth(0.01, share=0.2, users=300, unlucky=0.1),
    ):
        taken = sum(asked_until_taken_back(truth, 400, seed) is not None for seed in range(streams))
        units = (
            "each request a unit" if truth.users is None else f"{truth.users} users, {truth.unlucky:.0%} always fail"
        )
        print(f"{truth.canary:.0%} against {truth.stable:.0%}, {units}: {taken}")


if __name__ == "__main__":
    main()

"""The bet that decides a promotion, and the evidence of a suspicion, err no more often than they say."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.evaluation.learning.betting import Wager, suspicion, wagered

ALPHA = 0.05


def highest(outcomes: list[float]) -> float:
    """Largest log-wealth ever reached."""
    wager, most = Wager(), 0.0
    for outcome in outcomes:
        wager = wagered(wager, outcome)
        most = max(most, wager.log_wealth)
    return most


@pytest.mark.parametrize("kind", ["coin", "skewed", "drifting"])
def test_looking_after_every_label_finds_a_gain_that_is_not_there_no_more_often_than_alpha(kind: str) -> None:
    dice = random.Random(11)
    found, runs = 0, 400
    for _ in range(runs):
        outcomes = []
        for n in range(300):
            if kind == "coin":
                outcomes.append(dice.choice([-0.3, 0.3]))
            elif kind == "skewed":  # mostly small gains, paid for by rare large losses: the mean is 0
                outcomes.append(-0.9 if dice.random() < 0.1 else 0.1)
            else:  # never better than the champion, less and less so
                outcomes.append(dice.gauss(-n / 1e4, 0.1))
        found += highest([min(max(each, -1.0), 1.0) for each in outcomes]) >= math.log(1 / ALPHA)
    # Three standard deviations above the bound.
    assert found / runs <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


def test_a_real_gain_is_found_soon() -> None:
    dice = random.Random(3)
    needed = []
    for _ in range(50):
        wager = Wager()
        while wager.log_wealth < math.log(100):
            wager = wagered(wager, min(max(dice.gauss(0.1, 0.2), -1.0), 1.0))
        needed.append(wager.count)
    assert sorted(needed)[25] < 120


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1, 1), max_size=200))
def test_wealth_stays_positive_and_sums_are_exact(outcomes: list[float]) -> None:
    wager = Wager()
    for outcome in outcomes:
        wager = wagered(wager, outcome)
        assert math.isfinite(wager.log_wealth)
    assert wager.count == len(outcomes)
    assert wager.total == pytest.approx(sum(outcomes), abs=1e-9)


@pytest.mark.parametrize("outcome", [1.01, -1.01, math.nan, math.inf])
def test_what_is_not_within_bounds_is_no_outcome(outcome: float) -> None:
    with pytest.raises(ValueError, match="not within"):
        wagered(Wager(), outcome)


def test_suspicion_of_somebody_who_contradicts_as_often_as_expected_is_rare() -> None:
    dice = random.Random(5)
    evidence, labels, raised = 0.0, 60_000, 0
    for _ in range(labels):
        evidence = suspicion(evidence, dice.random() < 0.5, 0.5)
        if evidence >= 9.2:
            raised, evidence = raised + 1, 0.0
    assert raised <= labels / 10_000


def test_suspicion_of_somebody_who_always_contradicts_is_quick() -> None:
    evidence, labels = 0.0, 0
    while evidence < 9.2:
        evidence, labels = suspicion(evidence, True, 0.5), labels + 1
    assert labels <= 25

"""Champion against challenger on each trusted label before it is learned from (test, then train)."""

from __future__ import annotations

import math

from services.evaluation.learning.betting import wagered
from services.evaluation.learning.rules import LearningRules
from services.evaluation.learning.state import Test, Tested

__all__ = ["balance", "lacking", "lost", "tested"]

_HEAD_START = 10
"""Labels of either class that are there before any."""


def balance(test: Test, positive: bool) -> float:
    """Return the weight of a label of a class, from 0 to 1: less where there were more of it than of the other.

    What people label is no sample of the traffic. Classes that weigh alike keep the share of one among the labels from
    moving the scores of all texts.
    """
    own, other = ("positive", "negative") if positive else ("negative", "positive")
    counts = [test.classes.get(kind, Tested()).count + _HEAD_START for kind in (other, own)]
    return min(1.0, counts[0] / counts[1])


def tested(test: Test, slot: str, positive: bool, champion: float, challenger: float, rules: LearningRules) -> Test:
    """Return the test after a trusted label.

    Args:
        test: so far.
        slot: the author's.
        positive: the label.
        champion: what the champion says of the text, from 0 to 1.
        challenger: what the challenger says that has not learned from this label.
        rules: over how many labels the recent gains fade.
    """
    loss, challenged = (positive - champion) ** 2, (positive - challenger) ** 2
    gain = loss - challenged
    outcome = gain * balance(test, positive)
    kind = "positive" if positive else "negative"
    return Test(
        better=wagered(test.better, outcome),
        worse=wagered(test.worse, -outcome),
        champion=test.champion + loss,
        challenger=test.challenger + challenged,
        classes=test.classes | {kind: _one_more(test.classes.get(kind), gain, rules)},
        authors=test.authors | {slot: _one_more(test.authors.get(slot), outcome, rules)},
    )


def lacking(test: Test, rules: LearningRules) -> list[str]:
    """Return what the challenger still lacks to be promoted; empty where it is to be.

    The bet bounds the chance of promoting one that was never better by ``rules.alpha``; the rest is about whom the labels
    are from and which: a gain of one author alone, or of one class at the other's cost, promotes nothing.
    """
    missing = []
    if test.better.count < rules.least_labels:
        missing.append(f"{rules.least_labels - test.better.count} more trusted labels")
    for kind in ("positive", "negative"):
        of_kind = test.classes.get(kind, Tested())
        if of_kind.count < rules.least_each:
            missing.append(f"{rules.least_each - of_kind.count} more {kind} ones")
        elif of_kind.recent < rules.worst_class:
            missing.append(f"less loss on {kind} ones (gain {of_kind.recent:+.4f}, least {rules.worst_class:+.4f})")
    if test.better.log_wealth < math.log(1 / rules.alpha):
        wealth = math.exp(min(test.better.log_wealth, 700.0))
        missing.append(f"evidence (wealth {wealth:.3g}, needed {1 / rules.alpha:g})")
    if _recent(test) < rules.least_gain:
        missing.append(f"gain on the newest labels ({_recent(test):+.4f}, least {rules.least_gain:+.4f})")
    if len(test.authors) < rules.authors:
        missing.append(f"{rules.authors - len(test.authors)} more trusted author(s)")
    elif rules.authors > 1:
        for slot, own in sorted(test.authors.items()):
            others = test.better.count - own.count
            if others < rules.least_others or test.better.total - own.gain <= 0:
                missing.append(f"a gain without the labels of one author ({slot}; {others} of others)")
    return missing


def lost(test: Test, rules: LearningRules) -> bool:
    """Return whether the challenger is worse than the champion, by the same bet the other way round."""
    return (
        test.worse.count >= rules.least_labels
        and test.worse.log_wealth >= math.log(1 / rules.alpha)
        and _recent(test) < 0
    )


def _recent(test: Test) -> float:
    """Return the recent gain, classes weighing alike."""
    return sum(each.recent for each in test.classes.values()) / 2


def _one_more(so_far: Tested | None, gain: float, rules: LearningRules) -> Tested:
    so_far = so_far or Tested()
    count = so_far.count + 1
    return Tested(count, so_far.gain + gain, so_far.recent + (gain - so_far.recent) / min(count, rules.recent))

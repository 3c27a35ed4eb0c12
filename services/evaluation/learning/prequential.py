"""Champion against challenger on each trusted label before it is learned from (test, then train)."""

from __future__ import annotations

import math
from collections.abc import Mapping

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
        classes=_one_more(test.classes, kind, gain, outcome, rules),
        authors=test.authors | {slot: _one_more(test.authors.get(slot, {}), kind, gain, outcome, rules)},
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
        missing += [
            f"a gain without the labels of one author ({slot})"
            for slot, own in sorted(test.authors.items())
            if not _gains_without(test, own, rules)
        ]
    return missing


def _gains_without(test: Test, own: Mapping[str, Tested], rules: LearningRules) -> bool:
    """Return whether the challenger is better on the labels of all but one author, and on neither class worse."""
    count, total = 0, 0.0
    for kind, each in test.classes.items():
        left_out = own.get(kind, Tested())
        others = each.count - left_out.count
        if others and (each.gain - left_out.gain) / others < rules.worst_class:
            return False
        count, total = count + others, total + each.balanced - left_out.balanced
    return count >= rules.least_others and total > 0


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


def _one_more(
    so_far: Mapping[str, Tested], kind: str, gain: float, balanced: float, rules: LearningRules
) -> dict[str, Tested]:
    before = so_far.get(kind, Tested())
    count = before.count + 1
    recent = before.recent + (gain - before.recent) / min(count, rules.recent)
    return dict(so_far) | {kind: Tested(count, before.gain + gain, before.balanced + balanced, recent)}

"""How often an arm fails, against the control: a test that is quick where the harm is gross, and valid at every look. Pure.

An outcome of the arm is matched with the mean of the control's since the last one, and bet on
(:mod:`services.evaluation.learning.betting`): while the arm's rate is above the control's by the margin or less, no bettor
can expect to gain, whatever both rates are and however they move together. Which outcomes make a match depends on when
they come alone, never on what they are.

Only the first outcome of each unit counts: one user's requests may all fail for a reason of the user's own.
"""

from __future__ import annotations

import msgspec

from services.evaluation.learning.betting import Wager, wagered

__all__ = ["NOTHING_MATCHED", "Matched", "control_came", "trial_came"]


class Matched(msgspec.Struct, frozen=True, array_like=True):
    """Outcomes of an arm and of the control that wait for their counterpart, and the bet on those that were matched."""

    control: int = 0
    control_failed: int = 0
    arm: int = 0
    arm_failed: int = 0
    wager: Wager = Wager()


NOTHING_MATCHED = Matched()


def control_came(matched: Matched, failed: bool, margin: float) -> Matched:
    """Return the state after an outcome of the control."""
    control, control_failed = matched.control + 1, matched.control_failed + failed
    return _settled(Matched(control, control_failed, matched.arm, matched.arm_failed, matched.wager), margin)


def trial_came(matched: Matched, failed: bool, margin: float) -> Matched:
    """Return the state after an outcome of the arm."""
    arm, arm_failed = matched.arm + 1, matched.arm_failed + failed
    return _settled(Matched(matched.control, matched.control_failed, arm, arm_failed, matched.wager), margin)


def _settled(matched: Matched, margin: float) -> Matched:
    """Bet on what can be matched.

    Args:
        margin: by how much more the arm may fail, a share of all outcomes.
    """
    if not matched.arm or not matched.control:
        return matched
    apart = matched.arm_failed / matched.arm - matched.control_failed / matched.control
    # Within [-1, 1], and its mean is at most 0 while the arm keeps within the margin.
    return Matched(wager=wagered(matched.wager, (apart - margin) / (1 + margin)))

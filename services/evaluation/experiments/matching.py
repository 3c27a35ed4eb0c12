"""How often an arm fails, against the control: a test that is quick where the harm is gross, and valid at every look. Pure.

An outcome of the arm is matched with the mean of a few of the control's, the newest that there are, and bet on
(:mod:`services.evaluation.learning.betting`): while the arm's rate is above the control's by the margin or less, no bettor
can expect to gain, whatever both rates are and however they move together. Which outcomes make a match depends on when
they come alone, never on what they are.

Only the first outcome of each unit counts: one user's requests may all fail for a reason of the user's own.
"""

from __future__ import annotations

import msgspec

from services.evaluation.learning.betting import Wager, wagered

__all__ = ["NOTHING_MATCHED", "Matched", "control_came", "trial_came"]


_WAITING = 32
"""Outcomes (groups of the control's) that wait at most; the oldest is dropped. They come in bursts: one arm's first, where
the other takes longer."""


class Matched(msgspec.Struct, frozen=True, array_like=True):
    """Outcomes that wait for their counterpart, and the bet on those that were matched.

    Attributes:
        groups: failures in each full group of the control's outcomes, oldest first.
        came: outcomes of the control's newest group, which is not full; ``failed`` of them failed.
        trials: outcomes of the arm, oldest first: whether it failed.
    """

    groups: tuple[int, ...] = ()
    came: int = 0
    failed: int = 0
    trials: tuple[bool, ...] = ()
    wager: Wager = Wager()


NOTHING_MATCHED = Matched()


def control_came(matched: Matched, failed: bool, margin: float, size: int) -> Matched:
    """Return the state after an outcome of the control.

    Args:
        margin: by how much more the arm may fail, a share of all outcomes.
        size: outcomes of the control that one of the arm is matched with, where there are so many.
    """
    came, total = matched.came + 1, matched.failed + failed
    if matched.trials:
        *older, newest = matched.trials
        return Matched(matched.groups, trials=tuple(older), wager=_bet(matched.wager, newest, total / came, margin))
    if came < size:
        return msgspec.structs.replace(matched, came=came, failed=total)
    return Matched((*matched.groups, total)[-_WAITING:], wager=matched.wager)


def trial_came(matched: Matched, failed: bool, margin: float, size: int) -> Matched:
    """Return the state after an outcome of the arm, which is matched with the newest of the control that wait."""
    if matched.groups:
        *older, newest = matched.groups
        wager = _bet(matched.wager, failed, newest / size, margin)
        return msgspec.structs.replace(matched, groups=tuple(older), wager=wager)
    if matched.came:
        return Matched(wager=_bet(matched.wager, failed, matched.failed / matched.came, margin))
    return msgspec.structs.replace(matched, trials=(*matched.trials, failed)[-_WAITING:])


def _bet(wager: Wager, failed: bool, control: float, margin: float) -> Wager:
    """Bet on an outcome less the control's mean: within [-1, 1], and 0 or less on average while the arm keeps within the
    margin."""
    return wagered(wager, (failed - control - margin) / (1 + margin))

"""How fast a classifier learns, whom it listens to how much, and when what it learned is put in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

__all__ = ["TRUSTED", "ClassRules", "LearningRules"]

TRUSTED = frozenset({"moderator", "system"})
"""Sources whose labels decide about promotion; anybody else's teach only."""


@dataclass(frozen=True, slots=True)
class ClassRules:
    """What bounds the labels of one class of sources.

    Influence is counted in log-odds: a label of influence ``r`` moves those of no text by more than ``r``. It is added up
    from one promotion, rollback or reset to the next.

    Attributes:
        influence: of a label; the learning rate follows from it (see ``Learner.reach``).
        an_hour: labels taken of one source in an hour of the log.
        author_an_hour: labels taken of one author in an hour.
        author_floor: influence that an author always has.
        author_share: beyond the floor, the largest share of an author in the influence of the class.
    """

    influence: float
    an_hour: int
    author_an_hour: int
    author_floor: float
    author_share: float


@dataclass(frozen=True, slots=True)
class LearningRules:
    """Parameters of learning online.

    Attributes:
        trusted: bounds of moderators and systems.
        users: bounds of everybody else.
        users_floor: influence that all users together always have.
        users_share: beyond the floor, their influence as a share of that of the trusted.
        alpha: chance of putting a challenger in force that was at no time better than the champion.
        least_labels: trusted labels that a promotion needs.
        least_each: of each class among them.
        least_gain: mean fall of the squared error (Brier score) over about the last ``recent`` trusted labels of each class.
        recent: see ``least_gain``.
        worst_class: the least of either class: what is won on one is not paid for by the other.
        authors: trusted authors that a promotion needs. From two on, the gain must hold without any one of them as well,
            on ``least_others`` labels of the others.
        least_others: see ``authors``.
        confident: distance of a score from 0.5 from which a label on the other side contradicts it.
        expected_contradictions: share of contradicting labels that is nobody's fault, at least.
        suspect_from: evidence (nats) from which somebody is suspected: exp(9.2) is one false suspicion in 10,000 labels.
        barred: how long no label of a suspected user is taken.
        repeat_after: somebody is not told of again before.
        grace: from the promotion until it is in force: every replica has read it by then.
        kept: versions whose weights are kept.
        snapshot_labels: the challenger's state is published after so many labels, or
        snapshot_after: with the first label after so much time.
    """

    trusted: ClassRules = field(
        default_factory=lambda: ClassRules(
            influence=1.0, an_hour=600, author_an_hour=200, author_floor=100.0, author_share=0.5
        )
    )
    users: ClassRules = field(
        default_factory=lambda: ClassRules(
            influence=0.05, an_hour=120, author_an_hour=10, author_floor=0.25, author_share=0.05
        )
    )
    users_floor: float = 1.0
    users_share: float = 0.1
    alpha: float = 0.01
    least_labels: int = 100
    least_each: int = 20
    least_gain: float = 0.005
    recent: int = 50
    worst_class: float = -0.05
    authors: int = 2
    least_others: int = 20
    confident: float = 0.3
    expected_contradictions: float = 0.5
    suspect_from: float = 9.2
    barred: timedelta = timedelta(hours=24)
    repeat_after: timedelta = timedelta(hours=24)
    grace: timedelta = timedelta(seconds=60)
    kept: int = 8
    snapshot_labels: int = 16
    snapshot_after: timedelta = timedelta(minutes=10)

    def of(self, trusted: bool) -> ClassRules:
        """Return the bounds of a class of sources."""
        return self.trusted if trusted else self.users

    def users_most(self, spent: Mapping[str, float]) -> float:
        """Return the influence that all users together may have beside what each class has spent."""
        return self.users_floor + self.users_share * spent.get("trusted", 0.0)

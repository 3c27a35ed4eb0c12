"""What is known of one classifier that learns: JSON-able, bounded, and equal after a way through bytes."""

from __future__ import annotations

from datetime import datetime

import msgspec

from services.evaluation.learning.betting import Wager

__all__ = ["ALWAYS", "Archived", "Change", "Learning", "Tally", "Test", "Tested"]

ALWAYS = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
"""Beginning of the first version of a schedule, before any event."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """A version that came into force.

    Attributes:
        effective_from: results that occurred from here on are scored with it.
        version: version of the weights.
        cause: shipped, promoted, commanded or rolled back.
        author: who commanded it; empty where the test decided.
        reason: figures of the test, or what the command said.
    """

    effective_from: datetime
    version: str
    cause: str
    author: str = ""
    reason: str = ""


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """What one author, or one source, has said.

    Attributes:
        hour: the hour of the log (since the epoch) that ``in_hour`` counts labels of.
        in_hour: labels in it, those over the limit left out.
        spent: influence since the last promotion, rollback or reset.
        contradictions: evidence that its labels contradict what is known, in nats.
        barred_until: epoch seconds until which its labels are not taken.
        told: epoch seconds at which on-call was last told of it, by cause.
    """

    hour: int = 0
    in_hour: int = 0
    spent: float = 0.0
    contradictions: float = 0.0
    barred_until: float = 0.0
    told: dict[str, float] = {}


class Tested(msgspec.Struct, frozen=True, array_like=True):
    """Labels of one author or class in the test, the sums of their gains and of those with both classes weighing alike, and
    the mean gain with the newest weighing most."""

    count: int = 0
    gain: float = 0.0
    balanced: float = 0.0
    recent: float = 0.0


class Test(msgspec.Struct, frozen=True, array_like=True):
    """Champion and challenger on the trusted labels since the last promotion, rollback or reset, each scored before the
    challenger learned from it. A gain is the champion's squared error less the challenger's, from -1 to 1.

    Attributes:
        better: the bet that the challenger is better, on gains of which both classes weigh alike.
        worse: the bet that it is worse.
        champion: sum of the champion's squared errors.
        challenger: sum of the challenger's.
        classes: by ``positive`` and ``negative``.
        authors: by slot of the author, then by class.
    """

    better: Wager = Wager()
    worse: Wager = Wager()
    champion: float = 0.0
    challenger: float = 0.0
    classes: dict[str, Tested] = {}
    authors: dict[str, dict[str, Tested]] = {}


class Archived(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Weights of a version, to go back to."""

    version: str
    weights: bytes


class Learning(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A classifier: the champion, the challenger beside it, and what has been taken from whom.

    Attributes:
        shipped: version of the shipped weights that all is a difference to.
        challenger: packed weights that learn. The champion's are in the archive, so that this state, which changes with
            every label, holds one set of weights.
        unfiled: whether the champion is not in the archive yet; then it is what the challenger is.
        schedule: what came into force when, oldest first; never empty.
        promotions: versions made so far.
        withdrawn: versions that the last change pushed out of the schedule.
        frozen: whether nothing is promoted.
        test: figures since the last promotion, rollback or reset.
        spent: influence by class (trusted, users) since then.
        sources: tallies by source.
        authors: tallies by slot of the author.
        rates: contradictions among the trusted labels, fading: (labels, contradictions).
        taken: labels learned from, ever.
        refused: labels not learned from, by cause.
        published: ``taken`` when the challenger was last published.
        published_at: and when.
    """

    shipped: str
    challenger: bytes
    schedule: tuple[Change, ...]
    unfiled: bool = False
    promotions: int = 0
    withdrawn: tuple[str, ...] = ()
    frozen: bool = False
    test: Test = Test()
    spent: dict[str, float] = {}
    sources: dict[str, Tally] = {}
    authors: dict[str, Tally] = {}
    rates: tuple[float, float] = (0.0, 0.0)
    taken: int = 0
    refused: dict[str, int] = {}
    published: int = 0
    published_at: float = 0.0

    @property
    def version(self) -> str:
        """The champion's version."""
        return self.schedule[-1].version

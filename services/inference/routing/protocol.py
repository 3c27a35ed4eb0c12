"""What inference asks of whoever chooses targets, and tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.config.kinds import Route, Target
from penstock.contracts.records import Context, GroundedRequest, TargetFailure

from services.inference.core import Answered

__all__ = ["Arms", "Assignment", "Attempt", "Choice", "NoArms", "Routing"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom a request asks.

    Attributes:
        targets: to ask until one answers, in this order; may be empty.
        context: the request's, with what the choice adds to it (the arm of a canary).
        left_alone: targets that are not asked now, and why: those in whose place another is asked first, then the others.
        passed_over: how many of ``left_alone`` would have been asked before the first of ``targets``. What would not have
            been asked at all is no failure of the request's.
        first: the one that would be asked first if none were left alone: an answer of its that is kept may be given again
            all the same. None: it is the first of ``targets``.
    """

    targets: Sequence[Target]
    context: Context
    left_alone: Sequence[TargetFailure] = ()
    passed_over: int = 0
    first: Target | None = None

    @property
    def kept_of(self) -> Target | None:
        """Whose kept answers may be given again; None where nobody is asked, nor would be."""
        return self.first or (self.targets[0] if self.targets else None)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a request stands in a canary.

    Attributes:
        target: the target on trial, where the request falls to it; None: it is for the stable targets.
        context: the request's, with its arm.
    """

    target: Target | None
    context: Context


class Arms(Protocol):
    """Says who gets the target on trial. The same request is always told the same while the route stays as it is."""

    def assign(self, route: Route, request: GroundedRequest) -> Assignment | None:
        """Return where ``request`` stands; None where it takes no part, or nothing is on trial on ``route`` (any longer)."""
        ...


class NoArms:
    """Nothing is on trial."""

    def assign(self, route: Route, request: GroundedRequest) -> Assignment | None:
        return None


class Attempt(Protocol):
    """A call of a target. Whoever makes it says how it ended, once."""

    def answered(self, answer: Answered) -> None:
        """It gave an answer."""
        ...

    def failed(self, reason: str) -> None:
        """It gave none, and that is its own fault: it is away, overloaded, too slow, or says what nobody understands."""
        ...

    def given_up(self) -> None:
        """It gave none, and nobody knows whether it would have: it was not waited for, or it cannot answer this request.

        It says nothing of the target, unless that had far more time than its answers take: then it hangs, and failed.
        """
        ...


class Routing(Protocol):
    """Chooses targets, and learns how calls of them end."""

    def choose(self, route: Route, request: GroundedRequest) -> Choice:
        """Return whom ``request`` asks."""
        ...

    def begin(self, route: Route, target: Target) -> Attempt | TargetFailure:
        """Return the call of ``target`` that begins now, or why it must not: what was chosen may have failed since."""
        ...

"""Which target is asked first where a route wants the cheapest or the fastest one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from penstock.config.kinds import Target

__all__ = ["CONFIDENCE", "EXPLORED", "Candidate", "Ranking", "Reason", "ranked"]

CONFIDENCE = 0.9
"""A target is expected to meet a deadline where at least this share of such calls is answered in time."""
EXPLORED = 0.05
"""Share of the requests that may try a target of which little is known lately."""

Reason = Literal[
    "weight",
    "cheapest",
    "fastest",
    "unpriced",
    "explored",
    "none_qualifies",
    "canary",
    "stands_in",
    "only_one",
    "none_left",
]
"""Why a target is asked first: labels of penstock_route_choices."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target that may be asked.

    Attributes:
        cost: what the request is expected to cost there, USD; None where its model has no price.
        seconds: it is expected to answer within, with :data:`CONFIDENCE`; None where that is not known.
        trusted: it meets the quality floor, or there is none.
        unknown: little is known of it lately, and no call is under way that will tell.
    """

    target: Target
    cost: Decimal | None
    seconds: float | None
    trusted: bool
    unknown: bool = False

    def meets(self, left_s: float | None) -> bool:
        """Return whether it is expected to answer within ``left_s``, and within its own timeout."""
        if left_s is None:
            return True
        return self.seconds is not None and self.seconds <= min(left_s, self.target.timeout_s)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Targets in the order in which they are asked, and why the first is the first."""

    targets: tuple[Target, ...]
    reason: Reason


def ranked(
    choice: Literal["cheapest", "fastest"], candidates: Sequence[Candidate], left_s: float | None, draw: float
) -> Ranking:
    """Return ``candidates`` in the order in which they are asked: those that qualify, the best first, then the others.

    Those that qualify are trusted and expected to meet the deadline; the fastest must be known to be fast. Where none
    does, the order stays as it is.

    Args:
        candidates: in the order that weights give; not empty.
        left_s: seconds until the deadline; None where there is none.
        draw: number of the request, uniform from 0 to 1: below :data:`EXPLORED` it tries what might be better and is not
            known.
    """
    if choice == "cheapest":
        fit = [each for each in candidates if each.trusted and each.meets(left_s)]
        best = sorted(fit, key=lambda each: (each.cost is None, each.cost or 0))
    else:
        fit = [each for each in candidates if each.trusted and each.seconds is not None and each.meets(left_s)]
        best = sorted(fit, key=lambda each: each.seconds or 0.0)
    first = best[0] if best else None
    order = [*best, *(each for each in candidates if not any(each is other for other in best))]
    explored = _explored(choice, candidates, first) if draw < EXPLORED else None
    if explored is not None:
        order = [explored, *(each for each in order if each is not explored)]
        reason: Reason = "explored"
    elif first is None:
        reason = "none_qualifies"
    elif choice == "cheapest":
        reason = "unpriced" if first.cost is None else "cheapest"
    else:
        reason = "fastest"
    return Ranking(tuple(each.target for each in order), reason)


def _explored(choice: str, candidates: Sequence[Candidate], first: Candidate | None) -> Candidate | None:
    """Return a target that might be better than ``first``, if one is not known."""
    for each in candidates:
        if not each.trusted or not each.unknown or each is first:
            continue
        cheaper = each.cost is not None and (first is None or first.cost is None or each.cost < first.cost)
        if choice == "fastest" or cheaper:
            return each
    return None

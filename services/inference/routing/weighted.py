"""Targets by weight alone: for tests, and for what knows nothing of its targets."""

from __future__ import annotations

import hashlib

from penstock.config.kinds import Route, Target
from penstock.contracts.records import GroundedRequest

from services.inference.core import Answered
from services.inference.routing.protocol import Attempt, Choice

__all__ = ["WeightedRouting", "order_targets"]


def order_targets(route: Route, request_id: str) -> list[Target]:
    """Return the targets to try, first the one that ``request_id`` falls to by weight, then the others as listed.

    The choice is a hash of the request's identity, so a redelivery goes to the same target.
    """
    total = sum(target.weight for target in route.targets)
    point = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big") % total
    chosen = 0
    for index, target in enumerate(route.targets):
        if point < target.weight:
            chosen = index
            break
        point -= target.weight
    return [route.targets[chosen], *(t for i, t in enumerate(route.targets) if i != chosen)]


class WeightedRouting:
    """Draws the first target by weight; the others stand in as listed, whatever became of them before."""

    def choose(self, route: Route, request: GroundedRequest) -> Choice:
        return Choice(order_targets(route, request.request_id), request.context)

    def begin(self, route: Route, target: Target) -> Attempt:
        return _Forgotten()


class _Forgotten:
    """A call of which nothing is kept."""

    def answered(self, answer: Answered) -> None:
        return

    def failed(self, reason: str) -> None:
        return

    def given_up(self) -> None:
        return

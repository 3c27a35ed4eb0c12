"""What costs can be added up by: whom and what a call is allocated to, what it was, when it counts, how it ended."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from penstock.contracts.records import Cost
from penstock.ledger.reading import accounted_at

__all__ = [
    "DIMENSIONS", "OUTCOME", "UNKNOWN_OUTCOME", "Dimension", "Selection", "UnknownDimension", "dimension",
    "dimensions",
]  # fmt: skip

OUTCOME = "outcome"
UNKNOWN_OUTCOME = "unknown"
"""The outcome of a cost whose result is not on the log: not yet, or not any more, or it never belonged to a request."""

_TAG = "tag:"


class UnknownDimension(ValueError):
    """Nothing can be added up by this name; the message lists the names there are."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One way to tell costs apart. ``of`` returns a cost's value; None where it has none, as a call without a user."""

    name: str
    of: Callable[[Cost], str | None]


def _hour(cost: Cost) -> str:
    # Written out: strftime takes four times as long, and a report by hour asks for it at every cost.
    at = accounted_at(cost)
    return f"{at.year:04}-{at.month:02}-{at.day:02}T{at.hour:02}:00Z"


def _unknown(_: Cost) -> str:
    return UNKNOWN_OUTCOME


DIMENSIONS: Mapping[str, Dimension] = {
    one.name: one
    for one in (
        Dimension("team", lambda cost: cost.tenant_id),
        Dimension("user", lambda cost: cost.context.user_id),
        Dimension("key", lambda cost: cost.context.key_id),
        Dimension("conversation", lambda cost: cost.context.conversation_id),
        Dimension("model", lambda cost: cost.model),
        Dimension("response_model", lambda cost: cost.response_model),
        Dimension("backend", lambda cost: cost.backend),
        Dimension("route", lambda cost: cost.context.route),
        Dimension("prompt", lambda cost: cost.context.prompt_name),
        Dimension("prompt_version", lambda cost: cost.context.prompt_version),
        Dimension("policy", lambda cost: cost.context.policy_name),
        Dimension("policy_version", lambda cost: cost.context.policy_version),
        Dimension("kind", lambda cost: cost.kind),
        Dimension("price_version", lambda cost: cost.price_version),
        Dimension("day", lambda cost: _hour(cost)[:10]),
        Dimension("month", lambda cost: _hour(cost)[:7]),
        Dimension("hour", _hour),
        Dimension(OUTCOME, _unknown),
    )
}
"""Every dimension by name, beside ``tag:<name>``. ``outcome`` needs the results: see :func:`dimensions`."""

TIMES = frozenset({"day", "month", "hour"})
"""Dimensions whose values follow each other in time."""


def dimension(name: str, outcome_of: Callable[[Cost], str] | None = None) -> Dimension:
    """Return the dimension ``name``; an empty text counts as no value.

    Args:
        name: one of :data:`DIMENSIONS`, or ``tag:`` and the name of a tag.
        outcome_of: status of the result of a cost's request; without it every outcome is :data:`UNKNOWN_OUTCOME`.

    Raises:
        UnknownDimension: there is none of this name.
    """
    if name == OUTCOME and outcome_of is not None:
        return Dimension(OUTCOME, outcome_of)
    if name.startswith(_TAG) and (tag := name.removeprefix(_TAG)):
        return Dimension(name, lambda cost: cost.context.tags.get(tag) or None)
    if name not in DIMENSIONS:
        close = difflib.get_close_matches(name, DIMENSIONS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownDimension(
            f"unknown dimension {name!r}: {hint}there are {', '.join(DIMENSIONS)} and tag:<name>, e.g. tag:feature"
        )
    of = DIMENSIONS[name].of
    return Dimension(name, lambda cost: of(cost) or None)


def dimensions(names: Iterable[str], outcome_of: Callable[[Cost], str] | None = None) -> tuple[Dimension, ...]:
    """Return the dimensions of ``names``, in their order.

    Raises:
        UnknownDimension: there is none of a name, a name stands twice, or there are no names.
    """
    listed = list(names)
    for index, name in enumerate(listed):
        if name in listed[:index]:
            raise UnknownDimension(f"dimension {name!r} is named twice: leave one out")
    if not listed:
        raise UnknownDimension(f"no dimension is named: there are {', '.join(DIMENSIONS)} and tag:<name>")
    return tuple(dimension(name, outcome_of) for name in listed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which costs are asked for: those accounted from ``since`` on and before ``until``, of a team, of a kind."""

    since: datetime | None = None
    until: datetime | None = None
    team: str | None = None
    kind: str | None = None

    def takes(self, cost: Cost) -> bool:
        """Whether ``cost`` is among them."""
        if self.team is not None and cost.tenant_id != self.team:
            return False
        if self.kind is not None and cost.kind != self.kind:
            return False
        at = accounted_at(cost)
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

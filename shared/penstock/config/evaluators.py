"""Which evaluators score how much of which traffic."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from penstock.config.entry import Entry, Name, Share

__all__ = ["Evaluator"]


class Evaluator(Entry):
    """How one evaluator is used. One without an entry runs as it ships."""

    KIND: ClassVar[str] = "evaluators"

    name: Name = Field(description="Name of the evaluator, e.g. groundedness, or of a rubric that models judge by.")
    rate: Share = Field(default=1.0, description="Share of the traffic that is scored.")
    routes: dict[Name, Share] = Field(default={}, description="Share by route, where it differs.")
    threshold: Share | None = Field(
        default=None, description="Score from which the better label is given; null leaves it to the evaluator."
    )

    @property
    def key(self) -> str:
        return self.name

    def rate_of(self, route: str) -> float:
        """The share of a route's traffic that is scored, from 0 to 1."""
        return self.routes.get(route, self.rate)

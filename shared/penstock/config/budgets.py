"""Budgets: how much a team, or each of its users, keys, models or tags, may spend in a window."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from penstock.config.entry import FieldError, Money, Name, Part

__all__ = ["LARGEST_LIMIT", "Budget"]

LARGEST_LIMIT = Decimal(9_000_000)
"""USD. Redis counts money in integers of 1e-12 USD; 64 bits hold 9.2 million USD of them."""


class Budget(Part):
    """One limit of a team. A hard one is kept by admission to the last digit; a soft one alerts only."""

    name: Name = Field(description="Name of the budget, unique within the team.")
    per: Literal["team", "user", "key", "model", "tag"] = Field(
        default="team",
        description="What has the budget: the team as a whole, or each of its users, keys, models or tag values.",
    )
    tag: str | None = Field(
        default=None, min_length=1, description='Name of the tag, where per is "tag", e.g. feature.'
    )
    match: tuple[str, ...] = Field(
        default=(), description="Users, keys, models or tag values it is for; empty gives each a budget of its own."
    )
    window: Literal["day", "month", "rolling"] = Field(
        default="day", description="UTC day, UTC calendar month, or the last hours."
    )
    hours: int | None = Field(default=None, ge=1, le=744, description="Length of a rolling window, hours.")
    limit: Money = Field(gt=0, le=LARGEST_LIMIT, description="Most USD in a window.")
    mode: Literal["hard", "soft"] = Field(
        default="hard", description="hard: what could exceed it is refused. soft: alerts only."
    )
    alerts: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        default=(0.5, 0.8, 1.0), description="Shares of the limit at which on-call is alerted, ascending."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.window == "rolling") != (self.hours is not None):
            raise FieldError(("hours",), "belongs to a rolling window, and a rolling window needs it, e.g. hours: 24")
        if (self.per == "tag") != (self.tag is not None):
            raise FieldError(("tag",), "belongs to a budget per tag, and a budget per tag needs it, e.g. tag: feature")
        if self.per == "team" and self.match:
            raise FieldError(
                ("match",), "chooses users, keys, models or tag values; a budget of the whole team has none"
            )
        if list(self.alerts) != sorted(set(self.alerts)):
            raise FieldError(("alerts",), "must ascend without repetition, e.g. [0.5, 0.8, 1.0]")
        return self

    @property
    def window_name(self) -> str:
        """``day``, ``month`` or ``rolling-<hours>h``: the name of the window in events."""
        return f"rolling-{self.hours}h" if self.window == "rolling" else self.window

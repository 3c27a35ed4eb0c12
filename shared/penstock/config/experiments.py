"""Experiments: two or more ways to answer, compared on live traffic."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.config.canonical import canonical_json, content_hash
from penstock.config.entry import Entry, FieldError, Instant, Name, Part

__all__ = ["Arm", "Experiment", "Metric", "draw"]

_UNBOUNDED = ("cost", "latency_ms", "model_ms", "output_tokens")
"""Metrics of which only the experiment can say how much counts at most."""
_RATES = ("completed", "failed")
_SCORE = re.compile(r"[a-z_]+\.[A-Za-z0-9_.-]+")
# What may change while an experiment runs: who takes part and when. It changes neither an arm nor what is compared.
_NO_PART_OF_THE_DESIGN = {"share", "starts_at", "ends_at", "paused"}


class Arm(Part):
    """One way to answer. What it leaves open is as the request asks."""

    name: Name = Field(description="Name of the arm, e.g. control.")
    weight: int = Field(default=1, ge=1, le=1000, description="Share of the traffic relative to the other arms.")
    prompt_label: str | None = Field(default=None, description="Version of the prompt: a label or a content hash.")
    route: Name | None = Field(default=None, description="Route, hence model.")
    policy: Name | None = Field(default=None, description="Guardrail policy.")


class Metric(Part):
    """A figure of each request that arms are compared by: its mean over the requests of an arm."""

    name: str = Field(
        min_length=1,
        description="A score (subject.name, e.g. answer.groundedness or feedback.rating), cost (USD), latency_ms, "
        "output_tokens (both of completed requests), completed (1 or 0), failed (1 or 0: the target that was asked first "
        "gave no answer) or model_ms (time of its call, where it gave one).",
    )
    better: Literal["higher", "lower"] = Field(default="higher", description="Which way is good.")
    role: Literal["goal", "guard"] = Field(
        default="goal", description="goal: decides the experiment. guard: must not become worse by more than margin."
    )
    margin: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Difference that does not matter, in the metric's unit."
    )
    lower_bound: float = Field(default=0.0, allow_inf_nan=False, description="Values below it count as it.")
    upper_bound: float = Field(default=1.0, allow_inf_nan=False, description="Values above it count as it.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name not in (*_UNBOUNDED, *_RATES) and not _SCORE.fullmatch(self.name):
            known = ", ".join((*_UNBOUNDED, *_RATES))
            raise FieldError(("name",), f"{self.name!r} is no metric: write {known}, or a score as subject.name")
        if self.name in _UNBOUNDED and "upper_bound" not in self.model_fields_set:
            raise FieldError(("upper_bound",), f"is needed for {self.name}: values above it count as it")
        if self.name == "cost" and self.lower_bound != 0:
            raise FieldError(("lower_bound",), "must be 0 for cost: the costs of a request's calls are added up")
        if self.lower_bound >= self.upper_bound:
            raise FieldError(("upper_bound",), "must be above lower_bound")
        if self.margin >= self.upper_bound - self.lower_bound:
            raise FieldError(("margin",), "is as wide as the bounds: no difference could ever matter")
        return self


class Experiment(Entry):
    """What is compared, for whom, by what. The first arm is the control."""

    KIND: ClassVar[str] = "experiments"

    name: Name = Field(description="Name of the experiment.")
    team: Name = Field(description="Team whose requests take part.")
    routes: tuple[Name, ...] = Field(default=(), description="Routes whose requests take part; empty for all.")
    prompt: Name | None = Field(default=None, description="Prompt whose requests take part; null for all.")
    share: float = Field(default=1.0, gt=0, le=1, description="Share of them that takes part.")
    unit: Literal["user", "conversation", "request"] = Field(
        default="user",
        description="What is assigned and keeps its arm; a request without a user is assigned by conversation.",
    )
    arms: tuple[Arm, ...] = Field(min_length=2, max_length=8, description="Ways to answer; the first is the control.")
    metrics: tuple[Metric, ...] = Field(
        min_length=1, max_length=16, description="Figures to compare by; one goal at least."
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05,
        description="Chance of any wrong decision over the whole experiment, however often it is looked at.",
    )
    starts_at: Instant | None = Field(default=None, description="First instant, UTC; null for at once.")
    ends_at: Instant | None = Field(default=None, description="When it ends undecided, UTC; null for never.")
    paused: bool = Field(default=False, description="True assigns nobody.")
    salt: str = Field(
        default="",
        max_length=100,
        description="Another one draws other units for each arm: for a run under the same name.",
    )

    @property
    def key(self) -> str:
        return self.name

    @cached_property
    def design(self) -> str:
        """Hash of what an observation depends on: the entry without share, starts_at, ends_at and paused.

        Another design is another experiment: its statistics begin anew.
        """
        return content_hash(
            canonical_json(self.model_dump(mode="python", exclude_defaults=True, exclude=_NO_PART_OF_THE_DESIGN))
        )

    @property
    def control(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def tests_ratio(self) -> bool:
        """Whether arms without the units they should have end it: then its metrics say nothing."""
        return True

    def includes(self, team: str) -> bool:
        """Whether requests of ``team`` take part."""
        return team == self.team

    def answers_with(self, arm: Arm) -> str:
        """Return what an arm asks for: ``route large, policy strict``."""
        parts = (("prompt", arm.prompt_label), ("route", arm.route), ("policy", arm.policy))
        return ", ".join(f"{name} {value}" for name, value in parts if value) or "as the request asks"

    def runs(self, at: datetime) -> bool:
        """Whether requests admitted at ``at`` are assigned."""
        begun = self.starts_at is None or self.starts_at <= at
        return begun and not self.paused and (self.ends_at is None or at < self.ends_at)

    def unit_of(self, user: str | None, conversation: str | None, request: str, team: str | None = None) -> str:
        """Return what is assigned, as 16 hex digits: a hash of the user, else of the conversation, else of the request,
        from where ``unit`` begins. Hashes of one user differ between experiments, and between teams: ``team`` is that of
        the request; None: the experiment's."""
        named = {"user": user, "conversation": conversation, "request": request}
        order = list(named)[list(named).index(self.unit) :]
        kind = next(kind for kind in order if named[kind] or kind == "request")
        text = "\x1f".join((team or self.team, self.name, kind, named[kind] or ""))
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=b"experiment-unit").hexdigest()

    def arm_of(self, unit: str) -> Arm | None:
        """Return the arm of a unit, or None where it is not in the share that takes part.

        A larger share adds units and moves none; other weights move as few as they must between neighbouring arms.
        """
        if draw(unit, self.salt, b"share") >= int(self.share * 2**64):
            return None
        position = draw(unit, self.salt, b"arm") * sum(arm.weight for arm in self.arms) >> 64
        for arm in self.arms:
            position -= arm.weight
            if position < 0:
                return arm
        raise AssertionError("the draw is below the sum of the weights")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [arm.name for arm in self.arms]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise FieldError(("arms", index, "name"), f"{name!r} is there twice")
        if all((arm.prompt_label, arm.route, arm.policy) == (None, None, None) for arm in self.arms):
            raise FieldError(("arms",), "do not differ: give one a prompt_label, a route or a policy")
        if not any(metric.role == "goal" for metric in self.metrics):
            raise FieldError(("metrics",), "needs one with role: goal, which decides the experiment")
        seen: set[str] = set()
        for index, metric in enumerate(self.metrics):
            if metric.name in seen:
                raise FieldError(("metrics", index, "name"), f"{metric.name!r} is there twice")
            seen.add(metric.name)
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise FieldError(("ends_at",), "must be after starts_at")
        return self


def draw(unit: str, salt: str, purpose: bytes) -> int:
    """Return a number from 0 to 2 ** 64 - 1, uniform over units and independent between purposes and salts.

    Args:
        purpose: at most 16 bytes.
    """
    return int.from_bytes(blake2b(f"{salt}\x1f{unit}".encode(), digest_size=8, person=purpose).digest(), "big")

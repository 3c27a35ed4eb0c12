"""Experiments: two or more ways to answer, compared on live traffic."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.config.entry import Entry, FieldError, Instant, Name, Part

__all__ = ["Arm", "Experiment", "Metric"]


class Arm(Part):
    """One way to answer. What it leaves open is as the request asks."""

    name: Name = Field(description="Name of the arm, e.g. control.")
    weight: int = Field(default=1, ge=1, le=1000, description="Share of the traffic relative to the other arms.")
    prompt_label: str | None = Field(default=None, description="Version of the prompt: a label or a content hash.")
    route: Name | None = Field(default=None, description="Route, hence model.")
    policy: Name | None = Field(default=None, description="Guardrail policy.")


class Metric(Part):
    """A figure of each request that arms are compared by."""

    name: str = Field(
        min_length=1,
        description="A score (subject.name, e.g. answer.groundedness or feedback.rating), cost (USD), latency_ms, "
        "output_tokens or completed (1 or 0).",
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
    metrics: tuple[Metric, ...] = Field(min_length=1, description="Figures to compare by; one goal at least.")
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05,
        description="Chance of any wrong decision over the whole experiment, however often it is looked at.",
    )
    starts_at: Instant | None = Field(default=None, description="First instant, UTC; null for at once.")
    ends_at: Instant | None = Field(default=None, description="When it ends undecided, UTC; null for never.")
    paused: bool = Field(default=False, description="True assigns nobody.")

    @property
    def key(self) -> str:
        return self.name

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [arm.name for arm in self.arms]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise FieldError(("arms", index, "name"), f"{name!r} is there twice")
        if all((arm.prompt_label, arm.route, arm.policy) == (None, None, None) for arm in self.arms[1:]):
            raise FieldError(("arms",), "do not differ from the control: give one a prompt_label, a route or a policy")
        if not any(metric.role == "goal" for metric in self.metrics):
            raise FieldError(("metrics",), "needs one with role: goal, which decides the experiment")
        seen: set[str] = set()
        for index, metric in enumerate(self.metrics):
            if metric.name in seen:
                raise FieldError(("metrics", index, "name"), f"{metric.name!r} is there twice")
            seen.add(metric.name)
            if metric.lower_bound >= metric.upper_bound:
                raise FieldError(("metrics", index, "upper_bound"), "must be above lower_bound")
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise FieldError(("ends_at",), "must be after starts_at")
        return self

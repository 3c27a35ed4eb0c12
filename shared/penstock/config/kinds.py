"""The kinds of configuration that travel on the ``config-<kind>`` topics, and the rules each entry keeps.

An entry is what one YAML mapping under ``infra/config/<kind>/`` says. Its canonical JSON travels, its version is that
text's hash, and every reader validates it again. Rules between entries (a team's policy must exist) stand in
:mod:`penstock.config.references`, since one entry cannot know them.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from penstock.config.adapters import Adapter
from penstock.config.alerting import Alerting, AlertRoute, Escalation, Receiver
from penstock.config.budgets import Budget
from penstock.config.energy import EnergyFigures
from penstock.config.entry import Entry, FieldError, ModelName, Name, Part, Share
from penstock.config.evaluators import Evaluator
from penstock.config.experiments import Arm, Experiment, Metric
from penstock.config.keys import ApiKey
from penstock.config.policies import SCANNERS, Policy, ScannerRule
from penstock.config.prices import Price
from penstock.config.prompts import Prompt, PromptMessage, PromptVariable, VariableError
from penstock.config.rubrics import Choice, Rubric

__all__ = [
    "KINDS", "SCANNERS", "Adapter", "AlertRoute", "Alerting", "ApiKey", "Arm", "Breaker", "Budget", "Cache", "Canary",
    "Choice", "EnergyFigures", "Entry", "Escalation", "Evaluator", "Experiment", "Metric", "Policy", "Price", "Prompt",
    "PromptMessage", "PromptVariable", "QualityFloor", "Receiver", "Retrieval", "Route", "RouteSampling", "Rubric",
    "ScannerRule", "Shadow", "Target", "Team", "VariableError",
]  # fmt: skip


class Team(Entry):
    """Who sends requests and pays for them. Its name is the ``tenant_id`` of events."""

    KIND: ClassVar[str] = "teams"

    name: Name = Field(description="Name of the team: the tenant_id of its events.")
    allowed_routes: tuple[str, ...] = Field(
        default=("*",), description='Routes the team may ask for; ["*"] allows all.'
    )
    policy: Name = Field(default="default", description="Guardrail policy, where the route names none.")
    allowed_policies: tuple[Name, ...] = Field(
        default=(), description="Policies that a request may name for itself; none by default."
    )
    default_route: Name = Field(default="default", description='Route of requests that ask for "default".')
    allowed_models: tuple[str, ...] = Field(
        default=("*",), description='Models that may answer the team, by the names routes give them; ["*"] allows all.'
    )
    requests_per_minute: int | None = Field(default=None, ge=1, description="Admission limit; null for none.")
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Tokens of prompts and answers that are admitted in a minute; null for no limit.",
    )
    max_concurrent: int | None = Field(
        default=None, ge=1, description="Requests that are admitted and have no result yet, at most; null for no limit."
    )
    max_prompt_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of a request's messages, as estimated at admission; null for no limit."
    )
    max_deadline_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that a request waits for its answer at most; null for no limit.",
    )
    priorities: tuple[Literal["interactive", "standard", "batch"], ...] = Field(
        default=("interactive", "standard", "batch"), min_length=1, description="Priorities that its requests may have."
    )
    require_key: bool = Field(
        default=False,
        description="Requests are refused without the key_id of a key of the team that is in force, however they come; "
        "not those of judges, which evaluation asks.",
    )
    budgets: tuple[Budget, ...] = Field(default=(), description="What the team may spend; none for no limit.")
    toxicity_alert: Share | None = Field(
        default=None, description="Toxicity from 0 to 1 that raises an alert; null leaves it to evaluation."
    )

    @property
    def key(self) -> str:
        return self.name

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field, what in (("allowed_routes", "routes"), ("allowed_models", "models")):
            names = getattr(self, field)
            if not names:
                raise FieldError((field,), f'is empty: the team could ask for nothing; name {what} or write ["*"]')
            if "*" in names and len(names) > 1:
                raise FieldError((field,), 'holds "*" beside other names: write ["*"] alone, or the names alone')
        names = [budget.name for budget in self.budgets]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise FieldError(("budgets", index, "name"), f"{name!r} is taken by another budget of the team")
        return self

    def allows(self, route: str) -> bool:
        """Whether the team may ask for ``route``."""
        return "*" in self.allowed_routes or route in self.allowed_routes

    def refused_models(self, route: Route) -> list[str]:
        """Models that may answer on ``route``, its canary's included and its shadows' not, and that the team may not use."""
        if "*" in self.allowed_models:
            return []
        answering = (*route.targets, *([route.canary.target] if route.canary else []))
        return sorted({target.model for target in answering} - set(self.allowed_models))


class Target(Part):
    """One model behind a route."""

    name: Name | None = Field(default=None, description="Name within the route; null: the model's.")

    backend: Literal["extractive", "openai", "vllm"] = Field(
        description="extractive (embedded, no weights), openai (any compatible endpoint) or vllm."
    )
    model: ModelName = Field(description="Model as the backend names it.")
    base_url: str | None = Field(
        default=None, description="Address of an OpenAI-compatible endpoint, with its /v1; null for the backend's own."
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable of inference that holds the key; never the key.",
    )
    timeout_s: float = Field(default=60.0, gt=0, le=3600, description="Longest wait for one call, seconds.")
    weight: int = Field(
        default=1,
        ge=0,
        description="Share of the traffic relative to the route's other targets; 0: stands in where others fail, no more.",
    )
    quality: Share | None = Field(
        default=None,
        description="How good its answers are, from 0 to 1, as a golden set says: what a route's quality_floor asks for "
        "until enough live scores are known.",
    )

    @property
    def label(self) -> str:
        """Its name in events, metrics and commands."""
        return self.name or self.model

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.backend == "extractive" and (self.base_url or self.api_key_env):
            raise ValueError("the extractive backend runs inside inference: leave out base_url and api_key_env")
        if self.base_url is not None:
            url = urlsplit(self.base_url)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise FieldError(("base_url",), f"{self.base_url!r} is no address: write http(s)://host[:port]/v1")
            if url.username or url.password:
                raise FieldError(
                    ("base_url",),
                    "holds credentials, which every reader of the topic would see: name api_key_env instead",
                )
        return self


class Retrieval(Part):
    """How a route grounds its answers."""

    enabled: bool = Field(default=True, description="Whether passages are attached.")
    collection: Name = Field(default="default", description="Collection of documents to search.")
    top_k: int = Field(default=4, ge=1, le=100, description="Most passages to attach.")
    score_floor: Share = Field(default=0.25, description="Least score of a passage, from 0 to 1.")
    token_budget: int = Field(default=1200, ge=1, description="Most tokens of all passages together.")
    on_unavailable: Literal["continue", "wait"] = Field(
        default="continue", description="When the store is away: answer without passages, or wait for it."
    )
    tags: dict[str, str] = Field(
        default_factory=dict, description="Labels that a document must carry to be searched, all of them."
    )
    language: str | None = Field(
        default=None,
        pattern=r"^[a-z]{2,3}$",
        description="Language of the documents searched, ISO 639-1; null for any.",
    )
    diversity: Share = Field(
        default=0.0,
        description="Weight of what a passage adds to those before it, against its own relevance (maximal marginal "
        "relevance): 0 orders by relevance alone.",
    )
    dense_share: Share | None = Field(
        default=None,
        description="Weight of the embeddings in the score, against the words: 1 searches by embedding alone, 0 by words "
        "alone; null for what was found best.",
    )
    reranker: str | None = Field(
        default=None,
        description="Reranker that orders the candidates, by the name it is registered under; null for none.",
    )


class RouteSampling(Part):
    """Generation parameters of a route, where the request leaves them open."""

    temperature: float | None = Field(default=None, ge=0, le=2, description="Sampling temperature.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus sampling mass.")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="Most tokens to generate.")
    stop: tuple[str, ...] = Field(default=(), max_length=4, description="Strings that end the generation.")
    seed: int | None = Field(default=None, description="Seed of the sampling.")


class Cache(Part):
    """Which answers of a route are given again instead of calling the model; never to another team."""

    exact: bool = Field(
        default=False,
        description="Whether a request gets the answer of an earlier one that is the same, word for word, with the same "
        "passages and parameters.",
    )
    ttl_s: int = Field(
        default=3600, ge=1, le=30 * 24 * 3600, description="How long an answer may be given again, seconds."
    )
    any_temperature: bool = Field(
        default=False,
        description="Whether that holds, too, where the model chooses its words by chance: at a temperature that is not "
        "0, or that nobody set.",
    )
    semantic: Literal["off", "shadow", "on"] = Field(
        default="off",
        description="Whether a question gets the answer to an earlier one that means the same: on answers without the "
        "model, shadow calls it and measures how often the earlier answer would have been wrong.",
    )
    similarity: Share = Field(
        default=0.95, description="Least cosine of two questions that mean the same, for the semantic cache."
    )

    @field_validator("semantic", mode="before")
    @classmethod
    def _plain_words(cls, value: object) -> object:
        """Take what YAML 1.1 makes of on and off without quotes: true and false."""
        return ("on" if value else "off") if isinstance(value, bool) else value


class Breaker(Part):
    """When a target that fails is left alone for a while."""

    enabled: bool = Field(default=True, description="Whether targets of the route are left alone at all.")
    failure_ratio: float = Field(
        default=0.5, gt=0, le=1, description="Share of the newest calls that must fail to open the circuit."
    )
    min_calls: int = Field(default=5, ge=1, le=1000, description="Calls that must be known before the share counts.")
    window_s: float = Field(default=30.0, gt=0, le=3600, description="How far back calls count, seconds.")
    open_s: float = Field(
        default=10.0, gt=0, le=3600, description="How long a target is left alone before one call tries it, seconds."
    )


class QualityFloor(Part):
    """How good a target must be to be chosen for being cheap or fast."""

    score: str = Field(
        pattern=r"^[a-z_]+\.[A-Za-z0-9_.-]+$",
        description="Score of its answers, as subject.name, e.g. answer.groundedness.",
    )
    at_least: Share = Field(description="Least mean of that score.")


class Canary(Part):
    """A target on trial: it gets a share of the traffic, and is taken back where it is worse than the others.

    Each bound is what it may be worse by than the stable targets; null does not watch that figure.
    """

    target: Target = Field(description="The target on trial.")
    share: float = Field(gt=0, le=0.5, description="Share of the traffic.")
    sticky: Literal["user", "conversation", "request"] = Field(
        default="user",
        description="What keeps its arm; a request without a user is assigned by conversation, else by itself.",
    )
    max_error_rate: float | None = Field(
        default=0.02, ge=0, lt=1, description="Failed calls: by how much more of all, e.g. 0.02."
    )
    max_latency_ms: float | None = Field(default=None, ge=0, description="Mean latency of answers: by how many more.")
    latency_limit_ms: float = Field(default=60_000.0, gt=0, description="Latencies above it count as it, milliseconds.")
    max_cost: float | None = Field(default=None, ge=0, description="Mean cost of a request: by how much more, USD.")
    cost_limit: float = Field(default=1.0, gt=0, description="Costs above it count as it, USD.")
    max_score_loss: dict[str, float] = Field(
        default_factory=dict,
        description="Scores by subject.name, e.g. answer.groundedness: by how much lower their mean may be.",
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="Chance that a canary within its bounds is ever taken back."
    )
    salt: str = Field(default="", max_length=100, description="Another one draws other units, and begins anew.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for bound, limit in (("max_latency_ms", "latency_limit_ms"), ("max_cost", "cost_limit")):
            most, counted = getattr(self, bound), getattr(self, limit)
            if most is not None and most >= counted:
                raise FieldError((bound,), f"is as large as {limit}, {counted:g}: no difference could ever exceed it")
        for score, loss in self.max_score_loss.items():
            if not re.fullmatch(r"[a-z_]+\.[A-Za-z0-9_.-]+", score):
                raise FieldError(("max_score_loss", score), "is no score: write subject.name, e.g. answer.groundedness")
            if not 0 <= loss < 1:
                raise FieldError(("max_score_loss", score), "must be from 0 to below 1: scores are from 0 to 1")
        return self


class Shadow(Part):
    """A target that answers a share of the traffic beside the route: scored and paid for, never released."""

    target: Target = Field(description="The target that is tried.")
    share: float = Field(gt=0, le=1, description="Share of the traffic that it answers too.")


class Route(Entry):
    """What answers a request, and how."""

    KIND: ClassVar[str] = "routes"

    name: Name = Field(description="Name that requests ask for.")
    targets: tuple[Target, ...] = Field(
        min_length=1, description="Models that share the traffic by weight; the next one stands in where one fails."
    )
    retrieval: Retrieval = Field(default=Retrieval(), description="How answers are grounded.")
    policy: Name | None = Field(default=None, description="Guardrail policy; null leaves it to the team.")
    prompt: Name | None = Field(
        default=None, description="Registered prompt of requests that name none; null for none."
    )
    sampling: RouteSampling = Field(
        default=RouteSampling(), description="Generation parameters where the request leaves them open."
    )
    cache: Cache = Field(default=Cache(), description="Which answers are given again instead of calling the model.")
    deadline_s: float | None = Field(
        default=None, gt=0, description="Seconds after which an answer is of no use, where the request sets none."
    )
    choice: Literal["weighted", "cheapest", "fastest"] = Field(
        default="weighted",
        description="Which target is asked first: one drawn by weight, or the cheapest or fastest that is expected to meet "
        "the deadline and the quality floor.",
    )
    quality_floor: QualityFloor | None = Field(
        default=None, description="How good a target must be to be chosen for being cheap or fast."
    )
    breaker: Breaker = Field(default=Breaker(), description="When a target that fails is left alone for a while.")
    canary: Canary | None = Field(default=None, description="A target on trial.")
    shadows: tuple[Shadow, ...] = Field(
        default=(), max_length=4, description="Targets whose answers are scored and never released."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        others = [("canary", self.canary.target)] if self.canary else []
        others += [("shadows", shadow.target) for shadow in self.shadows]
        names: set[str] = set()
        for path, target in [*(("targets", target) for target in self.targets), *others]:
            if target.label in names:
                raise FieldError((path,), f"has two targets called {target.label!r}: give one of them another name")
            names.add(target.label)
        if not any(target.weight for target in self.targets):
            raise FieldError(("targets",), "all have weight 0: none would ever be asked first; give one of them more")
        return self

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """Every target that may be called, the canary and the shadows last."""
        canary = (self.canary.target,) if self.canary else ()
        return (*self.targets, *canary, *(shadow.target for shadow in self.shadows))

    @property
    def key(self) -> str:
        return self.name


KINDS: dict[str, type[Entry]] = {
    kind.KIND: kind
    for kind in (
        Team, Route, Policy, Prompt, Price, Alerting, Evaluator, Rubric, Experiment, Adapter, EnergyFigures,
        ApiKey,
    )
}  # fmt: skip
"""Every kind by its name; the topic is ``config-<name>``, the folder ``infra/config/<name>``."""

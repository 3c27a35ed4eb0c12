"""Admission: what is decided about a request before anything is spent on it. Pure.

Three steps: :func:`judge` decides what can be decided from the request and the configuration alone; the ledger of
claims (Redis, in ``adapters``) decides what depends on other requests (duplicates, rate, budget); :func:`step` makes the
events.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Protocol

import msgspec
from penstock.bus import Emit
from penstock.config.kinds import Price, Prompt, Route, Team, VariableError
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import AdmittedRequest, Context, Cost, LlmRequest, Message, Refusal, Sampling, Status

__all__ = [
    "Claim",
    "Configuration",
    "Decision",
    "Judgement",
    "Limits",
    "content_hash",
    "identifiable",
    "judge",
    "nano_usd",
    "refusal",
    "settled",
    "step",
]

_ROLES = frozenset({"system", "user", "assistant", "tool"})
_REQUEST_ID = re.compile(r"^[\x21-\x7e]{1,200}$")
_STAGE = "intake"


class Configuration(Protocol):
    """The part of the config plane that admission reads."""

    def team(self, name: str) -> Team | None: ...
    def route(self, name: str) -> Route | None: ...
    def prompt(self, name: str, label: str = ...) -> Prompt | None: ...
    def price(self, model: str, at: datetime) -> Price | None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that hold for every team."""

    max_prompt_bytes: int = 1_048_576
    max_messages: int = 500
    # Reserved where neither request nor route says how long an answer may be.
    default_max_completion_tokens: int = 1024


class Decision(StrEnum):
    """What the ledger of claims says of a request."""

    ADMITTED = "admitted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    RATE_LIMITED = "rate_limited"
    OVER_BUDGET = "over_budget"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Claim:
    """The ledger's answer; ``retry_after_s`` is set where the rate was exceeded."""

    decision: Decision
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A request as admission sees it: the context it will carry, and why it cannot be admitted, if it cannot."""

    request: LlmRequest
    context: Context
    messages: list[Message]
    sampling: Sampling
    team: Team | None = None
    inserted: list[str] = field(default_factory=list)
    reserve: Decimal | None = None
    status: Status | None = None
    code: str = ""
    reason: str = ""


def nano_usd(amount: Decimal) -> int:
    """Return ``amount`` in billionths of a USD, rounded up: what Redis can count exactly up to 9 million USD."""
    return int((amount * 1_000_000_000).to_integral_value(rounding=ROUND_CEILING))


def content_hash(request: LlmRequest) -> str:
    """Return a hash of what the producer asked, without the envelope: two sends of one request have one hash."""
    asked = msgspec.structs.replace(request, event_id="", causation_id="", occurred_at=datetime.min)
    return hashlib.sha256(msgspec.msgpack.encode(msgspec.to_builtins(asked, builtin_types=(bytes,)))).hexdigest()[:16]


def identifiable(request: LlmRequest) -> str | None:
    """Return why no result could ever be told apart for ``request``, or None. Such a request is a dead letter."""
    if not _REQUEST_ID.match(request.request_id):
        return "request_id must be 1 to 200 printable ASCII characters without spaces; send the request with another"
    if not request.event_id:
        return "event_id is empty; set it to a UUID of the send"
    if not request.tenant_id or len(request.tenant_id) > 200:
        return "tenant_id must name the team, in up to 200 characters"
    return None


def judge(request: LlmRequest, config: Configuration, limits: Limits, now: datetime) -> Judgement:
    """Decide what can be decided from ``request`` and the configuration alone."""
    base = Judgement(
        request=request,
        context=Context(
            conversation_id=request.conversation_id,
            user_id=request.user_id,
            route=request.route,
            tags=request.tags,
            requested_at=request.occurred_at,
            deadline_at=request.deadline_at,
        ),
        messages=[],
        sampling=request.sampling,
    )

    def refuse(code: str, reason: str, status: Status = Status.REJECTED) -> Judgement:
        return _replace(base, status=status, code=code, reason=reason)

    team = config.team(request.tenant_id)
    if team is None:
        return refuse(
            "unknown_team", f"no team {request.tenant_id!r} is configured; add it with `penstock config apply`"
        )
    base = _replace(base, team=team)
    route_name = team.default_route if request.route == "default" else request.route
    route = config.route(route_name)
    if route is None:
        return refuse("unknown_route", f"no route {route_name!r} is configured; see `penstock config show routes`")
    if not team.allows(route_name):
        return refuse(
            "route_not_allowed", f"team {team.name!r} may not use route {route_name!r}; see its allowed_routes"
        )
    deadline = request.deadline_at
    if deadline is None and route.deadline_s is not None:
        deadline = request.occurred_at + timedelta(seconds=route.deadline_s)
    base = _replace(
        base,
        context=msgspec.structs.replace(
            base.context, route=route_name, policy_name=route.policy or team.policy, deadline_at=deadline
        ),
    )
    if deadline is not None and deadline <= now:
        return refuse("expired", f"the deadline {deadline.isoformat()} had passed before admission", Status.EXPIRED)
    messages: list[Message] = []
    if prompt_name := request.prompt_name or route.prompt:
        prompt = config.prompt(prompt_name, request.prompt_label)
        if prompt is None:
            return refuse(
                "unknown_prompt",
                f"no version {request.prompt_label!r} of a prompt {prompt_name!r}; see `penstock config show prompts`",
            )
        try:
            messages = [
                Message(role=role, content=content) for role, content in prompt.render(request.prompt_variables)
            ]
        except VariableError as error:
            return refuse("invalid_prompt_variables", str(error))
        base = _replace(
            base,
            context=msgspec.structs.replace(base.context, prompt_name=prompt_name, prompt_version=prompt.version),
        )
    system = "\n".join(message.content for message in messages if message.role == "system")
    inserted = [value for value in request.prompt_variables.values() if value and value in system]
    messages += request.messages
    if problem := _problem(messages, request.sampling, limits):
        return refuse(*problem)
    sampling = _sampling(request.sampling, route)
    return _replace(
        base,
        messages=messages,
        inserted=inserted,
        sampling=sampling,
        reserve=_worst_case(messages, sampling, route, config, limits, request.occurred_at),
    )


def step(judgement: Judgement, claim: Claim, now: datetime) -> list[Emit]:
    """Return the events that a judged and claimed request leads to."""
    request, context = judgement.request, judgement.context
    key = request_key(context, request.request_id)
    match claim.decision:
        case Decision.DUPLICATE | Decision.CONFLICT:
            # The first send has its result, or will have. A second result under the same request_id must not exist.
            return []
        case Decision.ADMITTED:
            admitted = AdmittedRequest(
                **derive(request, "intake.admitted", 0, now),
                context=context,
                messages=judgement.messages,
                sampling=judgement.sampling,
                stream=request.stream,
                reserved_cost=judgement.reserve,
                inserted=judgement.inserted,
            )
            return [Emit("requests-admitted", key, admitted)]
        case Decision.RATE_LIMITED:
            team = judgement.team.requests_per_minute if judgement.team else None
            status, code = Status.REJECTED, "rate_limited"
            reason = f"over the team's {team} requests per minute; send again in {claim.retry_after_s:.1f} s"
        case Decision.OVER_BUDGET:
            status, code = Status.REJECTED, "over_budget"
            reason = "the worst-case cost would exceed the team's budget; wait for the next window or raise the budget"
        case Decision.REFUSED:
            status = judgement.status or Status.REJECTED
            code, reason = judgement.code, judgement.reason
    return [Emit("refusals", key, refusal(request, context, status, code, reason, now))]


def refusal(request: LlmRequest, context: Context, status: Status, code: str, reason: str, now: datetime) -> Refusal:
    """Return the refusal that ends ``request`` at intake."""
    return Refusal(
        **derive(request, "intake.refusal", 0, now),
        context=context,
        stage=_STAGE,
        status=status,
        code=code,
        reason=reason,
    )


def settled(event: Cost | Refusal) -> int | None:
    """Return what a reservation is settled with, in nano-USD: the priced cost, nothing for an early end.

    None keeps the reservation: the call was not priced, so what it cost is not known and the worst case stands.
    """
    if isinstance(event, Refusal):
        return 0
    if not event.priced or event.amount is None:
        return None
    return nano_usd(event.amount)


def _problem(messages: list[Message], sampling: Sampling, limits: Limits) -> tuple[str, str] | None:
    if not messages:
        return "no_messages", "the request has no messages and no prompt; send messages or name a prompt"
    if len(messages) > limits.max_messages:
        return "too_many_messages", f"{len(messages)} messages are more than the {limits.max_messages} allowed"
    for index, message in enumerate(messages):
        if message.role not in _ROLES:
            return (
                "invalid_role",
                f"messages[{index}].role is {message.role!r}; it must be one of {', '.join(sorted(_ROLES))}",
            )
    size = sum(len(message.content.encode()) for message in messages)
    if size > limits.max_prompt_bytes:
        return "prompt_too_large", f"the messages are {size:,} bytes, more than the {limits.max_prompt_bytes:,} allowed"
    bounds = (("temperature", sampling.temperature, 0, 2), ("top_p", sampling.top_p, 0, 1))
    for name, value, low, high in bounds:
        if value is not None and not low <= value <= high:
            return f"invalid_{name}", f"sampling.{name} is {value}; it must be from {low} to {high}"
    if sampling.max_completion_tokens is not None and sampling.max_completion_tokens < 1:
        return "invalid_max_completion_tokens", "sampling.max_completion_tokens must be at least 1"
    return None


def _sampling(asked: Sampling, route: Route) -> Sampling:
    """The request's parameters, the route's where it leaves them open."""
    default = route.sampling

    def first(own: float | None, other: float | None) -> float | None:
        return other if own is None else own

    return Sampling(
        temperature=first(asked.temperature, default.temperature),
        top_p=first(asked.top_p, default.top_p),
        max_completion_tokens=asked.max_completion_tokens or default.max_completion_tokens,
        stop=asked.stop or list(default.stop),
        seed=default.seed if asked.seed is None else asked.seed,
    )


def _worst_case(
    messages: list[Message], sampling: Sampling, route: Route, config: Configuration, limits: Limits, at: datetime
) -> Decimal | None:
    """The most the call can cost at the dearest target of the route; None where one has no price.

    A byte-level tokenizer makes at most one token of a byte, so the bytes bound the tokens from above. Passages that
    retrieval will attach count by their budget.
    """
    prices = [config.price(target.model, at) for target in route.targets]
    if any(price is None for price in prices):
        return None
    input_tokens = sum(len(message.content.encode()) for message in messages)
    if route.retrieval.enabled:
        input_tokens += route.retrieval.token_budget
    output_tokens = sampling.max_completion_tokens or limits.default_max_completion_tokens
    return max(
        price.input_cost_per_token * input_tokens + price.output_cost_per_token * output_tokens
        for price in prices
        if price is not None
    ).quantize(Decimal("1e-12"), rounding=ROUND_CEILING)


def _replace(judgement: Judgement, **changes: object) -> Judgement:
    return dataclasses.replace(judgement, **changes)  # type: ignore[arg-type]

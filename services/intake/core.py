"""Admission: what is decided about a request before anything is spent on it. Pure.

Three steps: :func:`judge` decides what can be decided from the request and the configuration alone, and bounds what it can
cost (``bounds``); the ledger of claims (Redis, in ``adapters``) decides what depends on other requests (duplicates, rates,
concurrency, budgets); :func:`step` makes the events. What they hand to each other stands in ``decisions``.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from penstock.bus import Emit
from penstock.config.kinds import ApiKey, Experiment, Policy, Price, Prompt, Route, Team, VariableError
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import (
    AdmittedRequest,
    Context,
    LlmRequest,
    LogRange,
    Message,
    Priority,
    Purpose,
    Refusal,
    RequestConflict,
    Sampling,
    Status,
)

from services.intake.assignment import NOT_ASSIGNED, Assigned, Skipped, assign
from services.intake.bounds import Unpriced, calls_of, embedding_calls, hard_budgets, holds_of, total
from services.intake.decisions import DEFERRED, Claim, Decision, Judgement, Refused, content_hash
from services.intake.embedding_requests import embedder_problem, embedding_problem
from services.intake.exceeded import exhausted_alert, over_budget_reason
from services.intake.identity import key_problem, key_route_problem
from services.intake.queueing import late_reason
from services.intake.team_limits import (
    deadline_of,
    deferred_reason,
    estimated_tokens,
    model_problem,
    priority_problem,
    token_problem,
)
from services.intake.tools import tools_problem
from services.intake.validity import (
    PRIORITIES,
    PURPOSES,
    Limits,
    context_bytes,
    identifiable,
    message_problem,
    policy_problem,
)

__all__ = [
    "DEFERRED", "Claim", "Configuration", "Decision", "Judgement", "Limits", "Refused", "content_hash", "identifiable",
    "judge", "refusal", "step",
]  # fmt: skip

_STAGE = "intake"


class Configuration(Protocol):
    """The part of the config plane that admission reads."""

    def team(self, name: str) -> Team | None: ...
    def route(self, name: str) -> Route | None: ...
    def policy(self, name: str) -> Policy | None: ...
    def prompt(self, name: str, label: str = ...) -> Prompt | None: ...
    def prices(self, model: str, since: datetime, until: datetime) -> list[Price]: ...
    def experiments(self, team: str) -> list[Experiment]: ...
    def api_key(self, key_id: str) -> ApiKey | None: ...


def judge(
    request: LlmRequest,
    config: Configuration,
    limits: Limits,
    now: datetime,
    place: str = "",
    assigned: Assigned | None = None,
) -> Judgement:
    """Decide what can be decided from ``request`` and the configuration alone.

    Args:
        place: where the request stands in the log.
        assigned: arms that it was admitted with before; None assigns it now. No experiment ends a request: one that an
            arm would refuse and that is fine without is judged without.
    """
    if assigned is not None:
        return _judge(request, config, limits, now, place, assigned)
    assignment = assign(request, config, now)
    judged = _judge(request, config, limits, now, place, assignment.assigned)
    if judged.refused is not None and assignment.assigned.arms:
        plain = _judge(request, config, limits, now, place, NOT_ASSIGNED)
        if plain.refused is None:
            why = [Skipped(name, "refused", judged.refused.reason) for name in assignment.assigned.arms]
            return _replace(plain, skipped=[*assignment.skipped, *why])
    return _replace(judged, skipped=assignment.skipped)


def _judge(
    request: LlmRequest, config: Configuration, limits: Limits, now: datetime, place: str, assigned: Assigned
) -> Judgement:
    base = Judgement(
        request=request,
        context=Context(
            conversation_id=request.conversation_id,
            user_id=request.user_id,
            route=request.route,
            tags=request.tags,
            requested_at=request.occurred_at,
            deadline_at=request.deadline_at,
            key_id=request.key_id,
            # One that is unknown is refused below, and the refusal is one of traffic.
            purpose=request.purpose if request.purpose in PURPOSES else Purpose.SERVE,
            experiments=assigned.arms,
            experiment_versions=assigned.designs,
            priority=request.priority if request.priority in PRIORITIES else Priority.STANDARD,
        ),
        messages=[],
        sampling=request.sampling,
        at=now,
        place=place,
        assigned=assigned,
    )

    def refuse(code: str, reason: str, status: Status = Status.REJECTED) -> Judgement:
        return _replace(base, refused=Refused(status, code, reason))

    if request.purpose not in PURPOSES:
        return refuse("unknown_purpose", f"purpose is {request.purpose!r}; it must be one of {', '.join(PURPOSES)}")
    if request.priority not in PRIORITIES:
        return refuse(
            "unknown_priority", f"priority is {request.priority!r}; it must be one of {', '.join(PRIORITIES)}"
        )
    team = config.team(request.tenant_id)
    if team is None:
        return refuse(
            "unknown_team", f"no team {request.tenant_id!r} is configured; add it with `penstock config apply`"
        )
    route_name = assigned.route or (team.default_route if request.route == "default" else request.route)
    # Whatever ends it, it leaves the queue that it entered: of what waits for room, a key may be revoked meanwhile.
    base = _replace(base, team=team, context=msgspec.structs.replace(base.context, route=route_name))
    if problem := key_problem(request, team, config, now) or priority_problem(request, team):
        return refuse(*problem)
    if (size := context_bytes(request)) > limits.max_context_bytes:
        return refuse(
            "context_too_large",
            f"conversation_id, user_id, key_id and tags are {size:,} bytes together, more than the "
            f"{limits.max_context_bytes:,} allowed",
        )
    route = config.route(route_name)
    if route is None:
        return refuse("unknown_route", f"no route {route_name!r} is configured; see `penstock config show routes`")
    if not team.allows(route_name):
        return refuse(
            "route_not_allowed", f"team {team.name!r} may not use route {route_name!r}; see its allowed_routes"
        )
    embeds = request.purpose == Purpose.EMBED
    if problem := (
        key_route_problem(request, route_name, config)
        or (embedder_problem(team, limits.embedder) if embeds else model_problem(team, route))
        or policy_problem(request, team, config)
    ):
        return refuse(*problem)
    deadline = deadline_of(request, route, team, now)
    base = _replace(
        base,
        context=msgspec.structs.replace(
            base.context,
            policy_name=assigned.policy or request.policy_name or route.policy or team.policy,
            deadline_at=deadline,
        ),
    )
    messages: list[Message] = []
    inserted: list[str] = []
    if (prompt_name := request.prompt_name or route.prompt) and not embeds:
        label = assigned.prompt_label or request.prompt_label
        prompt = config.prompt(prompt_name, label)
        if prompt is None:
            return refuse(
                "unknown_prompt",
                f"no version {label!r} of a prompt {prompt_name!r}; see `penstock prompts list`",
            )
        try:
            messages = [
                Message(role=role, content=content) for role, content in prompt.render(request.prompt_variables)
            ]
            inserted = prompt.inserted(request.prompt_variables)
        except VariableError as error:
            return refuse("invalid_prompt_variables", str(error))
        base = _replace(
            base,
            context=msgspec.structs.replace(
                base.context, prompt_name=prompt_name, prompt_version=prompt.version, prompt_label=label
            ),
        )
    messages += request.messages
    if problem := (
        embedding_problem(request, limits)
        if embeds
        else message_problem(messages, request.sampling, limits) or tools_problem(messages, request.sampling)
    ):
        return refuse(*problem)
    sampling = Sampling() if embeds else _sampling(request.sampling, route)
    output_tokens = 0 if embeds else sampling.max_completion_tokens or limits.default_max_completion_tokens
    limited = bool(hard_budgets(team.budgets))
    if limited and not embeds:
        # What the bound was made of, the model must keep.
        sampling = msgspec.structs.replace(sampling, max_completion_tokens=output_tokens)
    prompt_tokens, answer_tokens = estimated_tokens(messages, sampling), sampling.n * output_tokens
    if problem := token_problem(team, prompt_tokens, answer_tokens):
        return refuse(*problem)
    base = _replace(base, messages=messages, inserted=inserted, sampling=sampling, tokens=prompt_tokens + answer_tokens)
    if deadline is not None and deadline <= now:
        return refuse("expired", f"the deadline {deadline.isoformat()} had passed before admission", Status.EXPIRED)
    try:
        until = min(deadline or datetime.max.replace(tzinfo=UTC), now + limits.answered_within)
        policy = config.policy(base.context.policy_name)
        calls = (
            embedding_calls(messages, policy, limits.embedder, config, since=now, until=until)
            if embeds
            else calls_of(
                messages,
                route,
                policy,
                output_tokens,
                config,
                since=now,
                until=until,
                embedder=limits.embedder,
                schema=sampling.response_format or sampling.regex or "",
                answers=sampling.n,
                tools=sampling.tools,
            )
        )
    except Unpriced as error:
        if limited:
            return refuse(
                "unpriced_model",
                f"{error}, so the hard budgets of team {team.name!r} cannot be kept on route {route_name!r}: add its price "
                "with `penstock prices import` and `penstock config apply`, or make the budgets soft",
            )
        return base
    return _replace(base, reserve=total(calls), holds=holds_of(team.budgets, base.context, calls))


def step(judgement: Judgement, claim: Claim, origin: LogRange, now: datetime) -> list[Emit]:
    """Return the events that a judged and claimed request leads to; ``origin`` is where it stands in the log."""
    request, context = judgement.request, judgement.context
    key = request_key(context, request.request_id)

    def refuse(why: Refused) -> Emit:
        return Emit("refusals", key, refusal(request, context, why, now, judgement.place))

    match claim.decision:
        case Decision.DUPLICATE:
            # The first send has its result, or will have. A second result under the same request_id must not exist.
            return []
        case Decision.CONFLICT:
            return [Emit("request-conflicts", key, _conflict(request, now))]
        case Decision.WAITING:
            return [Emit("requests-waiting", f"{request.tenant_id}/{context.priority}", request)]
        case Decision.QUEUE_TOO_LONG if claim.late is not None:
            reason = late_reason(claim.late, claim.retry_after_ms or 0)
            return [refuse(Refused(Status.REJECTED, str(claim.decision), reason, claim.retry_after_ms))]
        case decision if decision in DEFERRED:
            reason = deferred_reason(decision, judgement.team, judgement.tokens, claim.retry_after_ms or 0)
            return [refuse(Refused(Status.REJECTED, str(decision), reason, claim.retry_after_ms))]
        case Decision.OVER_BUDGET if claim.exceeded is not None:
            reason = over_budget_reason(request.tenant_id, claim.exceeded)
            emits = [refuse(Refused(Status.REJECTED, "over_budget", reason))]
            if claim.alert:
                alert = exhausted_alert(request, claim.exceeded, origin, now)
                emits.append(Emit("alerts", alert.fingerprint, alert))
            return emits
    # A process died between the decision and its event, and what the request needs was withdrawn since: it is refused.
    # Not where only its deadline has passed: the event may be on its way already, and this is the same.
    why = claim.refused or judgement.refused
    if why is not None and (claim.refused or not judgement.messages):
        return [refuse(why)]
    admitted = AdmittedRequest(
        **derive(request, "intake.admitted", 0, now),
        context=msgspec.structs.replace(context, admitted_at=claim.admitted_at),
        messages=judgement.messages,
        sampling=judgement.sampling,
        stream=request.stream,
        reserved_cost=judgement.reserve,
        inserted=judgement.inserted,
        retrieval=request.retrieval,
    )
    return [Emit("requests-admitted", key, admitted)]


def refusal(request: LlmRequest, context: Context, why: Refused, now: datetime, place: str = "") -> Refusal:
    """Return the refusal that ends ``request`` at intake; one that waiting helps against ends this send of it only.

    Args:
        place: where the request stands in the log: such a refusal has an identity for each place, since what is sent again
            may be the same event, and may be refused again.
    """
    stage = "intake.refusal" if why.retry_after_ms is None else f"intake.refusal@{place}"
    return Refusal(
        **derive(request, stage, 0, now),
        context=context,
        stage=_STAGE,
        status=why.status,
        code=why.code,
        reason=why.reason,
        retry_after_ms=why.retry_after_ms,
    )


def _conflict(request: LlmRequest, now: datetime) -> RequestConflict:
    """What is said of a request that came under another one's request_id: no refusal, which would end the other."""
    return RequestConflict(
        **derive(request, "intake.conflict", 0, now),
        code="conflict",
        reason=f"request_id {request.request_id!r} is that of a request with other content, which has its own result; send "
        "this one under a request_id of its own",
        key_id=request.key_id,
    )


def _sampling(asked: Sampling, route: Route) -> Sampling:
    """The request's parameters, the route's where it leaves them open."""
    default = route.sampling

    def first(own: float | None, other: float | None) -> float | None:
        return other if own is None else own

    return msgspec.structs.replace(
        asked,
        temperature=first(asked.temperature, default.temperature),
        top_p=first(asked.top_p, default.top_p),
        max_completion_tokens=asked.max_completion_tokens or default.max_completion_tokens,
        stop=asked.stop or list(default.stop),
        seed=default.seed if asked.seed is None else asked.seed,
    )


def _replace(judgement: Judgement, **changes: object) -> Judgement:
    return dataclasses.replace(judgement, **changes)  # type: ignore[arg-type]

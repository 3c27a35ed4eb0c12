"""Which arm of each experiment a request is answered by. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec
from penstock.config.kinds import Arm, Experiment, Policy, Prompt, Route, Team
from penstock.contracts.records import LlmRequest, Purpose

__all__ = ["NOT_ASSIGNED", "Assigned", "Assignment", "Configuration", "Skipped", "assign"]

_DEFAULT_LABEL = "production"


class Configuration(Protocol):
    """The part of the config plane that assignment reads."""

    def team(self, name: str) -> Team | None: ...
    def experiments(self, team: str) -> list[Experiment]: ...
    def route(self, name: str) -> Route | None: ...
    def policy(self, name: str) -> Policy | None: ...
    def prompt(self, name: str, label: str = ...) -> Prompt | None: ...


class Assigned(msgspec.Struct, frozen=True, omit_defaults=True):
    """The arms of a request, and what they ask for in place of what the request does. A claim remembers it, so that the
    request is answered alike when it is read again, whatever the configuration is by then.

    Attributes:
        arms: by experiment.
        designs: which design of each experiment it was (``Experiment.design``).
        route: None leaves it to the request; so with ``prompt_label`` and ``policy``.
    """

    arms: dict[str, str] = {}
    designs: dict[str, str] = {}
    route: str | None = None
    prompt_label: str | None = None
    policy: str | None = None


NOT_ASSIGNED = Assigned()
"""Takes part in no experiment."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An experiment that concerns a request and cannot assign it; ``code`` is one of a small set."""

    experiment: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """What became of a request, and of the experiments that it could not take part in."""

    assigned: Assigned = NOT_ASSIGNED
    skipped: Sequence[Skipped] = ()


def assign(request: LlmRequest, config: Configuration, now: datetime) -> Assignment:
    """Assign ``request`` to an arm of every running experiment that concerns it.

    Experiments are asked in the order of their names. One that changes something (route, prompt or policy) that an
    earlier one changes for this request does not get it. That depends on the earlier one's share and on nothing that an
    arm does, so it takes from each arm of the later one alike.

    Args:
        now: when the request is admitted for the first time.
    """
    if request.purpose != Purpose.SERVE or request.prompt_label != _DEFAULT_LABEL:
        return Assignment()
    team = config.team(request.tenant_id)
    if team is None:
        return Assignment()
    route = config.route(team.default_route if request.route == "default" else request.route)
    if route is None or not team.allows(route.name):
        return Assignment()  # it is refused, whatever is tried
    assigned, changed, skipped = NOT_ASSIGNED, set[str](), list[Skipped]()
    for experiment in config.experiments(team.name):
        if not experiment.runs(now) or not _concerns(experiment, request, route):
            continue
        arm = experiment.arm_of(experiment.unit_of(request.user_id, request.conversation_id, request.request_id))
        if arm is None:
            continue
        if (why := next(_obstacles(experiment, request, team, route, config), None)) is not None:
            # Whichever arm it would get: who takes part must not depend on the arm.
            skipped.append(why)
            continue
        changes = set(_changes(experiment, request, route, config))
        if changes & changed:
            continue
        changed |= changes
        assigned = _with(assigned, experiment, arm)
    return Assignment(assigned, skipped)


def _with(assigned: Assigned, experiment: Experiment, arm: Arm) -> Assigned:
    return Assigned(
        arms={**assigned.arms, experiment.name: arm.name},
        designs={**assigned.designs, experiment.name: experiment.design},
        route=arm.route or assigned.route,
        prompt_label=arm.prompt_label or assigned.prompt_label,
        policy=arm.policy or assigned.policy,
    )


def _concerns(experiment: Experiment, request: LlmRequest, route: Route) -> bool:
    prompt = request.prompt_name or route.prompt
    if experiment.routes and route.name not in experiment.routes:
        return False
    if experiment.prompt is not None and experiment.prompt != prompt:
        return False
    # What the producer chose for itself stays as it is.
    return request.policy_name is None or all(arm.policy is None for arm in experiment.arms)


def _obstacles(
    experiment: Experiment, request: LlmRequest, team: Team, route: Route, config: Configuration
) -> Iterator[Skipped]:
    """Yield why some arm could not answer the request."""

    def skipped(code: str, reason: str) -> Skipped:
        return Skipped(experiment.name, code, reason)

    for arm in experiment.arms:
        used: Route | None = route
        if arm.route is not None:
            used = config.route(arm.route)
            if used is None:
                yield skipped("unknown_route", f"arm {arm.name!r} names route {arm.route!r}, which is not configured")
                continue
            if not team.allows(arm.route):
                yield skipped(
                    "route_not_allowed", f"arm {arm.name!r}: team {team.name!r} may not use route {arm.route!r}"
                )
        if arm.policy is not None and config.policy(arm.policy) is None:
            yield skipped("unknown_policy", f"arm {arm.name!r} names policy {arm.policy!r}, which is not configured")
        prompt = request.prompt_name or (used.prompt if used else None)
        if arm.prompt_label is not None and (prompt is None or config.prompt(prompt, arm.prompt_label) is None):
            what = f"of prompt {prompt!r}" if prompt else "where the request has no prompt"
            yield skipped("unknown_prompt", f"arm {arm.name!r} names version {arm.prompt_label!r} {what}")


def _changes(experiment: Experiment, request: LlmRequest, route: Route, config: Configuration) -> Iterator[str]:
    """Yield what the arms change for ``request``: another route may bring another prompt and another policy with it."""
    for arm in experiment.arms:
        if arm.prompt_label is not None:
            yield "prompt"
        if arm.policy is not None:
            yield "policy"
        if arm.route is not None:
            yield "route"
            other = config.route(arm.route) or route
            if request.prompt_name is None and other.prompt != route.prompt:
                yield "prompt"
            if other.policy != route.policy:
                yield "policy"

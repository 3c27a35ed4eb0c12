"""What a run compares: ways to answer the same cases, and the requests they lead to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
from penstock.config.kinds import Prompt, Route, Team
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Message, Sampling

from services.evaluation.golden.dataset import Case

__all__ = ["Ask", "Configured", "Request", "Unfit", "Variant", "asks_of", "request_of", "variants_of"]

PRODUCTION = "production"
_QUESTION = "question"


class Unfit(ValueError):
    """Variants, cases and configuration do not fit each other; the message names the remedy."""


class Variant(msgspec.Struct, frozen=True):
    """One way to answer. What it leaves open is as the case asks.

    Attributes:
        name: what reports call it; one of a kind in a run.
        route: route, hence model.
        prompt: registered prompt, in place of the case's and the route's.
        label: version of the prompt: a label or a content hash. Counts for the case's own prompt, too.
        policy: guardrail policy, in place of the route's.
    """

    name: str
    route: str = "default"
    prompt: str | None = None
    label: str = PRODUCTION
    policy: str | None = None


class Ask(msgspec.Struct, frozen=True):
    """One request of a run: a case, asked of a variant for the ``repeat``-th time."""

    case: str
    variant: str
    repeat: int = 0

    def request_id(self, run: str, attempt: int = 0) -> str:
        """Return the identity of the request: the same in a run that is resumed, so that nothing is answered twice.

        Args:
            run: identity of the run.
            attempt: 0, or how often the team's limit of requests had refused it before.
        """
        return event_id(run, f"golden/{self.variant}/{self.case}/{self.repeat}", attempt)


class Configured(msgspec.Struct, frozen=True):
    """How the configuration in force is looked up; every function returns None for what it does not hold."""

    team: Callable[[str], Team | None]
    route: Callable[[str], Route | None]
    prompt: Callable[[str, str], Prompt | None]
    policy: Callable[[str], object | None]


class Request(msgspec.Struct, frozen=True):
    """What is submitted for an ask."""

    route: str
    messages: list[Message]
    sampling: Sampling
    prompt: str | None = None
    prompt_label: str = PRODUCTION
    variables: dict[str, str] = {}
    policy: str | None = None


def variants_of(routes: Sequence[str], prompts: Sequence[str], policies: Sequence[str]) -> list[Variant]:
    """Return the variants that repeated options name; the first is the baseline.

    An option that is given once holds for all. Those that are given several times go together: the first route with the
    first prompt and the first policy, and so on.

    Args:
        routes: names of routes; none for ``default``.
        prompts: ``NAME@LABEL``, or ``@LABEL`` for another version of each case's own prompt.
        policies: names of policies.

    Raises:
        Unfit: several options are repeated a different number of times, or a prompt or variant is named twice.
    """
    given = {"--route": list(routes) or ["default"], "--prompt": list(prompts), "--policy": list(policies)}
    several = {option: len(values) for option, values in given.items() if len(values) > 1}
    if len(set(several.values())) > 1:
        said = ", ".join(f"{option} {count} times" for option, count in several.items())
        raise Unfit(
            f"{said}: what is repeated goes together, one variant a time; repeat each as often, or give it once"
        )
    count = max(several.values(), default=1)
    made = []
    for index in range(count):
        chosen = {option: values[min(index, len(values) - 1)] if values else None for option, values in given.items()}
        name = " ".join(str(chosen[option]) for option in several) or _single(chosen)
        prompt, label = _prompt(chosen["--prompt"])
        made.append(Variant(name, chosen["--route"] or "default", prompt, label, chosen["--policy"]))
    for index, variant in enumerate(made):
        if any(variant.name == other.name for other in made[:index]):
            # The same twice is how one finds out how much answers vary by chance.
            number = 1 + sum(variant.name == other.name for other in made[:index])
            made[index] = msgspec.structs.replace(variant, name=f"{variant.name} ({number})")
    return made


def _single(chosen: dict[str, str | None]) -> str:
    return " ".join(value for value in chosen.values() if value)


def _prompt(spec: str | None) -> tuple[str | None, str]:
    if spec is None:
        return None, PRODUCTION
    name, at, label = spec.partition("@")
    if at and not label:
        raise Unfit(f"--prompt {spec!r} names no version: write NAME@LABEL, e.g. grounded-answer@canary")
    return name or None, label or PRODUCTION


def asks_of(cases: Sequence[Case], variants: Sequence[Variant], repeats: int, seed: int) -> list[Ask]:
    """Return every request of a run in the order they are made.

    The variants of a case follow each other in an order drawn with ``seed``, so that whatever changes while the run lasts
    (a warm cache, a busy model) bears on all of them alike.
    """
    order = random.Random(seed)
    asks = []
    for repeat in range(repeats):
        for case in cases:
            names = [variant.name for variant in variants]
            order.shuffle(names)
            asks += [Ask(case.id, name, repeat) for name in names]
    return asks


def request_of(case: Case, variant: Variant, team: Team, configured: Configured) -> Request:
    """Return what is sent for a case, after looking up that everything it names is there.

    A prompt that has a variable ``question`` gets the case's question there, and not again as a message.

    Raises:
        Unfit: the team may not use the route or the policy, one of them or the prompt does not exist, or its variables do
            not fit the case.
    """
    route = configured.route(team.default_route if variant.route == "default" else variant.route)
    if route is None:
        raise Unfit(f"no route {variant.route!r} is configured; see `penstock config show routes`")
    if not team.allows(route.name):
        raise Unfit(f"team {team.name!r} may not use route {route.name!r}: add it to its allowed_routes")
    if variant.policy is not None and configured.policy(variant.policy) is None:
        raise Unfit(f"no policy {variant.policy!r} is configured; see `penstock config show policies`")
    if variant.policy is not None and variant.policy not in team.allowed_policies:
        raise Unfit(
            f"team {team.name!r} may not name policy {variant.policy!r} for a request: add it to its allowed_policies"
        )
    name = variant.prompt or case.prompt or route.prompt
    variables, messages = dict(case.variables), case.conversation
    if name is None:
        if variant.label != PRODUCTION:
            raise Unfit(f"case {case.id} has no prompt whose version {variant.label!r} could be used: name the prompt")
        if variables:
            raise Unfit(f"case {case.id} has variables and no prompt: name one with --prompt, or in the case")
        return Request(variant.route, messages, case.request_sampling, policy=variant.policy)
    prompt = configured.prompt(name, variant.label)
    if prompt is None:
        raise Unfit(f"no version {variant.label!r} of a prompt {name!r}; see `penstock config show prompts`")
    if case.question is not None and _QUESTION in prompt.variables and _QUESTION not in variables:
        variables[_QUESTION] = case.question
        messages = []
    variables = {key: value for key, value in variables.items() if key in prompt.variables or case.prompt == name}
    try:
        prompt.render(variables)
    except ValueError as error:
        raise Unfit(f"case {case.id}: {error}") from error
    return Request(variant.route, messages, case.request_sampling, name, variant.label, variables, variant.policy)

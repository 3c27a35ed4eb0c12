"""Rules between entries: what one names must exist, and what a hard budget must bound must have a price."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from penstock.config.kinds import ApiKey, Entry, Experiment, Policy, Price, Prompt, Route, Rubric, Target, Team

__all__ = ["BrokenReference", "UnpricedTarget", "check_references", "new_problems", "unpriced_targets"]

_COSTS_OF_TOKENS = [name for name in Price.model_fields if "cost" in name and "token" in name]
# USD a token. The dearest models known cost below 0.001; a price by the million begins at 0.01.
_DEAR = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class BrokenReference:
    """What is wrong with the field at ``path`` of an entry. A ``warning`` does not keep it from being applied."""

    path: tuple[str | int, ...]
    cause: str
    remedy: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class UnpricedTarget:
    """A target of a route whose model has no price.

    Attributes:
        path: where the target stands in its route.
        begins: when the model's first price begins, where there is one to come.
        refused: teams that may ask for the route and have a hard budget: their requests are refused.
    """

    route: str
    path: tuple[str | int, ...]
    model: str
    begins: datetime | None = None
    refused: tuple[str, ...] = ()


def unpriced_targets(known: Mapping[str, Mapping[str, Entry]], at: datetime) -> list[UnpricedTarget]:
    """Return the targets of the routes in ``known`` (kind -> key -> entry) whose model has no price at ``at``."""
    routes = (route for route in known.get("routes", {}).values() if isinstance(route, Route))
    return list(_unpriced(routes, known, at))


def check_references(entry: Entry, known: Mapping[str, Mapping[str, Entry]]) -> Iterator[BrokenReference]:
    """Yield what ``entry`` names and ``known`` (kind -> key -> entry) lacks; a kind absent from it is not checked."""

    def missing(kind: str, key: str | None, *path: str | int) -> Iterator[BrokenReference]:
        if key is None or kind not in known or key in known[kind]:
            return
        close = difflib.get_close_matches(key, known[kind], n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known[kind])) or 'none'}"
        yield BrokenReference(path, f"names {key!r}, which {kind} does not hold", f"add it, or {hint}")

    if isinstance(entry, Team):
        yield from missing("policies", entry.policy, "policy")
        yield from missing("routes", entry.default_route, "default_route")
        for index, name in enumerate(entry.allowed_routes):
            if name != "*":
                yield from missing("routes", name, "allowed_routes", index)
        if not entry.allows(entry.default_route):
            cause = f"{entry.default_route!r} is not among the routes that the team may ask for"
            yield BrokenReference(("default_route",), cause, "add it to allowed_routes or choose another")
        yield from _allowed_models(entry, known)
        yield from _budgets(entry, known)
    elif isinstance(entry, Policy):
        yield from missing("policies", entry.shadows, "shadows")
    elif isinstance(entry, Route):
        yield from missing("policies", entry.policy, "policy")
        if entry.prompt is not None:
            yield from missing("prompts", f"{entry.prompt}@production", "prompt")
        for found in _never_priced([entry], known):
            cause = f"{found.model!r} has no price, so its calls cannot be priced"
            if found.refused:
                cause += (
                    f"; requests of {', '.join(found.refused)} are refused as unpriced_model: hard budgets need one"
                )
            yield BrokenReference((*found.path, "model"), cause, "add it to prices", warning=True)
    elif isinstance(entry, Rubric):
        yield from missing("prompts", f"{entry.prompt}@{entry.prompt_label}", "prompt")
        yield from missing("routes", entry.route, "route")
        yield from _judge(entry, known)
    elif isinstance(entry, Experiment):
        yield from _experiment(entry, known, missing)
    elif isinstance(entry, ApiKey):
        yield from missing("teams", entry.team, "team")
        team = known.get("teams", {}).get(entry.team)
        for index, name in enumerate(entry.routes):
            if name == "*":
                continue
            yield from missing("routes", name, "routes", index)
            if isinstance(team, Team) and not team.allows(name):
                cause = f"team {team.name!r} may not ask for {name!r}"
                yield BrokenReference(("routes", index), cause, "add it to the team's allowed_routes or leave it out")
    elif isinstance(entry, Price):
        for name in _COSTS_OF_TOKENS:
            if (cost := getattr(entry, name)) is not None and cost >= _DEAR:
                cause = f"is {cost} USD for one token: prices are by the token, not by the million"
                yield BrokenReference((name,), cause, "divide it by 1000000, unless it is meant", warning=True)


def new_problems(
    known: Mapping[str, Mapping[str, Entry]], entry: Entry, key: str | None = None
) -> list[tuple[str, BrokenReference]]:
    """Return what would be broken with ``entry`` published that is not broken now: by the entry, as kind/key.

    Args:
        known: everything that is published, kind -> key -> entry.
        key: under which it would be published, where that is not its own: a label of a prompt, ``<name>@<label>``.
    """
    key = key or entry.key
    after = {**known, entry.KIND: {**known.get(entry.KIND, {}), key: entry}}
    before = set(_problems(known))
    own = f"{entry.KIND}/{key}"
    # What is wrong with the entry itself is told again: it is what is looked at.
    return [problem for problem in _problems(after) if problem not in before or problem[0] == own]


def _problems(known: Mapping[str, Mapping[str, Entry]]) -> Iterator[tuple[str, BrokenReference]]:
    for kind, entries in known.items():
        for key, entry in entries.items():
            for broken in check_references(entry, known):
                yield f"{kind}/{key}", broken


def _experiment(
    experiment: Experiment,
    known: Mapping[str, Mapping[str, Entry]],
    missing: Callable[..., Iterator[BrokenReference]],
) -> Iterator[BrokenReference]:
    yield from missing("teams", experiment.team, "team")
    for index, name in enumerate(experiment.routes):
        yield from missing("routes", name, "routes", index)
    team = known.get("teams", {}).get(experiment.team)
    for index, arm in enumerate(experiment.arms):
        path = ("arms", index)
        yield from missing("routes", arm.route, *path, "route")
        yield from missing("policies", arm.policy, *path, "policy")
        if arm.route is not None and isinstance(team, Team) and not team.allows(arm.route):
            cause = f"team {team.name!r} may not ask for {arm.route!r}: nobody would take part"
            yield BrokenReference((*path, "route"), cause, "add it to the team's allowed_routes or choose another")
        if arm.prompt_label is None:
            continue
        routes = (known.get("routes", {}).get(name) for name in experiment.routes)
        of_routes = {route.prompt for route in routes if isinstance(route, Route) and route.prompt}
        for prompt in sorted({experiment.prompt} if experiment.prompt else of_routes):
            yield from missing("prompts", f"{prompt}@{arm.prompt_label}", *path, "prompt_label")
    if experiment.prompt is not None and "prompts" in known:
        names = {key.partition("@")[0] for key in known["prompts"]}
        if experiment.prompt not in names:
            cause = f"names {experiment.prompt!r}, and there is no such prompt"
            yield BrokenReference(("prompt",), cause, f"add it; there are {', '.join(sorted(names)) or 'none'}")


def _allowed_models(team: Team, known: Mapping[str, Mapping[str, Entry]]) -> Iterator[BrokenReference]:
    routes = [route for route in known.get("routes", {}).values() if isinstance(route, Route)]
    models = {target.model for route in routes for target in route.all_targets}
    for index, model in enumerate(team.allowed_models if routes else ()):
        if model not in models | {"*"}:
            cause = f"{model!r} is the model of no route, so allowing it allows nothing"
            yield BrokenReference(("allowed_models", index), cause, _nearest(model, models), warning=True)
    named = {team.default_route, *team.allowed_routes}
    for route in routes:
        if route.name in named and (others := team.refused_models(route)):
            cause = (
                f"the route {route.name} may be answered by {', '.join(others)}: requests of the team for it are refused as "
                "model_not_allowed"
            )
            remedy = "add these to allowed_models, or have the team use another route"
            yield BrokenReference(("allowed_models",), cause, remedy, warning=True)


def _nearest(model: str, models: set[str]) -> str:
    close = difflib.get_close_matches(model, models, n=1)
    return f"did you mean {close[0]}?" if close else f"the models are {', '.join(sorted(models))}"


def _budgets(team: Team, known: Mapping[str, Mapping[str, Entry]]) -> Iterator[BrokenReference]:
    routes = [route for route in known.get("routes", {}).values() if isinstance(route, Route)]
    models = {target.model for route in routes for target in route.all_targets}
    for index, budget in enumerate(team.budgets):
        for position, model in enumerate(budget.match if budget.per == "model" and routes else ()):
            if model not in models:
                cause = f"{model!r} is the model of no route, so nothing counts for it"
                path = ("budgets", index, "match", position)
                yield BrokenReference(path, cause, _nearest(model, models), warning=True)
    hard = next((index for index, budget in enumerate(team.budgets) if budget.mode == "hard"), None)
    if hard is None:
        return
    # What "*" lets a team ask for may have no price: most of what it asks for does. What it names itself must have one.
    named = {team.default_route, *team.allowed_routes}
    for found in _never_priced([route for route in routes if route.name in named], known):
        cause = (
            f"{team.budgets[hard].name!r} is hard, and {found.model!r} of the route {found.route} has no price: "
            "requests of the team would be refused as unpriced_model"
        )
        remedy = "add it to prices (`penstock prices import`), or make the budget soft"
        yield BrokenReference(("budgets", hard), cause, remedy)


def _judge(rubric: Rubric, known: Mapping[str, Mapping[str, Entry]]) -> Iterator[BrokenReference]:
    """Yield what keeps a rubric's prompt and route from judging."""
    prompt = known.get("prompts", {}).get(f"{rubric.prompt}@{rubric.prompt_label}")
    if isinstance(prompt, Prompt):
        shown = {"answer_a", "answer_b"} if rubric.mode == "pairwise" else {"answer"}
        if lacks := sorted(shown - prompt.variables.keys()):
            cause = f"{rubric.prompt!r} has no variable {', '.join(lacks)}, so its judge would not see what it judges"
            yield BrokenReference(("prompt",), cause, f"add {{{{{lacks[0]}}}}} to its template")
        filled = shown | {"question", "passages", "reference", "verdicts", "marker"}
        unknown = sorted(name for name, each in prompt.variables.items() if each.required and name not in filled)
        if unknown:
            cause = f"{rubric.prompt!r} requires {', '.join(unknown)}, which no task has"
            remedy = f"a {rubric.mode} rubric's prompt has the variables {', '.join(sorted(filled))}"
            yield BrokenReference(("prompt",), cause, remedy)
    route = known.get("routes", {}).get(rubric.route)
    if isinstance(route, Route) and any(target.backend == "extractive" for target in route.all_targets):
        cause = f"{rubric.route!r} has an extractive target, which cannot follow the JSON schema of a verdict"
        yield BrokenReference(("route",), cause, "name a route with models only, such as judge")


def _targets(route: Route) -> Iterator[tuple[tuple[str | int, ...], Target]]:
    """Yield every target that may be called, with where it stands: shadows are paid for as others are."""
    yield from ((("targets", index), target) for index, target in enumerate(route.targets))
    if route.canary is not None:
        yield ("canary", "target"), route.canary.target
    yield from ((("shadows", index, "target"), shadow.target) for index, shadow in enumerate(route.shadows))


def _never_priced(routes: Iterable[Route], known: Mapping[str, Mapping[str, Entry]]) -> Iterator[UnpricedTarget]:
    """Yield the targets whose model has no price at any time; none where ``known`` lacks prices."""
    return _unpriced(routes, known, None) if "prices" in known else iter(())


def _unpriced(
    routes: Iterable[Route], known: Mapping[str, Mapping[str, Entry]], at: datetime | None
) -> Iterator[UnpricedTarget]:
    begins: dict[str, datetime | None] = {}
    for price in known.get("prices", {}).values():
        if isinstance(price, Price):
            start, first = price.effective_from, begins.get(price.model, price.effective_from)
            begins[price.model] = None if start is None or first is None else min(start, first)
    hard = [
        team
        for team in known.get("teams", {}).values()
        if isinstance(team, Team) and any(budget.mode == "hard" for budget in team.budgets)
    ]
    for route in routes:
        for path, target in _targets(route):
            first = begins.get(target.model)
            if target.model in begins and (at is None or first is None or first <= at):
                continue
            refused = tuple(sorted(team.name for team in hard if team.allows(route.name)))
            yield UnpricedTarget(route.name, path, target.model, first, refused)

"""Changes of a route as an operator makes them. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from penstock.config.kinds import Route

__all__ = ["EditInvalid", "edited", "without_canary"]


class EditInvalid(Exception):
    """The change makes no valid route; the message names the cause and the remedy."""


def edited(route: Route, *, weights: Mapping[str, int], choice: str | None = None) -> Route:
    """Return ``route`` with other weights of targets, by their names, and another way to choose among them.

    Raises:
        EditInvalid: a target is unknown, or no valid route comes of it.
    """
    labels = [target.label for target in route.targets]
    for label in weights:
        if label not in labels:
            close = difflib.get_close_matches(label, labels, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its targets are {', '.join(labels)}"
            others = {target.label for target in route.all_targets} - set(labels)
            cause = "has a share, not a weight" if label in others else "is no target of it"
            raise EditInvalid(f"the route {route.name}: {label} {cause}; {hint}")
    data = route.model_dump()
    for target, label in zip(data["targets"], labels, strict=True):
        target["weight"] = weights.get(label, target["weight"])
    if choice is not None:
        data["choice"] = choice
    return _validated(route.name, data)


def without_canary(route: Route) -> Route:
    """Return ``route`` with nothing on trial."""
    return _validated(route.name, route.model_dump() | {"canary": None})


def _validated(name: str, data: Mapping[str, object]) -> Route:
    try:
        return Route.model_validate(data)
    except ValidationError as error:
        causes: Sequence[str] = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ").replace("Value error, ", "")
            for each in error.errors()
        ]
        raise EditInvalid(f"no valid route {name} comes of that: {'; '.join(causes)}") from error

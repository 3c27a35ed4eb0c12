"""Rules between entries: what one names must exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penstock.config.kinds import Entry, Policy, Price, Route, Team

__all__ = ["BrokenReference", "check_references"]


@dataclass(frozen=True, slots=True)
class BrokenReference:
    """What is wrong with the field at ``path`` of an entry. A ``warning`` does not keep it from being applied."""

    path: tuple[str | int, ...]
    cause: str
    remedy: str
    warning: bool = False


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
    elif isinstance(entry, Policy):
        yield from missing("policies", entry.shadows, "shadows")
    elif isinstance(entry, Route):
        yield from missing("policies", entry.policy, "policy")
        if entry.prompt is not None:
            yield from missing("prompts", f"{entry.prompt}@production", "prompt")
        if "prices" in known:
            priced = {price.model for price in known["prices"].values() if isinstance(price, Price)}
            for index, target in enumerate(entry.targets):
                if target.model not in priced:
                    cause = f"{target.model!r} has no price, so its calls cannot be priced"
                    yield BrokenReference(("targets", index, "model"), cause, "add it to prices", warning=True)

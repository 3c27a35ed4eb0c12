"""The segments of one team and route, pure: which of them come after one another.

A new segment (a new prompt version or model) is compared with the one it replaces. All segments of a family share a
partition and an order, so which one that is follows from the log alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

__all__ = ["Child", "FamilyState", "family_key", "matches", "predecessor", "seen", "siblings"]

# Segments that are remembered; a family beyond that forgets the one that was silent for longest.
_MOST = 64
# How exactly it is known when a segment was last seen: a change of the state costs a write.
_RESOLUTION = timedelta(seconds=60)


class Child(msgspec.Struct, frozen=True, array_like=True):
    """One segment of a family."""

    first_offset: int
    first_at: datetime
    last_offset: int
    """Of its newest event, to within a minute."""
    last_at: datetime
    predecessor: str | None = None


class FamilyState(msgspec.Struct, frozen=True, tag="family"):
    """The segments of a team and route, by name."""

    children: dict[str, Child] = {}


def family_key(family: str) -> str:
    """Return the key of a family's state (``family`` is ``team|route``); segments have four parts, so none has it."""
    return f"family|{family}"


def seen(state: FamilyState | None, segment: str, offset: int, at: datetime, idle: timedelta) -> FamilyState:
    """Return the family after an event of a segment: the same object where nothing worth a write has changed.

    Args:
        state: the family so far.
        segment: the event's segment.
        offset: where the event stands in its partition.
        at: the log's timestamp of the event.
        idle: a segment that was silent for so long is forgotten.
    """
    children = state.children if state is not None else {}
    known = children.get(segment)
    if known is not None and at - known.last_at < idle:
        if at - known.last_at < _RESOLUTION or offset <= known.last_offset:
            return state or FamilyState()
        child = msgspec.structs.replace(known, last_offset=offset, last_at=at)
        return FamilyState({**children, segment: child})
    child = Child(offset, at, offset, at, predecessor(state, segment, offset, at, idle))
    grown = {name: each for name, each in children.items() if at - each.last_at < idle} | {segment: child}
    if len(grown) > _MOST:
        del grown[min(grown, key=lambda name: (grown[name].last_at, grown[name].last_offset))]
    return FamilyState(grown)


def predecessor(state: FamilyState | None, segment: str, offset: int, at: datetime, idle: timedelta) -> str | None:
    """Return the segment that a new one replaces: the most recently active of those that share its model or its prompt
    version, else of all; ``None`` where there was none before ``offset``.

    A segment of all models is watched for other signals than one of a single model, so neither replaces the other.
    Where the family knows the segment already (a replay), the answer is the one that was given first.
    """
    if state is None:
        return None
    known = state.children.get(segment)
    if known is not None and known.first_offset <= offset and at - known.last_at < idle:
        return known.predecessor
    _, model, prompt, _ = segment.split("|")
    found: list[tuple[bool, datetime, int, str]] = []
    for name, child in state.children.items():
        _, other_model, other_prompt, _ = name.split("|")
        if name != segment and child.first_offset < offset and (other_model == "*") == (model == "*"):
            related = other_model == model or other_prompt == prompt
            found.append((related, child.last_at, child.last_offset, name))
    return max(found)[3] if found else None


def siblings(state: FamilyState | None, segment: str) -> list[str]:
    """Return the other segments of the family that are of the same sort, the most recently active first."""
    if state is None:
        return []
    everything = segment.split("|")[1] == "*"
    others = [name for name in state.children if name != segment and (name.split("|")[1] == "*") == everything]
    return sorted(others, key=lambda name: (-state.children[name].last_at.timestamp(), name))


def matches(pattern: str, segment: str) -> bool:
    """Tell whether a command for ``pattern`` concerns a segment: ``*`` stands for any model or prompt version."""
    return all(
        wanted == part or (wanted == "*" and place in (1, 2))
        for place, (wanted, part) in enumerate(zip(pattern.split("|"), segment.split("|"), strict=True))
    )

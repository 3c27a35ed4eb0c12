"""Drift, pure: which states an event concerns, and what a segment's events make of its state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal, NamedTuple

import msgspec
from penstock.bus import Emit, Message
from penstock.contracts.records import DriftCommand, Signal
from penstock.stateful import Logic, Lookup

from services.drift import budget as spending
from services.drift import detectors as watching
from services.drift.budget import CLOCK, Budget, Clock
from services.drift.commands import InvalidCommand, obeyed
from services.drift.conditions import confirmed, ended, in_order, resolved
from services.drift.families import FamilyState, family_key, matches, predecessor, seen, siblings
from services.drift.projection import family_of
from services.drift.segments import Observed, Sample, SegmentState, coordinates, noted, sampled

__all__ = ["Arrived", "Commanded", "Observed", "Rules", "SegmentState", "State", "Ticked", "logic", "route", "step"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Siblings whose share of a change is asked for.
_SIBLINGS = 8


class Rules(msgspec.Struct, frozen=True):
    """How the service is set."""

    detectors: watching.Parameters = watching.Parameters()
    budget: Budget = Budget()
    """Of one partition."""
    release_reference: Literal["predecessor", "fresh"] = "predecessor"
    """What a new segment is compared with: the one it replaces, or its own first events."""
    idle: timedelta = timedelta(days=14)
    """A segment without an event for so long is forgotten."""
    rebase_after: timedelta = timedelta(days=7)
    """A change that nobody touched for so long is the baseline."""


State = SegmentState | FamilyState | Clock
"""States of a partition, by key: of a segment its name, of a family ``family|team|route``, and one ``clock``."""


class Commanded(NamedTuple):
    """A command, for one segment that it concerns."""

    command: DriftCommand
    segment: str


class Arrived(NamedTuple):
    """An event of a segment, for its family."""

    segment: str
    offset: int


class Ticked(NamedTuple):
    """An event that begins an hour, for the clock."""

    offset: int


def route(
    record: Signal | DriftCommand, message: Message, lookup: Lookup, rules: Rules
) -> Iterable[tuple[str | None, Observed | Commanded | Arrived | Ticked]]:
    """Send each signal event to its segment, and to family and clock where it is news to them; each command to all segments
    that it concerns.

    What a step is told here of other states does not depend on how far ahead of the event they are, so a replay after a
    crash steps alike: the clock is asked by offset, and a family keeps which segment it gave as predecessor.

    Raises:
        InvalidCommand: it names no segment, or pins what is not there.
    """
    if isinstance(record, DriftCommand):
        yield from _commanded(record, lookup)
        return
    segment, offset = record.segment, message.offset
    at = _EPOCH + timedelta(milliseconds=message.timestamp_ms)
    clock: Clock | None = lookup(CLOCK)
    if spending.advanced(clock, offset, at, rules.budget) is not clock:
        yield CLOCK, Ticked(offset)
    key = family_key(family_of(segment))
    family: FamilyState | None = lookup(key)
    replaced: tuple[str, SegmentState] | None = None
    if rules.release_reference == "predecessor" and lookup(segment) is None:
        name = predecessor(family, segment, offset, at, rules.idle)
        state = lookup(name) if name is not None else None
        if name is not None and state is not None:
            replaced = name, state

    def others() -> list[tuple[str, SegmentState]]:
        named = ((name, lookup(name)) for name in siblings(family, segment)[:_SIBLINGS])
        return [(name, state) for name, state in named if state is not None]

    each = spending.allowance(clock, offset, at, rules.budget, watching.count_of(record))
    yield segment, Observed(record, message.partition, offset, each, replaced, others)
    if family is None or seen(family, segment, offset, at, rules.idle) is not family:
        yield key, Arrived(segment, offset)


def step(
    state: State | None, event: Observed | Commanded | Arrived | Ticked, now: datetime, rules: Rules
) -> tuple[State | None, Sequence[Emit]]:
    """Take one event into the state it was sent to.

    Raises:
        services.drift.projection.InvalidEmbedding: the event carries bytes that are no embedding.
        InvalidCommand: a command cannot be carried out.
    """
    match event, state:
        case Observed(), SegmentState() | None:
            return observe(state, event, now, rules)
        case Commanded(), SegmentState():
            return _obey(state, event, now)
        case Arrived(), FamilyState() | None:
            return seen(state, event.segment, event.offset, now, rules.idle), []
        case Ticked(), Clock() | None:
            return spending.advanced(state, event.offset, now, rules.budget), []
        case _:
            # A command for a segment that was forgotten meanwhile.
            return state, []


def observe(
    state: SegmentState | None, event: Observed, now: datetime, rules: Rules
) -> tuple[SegmentState, Sequence[Emit]]:
    """Take one signal event into its segment's state; a change that is confirmed gives a drift event and, where it is
    large enough to matter, an alert.

    Raises:
        services.drift.projection.InvalidEmbedding: the event carries bytes that are no embedding.
    """
    record, offset = event.record, event.offset
    state = state or _born(event, now)
    # A clock that is ahead would put the hours that are learned into the future, and all others after it behind them.
    at = min(record.occurred_at, now)
    detectors, found = watching.observe(state.detectors, record, offset, at, event.allowance, rules.detectors)
    versions = noted(state.versions, coordinates(record.segment) | record.versions, offset, record.occurred_at)
    state = SegmentState(
        # Events of one segment may reach the log out of order; its clock never runs back.
        last_seen=max(state.last_seen, now),
        first_offset=state.first_offset,
        last_offset=offset,
        detectors=detectors,
        pinned=state.pinned,
        predecessor=state.predecessor,
        inherited=state.inherited,
        versions=state.versions if versions is None else versions,
        samples=sampled(state.samples, Sample(offset, record.request_id, record.occurred_at)),
        told=state.told,
        group=state.group,
        conditions=state.conditions,
        baselines=state.baselines,
        returns=state.returns,
    )
    emits: list[Emit] = []
    for each in in_order(found):
        state, outputs = confirmed(state, each, event, now)
        emits += outputs
    if state.conditions:
        state, outputs = ended(state, event, now, rules.rebase_after)
        emits += outputs
    return state, emits


def logic(rules: Rules) -> Logic[State, Observed | Commanded | Arrived | Ticked]:
    """Return the stateful processor's pure part."""
    return Logic(
        step=partial(step, rules=rules),
        route=partial(route, rules=rules),
        state_type=State,
        expires_at=lambda key, state: _expires_at(state, rules),
    )


def _expires_at(state: State, rules: Rules) -> datetime | None:
    match state:
        case SegmentState():
            return state.last_seen + rules.idle
        case FamilyState():
            return max(child.last_at for child in state.children.values()) + 2 * rules.idle
        case _:
            return None


def _born(event: Observed, now: datetime) -> SegmentState:
    """Return the state of a new segment: with the references of the one it replaces, or empty."""
    if event.predecessor is None:
        return SegmentState(last_seen=now, first_offset=event.offset, last_offset=event.offset)
    name, old = event.predecessor
    detectors = watching.handed_down(old.detectors)
    # Only the newest requests of the old segment: what is shown as before.
    samples = msgspec.structs.replace(old.samples, requests=0, newest=old.samples.newest[-5:], older=(), stride=1)
    return SegmentState(
        last_seen=now,
        first_offset=event.offset,
        last_offset=event.offset,
        detectors=detectors,
        pinned=old.pinned,
        predecessor=name,
        inherited=tuple(watching.with_reference(detectors)),
        versions=old.versions,
        samples=samples,
    )


def _commanded(command: DriftCommand, lookup: Lookup) -> Iterable[tuple[str, Commanded]]:
    if command.segment.count("|") != 3:
        raise InvalidCommand(
            f"{command.segment!r} is no segment: it takes team|model|prompt version|route, with * for any model or prompt "
            "version"
        )
    family: FamilyState | None = lookup(family_key(family_of(command.segment)))
    names = sorted(name for name in (family.children if family else ()) if matches(command.segment, name))
    if not names and lookup(command.segment) is not None:
        # A family remembers so many segments only; one that is named in full is found without it.
        names = [command.segment]
    if not names and command.action == "pin":
        raise InvalidCommand(
            f"no segment {command.segment} has been seen, so there is nothing to pin: see `penstock drift list`, and "
            "write the command under the key team|route"
        )
    for name in names:
        yield name, Commanded(command, name)


def _obey(state: SegmentState, event: Commanded, now: datetime) -> tuple[SegmentState, Sequence[Emit]]:
    command = event.command
    state, names = obeyed(state, command)
    what = "the present is the baseline" if command.action == "rebase" else "the reference is a pinned one"
    reason = f"{what} since {command.author or 'somebody'} said so" + (f": {command.reason}" if command.reason else "")
    return resolved(state, names, command, event.segment, reason, now)
